"""The driver: steps the environments, runs the phases when they are due, evaluates, logs, saves."""

import functools
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from mbpo_jax import backends
from mbpo_jax import replay as replay_lib
from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.driver import compile_cache, memory
from mbpo_jax.driver.config import RunConfig, StorageFailure, diverged, resolve_algorithm_config
from mbpo_jax.driver.interaction import policy
from mbpo_jax.driver.interaction.acting import Acting
from mbpo_jax.driver.interaction.environment import check_termination_fn, resolve_termination_fn
from mbpo_jax.driver.interaction.evaluate import Evaluation
from mbpo_jax.driver.interaction.seed_environments import SeedEnvironments
from mbpo_jax.driver.phase_runner import PhaseRunner
from mbpo_jax.driver.profiler import Profiler
from mbpo_jax.driver.progress import Progress
from mbpo_jax.driver.record import Record
from mbpo_jax.driver.seeds import SeedAxis
from mbpo_jax.driver.stop import StopRequest
from mbpo_jax.driver.storage import checkpoint, packing, run_directory
from mbpo_jax.driver.storage.metrics import MetricsWriter
from mbpo_jax.driver.storage.run_files import RunFiles
from mbpo_jax.health import Health, describe
from mbpo_jax.reports import curves
from mbpo_jax.types import Algorithm, Key, PyTree


class Result(NamedTuple):
    """What a call of `train` leaves behind."""

    run_dir: Path
    summary: dict[str, Any]  # what summary.json holds
    finished: bool  # False: stopped on request and saved; the same call continues


def train(run: RunConfig, algorithm_config: Any = None, stream: TextIO | None = None) -> Result:
    """Trains, or continues a run of the same directory, to `run.num_steps`, in this process.

    Args:
      algorithm_config: knobs of `run.algorithm`, its defaults if left out.
      stream: where progress goes; standard error by default.
    Raises:
      ValueError: a knob, the environment or the directory does not fit; names it and what is allowed.
      EnvironmentFailure, Diverged, StorageFailure: see `driver.config`.
      KeyboardInterrupt: a stop was requested before anything began.
    """
    config = resolve_algorithm_config(run, algorithm_config)
    cache_problem = compile_cache.use(run.compile_cache)
    with ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        trainer = _Trainer(run, config, stack, stop)
        progress = stack.enter_context(Progress(run.num_steps, trainer.step, stream=stream, quiet=run.quiet))
        if cache_problem is not None:
            progress.note(cache_problem)
        try:
            finished = trainer.train(progress)
        except ValueError as error:  # knobs were checked before: this is no user's mistake and needs its traceback
            raise RuntimeError(f"a function failed at step {trainer.step}") from error
        return Result(trainer.run_dir, trainer.summarise(), finished)


