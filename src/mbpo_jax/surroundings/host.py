"""Checks software, processor, memory, disk, graphics and variables, without jax or mujoco in this process."""

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

from mbpo_jax.driver import memory_limits
from mbpo_jax.driver.interaction import rendering
from mbpo_jax.driver.storage.files import CONFIG
from mbpo_jax.surroundings.check import Check, size

NEEDED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "gymnasium", "mujoco", "numpy", "scipy", "matplotlib")
OPTIONAL = {
    "submitit": "mbpo_jax sweep and reproduce",
    "tensorboardX": "--tensorboard",
    "imageio-ffmpeg": "mbpo_jax evaluate --video",
}
TELLING = (
    *("JAX_", "XLA_", "LIBTPU", "TPU_", "CUDA_", "NVIDIA_", "MUJOCO_", "MPL", "PYTHON", "OMP_", "MKL_", "OPENBLAS_"),
    *("HOME", "XDG_CACHE_HOME", "TMPDIR", "DISPLAY", "WAYLAND_DISPLAY", "PYOPENGL_", "LD_LIBRARY_PATH", "LD_PRELOAD"),
    *("LANG", "LC_ALL", "SLURM_JOB_ID", "NO_COLOR", "TERM"),
)
"""Prefixes of the names of variables that change what a run does."""
LEAST_MEMORY, LEAST_DISK = 1e9, 1e9  # bytes: a run of a small task at its peak; its checkpoints, with room to write
ENOUGH_CORES = 2


def software(check: Check) -> None:
    """Checks which versions of Python and of packages are installed."""
    check.lines.append(f"mbpo_jax {_version('mbpo-jax') or '(not installed)'} in {Path(__file__).parents[1]}")
    check.lines.append(f"Python {platform.python_version()} ({sys.executable}), {platform.platform()}")
    versions = {name: _version(name) for name in (*NEEDED, *OPTIONAL)}
    check.lines.append(", ".join(f"{name} {version}" for name, version in versions.items() if version))
    check.fails += [f"{name} is not installed" for name in NEEDED if versions[name] is None]
    check.lacks += [f"{use}: {name} is not installed" for name, use in OPTIONAL.items() if versions[name] is None]


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor(check: Check) -> None:
    """Checks the cores that this process may use."""
    present = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else present
    quota = _cpu_quota()
    share = "" if quota is None else f"; its control group allows {quota:.2g}"
    check.lines.append(f"{usable} of {present} cores may be used{share}")
    cores = usable if quota is None else min(usable, quota)
    if cores < ENOUGH_CORES:
        check.slow.append(f"training: {cores:.2g} cores may be used, and the benchmarks had two")
    if quota is not None and quota < usable:
        check.slow.append(f"training: jax starts {usable} threads for {quota:.2g} cores (taskset limits both)")


def _cpu_quota() -> float | None:
    """Returns how many cores' time the control group allows; None without a limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def memory(check: Check) -> None:
    """Checks the limits of memory, and what is free."""
    limits = memory_limits.limits()
    check.lines.append(", ".join(f"{name} {size(limit)}" for name, limit in limits.items()) or "not known")
    smallest = min(limits.values(), default=None)
    if smallest is not None and smallest < LEAST_MEMORY:
        check.fails.append(
            f"training: {size(smallest)} of memory may be used, and small tasks need {size(LEAST_MEMORY)}"
        )
    free = _free_memory()
    if free is not None:
        check.lines.append(f"{size(free)} free now")
        if free < LEAST_MEMORY:
            check.slow.append(f"training: only {size(free)} of memory is free now")


def _free_memory() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration):
        return None


def disk(check: Check, run_dir: Path | None) -> None:
    """Checks where files go: the run's folder, the home, temporary files."""
    places = {"run_dir" if run_dir else "this folder": _existing(run_dir or Path.cwd() / "runs")}
    home = os.path.expanduser("~")
    if home != "~":
        places["HOME"] = Path(home)
    for name, path in places.items():
        why = _not_writable(path)
        free = shutil.disk_usage(_existing(path)).free
        check.lines.append(f"{name} {path}: {size(free)} free, {why or 'writable'}")
        if name != "HOME" and why:
            check.fails.append(f"training into {path}: {why}; --run_dir names another folder")
        elif name != "HOME" and free < LEAST_DISK:
            check.fails.append(
                f"training into {path}: only {size(free)} is free, and checkpoints take up to {size(1e9)}"
            )
    if home == "~":
        check.lines.append("HOME: none")
    if run_dir and not (run_dir / CONFIG).exists():
        check.lines.append(f"run_dir {run_dir}: no run there yet")


def _existing(path: Path) -> Path:
    """Returns the path, or the nearest folder above it that exists."""
    return next((place for place in (path, *path.absolute().parents) if place.exists()), path)


def _not_writable(path: Path) -> str | None:
    try:
        with tempfile.NamedTemporaryFile(dir=path, prefix=".mbpo_jax"):
            return None
    except OSError as error:
        return f"not writable ({error.strerror})"


def graphics(check: Check) -> None:
    """Checks what MuJoCo can render with; only videos need it."""
    chosen = os.environ.get(rendering.VARIABLE)
    check.lines.append(f"{rendering.VARIABLE} {'is not set' if chosen is None else f'is {chosen!r}'}")
    names = [chosen.strip().lower()] if chosen else rendering.candidates()
    works = {name: rendering.renders(name) for name in names}
    check.lines += [f"{name}: {'renders' if renders else 'does not render'}" for name, renders in works.items()]
    if not any(works.values()):
        check.lacks.append(
            "mbpo_jax evaluate --video of MuJoCo's environments: no OpenGL back end renders (on Debian, install "
            "libegl1 or libosmesa6, or use a display); training needs none"
        )


def variables(check: Check) -> None:
    """Lists the variables that change what a run does."""
    check.lines += [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(TELLING)]
