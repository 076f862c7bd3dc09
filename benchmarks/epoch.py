"""Times the real loop of an experiment in windows from fit to fit: one JSON line per window and a summary.

    python benchmarks/epoch.py [--windows=5] [--fit_steps=1000] [--rows=0] [--seeds=0] [--experiment=halfcheetah]

On HalfCheetah a window is 250 environment steps: one fit, one round of rollouts from 100,000 states and 40 updates for
each step. `--experiment=double_horizon_halfcheetah` has one burst of 1,000 steps in a window. How many gradient
steps a fit takes depends on the data; `--fit_steps=1000` fixes it, so that windows and machines compare, and 0 leaves
it to the held-out rows. `--rows` real rows, of random actions, are there at the beginning; 0 leaves their number to the
flagfile. The first window compiles and is not counted.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import phases
import timing
from mbpo_jax.driver.storage import metrics
from mbpo_jax.launch import flags
from mbpo_jax.launch.processes import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=5, help="That count.")
    parser.add_argument("--fit_steps", type=int, default=1000, help="Gradient steps of every fit; 0: early stopping.")
    parser.add_argument("--rows", type=int, default=0, help="Random steps at first; 0: as many as the flagfile says.")
    parser.add_argument("--seeds", default="0", help="Separated by commas.")
    parser.add_argument("--experiment", default="halfcheetah", help="Name of a flagfile.")
    given = parser.parse_args()
    fixed = [f"--fit_max_gradient_steps={given.fit_steps}", "--fit_patience_epochs=1000000"] if given.fit_steps else []
    fixed += [f"--exploration_steps={given.rows}"] if given.rows else []
    flagfile = phases.EXPERIMENTS / f"{given.experiment}.flags"
    with tempfile.TemporaryDirectory(prefix="mbpo_jax_benchmark_") as directory:
        start = [f"--flagfile={flagfile}", f"--seeds={given.seeds}", *fixed]
        _, config = flags.parse(start)
        first = config.exploration_steps
        size = config.fit_every_steps
        last = first + (given.windows + 1) * size - 1  # the phases of the step after it belong to another window
        argv = {
            "run_dir": directory,
            "num_steps": last,
            "log_every_steps": 1,
            "eval_every_steps": 10**6,
            "eval_episodes": 1,
            "checkpoint_every_steps": 10**6,
            "quiet": "true",
        }
        run, config = flags.parse([*start, *(f"--{name}={value}" for name, value in argv.items())])
        summary = train(run, config).summary
        lines = [line for line in metrics.read(Path(directory) / "metrics.jsonl") if line["seed"] == run.seeds[0]]
    product = timing.large_product()
    gflops = statistics.median(2 * timing.PRODUCT_SIZE**3 / timing.elapsed(product) for _ in range(10)) / 1e9
    at = {line["step"]: line for line in lines if "seconds/env_step" in line}
    windows = [
        window(at[first - 1 + i * size], at[first - 1 + (i + 1) * size], lines) for i in range(1, given.windows + 1)
    ]
    for values in windows:
        print(json.dumps(values), flush=True)
    rates = [values["env_steps_per_second"] for values in windows]
    total = {
        "env_steps_per_second": statistics.median(rates),
        "env_steps_per_second_min": min(rates),
        "env_steps_per_second_max": max(rates),
        "seeds": len(run.seeds),
        "env_steps_per_second_all_seeds": round(len(run.seeds) * statistics.median(rates), 2),
        "large_product_gflops": round(gflops, 1),
        "predicted_memory_mb": round(summary["predicted_memory_bytes"] / 1e6),
        "compilations": summary["compilations"],
    }
    print(json.dumps(total | timing.machine()))


def window(before: dict[str, Any], after: dict[str, Any], lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Rate and shares of the phases between two lines of metrics."""
    seconds = {
        name.removeprefix("seconds/"): value - before.get(name, 0.0)
        for name, value in after.items()
        if name.startswith("seconds/")
    }
    total = sum(seconds.values())
    fits = [
        line["fit_model/gradient_steps"]
        for line in lines
        if before["step"] < line["step"] <= after["step"] and "fit_model/gradient_steps" in line
    ]
    return {
        "steps": [before["step"] + 1, after["step"]],
        "env_steps_per_second": round((after["step"] - before["step"]) / total, 2),
        "fit_gradient_steps": sum(fits),
        "compilations": after["compilations"] - before["compilations"],
        "shares": {name: round(value / total, 3) for name, value in sorted(seconds.items(), key=lambda item: -item[1])},
    }


if __name__ == "__main__":
    main()
