"""Agents that learn from data: behaviour cloning, TD3+BC, and observations that are scaled."""

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain import SPEC, batch_of, fault_text

from mbpo_jax.agents import cloning, scaled, td3
from mbpo_jax.agents.cloning import CloningConfig
from mbpo_jax.algorithms import td3_bc
from mbpo_jax.types import Learning, Transition


def test_the_loss_of_cloning_by_hand():
    assert cloning.loss(jnp.asarray([[1.0, 0.0], [0.0, 3.0]]), jnp.zeros((2, 2))) == 2.5


def test_cloning_learns_the_actions_of_its_rows_and_nothing_else():
    agent = cloning.build(CloningConfig(hidden_units=32, learning_rate=3e-3), SPEC)
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(400, 16, 3)).astype(np.float32)
    rows = batch_of(400, 16).replace(obs=obs, action=np.tanh(obs[..., :2] - 0.5).astype(np.float32))
    update = jax.jit(lambda state, rows: agent.update(jax.random.key(1), state, rows, Learning()))
    first, act = jax.jit(agent.init)(jax.random.key(0)), jax.jit(agent.act, static_argnums=3)
    state, report = update(first, rows)
    assert fault_text(report) is None
    action = act(jax.random.key(0), agent.actor(state), obs[0], False)
    assert np.abs(action - rows.action[0]).max() < 0.15
    assert np.abs(act(jax.random.key(0), agent.actor(first), obs[0], False) - rows.action[0]).max() > 0.5
    other = rows.replace(reward=rows.reward + 1, next_obs=-rows.next_obs, terminal=1 - rows.terminal)
    assert jax.tree.all(jax.tree.map(np.array_equal, update(first, other)[0], state))


def test_what_goes_wrong_in_cloning_is_named():
    agent = cloning.build(CloningConfig(hidden_units=8, num_hidden_layers=1), SPEC)
    rows = batch_of(3, 4)
    rows = rows.replace(action=rows.action.copy())
    rows.action[1, 0, 0] = np.nan
    state = jax.jit(agent.init)(jax.random.key(0))
    _, report = jax.jit(lambda state, rows: agent.update(jax.random.key(0), state, rows, Learning()))(state, rows)
    assert fault_text(report) == "the actor's loss is not finite (nan) at update 2"


def test_the_actors_loss_of_td3_bc_by_hand():
    """q is -2 and 6: lambda is 2.5 / 4; the actions are 0.5 off in one dimension of two."""
    agent = td3.build(td3.Td3Config(hidden_units=8, num_hidden_layers=1), SPEC)
    batch = jax.tree.map(lambda leaf: leaf[0], batch_of(1, 2))
    q = jnp.asarray([[-2.0, 6.0], [100.0, 100.0]])  # of two critics, of which the first counts
    toy = agent._replace(
        act=lambda key, actor, obs, explores: batch.action + jnp.asarray([0.5, 0.0]) + 0.0 * actor,
        critic=agent.critic._replace(q_values=lambda state, obs, action: q),
    )
    loss, zeros = td3_bc.actor_loss(toy, 2.5, jax.random.key(0), jnp.zeros(()), None, batch)
    np.testing.assert_allclose(loss, -2.5 / 4.0 * 2.0 + 0.125, rtol=1e-6)
    assert zeros.shape == (2,)


def test_no_gradient_flows_through_the_weight_of_td3_bc():
    """Else a larger q would pay by its share alone: the loss of q = w is -2.5 whatever w is, its slope is not 0."""
    agent = td3.build(td3.Td3Config(hidden_units=8, num_hidden_layers=1), SPEC)
    batch = jax.tree.map(lambda leaf: leaf[0], batch_of(1, 2))
    toy = agent._replace(
        act=lambda key, actor, obs, explores: batch.action,
        critic=agent.critic._replace(q_values=lambda state, obs, action: state * jnp.ones((1, 2))),
    )
    slope = jax.grad(lambda w: td3_bc.actor_loss(toy, 2.5, jax.random.key(0), None, w, batch)[0])(jnp.asarray(2.0))
    np.testing.assert_allclose(slope, -2.5 / 2.0)


# -- scaled observations ---------------------------------------------------------------------------------------------

OBS = np.float32([[0.0, 5.0, 1.0], [2.0, 5.0, 3.0], [4.0, 5.0, 2.0], [2.0, 5.0, 10.0]])


def real_rows():
    rows = jax.tree.map(lambda leaf: leaf[0], batch_of(1, 4)).replace(obs=OBS)
    return compiled.filled(SPEC, 7, rows)  # three slots are empty


@pytest.mark.parametrize(
    ("scaling", "center", "scale"),
    [
        (scaled.STANDARD, [2.0, 5.0, 4.0], [np.sqrt(2.0), 1.0, np.sqrt(12.5)]),
        (scaled.MIN_MAX, [2.0, 5.0, 5.5], [2.0, 1.0, 4.5]),
    ],
)
def test_a_scale_is_measured_over_the_rows_in_force(scaling, center, scale):
    agent = scaled.build(cloning.build(CloningConfig(hidden_units=8, num_hidden_layers=1), SPEC), SPEC)

    class State(td3.struct.PyTreeNode):
        agent: scaled.Scaled

    state = State(agent=jax.jit(agent.init)(jax.random.key(0)))
    (measure,) = scaled.measure(scaling).functions
    after, _ = jax.jit(measure)(jax.random.key(0), state, real_rows())
    np.testing.assert_allclose(after.agent.scale.mean, center, rtol=1e-6)
    np.testing.assert_allclose(after.agent.scale.std, scale, rtol=1e-6)


def test_a_scaled_agent_is_the_agent_inside_on_scaled_rows():
    inside = td3.build(td3.Td3Config(hidden_units=8, num_hidden_layers=1), SPEC)
    agent = scaled.build(inside, SPEC)
    state = jax.jit(agent.init)(jax.random.key(0))
    state = state.replace(scale=state.scale.replace(mean=np.float32([1, 2, 3]), std=np.float32([2, 4, 0.5])))
    rows = batch_of(3, 4)
    shrink = lambda obs: (obs - np.float32([1, 2, 3])) / np.float32([2, 4, 0.5])  # noqa: E731
    small = Transition(
        obs=shrink(rows.obs),
        action=rows.action,
        reward=rows.reward,
        next_obs=shrink(rows.next_obs),
        terminal=rows.terminal,
    )
    update, update_inside = (
        jax.jit(lambda state, rows, of=of: of.update(jax.random.key(1), state, rows, Learning())[0])
        for of in (agent, inside)
    )
    after, expected = update(state, rows), update_inside(state.agent, small)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after.agent, expected)
    act, act_inside = (jax.jit(of.act, static_argnums=3) for of in (agent, inside))
    action = act(jax.random.key(2), agent.actor(after), rows.obs[0], True)
    np.testing.assert_allclose(
        action, act_inside(jax.random.key(2), inside.actor(expected), small.obs[0], True), atol=1e-6
    )
    q = agent.critic.q_values(after, rows.obs[0], action)
    np.testing.assert_allclose(q, inside.critic.q_values(expected, small.obs[0], action), atol=1e-5)
