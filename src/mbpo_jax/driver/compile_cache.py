"""Keeps XLA's compiled programs between processes, so that a second start or a resumed run does not compile again.

The folder's name is a hash of everything that decides whether a program fits (versions, processor features,
accelerators, XLA_FLAGS), so that machines may share a home directory. The folder is private to its user, because its
contents are executed.

jax writes each program's file once and in place. A file cut off by a kill or a full disk would cause a warning and a
compilation at every later start, so such files are removed.
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
CHECKED = "checked"  # a file whose modification time is that of the last check
MIN_COMPILE_SECONDS = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"  # a user's own setting is kept


def use(directory: str) -> str | None:
    """Keeps compiled programs under `directory`; "auto" is the user's cache folder, "off" keeps none.

    A cache that the user has set for jax itself (JAX_COMPILATION_CACHE_DIR) is left in place.
    Returns:
      The reason why programs are not kept although they should be; None if all is well.
    """
    if directory == OFF or jax.config.values["jax_compilation_cache_dir"]:
        return None
    try:
        base = _user_folder() if directory == AUTO else Path(directory).expanduser()
    except RuntimeError as error:  # neither HOME nor a passwd entry, as in some containers
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
    """Removes programs that cannot be unpacked, among those written since the last call.

    A file that another process is writing at this moment may be removed too; its program is compiled again when needed.
    """
    stamp, now = folder / CHECKED, time.time_ns()
    since = stamp.stat().st_mtime_ns if stamp.exists() else 0
    for path in folder.glob("*-cache"):
        try:
            if path.stat().st_mtime_ns >= since:
                decompress_executable(path.read_bytes())
        except FileNotFoundError:  # another process was faster
            continue
        except Exception:  # compression libraries raise errors of their own
            path.unlink(missing_ok=True)
    stamp.touch()
    os.utime(stamp, ns=(now, now))


def _user_folder() -> Path:
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))  # the XDG specification ignores relative paths
    return (chosen if chosen.is_absolute() else Path.home() / ".cache") / "mbpo_jax"


def fingerprint() -> str:
    """Returns a hash of everything that decides whether a compiled program fits."""
    parts = [jax.__version__, jaxlib.__version__, platform.python_version(), platform.machine(), _processor()]
    devices = jax.local_devices()
    parts += [devices[0].client.platform_version, *sorted({device.device_kind for device in devices})]
    parts += [os.environ.get("XLA_FLAGS", ""), os.environ.get("LIBTPU_INIT_ARGS", "")]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _processor() -> str:
    """Returns the processor's model and features, as far as the system reports them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    wanted = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))
