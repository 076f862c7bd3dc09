"""Agents that are given targets and losses of somebody else's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain import SPEC, batch_of, fault_text, num_steps, same

from mbpo_jax.agents import ddpg, sac, td3
from mbpo_jax.types import OWN, Learning, Regression

SMALL = {"hidden_units": 8, "num_hidden_layers": 1}
KEY = jax.random.key(3)
AGENTS = {
    "sac": sac.build(sac.SacConfig(**SMALL), SPEC),
    "td3": td3.build(td3.Td3Config(**SMALL, actor_every_updates=1), SPEC),
    "ddpg": ddpg.build(ddpg.DdpgConfig(**SMALL), SPEC),
}
every_agent = pytest.mark.parametrize("name", AGENTS)


def update(agent, learning, batches=None):
    state = jax.jit(agent.init)(jax.random.key(0))
    batches = batch_of(4, 16) if batches is None else batches
    after, report = jax.jit(lambda key, state, batches: agent.update(key, state, batches, learning))(
        KEY, state, batches
    )
    assert fault_text(report) is None
    return state, after, report


@every_agent
def test_critics_regress_on_the_rows_that_they_are_given(name):
    """Twice as many rows as the batch has, all with the target 7: the critics learn 7 there, and nothing else."""

    def regression(key, agent, batch):
        obs, action = jnp.concatenate([batch.obs, batch.next_obs]), jnp.concatenate([batch.action, -batch.action])
        return Regression(obs, action, jnp.full(obs.shape[0], 7.0))

    agent = AGENTS[name]
    before, after, report = update(agent, Learning(regression=regression), batch_of(60, 16))
    batch = jax.tree.map(lambda leaf: leaf[0], batch_of(60, 16))
    q_values = jax.jit(agent.critic.q_values)
    far, near = (np.abs(q_values(state, batch.next_obs, -batch.action) - 7.0).mean() for state in (before, after))
    assert near < far
    batches = batch_of(60, 16)  # the reward of the batch does not matter
    _, other, _ = update(agent, Learning(regression=regression), batches.replace(reward=batches.reward + 100.0))
    assert same(other.critics, after.critics)
    assert float(report.metrics["critic_loss"]) > 0


@every_agent
def test_the_actor_follows_the_loss_that_it_is_given(name):
    """The loss is the mean distance of the actions from 0.5."""
    agent = AGENTS[name]

    def actor_loss(key, actor, agent_state, batch):
        action = agent.act(key, actor, batch.obs, False)
        return jnp.mean(jnp.square(action - 0.5)), jnp.zeros(batch.reward.shape)

    before, after, report = update(agent, Learning(actor_loss=actor_loss), batch_of(60, 16))
    obs = batch_of(1, 16).obs[0]
    act = jax.jit(agent.act, static_argnums=3)
    far, near = (np.abs(act(KEY, agent.actor(state), obs, False) - 0.5).mean() for state in (before, after))
    assert near < far
    assert np.max(num_steps(after.actor)) == 60
    assert float(report.metrics["actor_loss"]) > 0


def test_own_targets_given_as_a_hook_are_the_agents_own():
    """DDPG, whose target has no noise, so that the hook can say the same."""
    agent = AGENTS["ddpg"]

    def regression(key, state, batch):
        action = agent.act(key, state.target_actor_params, batch.next_obs, False)
        q = agent.critic.target_q_values(state, batch.next_obs, action)
        return Regression(batch.obs, batch.action, td3.critic_target(batch.reward, batch.terminal, q, 0.99))

    _, hooked, _ = update(agent, Learning(regression=regression))
    _, own, _ = update(agent, OWN)
    for a, b in zip(jax.tree.leaves(hooked), jax.tree.leaves(own), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@every_agent
def test_hooks_have_a_key_of_their_own_at_every_update(name):
    seen = []

    def regression(key, state, batch):
        jax.debug.callback(lambda x: seen.append(float(x)), jax.random.uniform(key))
        return Regression(batch.obs, batch.action, batch.reward)

    update(AGENTS[name], Learning(regression=regression))
    jax.effects_barrier()
    assert len(set(seen)) == 4


@pytest.mark.parametrize(("build", "config"), [(sac.build, sac.SacConfig), (td3.build, td3.Td3Config)])
@pytest.mark.parametrize("num_critics", [1, 3])
def test_the_number_of_critics_is_a_knob(build, config, num_critics):
    agent = build(config(**SMALL, num_critics=num_critics), SPEC)
    _, after, report = update(agent, OWN)
    batch = jax.tree.map(lambda leaf: leaf[0], batch_of(1, 16))
    q = jax.jit(agent.critic.q_values)(after, batch.obs, batch.action)
    assert q.shape == (num_critics, 16)
    names = [name for group in report.watched for name in group.names]
    assert sum("loss" in name and "critic" in name for name in names) == num_critics
    assert ("the critic's loss" in names) == (num_critics == 1)
