"""Measures how a model's error grows as the policy moves away from the one that gathered its data.

The data policy is a run's policy with its exploration noise. One model is fitted for each number of its transitions.
The policy then learns from that model, and each measurement pairs the model's error on the states that the current
policy visits in the environment with the policy's divergence from the data policy.

References: Janner et al. 2019 (MBPO), section 4.2 and Figure 1.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbpo_jax import agents, backends, health, theory
from mbpo_jax import replay as replay_lib
from mbpo_jax.agents.sac import SacConfig
from mbpo_jax.algorithms import mbpo, phases
from mbpo_jax.driver.config import Diverged
from mbpo_jax.driver.trained import Trained, load_trained
from mbpo_jax.health import Fault
from mbpo_jax.models import gaussian
from mbpo_jax.models.state import EnsembleState
from mbpo_jax.networks import Actor
from mbpo_jax.replay import Replay
from mbpo_jax.rollouts import branched
from mbpo_jax.studies import episodes, imagination
from mbpo_jax.studies.finding import Finding
from mbpo_jax.types import FINISHED, OWN, Array, Key, PyTree, Transition

START_ROWS = 100_000  # of a round of one-step rollouts, as many as in the paper
FIT, LEARN, VISIT = 0, 1, 2  # streams of keys
CONSTANT = 1e-12  # a target with less variance counts as constant (the reward of an upright pendulum)


class Measurement(NamedTuple):
    """One point of the figure."""

    num_updates: int  # agent updates since the data policy
    kl: float  # nats, mean over visited states of KL(policy || data policy)
    loss: float  # mean squared error of the elites on (reward, change of observation), over its dimensions
    unexplained: float  # unexplained share of the variance of each target, clipped to [0, 1], mean over targets


def study(
    run_dir: Path,
    seed: int | None = None,
    step: int | None = None,
    num_rows: Sequence[int] = (1000, 3000, 10_000),
    num_measurements: int = 8,
    updates_between: int = 500,
    visited_steps: int = 1000,
) -> Finding:
    """Measures the error, fits a line for every number of rows, and evaluates the bound at the measured errors.

    Args:
      step: environment step of the checkpoint whose policy gathers the data; the newest by default.
      num_rows: numbers of transitions of the data policy; one model is fitted for each.
      num_measurements: measurements after the first, which is at the data policy.
      updates_between: agent updates between measurements; use fewer if the first already shift by nats (Hopper).
      visited_steps: environment steps of the current policy at each measurement.
    Raises:
      StorageFailure, ValueError: see `load_trained`; or the agent is not SAC under MBPO, or the discount is 0 or 1.
      Diverged: learning from one of the models diverged.
    """
    trained = load_trained(run_dir, seed, step)
    imagination.check(trained)
    if not isinstance(trained.config.agent, SacConfig):
        raise ValueError(f"the run must have SAC as its agent (--algorithm=mbpo), got {trained.run.algorithm}")
    if not isinstance(trained.config, mbpo.MbpoConfig) or not isinstance(trained.state.model, EnsembleState):
        raise ValueError(
            "the run must be of MBPO with a termination rule (not --termination_fn=learned), got "
            f"--algorithm={trained.run.algorithm}"
        )
    discount, longest = trained.config.agent.discount, episodes.most_steps(trained)
    if not 0.0 < discount < 1.0:
        raise ValueError(
            f"--discount of the run must lie between 0 and 1, got {discount:g}, for which the bound has no meaning"
        )
    experiment = _Experiment(trained, max(num_rows), visited_steps)
    curves = []
    for rows in num_rows:
        measured = experiment.measure(rows, num_measurements, updates_between)
        points = [point._asdict() for point in measured]
        curves.append({"rows": rows, "measurements": points} | _line(measured, discount, longest))
    numbers = {
        "env": trained.run.env,
        "seed": trained.seed,
        "step": trained.step,
        "scheduled_lengths": list(trained.config.rollout_length_schedule[2:]),
        "longest_considered": longest,
        "curves": curves,
    }
    return present(numbers)


class _Experiment:
    """What the measurements for all numbers of rows share: the data, the data policy, and the compiled functions."""

    def __init__(self, trained: Trained, most_rows: int, visited_steps: int) -> None:
        self._trained, self._visited_steps = trained, visited_steps
        self._root = jax.random.fold_in(jax.random.key(trained.seed), 2019)
        self._env = episodes.open_environment(trained)
        self._exploring = episodes.exploring_policy(trained, jax.random.fold_in(self._root, VISIT))
        self._data_actor = trained.algorithm.actor(trained.state)
        self._data, self._next_episode = episodes.collect(self._env, self._exploring(self._data_actor), 0, most_rows)
        changes = self._data.next_obs - self._data.obs
        self._variances = jnp.concatenate([jnp.var(self._data.reward)[None], jnp.var(changes, axis=0)])
        config = trained.config.agent
        self._network = Actor(trained.spec.action_dim, config.hidden_units, config.num_hidden_layers)
        self._world = gaussian.build(trained.config.model, trained.spec)
        self._agent = agents.build(config, trained.spec)
        self._learn = jax.jit(self._learn_once, static_argnames="num_updates")
        self._measure = jax.jit(self._measure_rows)
        self._fits = [jax.jit(run) for run in self._world.fit.functions]

    def measure(self, num_rows: int, num_measurements: int, updates_between: int) -> list[Measurement]:
        """Fits one model to the first `num_rows` transitions and measures it as the policy learns."""
        rows = jax.tree.map(lambda leaf: leaf[:num_rows], self._data)
        real = replay_lib.add(replay_lib.init(self._trained.spec, self._data.reward.shape[0]), rows)
        model = self._fit(real)
        agent, measured = self._trained.state.agent, []
        for i in range(num_measurements + 1):
            if i:
                key = jax.random.fold_in(jax.random.fold_in(self._root, LEARN), i)
                agent, faults = self._learn(key, agent, model, real, num_updates=updates_between)
                self._check(faults, f"{num_rows} rows, update {(i - 1) * updates_between} to {i * updates_between}")
            actor = self._agent.actor(agent)
            visited, self._next_episode = episodes.collect(
                self._env, self._exploring(actor), self._next_episode, self._visited_steps
            )
            kl, loss, unexplained = map(float, self._measure(actor, model, visited, self._variances))
            measured.append(Measurement(i * updates_between, kl, loss, unexplained))
        return measured

    def _fit(self, real: Replay) -> PyTree:
        key = jax.random.fold_in(self._root, FIT)
        model, due = self._world.init(key), 0
        while due != FINISHED:
            model, _ = self._fits[due](key, model, real)
            due = int(self._world.fit.due(model))
        return model

    def _check(self, faults: Sequence[Fault | None], when: str) -> None:
        for text in filter(None, map(health.describe, faults)):
            raise Diverged(f"{text} ({when})")

    def _learn_once(
        self, key: Key, agent: PyTree, model: PyTree, real: Replay, num_updates: int
    ) -> tuple[PyTree, list[Fault | None]]:
        """Rolls the policy out for one step from states of the data, and updates it on mixed batches, as MBPO does."""
        key_start, key_roll, key_batch, key_update = jax.random.split(key, 4)
        config, spec = self._trained.config, self._trained.spec
        imagined, rolled = branched.roll_out(
            key_roll,
            phases.exploring(self._agent, agent),
            phases.learned_dynamics(self._world, self._world.belief(model), spec),
            replay_lib.init(spec, START_ROWS),
            replay_lib.sample(key_start, real, (START_ROWS,)).obs,
            jnp.asarray(1),
            jnp.asarray(START_ROWS),
            config.rollout_block_rows or backends.choices().block_rows,
        )
        num_real = mbpo.num_real_rows(config)
        batches = phases.draw_mixed(key_batch, real, imagined, num_updates, num_real, config.batch_size - num_real)
        agent, updated = self._agent.update(key_update, agent, batches, OWN)
        return agent, [health.first_fault(rolled.watched), health.first_fault(updated.watched)]

    def _measure_rows(
        self, actor: PyTree, model: PyTree, visited: Transition, variances: Array
    ) -> tuple[Array, Array, Array]:
        """Returns KL, loss and unexplained share of a `Measurement`, each []."""
        kl = gaussian_kl(*self._distribution(actor, visited.obs), *self._distribution(self._data_actor, visited.obs))
        mean, _ = self._world.predict(self._world.belief(model), visited.obs, visited.action)
        target = jnp.concatenate([visited.reward[:, None], visited.next_obs - visited.obs], -1)
        error = jnp.mean(jnp.square(mean[model.elites] - target), axis=(0, 1))  # [D]
        varies = variances > CONSTANT
        shares = jnp.clip(error / jnp.where(varies, variances, 1.0), 0.0, 1.0)
        unexplained = jnp.sum(jnp.where(varies, shares, 0.0)) / jnp.maximum(jnp.sum(varies), 1)
        return jnp.mean(kl), jnp.mean(error), unexplained

    def _distribution(self, actor: PyTree, obs: Array) -> tuple[Array, Array]:
        """Returns mean and log_std [B, A] before the tanh, which leaves divergences unchanged."""
        mean, log_std = self._network.apply({"params": actor}, obs)
        return mean, log_std


def gaussian_kl(mean: Array, log_std: Array, other_mean: Array, other_log_std: Array) -> Array:
    """Returns the divergence KL(first || other) [...] in nats between diagonal Gaussians [..., A]."""
    ratio = jnp.exp(2.0 * (log_std - other_log_std))
    distance = jnp.square((mean - other_mean) * jnp.exp(-other_log_std))
    return 0.5 * jnp.sum(ratio + distance - 1.0 - 2.0 * (log_std - other_log_std), axis=-1)


def _line(measured: Sequence[Measurement], discount: float, longest: int) -> dict[str, Any]:
    """Returns the errors at the data policy, their growth with the policy shift, and the best lengths by Theorem A.2.

    The bound needs total variation distances at the worst state. Two proxies stand in for them: the unexplained share,
    which is 0 for an exact model and 1 for one that predicts the mean, and the largest distance that the mean
    divergence allows.

    Args:
      longest: length of an episode, the longest rollout considered.
    """
    shifts = [theory.distance_of_kl(point.kl) for point in measured]
    return {
        "loss_at_data_policy": measured[0].loss,
        "loss_per_nat": _slope([point.kl for point in measured], [point.loss for point in measured]),
        "error_at_data_policy": measured[0].unexplained,
        "error_per_shift": _slope(shifts, [point.unexplained for point in measured]),
        "policy_shifts": shifts,
        "recommended_lengths": [
            theory.best_length(model_error=point.unexplained, policy_shift=shift, discount=discount, longest=longest)
            for point, shift in zip(measured, shifts)
        ],
    }


def _slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Returns the least-squares slope of a line through the first point; 0 if all x are equal."""
    across, up = np.asarray(x[1:]) - x[0], np.asarray(y[1:]) - y[0]
    return float(across @ up / (across @ across)) if across.any() else 0.0


