"""How a model's error grows as the policy moves away from the one that gathered its data.

The data policy is a run's policy, with noise. For several numbers of its transitions a model is fitted once; then the
policy goes on learning from that model, and at every measurement the error of the model is taken on states that the
moving policy visits in the environment, beside the policy's distance from the data policy.

References: Janner et al. 2019 (MBPO), section 4.2 and Figure 1.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from mbpo_jax import replay as replay_lib
from mbpo_jax import theory
from mbpo_jax.agents import sac
from mbpo_jax.algorithms import mbpo
from mbpo_jax.driver.trained import Trained, load_trained
from mbpo_jax.networks import Actor
from mbpo_jax.replay import Replay
from mbpo_jax.rollouts import branched
from mbpo_jax.studies import episodes, imagination
from mbpo_jax.studies.finding import Finding
from mbpo_jax.types import FINISHED, Array, Key, PyTree, Transition

START_ROWS = 10_000  # of a round of one-step rollouts; the paper's 100,000 are more than these few updates can read
FIT, LEARN, VISIT = 0, 1, 2  # streams of keys
CONSTANT = 1e-12  # a target with less variance has nothing to explain (the reward of a pendulum that stands)


class Measurement(NamedTuple):
    """One dot of the figure."""

    num_updates: int  # of the policy, since it was the data policy
    kl: float  # nats, mean over visited states of KL(policy || data policy)
    loss: float  # mean squared error of the elites on (reward, change of observation), over its dimensions
    unexplained: float  # share of the variance of each target that is not predicted, cut to [0, 1] and averaged


def study(
    run_dir: Path,
    seed: int | None = None,
    step: int | None = None,
    num_rows: Sequence[int] = (1000, 3000, 10_000),
    num_measurements: int = 8,
    updates_between: int = 500,
    visited_steps: int = 1000,
) -> Finding:
    """Measures, fits a line for every number of rows, and puts what came out into the bound.

    Args:
      step: of the checkpoint whose policy gathers the data; the newest by default.
      num_rows: transitions of the data policy that a model is fitted to, one model each.
      num_measurements: after the first, which is at the data policy.
      updates_between: agent updates from one measurement to the next.
      visited_steps: environment steps of the moving policy at each.
    Raises:
      StorageFailure, ValueError: see `load_trained`; or the run's agent is not MBPO's SAC.
    """
    trained = load_trained(run_dir, seed, step)
    imagination.world_model(trained)
    if not isinstance(trained.config.agent, sac.SacConfig):
        raise ValueError(f"the run must have SAC as its agent (--algorithm=mbpo), got {trained.run.algorithm}")
    experiment = _Experiment(trained, max(num_rows), visited_steps)
    discount, longest = trained.config.agent.discount, trained.config.rollout_length_schedule[-1]
    curves = []
    for rows in num_rows:
        measured = experiment.measure(rows, num_measurements, updates_between)
        curves.append(
            {"rows": rows, "measurements": [point._asdict() for point in measured]} | _line(measured, discount, longest)
        )
    numbers = {
        "env": trained.run.env,
        "seed": trained.seed,
        "step": trained.step,
        "curves": curves,
    }
    return Finding(_sentence(numbers), numbers, _figure(numbers))


class _Experiment:
    """What is the same for all numbers of rows: the data, the data policy, and what was compiled."""

    def __init__(self, trained: Trained, most_rows: int, visited_steps: int) -> None:
        self._trained, self._visited_steps = trained, visited_steps
        self._root = jax.random.fold_in(jax.random.key(trained.seed), 2019)
        self._env = episodes.open_environment(trained)
        self._exploring = episodes.exploring_policy(trained, jax.random.fold_in(self._root, VISIT))
        self._data_actor = trained.algorithm.actor(trained.state)
        self._data, self._next_episode = episodes.collect(self._env, self._exploring(self._data_actor), 0, most_rows)
        config = trained.config.agent
        self._network = Actor(trained.spec.action_dim, config.hidden_units, config.num_hidden_layers)
        self._world = imagination.world_model(trained)
        self._agent = sac.build(config, trained.spec)
        self._learn = jax.jit(self._learn_once, static_argnames="num_updates")
        self._judge = jax.jit(self._judge_rows)
        self._fits = [jax.jit(run) for run in self._world.fit.run]

    def measure(self, num_rows: int, num_measurements: int, updates_between: int) -> list[Measurement]:
        """From the data policy on, with one model of the first `num_rows` transitions."""
        rows = jax.tree.map(lambda leaf: leaf[:num_rows], self._data)
        real = replay_lib.add(replay_lib.init(self._trained.spec, self._data.reward.shape[0]), rows)
        variances = jnp.concatenate([jnp.var(rows.reward)[None], jnp.var(rows.next_obs - rows.obs, axis=0)])
        model = self._fit(real)
        agent, measured = self._trained.state.agent, []
        for i in range(num_measurements + 1):
            if i:
                key = jax.random.fold_in(jax.random.fold_in(self._root, LEARN), i)
                agent = self._learn(key, agent, model, real, num_updates=updates_between)
            actor = self._agent.actor(agent)
            visited, self._next_episode = episodes.collect(
                self._env, self._exploring(actor), self._next_episode, self._visited_steps
            )
            kl, loss, unexplained = map(float, self._judge(actor, model, visited, variances))
            measured.append(Measurement(i * updates_between, kl, loss, unexplained))
        return measured

    def _fit(self, real: Replay) -> PyTree:
        key = jax.random.fold_in(self._root, FIT)
        model, due = self._world.init(key), 0
        while due != FINISHED:
            model, _ = self._fits[due](key, model, real)
            due = int(self._world.fit.due(model))
        return model

    def _learn_once(self, key: Key, agent: PyTree, model: PyTree, real: Replay, num_updates: int) -> PyTree:
        """One-step rollouts of the policy from the data, and updates on a mixture, as MBPO's."""
        key_start, key_roll, key_batch, key_update = jax.random.split(key, 4)
        config, spec = self._trained.config, self._trained.spec
        actor = self._agent.actor(agent)
        imagined, _ = branched.roll_out(
            key_roll,
            lambda key, obs: self._agent.act(key, actor, obs, True),
            imagination.dynamics(self._trained, model),
            replay_lib.init(spec, START_ROWS),
            replay_lib.sample(key_start, real, (START_ROWS,)).obs,
            jnp.asarray(1),
            jnp.asarray(START_ROWS),
        )
        num_real = mbpo.num_real_rows(config)
        batches = mbpo.draw_batches(key_batch, real, imagined, num_updates, num_real, config.batch_size - num_real)
        return self._agent.update(key_update, agent, batches)[0]

    def _judge_rows(
        self, actor: PyTree, model: PyTree, visited: Transition, variances: Array
    ) -> tuple[Array, Array, Array]:
        """The numbers of a `Measurement`, all []."""
        kl = gaussian_kl(*self._distribution(actor, visited.obs), *self._distribution(self._data_actor, visited.obs))
        mean, _ = self._world.predict(model, visited.obs, visited.action)
        target = jnp.concatenate([visited.reward[:, None], visited.next_obs - visited.obs], -1)
        error = jnp.mean(jnp.square(mean[model.elites] - target), axis=(0, 1))  # [D]
        varies = variances > CONSTANT
        shares = jnp.clip(error / jnp.where(varies, variances, 1.0), 0.0, 1.0)
        unexplained = jnp.sum(jnp.where(varies, shares, 0.0)) / jnp.maximum(jnp.sum(varies), 1)
        return jnp.mean(kl), jnp.mean(error), unexplained

    def _distribution(self, actor: PyTree, obs: Array) -> tuple[Array, Array]:
        """Mean and log_std [B, A] before the tanh, which changes no divergence."""
        mean, log_std = self._network.apply({"params": actor}, obs)
        return mean, log_std


