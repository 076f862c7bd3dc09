"""Trains a run, alone or together with other processes, on one host or many, that share its seeds.

Each process trains its seeds in a part of the run directory that is a complete run directory itself; the process that
finishes last gathers the parts.
"""

import dataclasses
import functools
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import jax

from mbpo_jax.driver import jax_settings, loop
from mbpo_jax.driver.config import RunConfig, resolve_algorithm_config
from mbpo_jax.driver.seeds import use_cores
from mbpo_jax.driver.storage import run_json
from mbpo_jax.launch import rendezvous, run_parts
from mbpo_jax.launch.command import complain


def train(run: RunConfig, algorithm_config: Any = None, stream: TextIO | None = None) -> loop.Result:
    """Trains as `loop.train` does, with the seeds shared between processes if `run.distributed`.

    Returns:
      The result of the whole run in the process that finished last and gathered the parts. In the other processes, and
      if a stop was requested, the result of the process's own part; running all commands again continues the run.
    Raises:
      ValueError, EnvironmentFailure, Diverged, StorageFailure: as `loop.train`.
    """
    config = resolve_algorithm_config(run, algorithm_config)
    if not run.distributed:
        _start_backend(len(run.seeds))
        return loop.train(run, config, stream)
    notify = functools.partial(_notify, run, stream)
    notify("waiting for the other processes of this launch")
    share = rendezvous.join(run)
    _start_backend(len(share.seeds))
    notify(f"process {share.index} of {share.count} trains seeds {', '.join(map(str, share.seeds))}")
    whole = dataclasses.replace(run, coordinator=share.coordinator, num_processes=share.count, process_id=share.index)
    part = run_parts.part_config(whole, share.index)
    with _claimed(whole, part, config):
        result = loop.train(part, config, stream)
    if not result.finished:
        return result
    summary = run_parts.gather(whole, config)
    if summary is None:
        notify(f"this part is finished; the process that finishes last gathers all parts in {run.directory}")
        return result
    return loop.Result(Path(run.directory), summary, True)


def _notify(run: RunConfig, stream: TextIO | None, text: str) -> None:
    if not run.quiet:
        complain(f"mbpo_jax: {text}", stream)


def _start_backend(num_seeds: int) -> None:
    """Starts jax's backend; refuses one that spans several processes, where orbax saves only what the first has."""
    use_cores(num_seeds)  # later it would have no effect
    jax_settings.prepare()
    if jax.process_count() > 1:
        raise ValueError(
            f"distributed needs a jax that does not span processes, got one of {jax.process_count()} processes: leave "
            "out jax.distributed.initialize, and on a TPU pod set TPU_PROCESS_BOUNDS=1,1,1 and "
            "TPU_CHIPS_PER_PROCESS_BOUNDS to the chips of one host (docs/clusters.md)"
        )


@contextmanager
def _claimed(whole: RunConfig, part: RunConfig, algorithm_config: Any) -> Iterator[None]:
    """Refuses the directory of another run; process 0 marks a new one, and removes the mark if its part never began."""
    run_dir, path = Path(whole.directory), Path(whole.directory) / run_json.CONFIG
    is_new = whole.process_id == 0 and not path.exists()
    if path.exists():
        run_json.check_same(run_json.read_config(run_dir), whole, algorithm_config)
    if is_new:
        run_dir.mkdir(parents=True, exist_ok=True)
        run_json.write_config(run_dir, whole, algorithm_config)
    try:
        yield
    except BaseException:
        if is_new and not (Path(part.run_dir) / run_json.CONFIG).exists():
            path.unlink(missing_ok=True)
            with suppress(OSError):  # not empty: parts of other processes
                run_dir.rmdir()
        raise