class _Trainer:
    """A run in memory. `step`, `phase` and `phase_done` say exactly how far it is."""

    def __init__(self, run: RunConfig, config: Any, stack: ExitStack, stop: StopRequest) -> None:
        self.run, self.run_dir = run, Path(run.directory)
        self._config, self._stop = config, stop
        self._record = Record(run.seeds)
        self._envs = SeedEnvironments(run, stack)
        self._algorithm = self._build_algorithm()
        memory.check_room(lambda key: (self._algorithm.init(key), self._new_buffer(key)), len(run.seeds))
        self._files = RunFiles(run, config, stack)
        self._compile()
        resident = memory.resident()
        self._roots = self._axis.keys(run.seeds)
        stop.raise_if_stopped()
        self._state = self._axis.lift(self._algorithm.init)(self._roots)
        self._replay = self._axis.place(
            self._axis.lift(self._new_buffer)(self._roots)
        )  # made from no key, so it would lie anywhere
        self._memory = memory.predict(self._state, self._replay, run.num_steps, resident)
        stop.raise_if_stopped()
        self._begin()
        offset = self._resume()
        stop.raise_if_stopped()
        if self.step > run.num_steps:
            raise ValueError(
                f"num_steps must be {self.step} or more, where run_dir {run.directory!r} is already, got "
                f"{run.num_steps}"
            )
        run_directory.write_config(self.run_dir, run, config)
        self._writer = stack.enter_context(MetricsWriter(self.run_dir, offset, run.tensorboard))
        self._profiler = Profiler(self.run_dir, run.profile)
        stack.callback(self._profiler.close)

    def train(self, progress: Progress) -> bool:
        """Runs to the end, or until a stop is requested, and saves; returns whether the end was reached."""
        self._progress = progress
        for warning in self._files.warnings:
            progress.warn(warning)
        self._warn_of_failures()  # in the first episodes, or those that were repeated
        for note in (self._memory.text(), *self._files.notes):
            progress.note(note)
        while self.step < self.run.num_steps or self.phase is not None:
            if self.phase is None:
                if self._stop.requested:
                    break
                self._tell(self._profiler.before_step(not self._cold))
                self._step_environments()
            if not self._run_phases() or not self._after_step():
                break
        self._tell(self._profiler.close())
        self._save()
        return self.step == self.run.num_steps and self.phase is None

    def _tell(self, note: str | None) -> None:
        if note is not None:
            self._progress.note(note)

    def summarise(self) -> dict[str, Any]:
        """Writes summary.json and curves.png."""
        summary = self._record.summary(self.run, self.step)
        summary |= {"predicted_memory_bytes": self._memory.total, "peak_memory_bytes": memory.peak()}
        run_directory.write_json(self.run_dir / run_directory.SUMMARY, summary)
        curves.draw_curves(self.run_dir)
        return summary

    # -- setting up ------------------------------------------------------------------------------------------

    def _build_algorithm(self) -> Algorithm:
        name = getattr(self._config, "termination_fn", None)
        spec = self._envs.spec()
        if name is not None:
            termination_fn = resolve_termination_fn(name, self.run.env)
            check_termination_fn(termination_fn, name, spec)
            spec = self._envs.spec(termination_fn)
        return REGISTRY[self.run.algorithm].build(self._config, spec)

    def _new_buffer(self, key: Key) -> replay_lib.Replay:
        """An empty buffer of real rows; reads no key."""
        return replay_lib.init(self._envs.spec(), self._algorithm.replay_capacity)

    def _compile(self) -> None:
        algorithm, run = self._algorithm, self.run
        options = backends.deterministic_options() if run.deterministic else {}
        self._axis = SeedAxis(len(run.seeds), run.seed_lifting, options)
        self._acting = Acting(algorithm, self._axis, self._envs, run.seeds)
        self._add = self._axis.lift(replay_lib.add, donate=(0,))
        phase_options = backends.compiler_options(run.compiler_options, [phase.name for phase in algorithm.phases])
        self._phases = [
            PhaseRunner(self._axis, i, phase, phase_options[phase.name]) for i, phase in enumerate(algorithm.phases)
        ]

    def _begin(self) -> None:
        self.step = 0
        # Index of the phase that is under way at `step`; their number: evaluation and lines are; None between steps.
        self.phase: int | None = None
        self.phase_done = [False] * len(self.run.seeds)
        self._unsaved = False  # whether something happened since the newest checkpoint
        self._cold = {phase.name for phase in self._algorithm.phases}  # not yet run, or compiled, by this process
        self._finite_at_first = packing.finite(self._axis.to_host(packing.without_buffers(self._state))[0])
        self._envs.begin()
        self._acting.begin(self._state)

    # -- one step --------------------------------------------------------------------------------------------

    def _step_environments(self) -> None:
        self._progress.update(self.step, "explore" if self._acting.explores(self.step) else "act")
        with self._record.timed("env_step"):
            taken = self._acting.step(self._roots, self.step, self._state)
            self._replay = self._add(self._replay, self._axis.join([step.row for step in taken]))
        self._warn_of_failures()
        for i, step in enumerate(taken):
            if step.ended:
                self._record.episode_ended(i, step.episode_return)
        self.step += 1
        self.phase, self.phase_done, self._unsaved = 0, [False] * len(taken), True

    def _run_phases(self) -> bool:
        """Runs what is due, going on where a stop left off; returns whether all of it was done."""
        assert self.phase is not None
        while self.phase < len(self._phases):
            runner = self._phases[self.phase]
            phase = runner.phase
            if self.step >= phase.first and (self.step - phase.first) % phase.every == 0:
                self._progress.update(self.step, phase.name)
                with self._record.timed(phase.name):
                    self._state, told = runner.run(
                        self._roots,
                        self.step,
                        self._state,
                        self._replay,
                        self.phase_done,
                        self._asked_to_stop,
                        functools.partial(self._heed, phase.name),
                    )
                self._record.remember(phase.name, told)
                self._cold.discard(phase.name)
                if not all(self.phase_done):
                    return False
            self.phase, self.phase_done = self.phase + 1, [False] * len(self.run.seeds)
        return True

    def _asked_to_stop(self) -> bool:
        """Asked before every program; unless it says yes, the program changes the state."""
        self._unsaved = self._unsaved or not self._stop.requested
        return self._stop.requested

    def _heed(self, phase: str, i: int, health: Health) -> None:
        """Stops a run whose learning has gone wrong, before anything of it is saved."""
        trouble = describe(health)
        if trouble is not None:
            raise diverged(f"{phase}: {trouble} of environment step {self.step}", self.run.seeds[i])

    def _after_step(self) -> bool:
        """Evaluates, writes lines and saves where that is due; returns whether all of it was done."""
        run, last = self.run, self.step == self.run.num_steps
        outcomes = None
        if self.step % run.eval_every_steps == 0 or last:
            outcomes = self._evaluate()
            if outcomes is None:
                return False
        if self.step % run.log_every_steps == 0 or last:
            rows = min(self.step, self._algorithm.replay_capacity)
            self._record.write_lines(self._writer, self.step, rows, self._envs.faults())
        if outcomes is not None:
            self._tell_evaluation(outcomes)
        self.phase, self._unsaved = None, True
        if self.step % run.checkpoint_every_steps == 0:
            self._save()
        return True

    # -- what a run tells and keeps --------------------------------------------------------------------------

    def _evaluate(self) -> list[Evaluation] | None:
        """None if a stop was requested; the whole of it is done again then, with the same outcome."""
        self._progress.update(self.step, "evaluate")
        with self._record.timed("evaluate"):
            self._policies = self._acting.policies(self._state)
            outcomes = self._envs.evaluate(self._policies, self.run.eval_episodes, lambda: self._stop.requested)
        self._warn_of_failures("an evaluation episode")
        return outcomes

    def _warn_of_failures(self, of_what: str = "an episode") -> None:
        for failure in self._envs.forgiven():
            self._progress.warn(f"step {self.step:,}: {of_what} is given up: {failure}")

    def _tell_evaluation(self, outcomes: list[Evaluation]) -> None:
        """Lines of metrics, and the policies that were evaluated."""
        env = self._envs.first
        for i, (seed, mine, outcome) in enumerate(zip(self.run.seeds, self._policies, outcomes, strict=True)):
            values = outcome.metrics()
            self._writer.write(self.step, seed, values)
            complete = len(outcome.returns) == self.run.eval_episodes
            is_best = self._record.add_evaluation(i, self.step, values["eval/return_mean"], complete)
            for best in (False, True) if is_best else (False,):
                path = policy.policy_path(self.run_dir, seed, best)
                policy.save_policy(path, mine.actor, env.obs_dim, env.action_low, env.action_high)
            self._progress.note(
                f"step {self.step:,}  seed {seed}  evaluation return {values['eval/return_mean']:.1f} "
                f"+- {values['eval/return_std']:.1f} over {len(outcome.returns)} episodes"
            )

    def _save(self) -> None:
        """Writes a checkpoint, unless the newest one is of this very moment."""
        if not self._unsaved:
            return
        self._progress.update(self.step, "checkpoint")
        self._record.check_finite(self.step)  # lines of metrics may be further apart than checkpoints
        with self._record.timed("checkpoint"):
            self._writer.sync()
            self._files.checkpoints.save(self.step, self._arrays(), self._position(), self._record.score(self.step))
            memory.give_back()
        self._unsaved = False

    def _arrays(self) -> dict[str, Any]:
        """What a checkpoint holds of each seed, on the host."""
        arrays = {}
        parts = (self._axis.to_host(part) for part in (self._state, self._replay, self._acting.carry))
        for i, (seed, state, replay, carry) in enumerate(zip(self.run.seeds, *parts)):
            mine = {"state": packing.pack(state), "replay": packing.pack(replay), "carry": packing.pack(carry)}
            self._check_finite(seed, mine)
            arrays[str(seed)] = mine | self._envs.arrays(i)
        return arrays

    def _check_finite(self, seed: int, arrays: dict[str, Any]) -> None:
        """Nothing that is not finite is saved, but for what begins so: an infinite best loss so far."""
        for name, is_finite in packing.finite(arrays).items():
            if not is_finite and self._finite_at_first.get(name.removeprefix("state/"), True):
                raise diverged(f"{name} is not finite at step {self.step}", seed)

    def _position(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "phase": self.phase,
            "phase_done": self.phase_done,
            "metrics_offset": self._writer.offset,
            "metrics_crc32": self._writer.crc32,
            "environments": self._envs.record(),
            "record": self._record.to_json(),
        }

    def _resume(self) -> int | None:
        """Goes on from the newest checkpoint, if there is any; returns the length of metrics.jsonl there."""
        saved = self._files.newest()
        try:
            return None if saved is None else self._restore(saved)
        except ValueError as error:
            raise StorageFailure(
                f"the newest checkpoint in {self.run_dir} does not fit this version of the software: {error}"
            ) from error

    def _restore(self, saved: checkpoint.Saved) -> int:
        """Puts everything back to where a checkpoint was taken; returns the length of metrics.jsonl there."""
        position, seeds = saved.record, [saved.arrays[str(seed)] for seed in self.run.seeds]

        def restore(fresh: PyTree, name: str) -> PyTree:
            values = self._axis.split(fresh)
            restored = [packing.unpack(v, arrays.get(name, {})) for v, arrays in zip(values, seeds)]
            return self._axis.place(self._axis.join(restored))

        self._state, self._replay = restore(self._state, "state"), restore(self._replay, "replay")
        self._acting.carry = restore(self._acting.carry, "carry")
        self.step, self.phase, self.phase_done = position["step"], position["phase"], position["phase_done"]
        self._record.restore(position["record"])
        for i, (seed, arrays) in enumerate(zip(self.run.seeds, seeds)):
            if not self._envs.restore(i, arrays, position["environments"]):
                self._files.warnings.append(
                    f"seed {seed}: env {self.run.env} did not repeat its running episode; a new one begins, and the "
                    "run is not what it would have been without the interruption"
                )
                self._acting.begin_episodes(self._state, [i])
        offset: int = position["metrics_offset"]
        return offset
