"""Which OpenGL backend MuJoCo can render with on this machine. Training and evaluation render nothing and need none.

MuJoCo reads MUJOCO_GL when it is imported, once in the life of a process. We leave it as the user set it: unset, MuJoCo
is imported without a display and without any OpenGL library, and only rendering fails.
"""

import functools
import importlib.util
import os
import subprocess
import sys

VARIABLE = "MUJOCO_GL"
OFFSCREEN = ("egl", "osmesa", "glfw")  # in the order in which they are tried; the last one needs a display
NEEDS = {"egl": "libEGL (Debian: libegl1)", "osmesa": "OSMesa (Debian: libosmesa6)", "glfw": "a display"}
TRIAL_SECONDS = 60
TRIAL = """
import mujoco
context = mujoco.GLContext(16, 16)
context.make_current()  # glfw only warns where there is no display
mujoco.MjrContext(mujoco.MjModel.from_xml_string("<mujoco/>"), mujoco.mjtFontScale.mjFONTSCALE_100).free()
context.free()
"""


def choose_gl() -> str | None:
    """Returns the value of MUJOCO_GL with which images can be rendered offscreen.

    If the user has set one, only that is tried. Each trial is a process of its own, which may crash, and takes a
    second or two. Must be set before MuJoCo is imported.
    Returns:
      egl, osmesa or glfw (or the user's own value); None where nothing renders.
    """
    own = os.environ.get(VARIABLE, "").strip().lower()
    return next((name for name in ([own] if own else candidates()) if renders(name)), None)


def candidates() -> tuple[str, ...]:
    """Returns the values of MUJOCO_GL that may work on this system."""
    return OFFSCREEN if sys.platform == "linux" else ("glfw",)


@functools.cache
def renders(name: str) -> bool:
    """Returns whether a process in which MUJOCO_GL has this value can make an OpenGL context."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"} | {VARIABLE: name}
    command = [sys.executable, "-c", TRIAL]
    try:
        trial = subprocess.run(command, env=environment, capture_output=True, timeout=TRIAL_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return trial.returncode == 0


def needs(name: str | None) -> str:
    """Returns what a backend needs from the machine; if the name is unknown, what each of the known ones needs."""
    return NEEDS.get((name or "").strip().lower()) or " or ".join(NEEDS.values())


def problem() -> str | None:
    """Returns why MuJoCo cannot be imported with the user's own MUJOCO_GL; None if it can.

    None as well if MUJOCO_GL is not set or MuJoCo is not installed. Imports MuJoCo, so call it only after an
    environment could not be made.
    """
    own = os.environ.get(VARIABLE)
    if not own or importlib.util.find_spec("mujoco") is None:
        return None
    try:
        import mujoco  # noqa: F401
    except Exception as error:  # each backend fails in its own way
        reason = " ".join(str(error).split()) or type(error).__name__
        known = own.strip().lower() in NEEDS
        more = f"which needs {needs(own)}" if known else f"and the known ones are {', '.join(NEEDS)}"
        return (
            f"{VARIABLE} must be a backend that loads, got {own!r} ({reason}), {more}; leave it unset: "
            "training renders nothing, and --video finds one by itself"
        )
    return None
