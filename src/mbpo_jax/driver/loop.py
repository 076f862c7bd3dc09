"""The driver: steps the environments, runs the phases when they are due, evaluates, logs, saves."""

import dataclasses
import functools
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from mbpo_jax import health
from mbpo_jax.driver import compile_cache, divergence, evaluation, jax_settings, memory, metric_warnings, workload
from mbpo_jax.driver import setup as setups
from mbpo_jax.driver.config import Diverged, RunConfig, check_source, diverged, resolve_algorithm_config
from mbpo_jax.driver.evaluation import SeedEvaluation
from mbpo_jax.driver.phase_runner import PhaseRunner
from mbpo_jax.driver.profiler import Profiler
from mbpo_jax.driver.progress import Progress
from mbpo_jax.driver.record import Record
from mbpo_jax.driver.save_restore import Position, Restored, RunSaver
from mbpo_jax.driver.setup import Arrays, Setup
from mbpo_jax.driver.stop import StopRequest
from mbpo_jax.driver.storage import run_json
from mbpo_jax.driver.storage.metrics import MetricsWriter
from mbpo_jax.driver.storage.resumable_directory import ResumableDirectory
from mbpo_jax.driver.time_left import TimeLeft
from mbpo_jax.health import Fault
from mbpo_jax.reports import curves, unevaluated


class Result(NamedTuple):
    """The result of a call of `train`."""

    run_dir: Path
    summary: dict[str, Any]  # what summary.json holds
    finished: bool  # False: stopped on request and saved; calling again continues


def train(run: RunConfig, algorithm_config: Any = None, stream: TextIO | None = None) -> Result:
    """Trains to `run.num_steps` in this process; continues the run in the directory if there is one.

    Args:
      algorithm_config: knobs of `run.algorithm`; its defaults if omitted.
      stream: where progress is written; standard error by default.
    Raises:
      ValueError: a knob, the environment or the directory does not fit; names it and what is allowed.
      EnvironmentFailure, Diverged, StorageFailure: see `driver.config`.
      KeyboardInterrupt: a stop was requested before training began.
    """
    config = resolve_algorithm_config(run, algorithm_config)
    check_source(run, config)
    cache_problem = compile_cache.use(run.compile_cache)
    with ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        stack.enter_context(jax_settings.neutral())
        record = Record(run.seeds)
        setup = setups.build(run, config, stack)
        task = setups.task_to_json(setup)
        files = ResumableDirectory(run, config, task, stack)
        stop.raise_if_stopped()
        saver, restored, prediction = _begin_or_resume(setup, record, files, stop)
        # In this order: `ResumableDirectory` compares lines that no checkpoint covers by the interval in their config.
        writer = stack.enter_context(MetricsWriter(files.run_dir, restored.metrics_offset, run.tensorboard))
        run_json.write_config(files.run_dir, run, config, task)
        profiler = Profiler(files.run_dir, run.profile)
        stack.callback(profiler.close)
        time_left = TimeLeft(workload.num_left(run, setup.programs.algorithm), workload.MINOR)
        progress = Progress(run.num_steps, restored.position.step, stream, run.quiet, seconds_left=time_left.seconds)
        stack.enter_context(progress)
        start = restored.position, restored.arrays
        trainer = _Trainer(setup, saver, record, writer, profiler, progress, time_left, stop, *start)
        del restored, start  # the trainer replaces its arrays
        notes = filter(None, (cache_problem, prediction.text(), *workload.notes(setup, config), *files.notes))
        try:
            finished = trainer.train(files.warnings, notes)
        except Diverged as error:
            error.advice = trainer.advice() or error.advice
            raise
        except ValueError as error:  # knobs were checked before: not a user's mistake, so it needs its traceback
            raise RuntimeError(f"a function failed at step {trainer.position.step}") from error
        memories = {"predicted_memory_bytes": prediction.total, "peak_memory_bytes": memory.peak()}
        # `step` does not show whether a run has finished: it may be stopped within its last step.
        summary = record.summary(run, trainer.position.step) | {"finished": finished} | memories
        if not setup.envs.evaluates:
            unevaluated.add_to(summary, files.run_dir)
        run_json.write_json(files.run_dir / run_json.SUMMARY, summary)
        curves.draw_curves(files.run_dir)
        return Result(files.run_dir, summary, finished)


