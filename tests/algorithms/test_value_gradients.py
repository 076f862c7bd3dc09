"""SVG's phases: which log-probabilities and episodes they keep, and that real steps are explained."""

import dataclasses

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax import options, replay
from mbpo_jax.agents import svg as agents
from mbpo_jax.algorithms import REGISTRY, svg
from mbpo_jax.models import encoding, gaussian, noise_inference
from mbpo_jax.models.noise_inference import NoiseInference
from mbpo_jax.types import FINISHED, Spec, Transition

SPEC, ENTRY = Spec(obs_dim=3, action_dim=2), REGISTRY["svg"]


def parts_of(**changes):
    config = options.replace(ENTRY.tiny_config(), changes)
    world = gaussian.build(config.model, SPEC)
    inference = NoiseInference(world, encoding.forward(SPEC))
    return svg.Svg(config, SPEC, world, inference, agents.build(config.agent, SPEC))


def rows(num_rows):
    rng = np.random.default_rng(0)
    return Transition(
        obs=rng.normal(size=(num_rows, 3)).astype(np.float32),
        action=rng.uniform(-0.9, 0.9, (num_rows, 2)).astype(np.float32),
        reward=rng.normal(size=num_rows).astype(np.float32),
        next_obs=rng.normal(size=(num_rows, 3)).astype(np.float32),
        terminal=np.zeros(num_rows, np.float32),
    )


def holding(num_rows, firsts, capacity=100):
    return compiled.filled(SPEC, capacity, rows(num_rows), np.isin(np.arange(num_rows), firsts))


def test_with_its_own_noise_a_real_step_is_what_the_model_says_and_another_action_leads_elsewhere():
    parts = parts_of()
    belief = parts.world.belief(jax.jit(parts.world.init)(jax.random.key(0)))
    real = rows(5)
    next_obs, reward = noise_inference.repeat(parts.inference, belief, real, real.action)
    np.testing.assert_allclose(next_obs, real.next_obs, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(reward, real.reward, rtol=1e-4, atol=1e-5)
    other, _ = noise_inference.repeat(parts.inference, belief, real, -real.action)
    assert np.abs(other - real.next_obs).min() > 0.0
    known = parts.inference._replace(reward_fn=lambda obs, action, next_obs: obs[:, 0] + 10.0 * next_obs[:, 1])
    _, reward = noise_inference.repeat(known, belief, real, real.action)
    np.testing.assert_allclose(reward, real.obs[:, 0] + 10.0 * real.next_obs[:, 1], rtol=1e-4, atol=1e-4)


def test_every_row_keeps_the_probability_with_which_it_was_acted():
    """40 random ones: 1/4 in two dimensions of width 2; afterwards that of the policy, at the row's number modulo N."""
    parts = parts_of(replay_capacity=45)
    state = svg.init(parts, jax.random.key(0))
    assert state.behaviour.tolist() == pytest.approx([-2.0 * np.log(2.0)] * 45)
    for count, slot in ((40, 39), (41, 40), (46, 0), (90, 44)):
        real = holding(40, [0], capacity=45).replace(num_added=jnp.int32(count))
        kept = svg.remember(parts, state, real).behaviour
        newest = jax.tree.map(lambda leaf: leaf[39:], rows(40))
        (own,) = agents.log_prob(parts.agent, state.agent.actor.params, newest.obs, newest.action)
        expected = -2.0 * np.log(2.0) if count == 40 else float(own)
        assert float(kept[slot]) == pytest.approx(expected, rel=1e-5)
        assert np.delete(kept, slot).tolist() == pytest.approx([-2.0 * np.log(2.0)] * 44)


@pytest.mark.parametrize(
    ("firsts", "number", "length"),
    [
        ([0, 41, 50], 41, 9),
        ([0, 10, 45], 10, 30),  # 35 long, of which 30 are looked at
        ([0], -1, 0),  # the running one is none
        ([0, 59], 0, 30),
    ],
)
def test_the_newest_episode_that_has_ended(firsts, number, length):
    found, inside, which = replay.newest_episode(holding(60, firsts), 30)
    assert (int(which), int(inside.sum())) == (number, length)
    expected = rows(60).reward[max(number, 0) : max(number, 0) + length]
    np.testing.assert_array_equal(found.reward[:length], expected)


def test_svg_inf_learns_once_from_each_episode_of_its_policy():
    """An episode that began among the 40 random steps is passed over."""
    parts = parts_of(svg_steps="inf")
    algorithm = svg.build(parts.config, SPEC)
    look, update = map(jax.jit, algorithm.phases[-1].programs.functions)
    due, key = algorithm.phases[-1].programs.due, jax.random.key(1)
    state = svg.init(parts, jax.random.key(0))
    state, _ = look(key, state, holding(60, [0, 20, 50]))
    assert int(due(state)) == FINISHED
    state, report = look(key, state, holding(60, [0, 41, 50]))
    assert (int(due(state)), int(report.metrics["newest_episode_rows"])) == (1, 9)
    after, report = update(key, state, holding(60, [0, 41, 50]))
    assert float(report.metrics["episode_return"]) == pytest.approx(float(rows(60).reward[41:50].sum()), rel=1e-5)
    assert int(after.agent.num_updates) == 2
    assert int(due(after)) == FINISHED
    changed = [
        not np.array_equal(a, b)
        for a, b in zip(*map(jax.tree.leaves, (after.agent.actor.params, state.agent.actor.params)))
    ]
    assert all(changed)
    again, _ = look(key, after, holding(60, [0, 41, 50]))
    assert int(due(again)) == FINISHED
    newer, _ = look(key, after, holding(60, [0, 41, 50, 55]))
    assert int(due(newer)) == 1


def test_the_gradient_of_an_episode_is_that_of_its_return_with_its_noise():
    """By automatic differentiation of the whole episode, which the noise leads through the real states."""
    parts = parts_of(svg_steps="inf")
    state, num_steps = svg.init(parts, jax.random.key(0)), 4
    real = rows(num_steps)
    real = real.replace(next_obs=np.concatenate([real.obs[1:], real.next_obs[-1:]]))
    belief = parts.world.belief(state.model)
    policy, of_model = state.agent.actor.params, noise_inference.noise_of(parts.inference, belief, real)
    own = agents.noise_of(parts.agent, policy, real.obs, real.action)

    def total(policy):
        obs, found = jnp.asarray(real.obs[:1]), 0.0
        for t in range(num_steps):
            action = agents.act(parts.agent, policy, obs, own[t : t + 1])
            obs, reward = noise_inference.move(parts.inference, belief, obs, action, of_model[t : t + 1])
            found += parts.config.agent.discount**t * reward[0]
        return found

    expected = jax.jit(jax.grad(total))(policy)
    found = jax.jit(lambda policy: svg.return_gradient(parts, belief, policy, real, of_model, jnp.ones(4, bool)))(
        policy
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), found, expected)


def test_svg_0_fits_no_model():
    config = dataclasses.replace(ENTRY.tiny_config(), svg_steps="0")
    algorithm = svg.build(config, SPEC)
    assert [phase.name for phase in algorithm.phases] == ["update_agent"]
    state = jax.jit(algorithm.init)(jax.random.key(0))
    after, report = jax.jit(algorithm.phases[0].programs.functions[0])(jax.random.key(1), state, holding(60, [0]))
    assert int(after.agent.num_updates) == 2
    assert float(report.metrics["weight_mean"]) == 1.0
