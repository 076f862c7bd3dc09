"""Metrics beside a phase's own: worked by hand, and nothing else is changed by them."""

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from mbpo_jax.algorithms import reporting
from mbpo_jax.rollouts import penalties
from mbpo_jax.types import FINISHED, Agent, Programs, Report, Spec, Transition, WorldModel

SPEC = Spec(2, 1)


class State(struct.PyTreeNode):
    model: jax.Array
    agent: jax.Array


def draw(key, state, real):
    return state.replace(agent=jax.random.normal(key, ())), Report({"own": jnp.zeros(())}, ())


def second(key, state, real):
    return state, Report({"of_the_second": jnp.zeros(())}, ())


PHASE = Programs((draw, second), lambda state: FINISHED)
STATE = State(jnp.float32(3.0), jnp.float32(0.0))


def real_rows():
    """Forty rows, of which 10 end and 10 more lead where the rule below says so."""
    where = np.repeat(np.float32([[1, 1], [1, 1], [-1, 1], [-1, 1]]), 10, axis=0)
    return compiled.filled(
        SPEC,
        40,
        Transition(
            obs=np.zeros((40, 2), np.float32),
            action=np.full((40, 1), 0.5, np.float32),
            reward=np.arange(40, dtype=np.float32),
            next_obs=where,
            terminal=np.repeat(np.float32([1, 0, 0, 0]), 10),
        ),
    )


def test_a_rule_is_compared_with_the_environment():
    phase = reporting.with_rule(PHASE, lambda state: lambda obs, action, next_obs: next_obs[:, 0] > 0)
    state, report = jax.jit(phase.functions[0])(jax.random.key(0), STATE, real_rows())
    assert float(report.metrics["termination_disagreement_fraction"]) == pytest.approx(0.25, abs=0.06)
    assert report.metrics.keys() >= {"own", "real_reward_min"}
    alone, _ = draw(jax.random.key(0), STATE, None)
    assert state.agent == alone.agent  # draws are those of the phase alone
    assert phase.functions[1:] == PHASE.functions[1:] and phase.due is PHASE.due


def test_the_penalty_of_the_policy_is_set_beside_that_of_the_data():
    """Two members, whose standard deviations are 3 |action| and 4 |action| in each of two targets."""

    def predict(belief, obs, action):
        std = jnp.stack([belief * jnp.abs(action), 4.0 * jnp.abs(action)])
        return jnp.zeros((2, len(obs), 2)), 2.0 * jnp.log(jnp.broadcast_to(std, (2, len(obs), 2)))

    world = WorldModel(None, None, lambda model: model, predict, None, None, 2)
    agent = Agent(**dict.fromkeys(Agent._fields) | {
        "actor": lambda state: state, "act": lambda key, actor, obs, explore: jnp.linspace(0.1, 1.0, len(obs))[:, None]
    })  # fmt: skip
    phase = reporting.with_penalty(PHASE, "largest_std_norm", world, agent)
    _, report = jax.jit(phase.functions[0])(jax.random.key(0), STATE, real_rows())
    metrics = {name: float(value) for name, value in report.metrics.items()}
    assert metrics["data_penalty_mean"] == pytest.approx(4 * 0.5 * 2**0.5, rel=1e-5)
    assert metrics["penalty_max"] == pytest.approx(4 * 2**0.5, rel=1e-5)
    assert metrics["penalty_mean"] == pytest.approx(4 * 0.55 * 2**0.5, rel=1e-3)
    assert reporting.with_penalty(PHASE, penalties.NO_PENALTY, world, agent) is PHASE
