"""Saves a run and restores it bit for bit: its position, and every array that its next step reads."""

from typing import Any, NamedTuple, Self

from mbpo_jax.driver import memory
from mbpo_jax.driver.config import StorageFailure, diverged
from mbpo_jax.driver.record import Record
from mbpo_jax.driver.setup import Arrays, Setup
from mbpo_jax.driver.storage import checkpoint, packing
from mbpo_jax.driver.storage.metrics import MetricsWriter
from mbpo_jax.driver.storage.resumable_directory import ResumableDirectory
from mbpo_jax.types import PyTree


class Position(NamedTuple):
    """How far a run has come."""

    step: int  # environment steps taken
    phase: int | None
    """Index of the phase that is due or running; the number of phases: evaluation and lines; None: between steps."""
    phase_done: tuple[bool, ...]  # which seeds have finished it

    @classmethod
    def start(cls, num_seeds: int) -> Self:
        """Returns where a run begins."""
        return cls(0, None, (False,) * num_seeds)

    def after_step(self) -> Self:
        """Returns the position once the environments have taken a step: before the first phase."""
        return self._replace(step=self.step + 1, phase=0, phase_done=self._none_done())

    def after_phase(self) -> Self:
        """Returns the position once a phase is finished, or was not due."""
        assert self.phase is not None
        return self._replace(phase=self.phase + 1, phase_done=self._none_done())

    def between_steps(self) -> Self:
        """Returns the position once all that was due after a step is done."""
        return self._replace(phase=None)

    def _none_done(self) -> tuple[bool, ...]:
        return (False,) * len(self.phase_done)


class Restored(NamedTuple):
    """Where a run resumes, or begins."""

    position: Position
    arrays: Arrays
    metrics_offset: int | None  # bytes of metrics.jsonl that the run had written by then; None: a new run


class RunSaver:
    """Writes the checkpoints of a run and reads them back."""

    def __init__(self, setup: Setup, record: Record, files: ResumableDirectory, first_state: PyTree) -> None:
        """Stores what a checkpoint is made of.

        Args:
          first_state: state of a new run. What is not finite in it, such as a best loss so far, may be saved as such.
        """
        self._run, self._axis, self._envs = setup.run, setup.programs.axis, setup.envs
        self._data_set = setup.data_set
        self._record, self._files = record, files
        self._finite_at_first = packing.finite(self._axis.to_host(packing.without_buffers(first_state))[0])

    def restore(self, fresh: Arrays) -> Restored:
        """Reads the newest checkpoint, if there is one, and restores record and environments from it.

        Args:
          fresh: the arrays of a new run.
        Raises:
          StorageFailure: no checkpoint can be used.
        """
        saved = self._files.newest()
        if saved is None:
            return Restored(Position.start(len(self._run.seeds)), fresh, None)
        try:
            return self._restore(saved, fresh)
        except ValueError as error:
            raise StorageFailure(
                f"the newest checkpoint in {self._files.run_dir} does not fit this version of the software: {error}"
            ) from error

    def save(self, position: Position, arrays: Arrays, writer: MetricsWriter) -> None:
        """Writes a checkpoint.

        Raises:
          Diverged: a number is not finite; nothing is written.
          StorageFailure: it cannot be written.
        """
        self._record.check_finite(position.step)  # lines of metrics may be further apart than checkpoints
        writer.sync()
        contents = position._asdict() | {
            "metrics_offset": writer.offset,
            "metrics_crc32": writer.crc32,
            "environments": self._envs.to_json(),
            "dataset_sha256": None if self._data_set is None else self._data_set.sha256,
            "record": self._record.to_json(),
        }
        packed = self._packed(position.step, arrays)
        self._files.checkpoints.save(position.step, packed, contents, self._record.score(position.step))
        memory.give_back()

    def _packed(self, step: int, arrays: Arrays) -> dict[str, Any]:
        """Returns what a checkpoint holds for each seed, on the host."""
        packed = {}
        parts = {name: self._axis.to_host(getattr(arrays, name)) for name in self._saved_fields()}
        for i, seed in enumerate(self._run.seeds):
            mine = {name: packing.pack(values[i]) for name, values in parts.items()}
            for name, is_finite in packing.finite(mine).items():
                if not is_finite and self._finite_at_first.get(name.removeprefix("state/"), True):
                    raise diverged(f"{name} is not finite at step {step}", seed)
            packed[str(seed)] = mine | self._envs.arrays(i)
        return packed

    def _saved_fields(self) -> list[str]:
        """Returns which arrays a checkpoint holds: a data set is left out, as it lies elsewhere and does not change."""
        return [name for name in Arrays._fields if name != "replay" or self._data_set is None]

    def _restore(self, saved: checkpoint.Saved, fresh: Arrays) -> Restored:
        record, seeds = saved.record, [saved.arrays[str(seed)] for seed in self._run.seeds]

        def unpack(name: str, template: PyTree) -> PyTree:
            values = [packing.unpack(v, mine.get(name, {})) for v, mine in zip(self._axis.split(template), seeds)]
            return self._axis.place(self._axis.join(values))

        if self._data_set is not None and record.get("dataset_sha256") != self._data_set.sha256:
            raise StorageFailure(
                f"dataset {self._run.dataset!r} is not what {self._files.run_dir} was trained on: its SHA-256 was "
                f"{record.get('dataset_sha256')}, is {self._data_set.sha256}"
            )
        arrays = fresh._replace(**{name: unpack(name, getattr(fresh, name)) for name in self._saved_fields()})
        self._record.restore(record["record"])
        for i, (seed, mine) in enumerate(zip(self._run.seeds, seeds)):
            if not self._envs.restore(i, mine, record["environments"]):
                self._files.warnings.append(
                    f"seed {seed}: env {self._run.env} did not repeat its running episode; a new one begins, and the "
                    "run is not what it would have been without the interruption"
                )
        position = Position(record["step"], record["phase"], tuple(record["phase_done"]))
        return Restored(position, arrays, record["metrics_offset"])
