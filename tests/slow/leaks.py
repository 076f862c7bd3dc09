"""A run for minutes to hours: memory, open files and threads, seen from outside."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import children
import numpy as np
from children import STOPPED, tiny_runs

WARM_UP = 0.2  # of the time
MOST_MB = 1.0  # per 10,000 environment steps
KNOBS = {"num_steps": 2**31 - 1, "log_every_steps": 200, "eval_every_steps": 1000, "checkpoint_every_steps": 1000}


def memory(options):
    """A tiny SAC run: resident memory must not grow with its steps, nor open files and threads at all."""
    with children.workshop() as folder:
        run_dir = folder / "run"
        words = children.words(run_dir, folder / "cache", tiny_runs.SAC, **KNOBS)
        command = [sys.executable, "-m", "mbpo_jax.main", *words]
        with (folder / "stderr.txt").open("w") as stderr:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr)
            try:
                samples = _watch(process, run_dir, 60.0 * options.minutes, options.every_s)
                process.send_signal(signal.SIGTERM)
                status = process.wait(120.0)
            finally:
                process.kill()
                process.wait()
        if status != STOPPED:
            print((folder / "stderr.txt").read_text()[-2000:])
    return _conclude(samples, status, options.minutes)


def _watch(process, run_dir, seconds, every_s):
    """[N, 4]: environment steps, MB in memory, open files, threads."""
    began, samples = time.monotonic(), []
    while (passed := time.monotonic() - began) < seconds:
        if process.poll() is not None:
            print(f"the run ended by itself after {passed:.0f} s")
            break
        if (step := _last_step(run_dir / "metrics.jsonl")) is not None and passed > WARM_UP * seconds:
            samples.append((step, *_resources(process.pid)))
        time.sleep(every_s)
    return np.array(samples, np.float64).reshape(-1, 4)


def _last_step(path):
    if not path.exists():
        return None
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2**16))
        lines = file.read().splitlines()
    return int(lines[-1].split(b'"step": ')[1].split(b",")[0]) if lines else None


def _resources(pid):
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]) / 1024, len(os.listdir(f"/proc/{pid}/fd")), int(status["Threads"])


def _conclude(samples, status, minutes):
    if len(samples) < 3 or samples[-1, 0] == samples[0, 0]:
        return children.verdict(False, f"too few samples: {len(samples)}; exit status {status}")
    steps, megabytes, files, threads = samples.T
    slope = np.polyfit(steps / 1e4, megabytes, 1)[0]
    print(f"{len(samples)} samples from step {steps[0]:,.0f} to {steps[-1]:,.0f}, exit status {status}")
    print(f"memory {megabytes.min():.1f} to {megabytes.max():.1f} MB, {slope:+.4f} MB per 10,000 steps")
    good = slope <= MOST_MB and status == STOPPED
    third = max(1, len(samples) // 3)
    for name, values in (("open files", files), ("threads", threads)):
        grew = values[-third:].min() > values[:third].min()  # for a moment, a checkpoint holds some more
        print(f"{name} {values.min():.0f} to {values.max():.0f}{', growing' if grew else ''}")
        good = good and not grew
    return children.verdict(good, f"{minutes:g} minutes, {slope:+.4f} MB per 10,000 steps, at most {MOST_MB:g} allowed")
