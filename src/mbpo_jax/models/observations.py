"""How single observations become inputs: angles as sine and cosine, and not at all where their value is predicted."""

import functools

import jax.numpy as jnp

from mbpo_jax.models.encoding import Encoding
from mbpo_jax.types import Array, Transition


def encode_observations(encoding: Encoding, angles: tuple[int, ...] = (), absolute: tuple[int, ...] = ()) -> Encoding:
    """Returns an encoding that treats some observations, by number, in another way.

    Args:
      angles: what is in rad; inputs have its sine and cosine, which do not jump where a turn is complete. Targets stay
        as they are, so it is moved by the change that is predicted of it, over as many turns as may be.
      absolute: what is predicted as it is, not as a change, and left out of the inputs; no number of `angles`.

    References: Chua et al. 2018 (PETS), the cart-pole and the half-cheetah of kchua/handful-of-trials.
    """
    return encoding._replace(
        num_inputs=encoding.num_inputs + len(angles) - len(absolute),
        inputs=functools.partial(_inputs, encoding, angles, absolute),
        examples=functools.partial(_examples, encoding, angles, absolute),
        decode=functools.partial(_decode, encoding, absolute),
    )


def _inputs(encoding: Encoding, angles: tuple[int, ...], absolute: tuple[int, ...], obs: Array, action: Array) -> Array:
    others = [i for i in range(obs.shape[-1]) if i not in angles and i not in absolute]
    turns = obs[..., jnp.asarray(angles, jnp.int32)]
    shown = jnp.concatenate([jnp.sin(turns), jnp.cos(turns), obs[..., jnp.asarray(others, jnp.int32)]], axis=-1)
    return encoding.inputs(shown, action)


def _examples(
    encoding: Encoding, angles: tuple[int, ...], absolute: tuple[int, ...], rows: Transition
) -> tuple[Array, Array]:
    _, targets = encoding.examples(rows.replace(obs=_from_zero(absolute, rows.obs)))
    return _inputs(encoding, angles, absolute, rows.obs, rows.action), targets


def _decode(
    encoding: Encoding, absolute: tuple[int, ...], obs: Array, action: Array, target: Array
) -> tuple[Array, Array]:
    return encoding.decode(_from_zero(absolute, obs), action, target)


def _from_zero(absolute: tuple[int, ...], obs: Array) -> Array:
    """Returns observations from which a change of these is their value."""
    return obs.at[..., jnp.asarray(absolute, jnp.int32)].set(0.0) if absolute else obs
