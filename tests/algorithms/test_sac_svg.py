"""What SAC-SVG's actor maximises, before and after warm-up, and to which entropy it is held."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax import normalizer, options, terminations
from mbpo_jax.agents import sac
from mbpo_jax.algorithms import REGISTRY, sac_svg
from mbpo_jax.models import sequence
from mbpo_jax.types import Learning, Spec, Transition

SPEC = Spec(obs_dim=3, action_dim=2, termination_fn=terminations.never)
ENTRY = REGISTRY["sac_svg"]


def parts_of(spec=SPEC, **changes):
    config = options.replace(ENTRY.tiny_config(), changes)
    inside = sac.build(config.agent, spec)
    model = sequence.build(config.model, spec, config.horizon)
    return sac_svg.SacSvg(config, spec, model, inside, sac_svg.scaled.build(inside, spec))


def batch(num_rows=8):
    obs = jax.random.normal(jax.random.key(5), (num_rows, SPEC.obs_dim))
    zeros = jnp.zeros(num_rows)
    return Transition(obs=obs, action=jnp.zeros((num_rows, 2)), reward=zeros, next_obs=obs, terminal=zeros)


def test_the_model_counts_after_warm_up_and_not_before():
    parts = parts_of()
    state = sac_svg.init(parts, jax.random.key(0))
    agent = state.agent.agent

    def loss(params, warm):
        model = sequence.SequenceState(
            dynamics=state.model.dynamics.replace(params=params[0]), reward=state.model.reward.replace(params=params[1])
        )
        key, of_state = jax.random.key(1), state.replace(model=model)
        return sac_svg.actor_loss(parts, of_state, warm, key, agent.actor.params, agent, batch())[0]

    gradient = jax.jit(jax.grad(loss))
    for warm in (True, False):
        for found in gradient((state.model.dynamics.params, state.model.reward.params), jnp.bool_(warm)):
            largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(found))
            assert (largest == 0.0) == warm


def test_while_it_warms_up_the_loss_is_sac_s_own():
    parts = parts_of()
    state = sac_svg.init(parts, jax.random.key(0))
    agent = state.agent.agent
    key, actor = jax.random.key(1), agent.actor.params
    found, log_prob = sac_svg.actor_loss(parts, state, jnp.bool_(True), key, actor, agent, batch())
    _, key_last = jax.random.split(key)
    noise = jax.random.normal(key_last, (8, 2))
    actor_net = sac.Actor(2, parts.config.agent.hidden_units, parts.config.agent.num_hidden_layers)
    mean, log_std = actor_net.apply({"params": actor}, batch().obs)
    action, expected_log_prob = sac.distributions.tanh_gaussian(mean, log_std, noise)
    q = parts.inside.critic.q_values(agent, batch().obs, action)
    np.testing.assert_allclose(log_prob, expected_log_prob, rtol=1e-5)
    assert found == pytest.approx(float(sac.actor_loss(q, expected_log_prob, jnp.float32(1.0))), rel=1e-5)


def test_an_end_that_the_rule_sees_in_observations_as_they_are_leaves_one_reward():
    """Every step ends: the loss is minus the reward and the bonus of the first action, whatever the critics say."""
    spec = SPEC._replace(
        termination_fn=lambda obs, action, next_obs: obs[:, 0] > -1e9,
        reward_fn=lambda obs, action, next_obs: obs[:, 0],
    )
    parts = parts_of(spec)
    state = sac_svg.init(parts, jax.random.key(0))
    scale = normalizer.Normalizer(mean=jnp.array([7.0, 0.0, 0.0]), std=jnp.array([2.0, 1.0, 1.0]))
    state = state.replace(agent=state.agent.replace(scale=scale))
    agent = state.agent.agent
    found, log_prob = sac_svg.actor_loss(
        parts, state, jnp.bool_(False), jax.random.key(1), agent.actor.params, agent, batch()
    )
    as_they_are = 7.0 + 2.0 * batch().obs[:, 0]
    assert found == pytest.approx(-float(jnp.mean(as_they_are - log_prob)), rel=1e-4)  # at a temperature of 1


def test_the_target_entropy_goes_from_the_first_to_the_agent_s_own():
    how = {"first_target_entropy": 1.0, "entropy_decay_steps": 100, "entropy_decay_power": 2.0}
    parts = parts_of(**how)
    entropies = [float(sac_svg.target_entropy(parts, jnp.int32(step))) for step in (0, 50, 100, 200)]
    assert entropies == pytest.approx([1.0, -2.0 + 3.0 * 0.25, -2.0, -2.0])  # auto: minus the 2 action dimensions
    with_own = parts_of(**how, **{"agent.target_entropy": -5.0})
    assert float(sac_svg.target_entropy(with_own, jnp.int32(100))) == -5.0
    assert sac_svg.target_entropy(parts_of(), jnp.int32(100)) is None


def test_the_temperature_follows_the_target_entropy_of_the_moment():
    """Far above what the policy has it rises, far below it falls; nothing else of the agent depends on it."""
    parts = parts_of()
    state = parts.inside.init(jax.random.key(0))
    rows = jax.tree.map(lambda leaf: leaf[None], batch())
    update = jax.jit(
        lambda target: parts.inside.update(jax.random.key(2), state, rows, Learning(target_entropy=target))
    )
    (low, _), (high, _) = update(jnp.float32(-50.0)), update(jnp.float32(50.0))
    assert float(low.log_temperature.params) < 0.0 < float(high.log_temperature.params)
    jax.tree.map(np.testing.assert_array_equal, (low.actor, low.critics), (high.actor, high.critics))


def test_without_a_rule_of_ends_it_is_refused_in_one_line():
    config = ENTRY.tiny_config()
    for spec, name in ((SPEC._replace(termination_fn=None), "auto"), (SPEC, "learned")):
        with pytest.raises(ValueError, match=f"termination_fn must be a rule for this algorithm, got '{name}'"):
            sac_svg.build(dataclasses.replace(config, termination_fn=name), spec)