def present(numbers: dict[str, Any]) -> Finding:
    """Presents the numbers, as measured or as read back from their file, as a sentence and a figure."""
    return Finding(_sentence(numbers), numbers, _figure(numbers))


def _sentence(numbers: dict[str, Any]) -> str:
    parts = [
        f"{curve['rows']:,} rows: loss {curve['loss_at_data_policy']:.3g} at the data policy, "
        f"{curve['loss_per_nat']:+.2g} per nat, best length {_span(curve['recommended_lengths'][1:])}"
        for curve in numbers["curves"]
    ]
    return (
        f"{numbers['env']}, data policy of step {numbers['step']:,}: {'; '.join(parts)}. The run's schedule: "
        f"{_span(numbers['scheduled_lengths'])}."
    )


def _span(lengths: Sequence[int]) -> str:
    return f"{min(lengths)}" if min(lengths) == max(lengths) else f"{min(lengths)} to {max(lengths)}"


def _figure(numbers: dict[str, Any]) -> Figure:
    """Draws both errors of the model against the distance of the policy from the data policy."""
    figure = Figure(figsize=(10.0, 4.2), layout="constrained")
    loss_axes, share_axes = figure.subplots(1, 2)
    for curve in numbers["curves"]:
        measured = [Measurement(**point) for point in curve["measurements"]]
        losses, shares = [point.loss for point in measured], [point.unexplained for point in measured]
        label = f"{curve['rows']:,} rows"
        _draw(loss_axes, [point.kl for point in measured], losses, curve["loss_per_nat"], label)
        _draw(share_axes, curve["policy_shifts"], shares, curve["error_per_shift"], label)
    loss_axes.set(xlabel="mean KL(policy || data policy), nats", ylabel="squared error of the model")
    loss_axes.legend()
    share_axes.set(
        xlabel="policy shift: largest total variation at that KL", ylabel="unexplained share of the variance"
    )
    title = f"{numbers['env']}, data policy of step {numbers['step']:,}"
    figure.suptitle(f"{title}: model error on the states that the policy visits")
    return figure


def _draw(axes: Axes, x: Sequence[float], y: Sequence[float], slope: float, label: str) -> None:
    """Draws points, and the line through the first of them."""
    (dots,) = axes.plot(x, y, ".", label=label)
    ends = np.asarray([x[0], max(x)])
    axes.plot(ends, y[0] + (ends - x[0]) * slope, color=dots.get_color(), linewidth=1.0)
