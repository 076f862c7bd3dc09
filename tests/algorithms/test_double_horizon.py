"""The double-horizon update along known dynamics: targets and gradients by hand, and what a burst consists of."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax import options, replay, terminations
from mbpo_jax.agents import bounded_sac
from mbpo_jax.algorithms import double_horizon, double_horizon_update
from mbpo_jax.algorithms.double_horizon import DoubleHorizonConfig
from mbpo_jax.rollouts import trajectories
from mbpo_jax.types import Dynamics, Spec, Transition

SPEC = Spec(obs_dim=1, action_dim=1, termination_fn=terminations.never)
SMALL = {"agent.discount": 0.9, "horizon": 3, "agent.hidden_units": 8}
KEY = jax.random.key(0)
OBS = jnp.asarray([[0.5], [-1.0], [2.0]])


def parts_of(**changes):
    config = options.replace(DoubleHorizonConfig(), double_horizon.TINY | SMALL | changes)
    return double_horizon.Parts(config, SPEC, None, bounded_sac.build(config.agent, SPEC))


PARTS = parts_of()


def moving(limit=jnp.inf):
    """x' = x + a, reward 1 - x'^2; ends where |x'| reaches the limit."""

    def step(key, group, obs, action):
        next_obs = obs + action
        return next_obs, 1.0 - jnp.square(next_obs[:, 0]), jnp.abs(next_obs[:, 0]) >= limit

    return Dynamics(step, 1)


@pytest.fixture(scope="module")
def agent():
    """An agent whose critics are not all alike, and whose targets are not its critics."""
    state = jax.jit(functools.partial(bounded_sac.init, PARTS.agent))(KEY)

    def noisy(params, seed):
        leaves, structure = jax.tree.flatten(params)
        keys = jax.random.split(jax.random.key(seed), len(leaves))
        return structure.unflatten([leaf + 0.3 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves)])

    critics = state.critics.replace(params=noisy(state.critics.params, 1))
    return state.replace(
        critics=critics,
        target_params=noisy(state.target_params, 2),
        return_range=jnp.asarray([-50.0, 10.0]),
        num_updates=jnp.asarray(5),
    )


def test_what_is_known_ahead_are_discounted_rewards_and_bonuses_from_the_second_action_on(agent):
    ahead = jax.jit(functools.partial(double_horizon_update.imagine_steps, PARTS.agent, 3, moving(), KEY))(
        agent, OBS, agent.actor.params
    )
    # rewards [H, B] hold the bonuses of all actions but the last; that of the first is not the target's.
    along = sum(0.9**t * np.asarray(ahead.rewards[t]) for t in range(3))
    key_last = jax.random.split(KEY)[1]
    _, last_bonus, _ = bounded_sac.draw(PARTS.agent, key_last, agent, bounded_sac.policy(agent), ahead.last_obs)
    expected = along - np.asarray(ahead.first_bonus) + 0.9**3 * np.asarray(last_bonus)
    assert ahead.known == pytest.approx(expected, rel=1e-4)
    assert ahead.discount == pytest.approx(np.full(3, 0.9**3))
    temperature = 0.1
    assert ahead.first_bonus == pytest.approx(-temperature * np.asarray(ahead.first_log_prob), rel=1e-5)


def test_nothing_counts_after_an_end_and_its_state_is_worth_nothing(agent):
    """From 2, every first action leads beyond 0.9, and so to an end."""
    imagine = jax.jit(functools.partial(double_horizon_update.imagine_steps, PARTS.agent, 3, moving(limit=0.9), KEY))
    ahead = imagine(agent, OBS, agent.actor.params)
    first_reward = 1.0 - (2.0 + float(ahead.first_action[2, 0])) ** 2
    assert float(ahead.known[2]) == pytest.approx(first_reward, rel=1e-5)
    assert ahead.discount[2] == 0.0
    assert np.isnan(ahead.rewards[1:, 2]).all() and np.isfinite(ahead.rewards[0]).all()


def whole_loss(state, after, key_path, params):
    """What the actor maximises, in one expression, with the critics of `after`."""
    ahead = double_horizon_update.imagine_steps(PARTS.agent, 3, moving(), key_path, state, OBS, params)
    tail = bounded_sac.mean_value(PARTS.agent, after, ahead.last_obs, ahead.last_action)
    return -jnp.mean(ahead.known + ahead.first_bonus + ahead.discount * tail)


def test_an_update_is_a_step_of_the_critics_and_then_one_of_the_actor_along_the_gradient_of_the_same_path(agent):
    update = jax.jit(functools.partial(double_horizon_update.update_once, PARTS.agent, 3, moving(), True))
    after, (metrics, _) = update(agent, OBS, KEY)
    assert int(after.num_updates) == 6
    key_path, _ = jax.random.split(KEY)
    tracked = agent.replace(return_range=after.return_range, critics=after.critics, target_params=after.target_params)
    loss, grads = jax.jit(jax.value_and_grad(functools.partial(whole_loss, tracked, tracked, key_path)))(
        agent.actor.params
    )
    assert metrics["actor_loss"] == pytest.approx(float(loss), rel=1e-4)
    # The first moments of Adam, which began at zero, are a tenth of the gradient.
    moments = jax.tree.map(lambda moment: 10.0 * np.asarray(moment), after.actor.opt_state[0].mu)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-3), moments, grads)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(grads))


