"""XLA's compiled programs, kept between processes in a folder of this version on this machine.

A second start, or a resumed run, then does not compile again. The folder's name holds everything that decides whether a
program fits: versions, the processor's own features, the accelerators, XLA_FLAGS; so none is ever loaded where it does
not belong, even on a home directory that machines share. The folder is private to its user, because what lies there is
run.

jax writes the file of a program in place, and once. One that a kill or a full disk cut off would be warned of, and
compiled, at every later start: such files are removed.
"""

import hashlib
import os
import platform
import time
from pathlib import Path

import jax
import jaxlib
from jax._src.compilation_cache import decompress_executable  # has no public name
from jax.experimental.compilation_cache import compilation_cache

from mbpo_jax.driver.config import AUTO

OFF = "off"
CHECKED = "checked"  # a file as old as the last look at the others
MIN_COMPILE_SECONDS = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"  # a user's own choice stays


def use(directory: str) -> str | None:
    """Keeps programs under `directory`; "auto" is the user's cache folder, "off" none.

    A cache that the user gave to jax itself (JAX_COMPILATION_CACHE_DIR) stays.
    Returns:
      Why there is none although one was asked for; None if all is well.
    """
    if directory == OFF or jax.config.values["jax_compilation_cache_dir"]:
        return None
    try:
        base = _of_the_user() if directory == AUTO else Path(directory)
    except RuntimeError as error:  # neither HOME nor an entry among the users, as in some containers
        return f"compiled programs are not kept: {error}; --compile_cache=DIR names a folder"
    folder = base / f"xla-{fingerprint()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError("it cannot be written to")
        if folder.stat().st_uid != os.getuid():
            raise PermissionError("it belongs to another user")
        _remove_damaged(folder)
    except OSError as error:
        return f"compiled programs are not kept in {folder}: {error}"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if MIN_COMPILE_SECONDS not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    compilation_cache.reset_cache()  # jax decides once whether it has one
    return None


def _remove_damaged(folder: Path) -> None:
    """Removes programs that cannot be unpacked, among those that were written since the last call.

    One that another process is writing at this moment may go, too; it is compiled again when it is wanted.
    """
    stamp, now = folder / CHECKED, time.time_ns()
    since = stamp.stat().st_mtime_ns if stamp.exists() else 0
    for path in folder.glob("*-cache"):
        try:
            if path.stat().st_mtime_ns >= since:
                decompress_executable(path.read_bytes())
        except FileNotFoundError:  # another process was faster
            continue
        except Exception:  # each library of compression has errors of its own
            path.unlink(missing_ok=True)
    stamp.touch()
    os.utime(stamp, ns=(now, now))


def _of_the_user() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mbpo_jax"


def fingerprint() -> str:
    """A short name for everything that decides whether a compiled program fits."""
    parts = [jax.__version__, jaxlib.__version__, platform.python_version(), platform.machine(), _processor()]
    devices = jax.local_devices()
    parts += [devices[0].client.platform_version, *sorted({device.device_kind for device in devices})]
    parts += [os.environ.get("XLA_FLAGS", ""), os.environ.get("LIBTPU_INIT_ARGS", "")]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _processor() -> str:
    """The processor's model and features, where the system tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    wanted = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))
