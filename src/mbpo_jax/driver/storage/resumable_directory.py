"""The run directory of a run that trains: locked by this process, compared with the requested run, and resumed."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mbpo_jax import options
from mbpo_jax.driver.config import RunConfig, StorageFailure
from mbpo_jax.driver.storage import checkpoint, lock, metrics, run_json

FOLLOW_FROM_THE_HASH = {"dataset_rows", "dataset_return_mean"}


class ResumableDirectory:
    """What a run finds in its directory. `notes` and `warnings` are for the user; a quiet run prints warnings only."""

    def __init__(self, run: RunConfig, config: Any, task: dict[str, Any], stack: ExitStack) -> None:
        """Creates the directory if there is none, and locks it until `stack` closes.

        Args:
          task: the environment's spaces, as `config.json` keeps them.
        Raises:
          ValueError: the directory holds another run; lists each difference, with old and new value.
          StorageFailure: another process uses the directory, or it cannot be used.
        """
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.run_dir = Path(run.directory)
        self._config_problem: StorageFailure | None = None
        self._saved_every = 0
        _check_letters(self.run_dir)
        try:
            self.run_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageFailure(
                f"run_dir {run.directory!r} must be a directory that can be created: {error}"
            ) from error
        unlocked = stack.enter_context(lock.locked(self.run_dir))
        if unlocked is not None:
            self.warnings.append(unlocked)
        self._compare(run, config, task)
        identity, defaults = run_json.identity(run, config), run_json.default_identity(run, config)
        self.checkpoints = checkpoint.Checkpoints(self.run_dir, run.checkpoints_kept, identity, defaults)

    def newest(self) -> checkpoint.Saved | None:
        """Returns the newest sound checkpoint that fits the rest of the directory; None for a new run.

        Raises:
          StorageFailure: there are checkpoints, but none can be used; or metrics.jsonl shows that there were some.
        """
        saved = self.checkpoints.restore_latest(self._fits)
        self.warnings += self.checkpoints.passed_over
        if saved is None:
            self._check_begins_here()
        elif self._config_problem is not None:
            self.warnings.append(f"{self._config_problem}; it is rewritten: the checkpoint knows the run")
        return saved

    def _compare(self, run: RunConfig, config: Any, task: dict[str, Any]) -> None:
        """Reads what config.json says about the run that is there, and refuses a different one."""
        if not (self.run_dir / run_json.CONFIG).exists():
            return
        try:
            saved = run_json.read_config(self.run_dir)
        except StorageFailure as problem:  # checkpoints also know which run they belong to
            self._config_problem = problem
            return
        self.notes += run_json.check_same(saved, run, config)
        kept = saved.task or {}  # older versions kept less of it, or nothing
        compared = (kept.keys() & task.keys()) - FOLLOW_FROM_THE_HASH
        before, now = ({name: one[name] for name in compared} for one in (kept, task))
        changed = options.differences(before, now)
        if changed:
            what = f"dataset {run.dataset!r}" if run.dataset else f"env {run.env!r}"
            raise ValueError(
                f"{what} is not what run_dir {run.directory!r} was trained in: {'; '.join(changed.values())}"
            )
        self._saved_every = saved.run.checkpoint_every_steps

    def _fits(self, record: dict[str, Any]) -> None:
        metrics.check_prefix(self.run_dir, record["metrics_offset"], record["metrics_crc32"])

    def _check_begins_here(self) -> None:
        """Refuses to begin where an earlier run has lost its checkpoints: it would be overwritten."""
        if self._config_problem is not None:
            raise self._config_problem
        last_step = metrics.last_step(self.run_dir)
        if last_step > self._saved_every:
            raise StorageFailure(
                f"run_dir {self.run_dir} has metrics up to step {last_step} but no checkpoint: restore what is "
                "missing, or give another --run_dir"
            )


def _check_letters(run_dir: Path) -> None:
    """Refuses a path that cannot be passed to C++, before anything is trained that could not be saved there."""
    try:
        str(run_dir.absolute()).encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"run_dir must be a path in UTF-8, got {str(run_dir.absolute())!a}; set PYTHONUTF8=1 if it is one, or "
            "rename the folder"
        ) from error
