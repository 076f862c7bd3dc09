import os
import subprocess
import sys

import pytest
import tiny_runs

from mbpo_jax.driver.interaction import rendering

GONE = """
import ctypes, ctypes.util, sys
find, load = ctypes.util.find_library, ctypes.CDLL.__init__
def is_gl(name):
    return name is not None and any(word in str(name) for word in ("EGL", "OSMesa", "libGL"))
def no_gl(self, name, *rest, **more):
    if is_gl(name):
        raise OSError(f"{name}: cannot open shared object file")
    load(self, name, *rest, **more)
ctypes.util.find_library = lambda name: None if is_gl(name) or name == "GL" else find(name)
ctypes.CDLL.__init__ = no_gl
from mbpo_jax.main import main
sys.exit(main(sys.argv[1:]))
"""
"""The command on a machine without any OpenGL library."""


def headless(**changes):
    """The environment of a process without a display, and without a choice of a backend."""
    found = tiny_runs.process_environment(**changes)
    return {
        name: value
        for name, value in found.items()
        if name in changes or name not in ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL", "PYOPENGL_PLATFORM")
    }


def without_gl(run_dir, **changes):
    arguments = tiny_runs.argv(run_dir, tiny_runs.SAC, num_steps=20, seeds=0)
    command = [sys.executable, "-c", GONE, *arguments]
    return subprocess.run(command, env=headless(**changes), capture_output=True, text=True, timeout=240)


def test_a_machine_without_display_and_opengl_trains(tmp_path):
    """`main` chose egl by itself, and MuJoCo could not be imported."""
    done = without_gl(tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert (tmp_path / "summary.json").exists()


@pytest.mark.parametrize(
    ("own", "more"),
    [("egl", "which needs libEGL (Debian: libegl1)"), ("nonsense", "and the known ones are egl, osmesa, glfw")],
)
def test_a_users_own_backend_that_does_not_load_is_named_in_a_line(tmp_path, own, more):
    done = without_gl(tmp_path / "run", MUJOCO_GL=own)
    assert done.returncode == 2
    assert done.stderr.startswith(f"mbpo_jax: error: MUJOCO_GL must be a backend that loads, got '{own}' (")
    assert done.stderr.count("\n") == 1
    assert f"), {more}; leave it unset" in done.stderr
    assert not (tmp_path / "run").exists()


def test_what_a_backend_needs():
    assert rendering.needs(" OSMesa") == "OSMesa (Debian: libosmesa6)"
    assert rendering.needs(None) == rendering.needs("nonsense")
    assert rendering.needs(None) == "libEGL (Debian: libegl1) or OSMesa (Debian: libosmesa6) or a display"


def test_the_command_leaves_the_variable_alone(tmp_path, monkeypatch):
    from mbpo_jax.main import main

    monkeypatch.delenv("MUJOCO_GL", raising=False)
    assert main(["--nonsense=1", "--quiet"]) == 2
    assert "MUJOCO_GL" not in os.environ


def test_the_first_backend_that_renders_is_chosen(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    asked = []
    monkeypatch.setattr(rendering, "renders", lambda name: asked.append(name) or name == "osmesa")
    assert rendering.choose_gl() == "osmesa"
    assert asked == ["egl", "osmesa"]
    monkeypatch.setattr(rendering, "renders", lambda name: False)
    assert rendering.choose_gl() is None


def test_a_users_own_choice_is_the_only_one(monkeypatch):
    asked = []
    monkeypatch.setattr(rendering, "renders", lambda name: asked.append(name) or name == "glfw")
    monkeypatch.setenv("MUJOCO_GL", " GLFW")
    assert rendering.choose_gl() == "glfw"
    monkeypatch.setenv("MUJOCO_GL", "egl")
    assert rendering.choose_gl() is None
    assert asked == ["glfw", "egl"]


def test_a_trial_is_a_process_that_renders(monkeypatch):
    monkeypatch.setattr(rendering, "TRIAL", "import os, sys; sys.exit(os.environ['MUJOCO_GL'] != 'good')")
    rendering.renders.cache_clear()
    try:
        assert (rendering.renders("good"), rendering.renders("bad")) == (True, False)
        monkeypatch.setattr(sys, "executable", "/no/such/python")
        assert not rendering.renders("other")
    finally:
        rendering.renders.cache_clear()


def test_glfw_does_not_render_without_a_display(monkeypatch):
    """It warns, and a context that is none was taken for one: `doctor` said that it renders."""
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    rendering.renders.cache_clear()
    try:
        assert sys.platform != "linux" or not rendering.renders("glfw")
    finally:
        rendering.renders.cache_clear()


def test_without_a_choice_there_is_no_problem(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    assert rendering.problem() is None
