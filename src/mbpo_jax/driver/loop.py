"""The driver: steps the environments, runs the phases when they are due, evaluates, logs, saves."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import jax
import numpy as np

from mbpo_jax import backends
from mbpo_jax import replay as replay_lib
from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.driver import checkpoint, compile_cache, evaluate, memory, policy, run_directory
from mbpo_jax.driver.config import RunConfig, default_algorithm_config
from mbpo_jax.driver.environment import EVALUATION, TRAINING, Environment, Step, resolve_termination_fn
from mbpo_jax.driver.metrics import MetricsWriter
from mbpo_jax.driver.profiler import Profiler
from mbpo_jax.driver.progress import Progress
from mbpo_jax.driver.record import Record
from mbpo_jax.driver.seeds import SeedAxis, num_cores
from mbpo_jax.driver.stop import StopRequest
from mbpo_jax.reports import curves
from mbpo_jax.types import Algorithm, Array, Key, PyTree, Spec, Transition

ACT, EXPLORE = 0, 1  # streams of keys; phase number i has 1000 + i


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
    """
    config = default_algorithm_config(run) if algorithm_config is None else algorithm_config
    expected = REGISTRY[run.algorithm].config_class
    if not isinstance(config, expected):
        raise ValueError(f"algorithm_config must be a {expected.__name__} for {run.algorithm}, got {config!r}")
    cache_problem = compile_cache.use(run.compile_cache)
    with ExitStack() as stack:
        trainer = _Trainer(run, config, stack)
        progress = stack.enter_context(Progress(run.num_steps, trainer.step, stream=stream, quiet=run.quiet))
        if cache_problem is not None:
            progress.note(cache_problem)
        stop = stack.enter_context(StopRequest())
        try:
            finished = trainer.train(progress, stop)
        except ValueError as error:  # knobs were checked before: this is no user's mistake and needs its traceback
            raise RuntimeError(f"a function failed at step {trainer.step}") from error
        return Result(trainer.run_dir, trainer.summarise(), finished)


