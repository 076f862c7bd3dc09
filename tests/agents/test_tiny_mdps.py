"""Five tiny MDPs whose values are known: what an agent learns on their transitions must be those values.

SAC's temperature is driven to (almost) zero by a target entropy far below reach, so that values are plain returns.
"""

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax import agents
from mbpo_jax.agents.ddpg import DdpgConfig
from mbpo_jax.agents.sac import SacConfig
from mbpo_jax.agents.td3 import Td3Config
from mbpo_jax.types import Spec, Transition

SPEC = Spec(obs_dim=2, action_dim=1)
DISCOUNT = 0.9
KNOBS = {"discount": DISCOUNT, "hidden_units": 32, "learning_rate": 3e-3, "target_update_rate": 0.02}
CONFIGS = {
    "sac": SacConfig(**KNOBS, target_entropy=-100.0, initial_temperature=0.01),
    "ddpg": DdpgConfig(**KNOBS),
    "td3": Td3Config(**KNOBS | {"target_update_rate": 0.04}),  # its targets move half as often
}
FIRST, SECOND = np.float32([1, 0]), np.float32([0, 1])


@pytest.fixture(scope="module", params=CONFIGS)
def learner(request):
    """(agent, and what it does, compiled once: its update, its critics, its acting without noise)"""
    agent = agents.build(CONFIGS[request.param], SPEC)

    def act(state, obs):
        return agent.act(jax.random.key(0), agent.actor(state), obs, False)

    update = jax.jit(agent.update, compiler_options=compiled.LONG_RUN)
    return agent, update, jax.jit(agent.critic.q_values), jax.jit(act)


def learn(learner, step_fn, states=(FIRST, SECOND), num_updates=2400, group=400, batch_size=64):
    """Trains on uniformly random actions in random states of an MDP `step_fn(state, action) -> (next, r, terminal)`."""
    agent, update, _, _ = learner
    rng, state = np.random.default_rng(0), jax.jit(agent.init)(jax.random.key(0))
    for i in range(num_updates // group):
        obs = np.stack([states[j] for j in rng.integers(len(states), size=group * batch_size)])
        action = rng.uniform(-1, 1, size=(group * batch_size, 1)).astype(np.float32)
        next_obs, reward, terminal = step_fn(obs, action[:, 0])
        rows = Transition(obs=obs, action=action, reward=reward, next_obs=next_obs, terminal=terminal)
        rows = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32).reshape(group, batch_size, *x.shape[1:]), rows)
        state, _ = update(jax.random.key(i), state, rows)
    return state


def q_values(learner, state, obs, action):
    """The lowest and the highest of the critics."""
    q = learner[2](state, obs[None], np.full((1, 1), action, np.float32))
    return [float(q.min()), float(q.max())]


def zeros(obs):
    return np.zeros(len(obs), np.float32)


def test_one_step_and_over_is_worth_its_reward(learner):
    def step(obs, action):
        return obs, 2.0 * obs[:, 0] - 1.0 * obs[:, 1], zeros(obs) + 1

    state = learn(learner, step, num_updates=1200)
    assert q_values(learner, state, FIRST, 0.3) == pytest.approx([2.0, 2.0], abs=0.1)
    assert q_values(learner, state, SECOND, -0.8) == pytest.approx([-1.0, -1.0], abs=0.1)


def test_for_ever_is_worth_the_geometric_sum_and_a_time_limit_does_not_change_that(learner):
    """Reward 1 for ever: 1 / (1 - 0.9) = 10. Rows at a time limit carry terminal 0: they are rows like the others."""

    def step(obs, action):
        return obs, zeros(obs) + 1, zeros(obs)

    state = learn(learner, step)
    assert q_values(learner, state, FIRST, 0.0) == pytest.approx([10.0, 10.0], rel=0.05)
    assert q_values(learner, state, SECOND, 0.9) == pytest.approx([10.0, 10.0], rel=0.05)


def test_two_steps_in_a_row_discount_the_later_reward(learner):
    def step(obs, action):  # FIRST -> SECOND (0), SECOND -> end (1)
        in_second = obs[:, 1]
        return np.tile(SECOND, (len(obs), 1)), in_second, in_second

    state = learn(learner, step)
    assert q_values(learner, state, SECOND, 0.0) == pytest.approx([1.0, 1.0], abs=0.06)
    assert q_values(learner, state, FIRST, 0.0) == pytest.approx([DISCOUNT, DISCOUNT], abs=0.06)


def test_the_best_action_of_a_parabola_is_found(learner):
    def step(obs, action):
        best = np.where(obs[:, 0] > 0.5, 0.5, -0.3)
        return obs, -((action - best) ** 2), zeros(obs) + 1

    state = learn(learner, step)
    acting = learner[3](state, np.stack([FIRST, SECOND]))
    np.testing.assert_allclose(acting[:, 0], [0.5, -0.3], atol=0.1)
    assert q_values(learner, state, FIRST, -0.5) == pytest.approx([-1.0, -1.0], abs=0.1)


def test_waiting_for_more_beats_taking_less(learner):
    """In FIRST, action > 0 waits for 1 in SECOND (worth 0.9), action < 0 takes 0.5 + 0.3 action and ends.

    The slope is for deterministic actors: where values are level they stay, as they should.
    """

    def step(obs, action):
        in_first, waits = obs[:, 0] > 0.5, action > 0
        reward = np.where(in_first, np.where(waits, 0.0, 0.5 + 0.3 * action), 1.0)
        terminal = np.where(in_first & waits, 0.0, 1.0)
        return np.tile(SECOND, (len(obs), 1)), reward, terminal

    state = learn(learner, step)
    assert q_values(learner, state, FIRST, 0.7) == pytest.approx([0.9, 0.9], abs=0.08)
    assert q_values(learner, state, FIRST, -0.7) == pytest.approx([0.29, 0.29], abs=0.08)
    acting = learner[3](state, FIRST[None])
    assert float(acting[0, 0]) > 0.05
