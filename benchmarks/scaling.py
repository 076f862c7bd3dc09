"""How the cost of a unit of work grows: one JSON line per point, each beside the first point of its axis.

    python benchmarks/scaling.py [--axes=real_rows,model_rows,...] [--seconds=10]

The points of an axis are measured in turn in one process, so `relative_cost` (cost of a unit over that of the axis's
first point) holds on a machine whose speed drifts. A flat cost is 1.
"""

import argparse
import json
import subprocess
import sys

import jax

import phases
import timing
from mbpo_jax.driver.seeds import use_cores

AXES = {  # axis: the phases it may touch, its points
    "real_rows": (("sac_update", "model_fit", "model_rollout"), (10_000, 100_000, 1_000_000)),
    "model_rows": (("sac_update", "model_rollout"), (400_000, 5_000_000)),
    "rollout_length": (("model_rollout",), (1, 5, 15, 25)),
    "num_members": (("model_fit", "model_rollout"), (1, 4, 7, 16, 32)),
    "seeds": (("sac_update", "model_rollout"), (1, 2, 4, 8, 16)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="Least measured time per point.")
    parser.add_argument("--axes", default=",".join(AXES), help="Which, separated by commas.")
    parser.add_argument("--phases", default="", help="Only these.")
    given = parser.parse_args()
    pairs = [
        (axis, phase) for axis in given.axes.split(",") for phase in AXES[axis][0] if phase in (given.phases or phase)
    ]
    if len(pairs) > 1:  # a process each, for its memory
        for axis, phase in pairs:
            command = [sys.executable, __file__, f"--axes={axis}", f"--phases={phase}", f"--seconds={given.seconds}"]
            subprocess.run(command, check=True)
        return
    ((axis, phase),) = pairs
    points = AXES[axis][1]
    if axis == "seeds":
        use_cores(max(points))
    works = [phases.prepare(phase, case(axis, point)) for point in points]
    for work in works:
        jax.block_until_ready(work.call())
    results = timing.measure(works, given.seconds, calls=3)
    for point, result in zip(points, results, strict=True):
        relative = round(results[0]["rate"] / result["rate"], 3)
        names = ("rate", "unit", "limit_fraction", "rate_min", "rate_max", "calls")
        shown = {name: result[name] for name in names}
        print(json.dumps({"axis": axis, "phase": phase, "point": point, "relative_cost": relative} | shown), flush=True)


def case(axis: str, point: int) -> phases.Case:
    """HalfCheetah's sizes with one of them changed; smaller buffers where these are not what is looked at."""
    usual = {"real_rows": 100_000} if axis in ("seeds", "num_members") else {}
    rows = {"model_rows": point * 400_000} if axis == "rollout_length" else {}
    return phases.Case(**{**usual, **rows, axis: point})


if __name__ == "__main__":
    main()
