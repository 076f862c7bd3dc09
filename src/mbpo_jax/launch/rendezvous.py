"""Finds out through jax.distributed which process of a launch this one is, and then leaves jax.distributed again.

It leaves because seeds need no communication, jax ends the remaining processes when one of them dies, and orbax keeps,
without saying so, only the first process's NumPy arrays where jax knows of several.
"""

import dataclasses
import functools
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import jax
from jax._src import distributed  # the process's index without starting a backend: there is no public name for it

from mbpo_jax.driver.config import RunConfig

PREEMPTION_SERVICE = "jax_enable_preemption_service"  # would take SIGTERM, which asks our runs to save


@dataclasses.dataclass(frozen=True)
class Share:
    """Which process this one is, and what it trains."""

    index: int
    count: int
    coordinator: str  # host:port, as given or detected
    seeds: tuple[int, ...]


def join(run: RunConfig) -> Share:
    """Meets the other processes and returns this one's share of the seeds; possible once in the life of a process.

    Must be called before jax computes anything. Waits until all processes are there; jax ends the process if they are
    not within five minutes.

    Raises:
      ValueError: no launch is detected or specified, or there are fewer seeds than processes.
    """
    _check_enough(run.seeds, run.num_processes)  # before anyone waits
    index, count, coordinator = _meet(run.coordinator, run.num_processes, run.process_id)
    _check_enough(run.seeds, count)
    return Share(index, count, coordinator, run.seeds[index::count])


@functools.cache  # jax meets once in the life of a process
def _meet(coordinator: str, num_processes: int, process_id: int) -> tuple[int, int, str]:
    """Returns (index of this process, number of processes, address of the first), detected if not given."""
    if process_id == 0:
        _check_free(coordinator)
    if hasattr(jax.config, PREEMPTION_SERVICE):
        jax.config.update(PREEMPTION_SERVICE, False)
    try:
        with _default_signals():
            if coordinator:
                jax.distributed.initialize(coordinator, num_processes, process_id)
            else:
                jax.distributed.initialize()
    except ValueError as error:
        raise ValueError(
            "distributed must come with coordinator, num_processes and process_id if no launch of SLURM, Open MPI "
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
def _default_signals() -> Iterator[None]:
    """Lets SIGINT and SIGTERM end the process inside the block, where C++ waits and Python handlers would not run."""
    if threading.current_thread() is not threading.main_thread():  # handlers can only be set there
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
    """Refuses a port that is in use, which would end process 0 with a segmentation fault."""
    try:
        socket.create_server(("", int(coordinator.rpartition(":")[2]))).close()
    except OSError as error:
        raise ValueError(f"coordinator must be host:port with a free port, got {coordinator!r} ({error})") from error


def _check_enough(seeds: Sequence[int], num_processes: int) -> None:
    if len(seeds) < num_processes:
        raise ValueError(f"seeds must be {num_processes} or more, one for each process, got {seeds!r}")
