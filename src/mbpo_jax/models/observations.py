"""How single observations become inputs: angles as sine and cosine, and those predicted absolutely not at all."""

import functools

import jax.numpy as jnp

from mbpo_jax.models.encoding import Encoding
from mbpo_jax.types import Array, Transition


def encode_observations(encoding: Encoding, angles: tuple[int, ...] = (), absolute: tuple[int, ...] = ()) -> Encoding:
    """Returns an encoding that treats some observations, given by index, differently.

    Args:
      angles: in rad; inputs have their sine and cosine, which do not jump at a full turn. Targets are unchanged: the
        predicted change is added to the angle itself, over any number of turns.
      absolute: predicted as values, not as changes, and left out of the inputs; disjoint from `angles`.

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
    """Returns observations with these set to 0, so that their change equals their value."""
    return obs.at[..., jnp.asarray(absolute, jnp.int32)].set(0.0) if absolute else obs