def _begin_or_resume(
    setup: Setup, record: Record, files: ResumableDirectory, stop: StopRequest
) -> tuple[RunSaver, Restored, memory.Prediction]:
    """Makes the arrays of a run and begins its first episodes, or restores both from the newest checkpoint."""
    run, resident = setup.run, memory.resident()
    fresh = setups.first_arrays(setup)
    if setup.data_set is None:
        prediction = memory.predict(fresh.state, fresh.replay, run.num_steps, resident)
    else:
        prediction = memory.predict(fresh.state, setups.distinct_rows(setup, fresh.replay), 0, resident)
    stop.raise_if_stopped()
    setup.envs.begin()
    saver = RunSaver(setup, record, files, fresh.state)
    restored = saver.restore(fresh)
    stop.raise_if_stopped()
    step = restored.position.step
    if step > run.num_steps:
        raise ValueError(
            f"num_steps must be {step} or more, where run_dir {run.directory!r} is already, got {run.num_steps}"
        )
    return saver, restored, prediction


@dataclasses.dataclass
class _Trainer:
    """A run in memory: what it works with, and what changes with every step."""

    setup: Setup
    saver: RunSaver
    record: Record
    writer: MetricsWriter
    profiler: Profiler
    progress: Progress
    time_left: TimeLeft
    stop: StopRequest
    position: Position
    arrays: Arrays
    unsaved: bool = False  # whether anything happened since the newest checkpoint
    warm: frozenset[str] = frozenset()  # phases that this process has run, and so compiled
    warned_of: frozenset[str] = frozenset()  # see `metric_warnings`

    def train(self, warnings: Iterable[str], notes: Iterable[str]) -> bool:
        """Runs to the end, or until a stop is requested, and saves; returns whether the end was reached.

        Args:
          warnings, notes: what the user should know before the first step.
        """
        for warning in warnings:
            self.progress.warn(warning)
        self._warn_of_failures("an episode")  # the first ones, or those that were repeated
        for note in notes:
            self.progress.note(note)
        run = self.setup.run
        while self.position.step < run.num_steps or self.position.phase is not None:
            if self.position.phase is None:
                if self.stop.requested:
                    break
                all_warm = len(self.warm) == len(self.setup.programs.phases)
                self._note(self.profiler.before_step(all_warm))
                self._step()
            if not (self._run_phases() and self._evaluate_and_log()):
                break
        self._save()  # first: writing a trace may take long, or fail
        self._note(self.profiler.close())
        return self.position.step == run.num_steps and self.position.phase is None

    def advice(self) -> str | None:
        """Returns advice if real rewards or observations are so large that they may have made learning diverge."""
        return divergence.advice(
            [real.rows for real in setups.distinct_rows(self.setup, self.arrays.replay)], bool(self.setup.run.dataset)
        )

    def _step(self) -> None:
        """Steps the environments, if the run has any to learn from."""
        if self.setup.data_set is None:
            self._step_environments()
        self.position, self.unsaved = self.position.after_step(), True

    def _step_environments(self) -> None:
        """Steps every seed once and stores the rows."""
        setup, step = self.setup, self.position.step
        state, replay, carry = self.arrays
        with self._working(workload.EXPLORE if setup.acting.explores(step) else workload.ACT, "env_step"):
            results, carry = setup.acting.step(setup.roots, step, state, carry)
            rows, first = (setup.programs.axis.join(values) for values in zip(*((r.row, r.first) for r in results)))
            self.arrays = Arrays(state, setup.programs.add(replay, rows, first), carry)
        self._warn_of_failures("an episode")
        for i, result in enumerate(results):
            if result.ended:
                self.record.episode_ended(i, result.episode_return)

    def _run_phases(self) -> bool:
        """Runs the phases that are due, from where a stop left off; returns False if stopped before their end."""
        phases = self.setup.programs.phases
        while self.position.phase is not None and self.position.phase < len(phases):
            runner = phases[self.position.phase]
            if runner.is_due(self.position.step) and not self._run_phase(runner):
                return False
            self.position = self.position.after_phase()
        return True

    def _run_phase(self, runner: PhaseRunner) -> bool:
        name, step, done = runner.phase.name, self.position.step, list(self.position.phase_done)
        with self._working(name):
            state, values = runner.run(
                self.setup.roots,
                step,
                self.arrays.state,
                self.arrays.replay,
                done,
                self._should_stop,
                functools.partial(self._check_fault, name),
                lambda i, reported: self.progress.add_detail(workload.fit_progress(self.setup.run.seeds, i, reported)),
            )
        self.arrays = self.arrays._replace(state=state)
        self.position = self.position._replace(phase_done=tuple(done))
        self.record.add_metrics(name, values)
        if all(done):  # until then some metrics of a fit are 0
            self._warn_of_metrics(values)
        self.warm |= {name}
        return all(done)

    def _should_stop(self) -> bool:
        """Returns whether a stop was requested; called before every program, which otherwise changes the state."""
        self.unsaved = self.unsaved or not self.stop.requested
        return self.stop.requested

    def _check_fault(self, phase: str, i: int, fault: Fault) -> None:
        """Stops a run whose learning has gone wrong, before any of it is saved."""
        text = health.describe(fault)
        if text is not None:
            step = f"{'update' if self.setup.run.dataset else 'environment step'} {self.position.step}"
            raise diverged(f"{phase}: {text} of {step}", self.setup.run.seeds[i])

    def _evaluate_and_log(self) -> bool:
        """Evaluates, writes lines and saves, each when due; returns False if stopped during the evaluation."""
        run, step = self.setup.run, self.position.step
        last = step == run.num_steps
        evaluated = self._evaluate() if step % run.eval_every_steps == 0 or last else []
        if evaluated is None:
            return False
        if step % run.log_every_steps == 0 or last:
            self.record.write_lines(
                self.writer, step, setups.num_real_rows(self.setup, step), self.setup.envs.failure_counts()
            )
        for i, seed_evaluation in enumerate(evaluated):
            self._report_evaluation(i, seed_evaluation)
        self.position, self.unsaved = self.position.between_steps(), True
        if step % run.checkpoint_every_steps == 0:
            self._save()
        return True

    def _evaluate(self) -> list[SeedEvaluation] | None:
        """Evaluates the policy of every seed; returns None if a stop was requested: it is all repeated later."""
        with self._working(workload.EVALUATE):
            seed_evaluation = evaluation.evaluate_seeds(self.setup, self.arrays.state, lambda: self.stop.requested)
        self._warn_of_failures("an evaluation episode")
        return seed_evaluation

    def _report_evaluation(self, i: int, seed_evaluation: SeedEvaluation) -> None:
        """Writes a line of metrics of seed number `i`, and the policy that was evaluated."""
        run, step, seed = self.setup.run, self.position.step, self.setup.run.seeds[i]
        if seed_evaluation.values:
            self.writer.write(step, seed, seed_evaluation.values)
        is_best = False
        if seed_evaluation.outcome is not None:
            complete = len(seed_evaluation.outcome.returns) == run.eval_episodes
            is_best = self.record.add_evaluation(i, step, seed_evaluation.values["eval/return_mean"], complete)
        evaluation.save_policy(run, self.setup.task.spaces, seed, seed_evaluation.policy, is_best)
        self.progress.note(f"step {step:,}  seed {seed}  {seed_evaluation.in_words()}")

    def _save(self) -> None:
        """Writes a checkpoint, unless nothing has happened since the newest one."""
        if not self.unsaved:
            return
        with self._working(workload.CHECKPOINT):
            self.saver.save(self.position, self.arrays, self.writer)
        self.unsaved = False

    @contextmanager
    def _working(self, kind: str, timed_as: str | None = None) -> Iterator[None]:
        """Displays the kind of work done inside; adds its time to the record and to the estimate of the time left."""
        began = time.monotonic()
        self.progress.update(self.position.step, kind)
        with self.record.timed(timed_as or kind):
            yield
        self.time_left.add(kind, time.monotonic() - began)

    def _warn_of_failures(self, what: str) -> None:
        for failure in self.setup.envs.take_failures():
            self.progress.warn(f"step {self.position.step:,}: {what} is given up: {failure}")
        for notice in self.setup.envs.take_notices():
            self.progress.warn(f"step {self.position.step:,}: {notice}")

    def _warn_of_metrics(self, values: Iterable[dict[str, Any]]) -> None:
        """Reports, once each, the problems that metrics show."""
        for about, text in metric_warnings.find(values, self.setup.rule, self.setup.run.env).items():
            if about not in self.warned_of:
                self.warned_of |= {about}
                # A wrong rule spoils every imagined row, so even quiet runs report it. A poor model may get better.
                report = self.progress.warn if about == "rule" else self.progress.note
                report(f"step {self.position.step:,}: {text}")

    def _note(self, text: str | None) -> None:
        if text is not None:
            self.progress.note(text)
