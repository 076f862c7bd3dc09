"""Several processes, on one host or many, share the seeds of one run.

Each trains its seeds in a part of the run directory that is a complete run directory itself; the process that
finishes last gathers the parts. Processes meet once, to learn who they are, and then leave jax.distributed: seeds
need no communication, jax ends every process that stays when one of them dies, and orbax keeps NumPy arrays of the
first process only, without a word, where jax knows of several.
"""

import dataclasses
import functools
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import jax
from jax._src import distributed  # who am I, without starting a backend: there is no public name for it

from mbpo_jax.driver import loop, parts
from mbpo_jax.driver.config import RunConfig, resolve_algorithm_config
from mbpo_jax.driver.seeds import use_cores
from mbpo_jax.driver.storage import run_directory

PREEMPTION_SERVICE = "jax_enable_preemption_service"  # takes SIGTERM, which is ours


@dataclasses.dataclass(frozen=True)
class Share:
    """Which process this one is, and what it trains."""

    index: int
    count: int
    coordinator: str  # host:port, as given or detected
    seeds: tuple[int, ...]


def train(run: RunConfig, algorithm_config: Any = None, stream: TextIO | None = None) -> loop.Result:
    """`loop.train`, with the seeds shared between processes where `run.distributed` says so.

    Returns:
      The result of the whole run in the process that finished last and gathered the parts; that of the own part in
      the others, and where a stop was requested. The same commands, all of them, continue.
    Raises:
      ValueError, EnvironmentFailure, Diverged, StorageFailure: as `loop.train`.
    """
    config = resolve_algorithm_config(run, algorithm_config)
    if not run.distributed:
        _begin_jax(len(run.seeds))
        return loop.train(run, config, stream)
    tell = functools.partial(_tell, run, stream)
    tell("waits for the other processes of this launch")
    share = join(run)
    _begin_jax(len(share.seeds))
    tell(f"process {share.index} of {share.count} trains seeds {', '.join(map(str, share.seeds))}")
    whole = dataclasses.replace(run, coordinator=share.coordinator, num_processes=share.count, process_id=share.index)
    own = parts.part_config(whole, share.index)
    with _claimed(whole, own, config):
        result = loop.train(own, config, stream)
    if not result.finished:
        return result
    summary = parts.gather(whole, config)
    if summary is None:
        tell(f"this part is finished; the process that finishes last gathers all in {run.directory}")
        return result
    return loop.Result(Path(run.directory), summary, True)


def join(run: RunConfig) -> Share:
    """Meets the other processes, once in the life of this one, and takes a share of the seeds.

    To be called before jax computes anything. Waits until all are there; jax ends the process when they are not
    within five minutes.

    Raises:
      ValueError: no launch is detected and none is described, or there are fewer seeds than processes.
    """
    _check_enough(run.seeds, run.num_processes)  # before anyone waits
    index, count, coordinator = _meet(run.coordinator, run.num_processes, run.process_id)
    _check_enough(run.seeds, count)
    return Share(index, count, coordinator, run.seeds[index::count])


def _tell(run: RunConfig, stream: TextIO | None, text: str) -> None:
    if not run.quiet:
        print(f"mbpo_jax: {text}", file=stream or sys.stderr, flush=True)


# -- meeting -------------------------------------------------------------------------------------------------------


@functools.cache  # jax meets once in the life of a process
def _meet(coordinator: str, num_processes: int, process_id: int) -> tuple[int, int, str]:
    """Index of this process, number of processes, address of the first; detected where they are not given."""
    if process_id == 0:
        _check_free(coordinator)
    if hasattr(jax.config, PREEMPTION_SERVICE):
        jax.config.update(PREEMPTION_SERVICE, False)
    try:
        with _own_signals():
            if coordinator:
                jax.distributed.initialize(coordinator, num_processes, process_id)
            else:
                jax.distributed.initialize()
    except ValueError as error:
        raise ValueError(
            "distributed must come with coordinator, num_processes and process_id where no launch of SLURM, Open MPI "
            f"or a TPU pod is detected, got none of them ({error})"
        ) from error
    except RuntimeError as error:
        raise ValueError(f"distributed must be False in a process that has used jax before ({error})") from error
    state = distributed.global_state
    place = (state.process_id, state.num_processes, state.coordinator_address or coordinator)
    jax.distributed.shutdown()  # all are here, so nobody waits
    state.process_id, state.num_processes = 0, 1  # as before; jax would make devices for the second of two processes
    return place


@contextmanager
def _own_signals() -> Iterator[None]:
    """Signals end a process that waits for others in C++, and afterwards they do what they did before."""
    if threading.current_thread() is not threading.main_thread():  # only there can handlers be set
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_free(coordinator: str) -> None:
    """A port that is taken would end process 0 in a segmentation fault."""
    try:
        socket.create_server(("", int(coordinator.rpartition(":")[2]))).close()
    except OSError as error:
        raise ValueError(
            f"coordinator must be host:port with a port that is free, got {coordinator!r} ({error})"
        ) from error


def _check_enough(seeds: Sequence[int], num_processes: int) -> None:
    if len(seeds) < num_processes:
        raise ValueError(f"seeds must be {num_processes} or more, one for each process, got {seeds!r}")


def _begin_jax(num_seeds: int) -> None:
    """Starts the backend, and refuses one of several processes: orbax would lose what all but the first save."""
    use_cores(num_seeds)  # the last moment for it
    if jax.process_count() > 1:
        raise ValueError(
            f"distributed must not make one jax of {jax.process_count()} processes: leave out "
            "jax.distributed.initialize, and on a TPU pod set TPU_PROCESS_BOUNDS=1,1,1 and "
            "TPU_CHIPS_PER_PROCESS_BOUNDS to the chips of one host (docs/clusters.md)"
        )


# -- the directory -------------------------------------------------------------------------------------------------


@contextmanager
def _claimed(whole: RunConfig, own: RunConfig, algorithm_config: Any) -> Iterator[None]:
    """Refuses a directory of another run, and marks it as this one's unless the training cannot even begin."""
    run_dir, path = Path(whole.directory), Path(whole.directory) / run_directory.CONFIG
    begins = whole.process_id == 0 and not path.exists()
    if path.exists():
        run_directory.check_same(run_directory.read_config(run_dir), whole, algorithm_config)
    if begins:
        run_dir.mkdir(parents=True, exist_ok=True)
        run_directory.write_config(run_dir, whole, algorithm_config)
    try:
        yield
    except BaseException:
        if begins and not (Path(own.run_dir) / run_directory.CONFIG).exists():
            path.unlink(missing_ok=True)
            with suppress(OSError):  # not empty: parts of other processes
                run_dir.rmdir()
        raise
