"""Defines the parts of a shared run, one run directory per process, and merges them into one."""

import dataclasses
import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mbpo_jax.driver.config import RunConfig, StorageFailure
from mbpo_jax.driver.interaction import policy
from mbpo_jax.driver.storage import metrics, run_json
from mbpo_jax.reports import curves


def part_config(run: RunConfig, index: int) -> RunConfig:
    """Returns the run of one process: its own seeds, in its own part of the run directory.

    Args:
      run: the whole run, with `num_processes` known.
    """
    return dataclasses.replace(
        run,
        seeds=run.seeds[index :: run.num_processes],
        run_dir=str(Path(run.directory) / f"part_{index}_of_{run.num_processes}"),
        distributed=False,
        coordinator="",
        num_processes=0,
        process_id=-1,
    )


def gather(run: RunConfig, algorithm_config: Any) -> dict[str, Any] | None:
    """Merges all parts into one run directory, if all of them are finished.

    Writes metrics.jsonl (the lines of all parts in the order in which one process would have written them), the
    policies, config.json, curves.png and finally summary.json, each atomically. The outcome is the same whichever
    process does it, and however often.

    Args:
      run: the whole run, with `num_processes` known.
    Returns:
      The contents of summary.json; None if a part is not finished.
    Raises:
      ValueError: a part was trained with other knobs.
      StorageFailure, OSError: a file could not be read or written.
    """
    parts = [part_config(run, index) for index in range(run.num_processes)]
    summaries = [summary for summary in map(_finished_summary, parts) if summary is not None]
    if len(summaries) < len(parts):
        return None
    for part in parts:
        run_json.check_same(run_json.read_config(Path(part.run_dir)), part, algorithm_config)
    run_dir = Path(run.directory)
    scratch = run_dir / f".gather_{run.process_id}"  # two processes may be here at once
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        summary = _merge_summaries(run, summaries)
        _write(scratch, run, algorithm_config, parts, summary)
        _move(scratch, run_dir)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return summary


def _finished_summary(part: RunConfig) -> dict[str, Any] | None:
    """Returns a part's summary; None unless the part has finished its last step."""
    path = Path(part.run_dir) / run_json.SUMMARY
    try:
        summary: dict[str, Any] = json.loads(path.read_text())
        finished = summary.get("finished", False) and summary["step"] == part.num_steps
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageFailure(f"cannot read {path}: {type(error).__name__}: {error}") from error
    return summary if finished else None


def _merge_summaries(run: RunConfig, summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Merges summaries: the time of the slowest part, mean seconds per phase, the largest memory of a process."""
    outcomes = {seed: outcome for summary in summaries for seed, outcome in summary["seeds"].items()}
    seconds = max(summary["seconds"] for summary in summaries)
    phases = dict.fromkeys(name for summary in summaries for name in summary["seconds_per_phase"])
    memory = [name for name in summaries[0] if name.endswith("_memory_bytes")]
    return summaries[0] | {
        "seeds": {str(seed): outcomes[str(seed)] for seed in run.seeds},
        "env_steps_per_second": run.num_steps / max(seconds, 1e-9),
        "seconds": seconds,
        "seconds_per_phase": {
            name: sum(summary["seconds_per_phase"].get(name, 0.0) for summary in summaries) / len(summaries)
            for name in phases
        },
        "compilations": sum(summary["compilations"] for summary in summaries),
        **{name: max(summary[name] for summary in summaries) for name in memory},
    }


def _merge_lines(run_dirs: Sequence[Path], seeds: Sequence[int]) -> bytes:
    """Merges metrics by step; within a step the first line of every seed comes first, then the second of every seed."""
    order = {seed: i for i, seed in enumerate(seeds)}
    keyed: list[tuple[tuple[int, int, int], bytes]] = []
    for path in (run_dir / metrics.FILE_NAME for run_dir in run_dirs):
        num_lines: Counter[tuple[int, int]] = Counter()
        try:
            for line in path.read_bytes().splitlines(keepends=True):
                record = json.loads(line)
                step, seed = record["step"], record["seed"]
                keyed.append(((step, num_lines[step, seed], order[seed]), line))
                num_lines[step, seed] += 1
        except (ValueError, KeyError, TypeError) as error:
            raise StorageFailure(f"cannot read {path}: {type(error).__name__}: {error}") from error
    return b"".join(line for _, line in sorted(keyed))


def _write(scratch: Path, run: RunConfig, config: Any, parts: Sequence[RunConfig], summary: dict[str, Any]) -> None:
    """Fills the scratch directory with the files of the whole run."""
    scratch.mkdir()
    task = run_json.read_config(Path(parts[0].run_dir)).task
    run_json.write_config(scratch, dataclasses.replace(run, process_id=0), config, task)
    (scratch / metrics.FILE_NAME).write_bytes(_merge_lines([Path(part.run_dir) for part in parts], run.seeds))
    for part in parts:
        for seed in part.seeds:
            for best in (False, True):
                path = policy.policy_path(scratch, seed, best)
                path.parent.mkdir(exist_ok=True)
                saved = policy.policy_path(Path(part.run_dir), seed, best)
                if saved.exists():  # there is no best one if returns are nan
                    shutil.copyfile(saved, path)
    curves.draw_curves(scratch)
    run_json.write_json(scratch / run_json.SUMMARY, summary)


def _move(scratch: Path, run_dir: Path) -> None:
    """Moves each file atomically; summary.json, which says that the run is complete, comes last."""
    files = [path.relative_to(scratch) for path in scratch.rglob("*") if path.is_file()]
    for file in sorted(files, key=lambda file: file.name == run_json.SUMMARY):
        (run_dir / file).parent.mkdir(exist_ok=True)
        os.replace(scratch / file, run_dir / file)
