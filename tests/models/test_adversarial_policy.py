"""The game by which the backward policy can learn: losses by hand, gradients of one side alone, and that it is won."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mbpo_jax import replay
from mbpo_jax.models import adversarial_policy, backward_policy
from mbpo_jax.models.backward_policy import BackwardPolicy
from mbpo_jax.networks import InverseActor
from mbpo_jax.types import Spec, Transition

SPEC = Spec(obs_dim=2, action_dim=1)
POLICY = BackwardPolicy(SPEC, InverseActor(1, 16, 1), optax.adam(3e-3), batch_size=64, num_rows=400, variance=0.01)


def rows(action, next_obs):
    zeros = jnp.zeros(len(next_obs))
    return Transition(obs=jnp.zeros_like(next_obs), action=action, reward=zeros, next_obs=next_obs, terminal=zeros)


def zeros(players):
    return jax.tree.map(jnp.zeros_like, players)


def taking_the_action(players):
    """A discriminator whose logit is the action times 2, above 0, and 0 below: relu(2 a)."""
    params = zeros(players.discriminator.params)
    first, last = (params["_Mlp_0"][name] for name in sorted(params["_Mlp_0"]))
    first["kernel"] = first["kernel"].at[2, 0].set(2.0)
    last["kernel"] = last["kernel"].at[0, 0].set(1.0)
    return params


def test_a_discriminator_that_knows_nothing_is_half_sure_of_all():
    players = zeros(adversarial_policy.init(POLICY, jax.random.key(0)))
    some = rows(jnp.full((5, 1), 0.3), jnp.ones((5, 2)))
    loss = adversarial_policy.discriminator_loss(
        POLICY, players.discriminator.params, players.params, jax.random.key(1), some
    )
    np.testing.assert_allclose(loss, 2.0 * math.log(2.0), rtol=1e-6)
    fooled = adversarial_policy.actor_loss(
        POLICY, players.params, players.discriminator.params, jax.random.key(1), some.next_obs
    )
    np.testing.assert_allclose(fooled, math.log(2.0), rtol=1e-6)


def test_the_losses_by_hand():
    """The logit is 2 a of positive actions; without variance the policy of zeros draws 0, where D is 1/2."""
    policy = POLICY._replace(variance=0.0)
    players = adversarial_policy.init(policy, jax.random.key(0))
    judge, actor = taking_the_action(players), zeros(players.params)
    some = rows(jnp.full((5, 1), 0.75), jnp.ones((5, 2)))
    np.testing.assert_allclose(adversarial_policy.logit(policy, judge, some.next_obs, some.action), [1.5] * 5)
    loss = adversarial_policy.discriminator_loss(policy, judge, actor, jax.random.key(1), some)
    np.testing.assert_allclose(loss, math.log1p(math.exp(-1.5)) + math.log(2.0), rtol=1e-6)
    fooled = adversarial_policy.actor_loss(policy, actor, judge, jax.random.key(1), some.next_obs)
    np.testing.assert_allclose(fooled, math.log(2.0), rtol=1e-6)


def test_the_actor_moves_to_where_the_discriminator_believes():
    """-log D has the slope -(1 - D) of the logit, which is 2 a where the mean is 0.1: -2 / (1 + e^0.2)."""
    policy = POLICY._replace(variance=0.0)
    players = adversarial_policy.init(policy, jax.random.key(0))
    judge, actor = taking_the_action(players), zeros(players.params)
    actor = jax.tree.map(lambda leaf: leaf.at[0].set(math.atanh(0.1)) if leaf.shape == (2,) else leaf, actor)
    mean, _ = backward_policy.predict(policy, actor, jnp.ones((1, 2)))
    np.testing.assert_allclose(mean, [[0.1]], rtol=1e-5)
    grads = jax.grad(adversarial_policy.actor_loss, argnums=1)(
        policy, actor, judge, jax.random.key(1), jnp.ones((4, 2))
    )
    (bias,) = (leaf for leaf in jax.tree.leaves(grads) if leaf.shape == (2,))
    slope_of_tanh = 1.0 - 0.1**2
    np.testing.assert_allclose(bias, [-2.0 / (1.0 + math.exp(0.2)) * slope_of_tanh, 0.0], rtol=1e-4)


def test_each_side_moves_its_own_parameters():
    real = replay.add(replay.init(SPEC, 40), rows(jnp.full((40, 1), 0.5), jnp.ones((40, 2))))
    start = adversarial_policy.init(POLICY, jax.random.key(0))
    moved, report = jax.jit(functools.partial(adversarial_policy.update, POLICY))(jax.random.key(1), start, real)
    for side in ("actor", "discriminator"):
        before, after = (getattr(players, side).params for players in (start, moved))
        steps = [float(jnp.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True)]
        assert 1e-3 < max(steps) < 4e-3  # one step of Adam
    assert set(report.metrics) == {"loss", "discriminator_loss"}


def test_it_learns_from_the_newest_rows_what_led_where():
    """The newest 400 actions are half of where they led, with the policy's own noise; 400 before them are not."""
    rng = np.random.default_rng(0)
    next_obs = jnp.asarray(rng.uniform(-1.0, 1.0, (400, 2)), jnp.float32)
    action = 0.5 * next_obs[:, :1] + 0.1 * jnp.asarray(rng.normal(size=(400, 1)), jnp.float32)
    real = replay.add(replay.init(SPEC, 800), rows(jnp.full((400, 1), -0.9), next_obs))
    real = replay.add(real, rows(action, next_obs))

    def update(players, key):
        players, report = adversarial_policy.update(POLICY, key, players, real)
        return players, report.metrics["discriminator_loss"]

    start = adversarial_policy.init(POLICY, jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 3000)
    players, losses = jax.jit(lambda start: jax.lax.scan(update, start, keys))(start)
    mean, _ = backward_policy.predict(POLICY, players.params, next_obs)
    error = float(jnp.sqrt(jnp.mean(jnp.square(mean - 0.5 * next_obs[:, :1]))))
    assert error < 0.1, error  # 0.29 with a mean of 0
    assert float(losses[-500:].mean()) > 1.2  # 1.39 where nothing can be told apart
