"""An agent that receives scaled observations; everything around it, such as model and environment, uses unscaled ones.

References: Fujimoto & Gu 2021 (TD3+BC), section 5.2, for standardised observations.
"""

import functools

import jax.numpy as jnp
from flax import struct

from mbpo_jax import health, normalizer, replay
from mbpo_jax.normalizer import Normalizer, normalize
from mbpo_jax.replay import Replay
from mbpo_jax.types import OWN, Agent, Array, Critic, Key, Learning, Programs, PyTree, Report, Spec, Transition

NONE, STANDARD, MIN_MAX = "none", "standard", "min_max"
SCALINGS = (NONE, STANDARD, MIN_MAX)


class Scaled(struct.PyTreeNode, kw_only=True):
    """The state of an agent, or its actor, and the scale of its observations."""

    scale: Normalizer  # [O]
    agent: PyTree


def build(agent: Agent, spec: Spec) -> Agent:
    """Returns an agent that receives scaled observations; the scale is the identity until `measure` sets it."""
    critic = agent.critic
    return Agent(
        init=lambda key: Scaled(scale=normalizer.identity(spec.obs_dim), agent=agent.init(key)),
        actor=lambda state: Scaled(scale=state.scale, agent=agent.actor(state.agent)),
        act=functools.partial(act, agent),
        update=functools.partial(update, agent),
        critic=None if critic is None else _scaled_critic(critic),
        draw=None if agent.draw is None else functools.partial(draw, agent),
    )


def act(agent: Agent, key: Key, actor: Scaled, obs: Array, explores: bool) -> Array:
    """Returns actions [B, A] at unscaled observations [B, O]."""
    return agent.act(key, actor.agent, normalize(actor.scale, obs), explores)


def draw(agent: Agent, key: Key, state: Scaled, actor: Scaled, obs: Array) -> tuple[Array, Array, Array]:
    """Returns what the wrapped agent draws at unscaled observations [B, O]."""
    assert agent.draw is not None
    return agent.draw(key, state.agent, actor.agent, normalize(actor.scale, obs))


def update(
    agent: Agent, key: Key, state: Scaled, batches: Transition, learning: Learning = OWN
) -> tuple[Scaled, Report]:
    """Updates the wrapped agent on scaled batches; the functions of `learning` also get its state and scaled rows."""
    scaled = batches.replace(obs=normalize(state.scale, batches.obs), next_obs=normalize(state.scale, batches.next_obs))
    inside, report = agent.update(key, state.agent, scaled, learning)
    return state.replace(agent=inside), report


def measure(scaling: str) -> Programs:
    """Returns the program that sets the scale of `state.agent` from the real rows.

    Args:
      scaling: STANDARD, to mean 0 and standard deviation 1, or MIN_MAX, to [-1, 1].
    """
    return Programs((functools.partial(_measure, scaling),))


def _measure(scaling: str, key: Key, state: PyTree, real: Replay) -> tuple[PyTree, Report]:
    del key
    scale = spread(real) if scaling == STANDARD else _range(real)
    state = state.replace(agent=state.agent.replace(scale=scale))
    return state, Report({"obs_center": scale.mean, "obs_scale": scale.std}, (health.watch({"a scale": scale}),))


def spread(real: Replay) -> Normalizer:
    """Returns means and standard deviations [O], from differences so that constants have variance 0 (and scale 1)."""
    obs, inside = real.rows.obs, _is_valid(real)

    def average(values: Array) -> Array:
        return jnp.sum(jnp.where(inside, values, 0.0), axis=0) / real.size

    mean = obs[0] + average(obs - obs[0])
    return normalizer.from_moments(mean, average(jnp.square(obs - mean)))


def _range(real: Replay) -> Normalizer:
    """Returns centres and half-widths [O] of the ranges."""
    obs, inside = real.rows.obs, _is_valid(real)
    low = jnp.min(jnp.where(inside, obs, jnp.inf), axis=0)
    high = jnp.max(jnp.where(inside, obs, -jnp.inf), axis=0)
    return normalizer.from_moments(0.5 * (low + high), jnp.square(0.5 * (high - low)))


def _is_valid(real: Replay) -> Array:
    """Returns which slots hold a row, bool [N, 1]; slots are filled from the first on."""
    return (jnp.arange(replay.capacity(real)) < real.size)[:, None]


def _scaled_critic(critic: Critic) -> Critic:
    return Critic(
        q_values=lambda state, obs, action: critic.q_values(state.agent, normalize(state.scale, obs), action),
        target_q_values=lambda state, obs, action: critic.target_q_values(
            state.agent, normalize(state.scale, obs), action
        ),
        target_action=lambda key, state, obs: critic.target_action(key, state.agent, normalize(state.scale, obs)),
        has_entropy=critic.has_entropy,
    )