def gaussian_kl(mean: Array, log_std: Array, other_mean: Array, other_log_std: Array) -> Array:
    """KL [...] in nats between diagonal Gaussians [..., A], the first from the other."""
    ratio = jnp.exp(2.0 * (log_std - other_log_std))
    distance = jnp.square((mean - other_mean) * jnp.exp(-other_log_std))
    return 0.5 * jnp.sum(ratio + distance - 1.0 - 2.0 * (log_std - other_log_std), axis=-1)


def _line(measured: Sequence[Measurement], discount: float, longest: int) -> dict[str, Any]:
    """Least-squares lines through the dots, and the rollout length that Theorem A.2 recommends at each of them.

    The bound wants a total variation distance. What stands in for it is the unexplained share, which is 0 for an exact
    model and 1 for one that knows nothing, and Pinsker's inequality for the policy.
    """
    shifts = [theory.pinsker(point.kl) for point in measured]
    loss_slope, loss = np.polyfit([point.kl for point in measured], [point.loss for point in measured], 1)
    slope, error = np.polyfit(shifts, [point.unexplained for point in measured], 1)
    error = min(1.0, max(0.0, float(error)))
    recommended = [
        theory.recommend_length(
            model_error=error, slope=float(slope), policy_shift=shift, discount=discount, longest=longest
        )
        for shift in shifts
    ]
    return {
        "loss_at_data_policy": float(loss),
        "loss_per_nat": float(loss_slope),
        "error_at_data_policy": error,
        "error_per_shift": float(slope),
        "recommended_lengths": [advice.rollout_length for advice in recommended],
    }


def _sentence(numbers: dict[str, Any]) -> str:
    told = [
        f"{curve['rows']:,} rows: loss {curve['loss_at_data_policy']:.3g} {curve['loss_per_nat']:+.2g} per nat"
        for curve in numbers["curves"]
    ]
    lengths = sorted({curve["recommended_lengths"][-1] for curve in numbers["curves"]})
    return (
        f"{numbers['env']}, data policy of step {numbers['step']:,}: {'; '.join(told)}. At the largest shift the bound "
        f"recommends {' to '.join(map(str, sorted({lengths[0], lengths[-1]})))} steps."
    )


def _figure(numbers: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(10.0, 4.2), layout="constrained")
    of_loss, of_share = figure.subplots(1, 2)
    for curve in numbers["curves"]:
        measured = [Measurement(**point) for point in curve["measurements"]]
        kls, shifts = [point.kl for point in measured], [theory.pinsker(point.kl) for point in measured]
        ends = np.asarray([0.0, max(kls)])
        dots = of_loss.plot(kls, [point.loss for point in measured], ".", label=f"{curve['rows']:,} rows")
        color = dots[0].get_color()
        of_loss.plot(ends, curve["loss_at_data_policy"] + ends * curve["loss_per_nat"], color=color, linewidth=1.0)
        of_share.plot(shifts, [point.unexplained for point in measured], ".", color=color)
        ends = np.asarray([0.0, max(shifts)])
        of_share.plot(ends, curve["error_at_data_policy"] + ends * curve["error_per_shift"], color=color, linewidth=1.0)
    of_loss.set(xlabel="KL(policy || data policy), nats", ylabel="squared error of the model")
    of_loss.legend()
    of_share.set(xlabel="policy shift (total variation, by Pinsker)", ylabel="unexplained share of the variance")
    figure.suptitle(
        f"{numbers['env']}, data policy of step {numbers['step']:,}: model error on states the policy visits"
    )
    return figure
