"""Starts processes that try what might fail: a tiny run, and a probe of what jax sees."""

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mbpo_jax.surroundings.check import Check, size

SECONDS = 600  # that a child may take; it needs 5 to 20 if nothing else is running
TINY_RUN = {
    "algorithm": "sac",
    "env": "InvertedPendulum-v5",
    "num_steps": 12,
    "exploration_steps": 8,
    "max_episode_steps": 5,
    "eval_every_steps": 12,
    "eval_episodes": 1,
    "batch_size": 4,
    "hidden_units": 8,
    "num_hidden_layers": 1,
    "replay_capacity": 100,
}


@contextlib.contextmanager
def started(run_dir: Path | None) -> Iterator[tuple[subprocess.Popen[str], subprocess.Popen[str]]]:
    """Starts a tiny run and the probe, in parallel; ends both."""
    with tempfile.TemporaryDirectory(prefix="mbpo_jax_doctor") as folder, contextlib.ExitStack() as stack:
        flags = [f"--{name}={value}" for name, value in TINY_RUN.items()]
        run = ["mbpo_jax.main", *flags, "--quiet", f"--run_dir={folder}/run"]
        probe = ["mbpo_jax.surroundings.probe", *([str(run_dir)] if run_dir else [])]
        yield tuple(stack.enter_context(_child(arguments)) for arguments in (run, probe))  # type: ignore[misc]


@contextlib.contextmanager
def _child(arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def tiny_run(check: Check, process: subprocess.Popen[str]) -> None:
    """Checks how a run of a few steps ended."""
    _, why = _outcome(process)
    check.lines.append("a run of a few steps succeeded" if why is None else f"a run of a few steps failed: {why}")
    if why is not None:
        check.fails.append(f"training: {why}")


def jax_and_files(check: Check, process: subprocess.Popen[str]) -> None:
    """Checks devices, settings of jax, the compile cache, and a run directory if one was named."""
    out, why = _outcome(process)
    if why is not None:
        check.lines.append(f"jax does not start: {why}")
        check.fails.append(f"all computation: jax does not start: {why}")
        return
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    check.lines.append(f"devices: {', '.join(found['devices'])}")
    check.lines.append(", ".join(f"{name} {value}" for name, value in found["settings"].items()))
    cache = found["cache"]
    if cache["problem"]:
        check.lines.append(f"compile cache: {cache['problem']}")
        check.slow.append(f"every start: {cache['problem']}")
    else:
        check.lines.append(f"compile cache: {cache['folder']}, {cache['files']:,} files, {size(cache['bytes'])}")
    if found["run"] is not None:
        _run(check, found["run"])


def _run(check: Check, run: dict[str, Any]) -> None:
    if "problem" in run:
        check.lines.append(f"run: {run['problem']}")
        check.fails.append(f"continuing the run: {run['problem']}")
        return
    steps = ", ".join(f"{step:,}" for step in run["checkpoints"]) or "none"
    check.lines.append(f"run: {run['algorithm']} on {run['env']}, seeds {run['seeds']}, checkpoints at {steps}")
    check.lines += [f"run: {notice}" for notice in run["notices"]]


def _outcome(process: subprocess.Popen[str]) -> tuple[str, str | None]:
    """Returns what a child printed, and why it failed as one line; None if it did not fail."""
    try:
        out, err = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return "", f"it took more than {SECONDS} s"
    if process.returncode == 0:
        return out, None
    lines = [line.strip() for line in err.splitlines() if line.strip()]
    errors = [line.partition("error: ")[2] for line in lines if line.startswith("mbpo_jax: error: ")]
    signal = f"signal {-process.returncode}" if process.returncode < 0 else f"exit status {process.returncode}"
    return out, (errors or lines or [signal])[-1][:400]