class _Trainer:
    """A run in memory. `step`, `phase` and `phase_done` say exactly how far it is."""

    def __init__(self, run: RunConfig, config: Any, stack: ExitStack) -> None:
        self.run, self.run_dir = run, Path(run.directory)
        self._record = Record(run.seeds)
        self._open_environments(stack)
        self._algorithm = self._build_algorithm(config)
        self._prepare_directory(config)
        self._checkpoints = checkpoint.Checkpoints(self.run_dir, run.checkpoints_kept)
        stack.callback(self._checkpoints.close)
        self._compile()
        resident = memory.resident()
        self._roots = self._axis.keys(run.seeds)
        spec = Spec(self._envs[0].obs_dim, self._envs[0].action_dim)
        self._state = self._axis.lift(self._algorithm.init)(self._roots)
        empty = self._axis.lift(lambda key: replay_lib.init(spec, self._algorithm.replay_capacity))
        self._replay = self._axis.place(empty(self._roots))  # made from no key, so it would lie anywhere
        self._memory = memory.predict(self._state, self._replay, run.num_steps, resident)
        self._begin()
        saved = self._checkpoints.restore_latest()
        offset = None if saved is None else self._restore(saved)
        if self.step > run.num_steps:
            raise ValueError(
                f"num_steps must be {self.step} or more, where run_dir {run.directory!r} is already, got "
                f"{run.num_steps}"
            )
        run_directory.write_config(self.run_dir, run, config)
        self._writer = stack.enter_context(MetricsWriter(self.run_dir, offset, run.tensorboard))
        self._profiler = Profiler(self.run_dir, run.profile)
        stack.callback(self._profiler.close)

    def train(self, progress: Progress, stop: StopRequest) -> bool:
        """Runs to the end, or until a stop is requested, and saves; returns whether the end was reached."""
        self._progress, self._stop = progress, stop
        for note in (self._memory.text(), *self._notes):
            progress.note(note)
        while self.step < self.run.num_steps or self.phase is not None:
            if self.phase is None:
                if stop.requested:
                    break
                self._tell(self._profiler.before_step(not self._cold))
                self._step_environments()
            if not self._run_phases():
                break
            self._after_step()
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

    def _open_environments(self, stack: ExitStack) -> None:
        run = self.run
        self._envs = [Environment(run.env, seed, TRAINING, run.max_episode_steps) for seed in run.seeds]
        self._eval_envs = [Environment(run.env, seed, EVALUATION, run.max_episode_steps) for seed in run.seeds]
        for env in (*self._envs, *self._eval_envs):
            stack.callback(env.close)
        # MuJoCo lets go of the interpreter while it steps.
        workers = min(len(run.seeds), num_cores())
        self._map = map if workers == 1 else stack.enter_context(ThreadPoolExecutor(workers)).map

    def _build_algorithm(self, config: Any) -> Algorithm:
        name = getattr(config, "termination_fn", None)
        termination_fn = None if name is None else resolve_termination_fn(name, self.run.env)
        spec = Spec(self._envs[0].obs_dim, self._envs[0].action_dim, termination_fn)
        return REGISTRY[self.run.algorithm].build(config, spec)

    def _prepare_directory(self, config: Any) -> None:
        self.run_dir.mkdir(parents=True, exist_ok=True)
        if (self.run_dir / run_directory.CONFIG).exists():
            run_directory.check_same(run_directory.read_config(self.run_dir), self.run, config)

    def _compile(self) -> None:
        algorithm, self._axis = self._algorithm, SeedAxis(len(self.run.seeds), self.run.seed_lifting)

        def act(root: Key, step: Array, actor: PyTree, carry: PyTree, obs: Array) -> tuple[Array, PyTree]:
            key = jax.random.fold_in(jax.random.fold_in(root, ACT), step)
            action, carry = algorithm.act(key, actor, carry, obs[None], True)
            return action[0], carry

        def explore(root: Key, step: Array) -> Array:
            key = jax.random.fold_in(jax.random.fold_in(root, EXPLORE), step)
            return jax.random.uniform(key, (self._envs[0].action_dim,), minval=-1.0, maxval=1.0)

        self._act = self._axis.lift(act, shared=(1,), outputs=2)
        self._explore = self._axis.lift(explore, shared=(1,))
        self._add = self._axis.lift(replay_lib.add, donate=(0,))
        self._actor = algorithm.actor if self._axis.batched else lambda states: tuple(map(algorithm.actor, states))
        options = backends.compiler_options(self.run.compiler_options, [phase.name for phase in algorithm.phases])
        self._phases = [
            self._axis.lift_phase(i, phase, options[phase.name]) for i, phase in enumerate(algorithm.phases)
        ]
        self._evaluation_act = policy.deterministic_act(algorithm)
        self._host = jax.local_devices(backend="cpu")[0]

    def _begin(self) -> None:
        num_seeds = len(self.run.seeds)
        self.step = 0
        self.phase: int | None = None  # index of the phase that is under way at `step`; None between steps
        self.phase_done = [False] * num_seeds
        self._cold = {phase.name for phase in self._algorithm.phases}  # not yet run, or compiled, by this process
        self._notes: list[str] = []  # to show when the display is there
        self._obs = [env.reset() for env in self._envs]
        self._carry = self._begin_carry(range(num_seeds), None)

    # -- one step --------------------------------------------------------------------------------------------

    def _step_environments(self) -> None:
        self._progress.update(self.step, "explore" if self._exploring() else "act")
        with self._record.timed("env_step"):
            actions = self._choose_actions()
            steps, next_starts, returns = zip(*self._map(_step, self._envs, actions))
            rows = [_row(*given) for given in zip(self._obs, actions, steps)]
            ended = [i for i, step in enumerate(steps) if step.terminal or step.truncated]
            self._obs = list(next_starts)
            self._replay = self._add(self._replay, self._axis.join(rows))
            if ended:
                for i in ended:
                    self._record.episode_ended(i, returns[i])
                self._carry = self._begin_carry(ended, self._carry)
        self.step += 1
        self.phase, self.phase_done = 0, [False] * len(self._envs)

    def _exploring(self) -> bool:
        return self.step < self._algorithm.exploration_steps

    def _choose_actions(self) -> list[np.ndarray]:
        if self._exploring():
            actions = self._explore(self._roots, self.step)
        else:
            obs = self._axis.join(self._obs)
            actions, self._carry = self._act(self._roots, self.step, self._actor(self._state), self._carry, obs)
        return [np.asarray(action) for action in self._axis.split(actions)]

    def _begin_carry(self, which: Any, carry: PyTree) -> PyTree:
        """The carry with the seeds in `which` at the beginning of an episode."""
        actors = self._axis.split(self._actor(self._state))
        carries: list[PyTree] = [None] * len(actors) if carry is None else self._axis.split(carry)
        for i in which:
            carries[i] = self._algorithm.begin_episode(actors[i])
        return self._axis.join(carries)

    def _run_phases(self) -> bool:
        """Runs what is due, going on where a stop left off; returns whether all of it was done."""
        while self.phase is not None and self.phase < len(self._phases):
            runner = self._phases[self.phase]
            phase = runner.phase
            if self.step >= phase.first and (self.step - phase.first) % phase.every == 0:
                self._progress.update(self.step, phase.name)
                with self._record.timed(phase.name):
                    self._state, metrics = runner.run(
                        self._roots,
                        self.step,
                        self._state,
                        self._replay,
                        self.phase_done,
                        lambda: self._stop.requested,
                    )
                    jax.block_until_ready(metrics)
                self._record.remember(phase.name, metrics)
                self._cold.discard(phase.name)
                if not all(self.phase_done):
                    return False
            self.phase, self.phase_done = self.phase + 1, [False] * len(self._envs)
        self.phase = None
        return True

    def _after_step(self) -> None:
        run, last = self.run, self.step == self.run.num_steps
        if self.step % run.log_every_steps == 0 or last:
            rows = min(self.step, self._algorithm.replay_capacity)
            self._record.write_lines(self._writer, self.step, rows)
        if self.step % run.eval_every_steps == 0 or last:
            self._evaluate()
        if self.step % run.checkpoint_every_steps == 0:
            self._save()

    # -- what a run tells and keeps --------------------------------------------------------------------------

    def _evaluate(self) -> None:
        self._progress.update(self.step, "evaluate")
        with self._record.timed("evaluate"):
            # One observation at a time, which the host's own device is the quickest for.
            actors = [jax.device_put(actor, self._host) for actor in self._axis.split(self._actor(self._state))]
            outcomes = list(self._map(self._evaluate_seed, actors, self._eval_envs))
        for i, (seed, env, outcome) in enumerate(zip(self.run.seeds, self._eval_envs, outcomes, strict=True)):
            metrics = outcome.metrics()
            self._writer.write(self.step, seed, metrics)
            is_best = self._record.add_evaluation(i, self.step, metrics["eval/return_mean"])
            for best in (False, True) if is_best else (False,):
                path = policy.policy_path(self.run_dir, seed, best)
                policy.save_policy(path, actors[i], env.obs_dim, env.action_low, env.action_high)
            self._progress.note(
                f"step {self.step:,}  seed {seed}  evaluation return {metrics['eval/return_mean']:.1f} "
                f"+- {metrics['eval/return_std']:.1f} over {self.run.eval_episodes} episodes"
            )

    def _evaluate_seed(self, actor: PyTree, env: Environment) -> evaluate.Evaluation:
        acting = policy.Policy(self._evaluation_act, self._algorithm, actor, env.action_low, env.action_high)
        return evaluate.evaluate(acting, env, 0, self.run.eval_episodes)

    def _save(self) -> None:
        self._progress.update(self.step, "checkpoint")
        self._record.check_finite(self.step)  # lines of metrics may be further apart than checkpoints
        with self._record.timed("checkpoint"):
            seeds = zip(self._axis.split(self._state), self._axis.split(self._replay), self._axis.split(self._carry))
            journals = [np.asarray(env.actions, np.float32).reshape(-1, env.action_dim) for env in self._envs]
            arrays = {
                str(seed): {
                    "state": checkpoint.pack(state),
                    "replay": checkpoint.pack(replay),
                    "carry": checkpoint.pack(carry),
                    "obs": self._obs[i],
                    "episode_actions": np.concatenate([journals[i], np.zeros((1, journals[i].shape[1]), np.float32)]),
                }
                for i, (seed, (state, replay, carry)) in enumerate(zip(self.run.seeds, seeds))
            }
            self._writer.sync()
            self._checkpoints.save(self.step, arrays, self._position())

    def _position(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "phase": self.phase,
            "phase_done": self.phase_done,
            "metrics_offset": self._writer.offset,
            "episodes": [env.episode for env in self._envs],
            "episode_returns": [env.episode_return for env in self._envs],
            "record": self._record.to_json(),
        }

    def _restore(self, saved: checkpoint.Saved) -> int:
        """Puts everything back to where a checkpoint was taken; returns the length of metrics.jsonl there."""
        position, seeds = saved.record, [saved.arrays[str(seed)] for seed in self.run.seeds]

        def restore(fresh: PyTree, name: str) -> PyTree:
            values = self._axis.split(fresh)
            restored = [checkpoint.unpack(v, arrays.get(name, {})) for v, arrays in zip(values, seeds)]
            return self._axis.place(self._axis.join(restored))

        self._state, self._replay = restore(self._state, "state"), restore(self._replay, "replay")
        self._carry = restore(self._carry, "carry")
        self.step, self.phase, self.phase_done = position["step"], position["phase"], position["phase_done"]
        self._record.restore(position["record"])
        for i, env in enumerate(self._envs):
            actions = seeds[i]["episode_actions"][:-1]
            self._obs[i] = env.repeat(position["episodes"][i], actions, position["episode_returns"][i])
            if not np.array_equal(self._obs[i], seeds[i]["obs"]):
                self._notes.append(
                    f"seed {self.run.seeds[i]}: env {self.run.env} did not repeat its running episode; a new "
                    "one begins, and the run is not what it would have been without the interruption"
                )
                self._obs[i] = env.reset()
                self._carry = self._begin_carry([i], self._carry)
        return position["metrics_offset"]


def _step(env: Environment, action: np.ndarray) -> tuple[Step, np.ndarray, float]:
    """One step; with the observation to go on from, of the next episode if this one ended, and the return so far."""
    step = env.step(action)
    episode_return = env.episode_return
    return step, env.reset() if step.terminal or step.truncated else step.next_obs, episode_return


def _row(obs: np.ndarray, action: np.ndarray, step: Step) -> Transition:
    """A batch of one transition, on the host. A time limit is not terminal."""
    leaves: dict[str, Any] = {
        "obs": obs,
        "action": action,
        "reward": np.asarray(step.reward, np.float32),
        "next_obs": step.next_obs,
        "terminal": np.asarray(step.terminal, np.float32),
    }
    return Transition(**{name: leaf[None] for name, leaf in leaves.items()})
