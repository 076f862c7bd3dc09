"""README's run command, shortened, under what a caller's shell, notebook, container or machine may do to it."""

import contextlib
import importlib.util
import os
import resource
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import children
from children import ENDED

SHORT = {
    "exploration_steps": 60,
    "min_replay_rows": 60,
    "fit_every_steps": 50,
    "fit_max_gradient_steps": 20,
    "rollout_batch": 64,
    "updates_per_step": 1,
    "eval_every_steps": 50,
    "eval_episodes": 1,
}
UNSET = ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL", "PYOPENGL_PLATFORM", "MPLBACKEND", "PYTHONWARNINGS")
NOT_WRITABLE = "/proc"  # for root too
INLINE = "module://matplotlib_inline.backend_inline"
VARIABLES = {
    "no display": {},
    "a home that cannot be written to": {"HOME": NOT_WRITABLE},
    "no home at all": {"HOME": None, "XDG_CACHE_HOME": None},
    "warnings are errors": {"PYTHONWARNINGS": "error"},
    "a notebook's MPLBACKEND": {"MPLBACKEND": INLINE},
    "an MPLBACKEND that is none": {"MPLBACKEND": "nonsense"},
    "the locale C": {"LC_ALL": "C"},
    "python -OO": {"PYTHONOPTIMIZE": "2"},
    "a dumb terminal": {"TERM": "dumb", "FORCE_COLOR": "1"},
    "jax forbids mixed ranks": {"JAX_NUMPY_RANK_PROMOTION": "raise"},
    "jax forbids mixed dtypes": {"JAX_NUMPY_DTYPE_PROMOTION": "strict"},
    "jax forbids transfers": {"JAX_TRANSFER_GUARD": "disallow"},
    "jax looks for NaN": {"JAX_DEBUG_NANS": "1"},
    "jax's other generator": {"JAX_DEFAULT_PRNG_IMPL": "rbg"},
    "jax's older keys": {"JAX_THREEFRY_PARTITIONABLE": "0"},
    "jax's highest precision": {"JAX_DEFAULT_MATMUL_PRECISION": "highest"},
    "jax looks for leaks": {"JAX_CHECK_TRACER_LEAKS": "1"},
    "all of the first at once": {"HOME": NOT_WRITABLE, "PYTHONWARNINGS": "error", "MPLBACKEND": INLINE},
}
REFUSED = {
    "a locale without umlauts": (
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        "--run_dir must be a path in UTF-8",
    ),
    "MUJOCO_GL of no backend": ({"MUJOCO_GL": "nonsense"}, "MUJOCO_GL must be a backend that loads"),
    "jax computes in 64 bits": ({"JAX_ENABLE_X64": "1"}, "JAX_ENABLE_X64 must be off"),
    "a GPU that is not there": ({"JAX_PLATFORMS": "cuda"}, "JAX_PLATFORMS must name platforms that are available"),
    "a flag that XLA does not know": ({"XLA_FLAGS": "--xla_nonsense=1"}, "XLA_FLAGS must be flags of the installed"),
}
IN_A_THREAD = """
import sys, threading
from mbpo_jax.main import main
statuses = []
thread = threading.Thread(target=lambda: statuses.append(main(sys.argv[1:])))
thread.start()
thread.join()
sys.exit(statuses[0])
"""
IN_A_LOOP = """
import asyncio, sys
from mbpo_jax.main import main
async def begin():
    return main(sys.argv[1:])
sys.exit(asyncio.run(begin()))
"""
IN_A_CELL = """
import mbpo_jax
from mbpo_jax.launch import flags
import matplotlib.pyplot as plt
run, config = flags.parse({words!r})
result = mbpo_jax.train(run, config)
assert result.finished
plt.plot([1, 2])
assert "inline" in plt.get_backend(), plt.get_backend()
"""
WITHOUT_EGL = """
for file in $(ls /usr/lib/*/libEGL* /usr/lib/*/libOSMesa* /usr/lib64/libEGL* 2>/dev/null); do
    mount --bind /dev/null $file || exit 99
done
exec "$@"
"""


def surroundings(options):
    """The command under 30 surroundings; it has to end well, or with the one line that it should."""
    with children.workshop() as folder:
        proof = _Proof(folder, options.num_steps)
        for name, changes in VARIABLES.items():
            proof.runs(name, proof.command(name), changes)
        for name, (changes, line) in REFUSED.items():
            proof.refuses(name, proof.command(name), changes, line)
        proof.runs("in a thread", [sys.executable, "-c", IN_A_THREAD, *proof.words("thread")], {})
        proof.runs("in an asyncio loop", [sys.executable, "-c", IN_A_LOOP, *proof.words("loop")], {})
        proof.runs(
            "without standard streams", ["sh", "-c", '"$@" <&- >/dev/null 2>&-', "sh", *proof.command("bare")], {}
        )
        proof.in_a_kernel()
        proof.without_egl()
        proof.in_a_control_group()
        proof.under_a_limit()
        return proof.conclude()