def test_the_gradient_of_the_actor_goes_through_the_dynamics(agent):
    """With dynamics that take no notice of actions it is another one."""

    def still(key, group, obs, action):
        next_obs = jax.lax.stop_gradient(obs + action)
        return next_obs, 1.0 - jnp.square(next_obs[:, 0]), jnp.zeros(len(obs), bool)

    def gradient(moves):
        update = jax.jit(functools.partial(double_horizon_update.update_once, PARTS.agent, 3, moves, True))
        return jax.tree.leaves(update(agent, OBS, KEY)[0].actor.opt_state[0].mu)

    pairs = zip(gradient(moving()), gradient(Dynamics(still, 1)))
    assert max(float(jnp.max(jnp.abs(a - b))) for a, b in pairs) > 1e-3


def test_the_gradient_through_a_learned_model_is_that_of_finite_differences(agent):
    """For each array of the actor, a step of 0.01 to both sides along the gradient changes the value as it says."""
    parts = double_horizon.build_parts(PARTS.config, SPEC)
    state = jax.jit(functools.partial(double_horizon.init, parts))(jax.random.key(4))
    moves = double_horizon.dynamics(parts, state)
    assert moves.num_groups == 2

    def value(params):
        ahead = double_horizon_update.imagine_steps(parts.agent, 3, moves, KEY, agent, OBS, params)
        tail = bounded_sac.mean_value(parts.agent, agent, ahead.last_obs, ahead.last_action)
        return jnp.mean(ahead.known + ahead.first_bonus + ahead.discount * tail)

    value, grads = jax.jit(value), jax.jit(jax.grad(value))(agent.actor.params)
    leaves, structure = jax.tree.flatten(agent.actor.params)
    checked = 0
    for number, along in enumerate(jax.tree.leaves(grads)):
        slope = float(np.linalg.norm(along))
        if slope < 1e-2:  # float32 cannot tell it from rounding
            continue

        def moved(step, number=number, along=along, slope=slope):
            changed = [*leaves[:number], leaves[number] + step * along / slope, *leaves[number + 1 :]]
            return float(value(structure.unflatten(changed)))

        assert (moved(0.01) - moved(-0.01)) / 0.02 == pytest.approx(slope, rel=0.01)
        checked += 1
    assert checked == len(leaves)


def test_an_update_of_the_critics_alone_leaves_actor_and_temperature_as_they_are(agent):
    update = jax.jit(functools.partial(double_horizon_update.update_once, PARTS.agent, 3, moving(), False))
    after, (metrics, _) = update(agent, OBS, KEY)
    jax.tree.map(np.testing.assert_array_equal, after.actor, agent.actor)
    jax.tree.map(np.testing.assert_array_equal, after.log_temperature, agent.log_temperature)
    assert int(after.num_updates) == 6
    assert metrics["critic_loss"] > 0


def path_of(alive, survives):
    """Three steps of two rows, whose states tell step and row."""
    numbers = jnp.arange(8.0).reshape(4, 2)
    return trajectories.Trajectory(
        obs=numbers[..., None],
        action=jnp.zeros((3, 2, 1)),
        reward=10 * numbers[:3],
        chosen=(),
        alive=jnp.asarray(alive),
        survives=jnp.asarray(survives),
        exploded=jnp.zeros(2, bool),
    )


def test_only_steps_that_were_taken_are_kept_and_the_last_one_before_an_end_is_terminal():
    """Row 0 ends with its second step, row 1 goes on."""
    path = path_of([[True, True], [True, True], [False, True]], [False, True])
    buffer, count = double_horizon.store(replay.init(SPEC, 20), path, jnp.asarray(True))
    assert (int(count), int(buffer.size)) == (5, 5)
    rows = replay.take(buffer, jnp.arange(5))
    assert rows.obs[:, 0].tolist() == [0, 1, 2, 3, 5]
    assert rows.next_obs[:, 0].tolist() == [2, 3, 4, 5, 7]
    assert rows.reward.tolist() == [0, 10, 20, 30, 50]
    assert rows.terminal.tolist() == [0, 0, 1, 0, 0]
    same, _ = double_horizon.store(buffer, path, jnp.asarray(False))
    assert int(same.num_added) == 5


def real_rows(num_rows):
    obs = jnp.arange(float(num_rows))[:, None]
    rows = Transition(obs=obs, action=obs, reward=obs[:, 0], next_obs=obs, terminal=jnp.zeros(num_rows))
    return replay.add(replay.init(SPEC, num_rows), rows)


@pytest.mark.parametrize(("num_updates", "critic_rounds", "rounds"), [(0, 63, 250), (9, 13, 50)])
def test_the_first_burst_makes_up_for_all_steps_of_exploration(agent, num_updates, critic_rounds, rounds):
    """With the published numbers: 250 updates of critics and 1,000 of both, a rollout every 20; at first 5 times."""
    parts = double_horizon.Parts(DoubleHorizonConfig(), SPEC, None, PARTS.agent)
    state = double_horizon.DoubleHorizonState(
        model=None,
        agent=agent.replace(num_updates=jnp.asarray(num_updates)),
        imagined=replay.init(SPEC, 1),
        critic_rounds=jnp.asarray(0),
        rounds=jnp.asarray(0),
    )
    started, _ = double_horizon.start_burst(parts, KEY, state, real_rows(3))
    assert (int(started.critic_rounds), int(started.rounds)) == (critic_rounds, rounds)
    assert started.agent.scale.mean == pytest.approx([1.0])
    assert int(double_horizon.due(started)) == 1
    assert int(double_horizon.due(started.replace(critic_rounds=jnp.asarray(0)))) == 2
    assert int(double_horizon.due(state)) == -1
