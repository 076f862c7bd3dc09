"""Measures the length of each training episode of runs, as the textbook plots it for Dyna-Q."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mbpo_jax import options
from mbpo_jax.driver.storage import checkpoint, metrics, run_json
from mbpo_jax.driver.storage.run_json import SavedConfig
from mbpo_jax.studies.finding import Finding

METRICS = "metrics.jsonl"
SHOWN = (1, 2, 5, 10, 20, 50)  # episodes in the sentence


def study(run_dirs: Sequence[Path], num_episodes: int = 50, short_steps: int = 20) -> Finding:
    """Reads the lengths from the rows that runs kept, which must be all rows.

    Args:
      run_dirs: finished runs that differ in some flags.
      num_episodes: how many of each seed's first episodes are read.
      short_steps: an episode with fewer steps is short.
    Raises:
      ValueError: a run has dropped rows, or a seed has fewer complete episodes.
      StorageFailure: a file is missing or damaged.
    """
    kept = [run_json.read_config(path) for path in run_dirs]
    names = _names(kept)
    runs = [_measure(path, saved, num_episodes) for path, saved in zip(run_dirs, kept, strict=True)]
    numbers = {
        "env": kept[0].run.env,
        "short_steps": short_steps,
        "runs": [{"name": name} | measured for name, measured in zip(names, runs, strict=True)],
    }
    return present(numbers)


def whole_episodes(first: np.ndarray) -> np.ndarray:
    """Returns the steps of each complete episode, from marks [T] of the steps that began one."""
    return np.diff(np.flatnonzero(first))


def _measure(run_dir: Path, saved: SavedConfig, num_episodes: int) -> dict[str, Any]:
    if saved.run.dataset:
        raise ValueError(
            f"run_dirs must be directories of runs that step an environment, got {run_dir}, an offline run"
        )
    arrays = checkpoint.load(run_dir).arrays
    lengths = [_lengths(run_dir, seed, arrays[str(seed)]["replay"], num_episodes) for seed in saved.run.seeds]
    last = {line["seed"]: line for line in metrics.read(run_dir / METRICS) if "eval/length_mean" in line}
    return {
        "seeds": len(lengths),
        "mean_steps": np.mean(lengths, axis=0).tolist(),
        "standard_errors": standard_errors(np.asarray(lengths)),
        "greedy_steps": [float(last[seed]["eval/length_mean"]) for seed in saved.run.seeds if seed in last],
    }


def standard_errors(lengths: np.ndarray) -> list[float] | None:
    """Returns the standard error of the mean of each column of lengths [S, E]; None for a single seed."""
    if len(lengths) == 1:
        return None
    return (np.std(lengths, axis=0, ddof=1) / np.sqrt(len(lengths))).tolist()


def _lengths(run_dir: Path, seed: int, rows: dict[str, Any], num_episodes: int) -> np.ndarray:
    size, added = int(rows["size"]), int(rows["num_added"])
    if added > size:
        raise ValueError(
            f"run_dirs must be directories of runs that kept every row, got {run_dir} with {added} steps and "
            f"--replay_capacity={size}"
        )
    lengths = whole_episodes(np.asarray(rows["first"][:size]))
    if len(lengths) < num_episodes:
        raise ValueError(
            f"num_episodes must be at most {len(lengths)}, the number of complete episodes of seed {seed} in "
            f"{run_dir}, got {num_episodes}"
        )
    return lengths[:num_episodes]


def _names(kept: Sequence[SavedConfig]) -> list[str]:
    """Returns, for each run, the knobs of its algorithm that differ between the runs."""
    values = [{"algorithm": saved.run.algorithm} | options.values(saved.algorithm) for saved in kept]
    paths = list(dict.fromkeys(path for one in values for path in one))
    short = options.short_names(paths)
    differ = [path for path in paths if len({repr(one.get(path)) for one in values}) > 1] or ["algorithm"]
    return [", ".join(f"{short[path]}={one[path]}" for path in differ if path in one) for one in values]


def present(numbers: dict[str, Any]) -> Finding:
    """Presents the numbers, as measured or as read back from their file, as a sentence and a figure."""
    runs = "; ".join(_in_words(run, numbers["short_steps"]) for run in numbers["runs"])
    return Finding(f"{numbers['env']}, mean steps of an episode: {runs}.", numbers, _figure(numbers))


def _in_words(run: dict[str, Any], short_steps: int) -> str:
    steps = np.asarray(run["mean_steps"])
    shown = ", ".join(f"{steps[episode - 1]:.4g} in {episode}" for episode in SHOWN if episode <= len(steps))
    is_short = steps < short_steps
    begins = f"fewer than {short_steps} first in episode {np.argmax(is_short) + 1}"
    greedy = run["greedy_steps"]
    played = f", {min(greedy):g} to {max(greedy):g} without exploration in the end" if greedy else ""
    short = begins if is_short.any() else f"never fewer than {short_steps}"
    return f"{run['name']} ({run['seeds']} seeds) {shown}, {short}{played}"


def _figure(numbers: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    for run in numbers["runs"]:
        mean = np.asarray(run["mean_steps"])
        episodes = np.arange(1, len(mean) + 1)
        (line,) = axes.plot(episodes, mean, label=run["name"])
        if run["standard_errors"] is not None:
            error = np.asarray(run["standard_errors"])
            axes.fill_between(episodes, mean - error, mean + error, color=line.get_color(), alpha=0.25, linewidth=0)
    axes.set(yscale="log", xlabel="episode", ylabel="steps (mean and standard error)", title=numbers["env"])
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    return figure