class _Proof:
    def __init__(self, folder, num_steps):
        self._folder, self._num_steps = folder / "a folder für uns", num_steps
        self._folder.mkdir()
        self._good, self._wrong, self._skipped = 0, [], []

    def words(self, name, **changes):
        run_dir = self._folder / name.replace(" ", "_").replace("'", "")
        flags = SHORT | {"num_steps": self._num_steps, "run_dir": run_dir} | changes
        return ["--flagfile=inverted_pendulum", *(f"--{flag}={value}" for flag, value in flags.items())]

    def command(self, name, **changes):
        return [sys.executable, "-m", "mbpo_jax.main", *self.words(name, **changes)]

    def runs(self, name, command, changes):
        """The command ends well, and leaves a summary, a curve and policies."""
        process = self._start(command, changes)
        run_dir = Path(next(word for word in command if word.startswith("--run_dir=")).partition("=")[2])
        left = [file for file in ("summary.json", "curves.png", "policies") if not (run_dir / file).exists()]
        good = process.returncode == ENDED and not left and "Traceback" not in process.stderr
        self._tell(name, good, process, f", no {left}" if left else "")

    def refuses(self, name, command, changes, line):
        """The command ends with 2 and a line, and makes nothing."""
        process = self._start(command, changes)
        last = (process.stderr.splitlines() or [""])[-1]
        good = process.returncode == 2 and line in last and "Traceback" not in process.stderr
        self._tell(name, good, process, f": {last}")

    def in_a_kernel(self):
        missing = [name for name in ("nbclient", "nbformat", "ipykernel") if importlib.util.find_spec(name) is None]
        if missing:
            return self._skip("in a Jupyter kernel", f"{', '.join(missing)} not installed")
        import nbclient
        import nbformat

        cell = nbformat.v4.new_code_cell(IN_A_CELL.format(words=self.words("kernel")))
        notebook = nbformat.v4.new_notebook(cells=[cell])
        began, error = time.monotonic(), ""
        with contextlib.chdir(self._folder):
            try:
                nbclient.NotebookClient(notebook, timeout=1200, kernel_name="python3").execute()
            except Exception as raised:
                error = str(raised)[-600:]
        self._count("in a Jupyter kernel", not error, time.monotonic() - began, f": {error}")

    def without_egl(self):
        command = ["unshare", "--mount", "sh", "-c", WITHOUT_EGL, "sh"]
        if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True).returncode:
            return self._skip("no libEGL", "no mounts of our own can be made")
        self.runs("no libEGL", [*command, *self.command("no_egl")], {})
        line = "MUJOCO_GL must be a backend that loads"
        self.refuses("MUJOCO_GL=egl without libEGL", [*command, *self.command("egl")], {"MUJOCO_GL": "egl"}, line)

    def in_a_control_group(self):
        """As the system would show it to the process; the group itself is not made."""
        fake = self._folder.parent / "groups"
        for name in ("memory.max", "memory/memory.limit_in_bytes"):
            (fake / name).parent.mkdir(parents=True, exist_ok=True)
            (fake / name).write_text(f"{10**9}\n")
        script = f'mount --bind {fake} /sys/fs/cgroup && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", script, "sh"]
        if shutil.which("unshare") is None or subprocess.run([*command, "true"], capture_output=True).returncode:
            return self._skip("a control group of 1 GB", "no mounts of our own can be made")
        command += self.command("group", replay_capacity=50_000_000)
        self.refuses("a control group of 1 GB", command, {}, "(the limit of its control group)")

    def under_a_limit(self):
        limit = 16 * 2**30  # of addresses; a process of jax reserves many that it never uses
        script = f"import os, resource, sys; resource.setrlimit({resource.RLIMIT_AS}, ({limit}, {limit}));"
        script += " os.execv(sys.argv[1], sys.argv[1:])"
        command = [sys.executable, "-c", script, *self.command("limit", replay_capacity=1_000_000_000)]
        self.refuses("ulimit -v", command, {}, "(the limit of ulimit -v)")

    def conclude(self):
        for complaint in self._wrong:
            print(complaint)
        skipped = f", {len(self._skipped)} not tried ({'; '.join(self._skipped)})" if self._skipped else ""
        return children.verdict(not self._wrong, f"{self._good} surroundings{skipped}")

    def _start(self, command, changes):
        environment = {name: value for name, value in os.environ.items() if name not in UNSET}
        environment["XDG_CACHE_HOME"] = str(self._folder.parent / "cache")
        environment |= {name: value for name, value in changes.items() if value is not None}
        for name in changes:
            if changes[name] is None:
                environment.pop(name, None)
        self._began = time.monotonic()
        return subprocess.run(
            command, cwd=self._folder, env=environment, capture_output=True, text=True, errors="replace"
        )

    def _tell(self, name, good, process, note):
        detail = "" if good else f"; it printed: {textwrap.shorten(process.stderr[-1500:], 1500)}"
        self._count(name, good, time.monotonic() - self._began, f", status {process.returncode}{note}{detail}")

    def _count(self, name, good, seconds, note):
        print(f"{'well ' if good else 'WRONG'} {name} ({seconds:.0f} s){note}", flush=True)
        if good:
            self._good += 1
        else:
            self._wrong.append(f"WRONG: {name}{note}")

    def _skip(self, name, why):
        print(f"skipped {name}: {why}", flush=True)
        self._skipped.append(name)
