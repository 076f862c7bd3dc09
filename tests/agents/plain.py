"""Batches, and DDPG and TD3 written out in a loop, for the tests to compare with."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mbpo_jax import health
from mbpo_jax.types import Spec, Transition

SPEC = Spec(obs_dim=3, action_dim=2)


def batch_of(num_updates, num_rows, seed=0):
    rng = np.random.default_rng(seed)
    shape = (num_updates, num_rows)
    return Transition(
        obs=rng.normal(size=(*shape, 3)).astype(np.float32),
        action=rng.uniform(-0.9, 0.9, size=(*shape, 2)).astype(np.float32),
        reward=rng.normal(size=shape).astype(np.float32),
        next_obs=rng.normal(size=(*shape, 3)).astype(np.float32),
        terminal=(rng.uniform(size=shape) < 0.3).astype(np.float32),
    )


def some_of(batches, start, stop):
    return jax.tree.map(lambda leaf: leaf[start:stop], batches)


def dense(params, x):
    (body,) = params.values()
    for i in range(len(body) - 1):
        x = jnp.maximum(x @ body[f"Dense_{i}"]["kernel"] + body[f"Dense_{i}"]["bias"], 0.0)
    last = body[f"Dense_{len(body) - 1}"]
    return x @ last["kernel"] + last["bias"]


def policy(params, obs):
    return jnp.tanh(dense(params, obs))


def q_of(params, m, obs, action):
    return dense(jax.tree.map(lambda leaf: leaf[m], params), jnp.concatenate([obs, action], -1))[:, 0]


def written_out(state, batches, noise, config, num_critics, noise_std, noise_clip, every):
    """The state's parts by name after the updates of `batches` [G, B, ...] with noise [G, B, A]."""
    pi, q, target_pi, target_q = parts(state).values()
    adam, rate, critics = optax.adam(config.learning_rate), config.target_update_rate, range(num_critics)
    opt_pi, opt_q = jax.jit(adam.init)(pi), jax.jit(adam.init)(q)

    @jax.jit
    def critics_grads(q, target_pi, target_q, b, noise):
        noise = jnp.clip(noise_std * noise, -noise_clip, noise_clip)
        next_action = jnp.clip(policy(target_pi, b.next_obs) + noise, -1, 1)
        next_q = jnp.min(jnp.stack([q_of(target_q, m, b.next_obs, next_action) for m in critics]), axis=0)
        y = b.reward + config.discount * (1 - b.terminal) * next_q
        return jax.grad(lambda q: sum(0.5 * ((q_of(q, m, b.obs, b.action) - y) ** 2).mean() for m in critics))(q)

    @jax.jit
    def actor_grads(pi, q, b):
        return jax.grad(lambda pi: -q_of(q, 0, b.obs, policy(pi, b.obs)).mean())(pi)

    @jax.jit
    def descend(params, grads, moments):
        step, moments = adam.update(grads, moments)
        return optax.apply_updates(params, step), moments

    for g in range(len(noise)):
        b = jax.tree.map(lambda leaf, g=g: leaf[g], batches)
        q, opt_q = descend(q, critics_grads(q, target_pi, target_q, b, noise[g]), opt_q)
        if (g + 1) % every == 0:
            pi, opt_pi = descend(pi, actor_grads(pi, q, b), opt_pi)
            target_pi, target_q = (
                jax.tree.map(lambda new, old: rate * np.asarray(new) + (1 - rate) * old, new, old)
                for new, old in ((pi, target_pi), (q, target_q))
            )
    return {"actor": pi, "critics": q, "target_actor": target_pi, "targets": target_q}


def parts(state):
    """The state's parameters by name, as NumPy arrays."""
    return jax.device_get(
        {
            "actor": state.actor.params,
            "critics": state.critics.params,
            "target_actor": state.target_actor_params,
            "targets": state.target_params,
        }
    )


def same(one, other):
    """Whether two trees are equal bit for bit."""
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in leaves)


def assert_close(got, want, atol=2e-5):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


def plant(params, value, index=(0, 2, 3), layer="Dense_0", part="kernel"):
    """Parameters with one entry set."""
    ((name, body),) = params.items()
    changed = {**body[layer], part: body[layer][part].at[index].set(value)}
    return {name: {**body, layer: changed}}


FIRST_FAULT = jax.jit(health.first_fault)


def fault_of(report):
    """The first fault of a report, on the host."""
    return jax.device_get(FIRST_FAULT(report.watched))


def fault_text(report):
    return health.describe(fault_of(report))


def num_steps(learner):
    """Optimiser steps taken, for each member of a stacked learner."""
    return learner.opt_state[0].count
