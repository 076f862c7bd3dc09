"""Observations that are angles: the network sees their sine and cosine, which do not jump where a turn is complete."""

import functools

import jax.numpy as jnp

from mbpo_jax.models.encoding import Encoding
from mbpo_jax.types import Array, Transition


def see_angles(encoding: Encoding, angles: tuple[int, ...]) -> Encoding:
    """Returns an encoding whose inputs have sine and cosine in place of the observations `angles` (rad), by number.

    Targets stay as they are, so an angle is moved by the change that is predicted of it, over as many turns as may be.
    Reference: Chua et al. 2018 (PETS), the cart-pole of kchua/handful-of-trials.
    """
    return encoding._replace(
        num_inputs=encoding.num_inputs + len(angles),
        inputs=functools.partial(_inputs, encoding, angles),
        examples=functools.partial(_examples, encoding, angles),
    )


def _inputs(encoding: Encoding, angles: tuple[int, ...], obs: Array, action: Array) -> Array:
    others = [i for i in range(obs.shape[-1]) if i not in angles]
    turns = obs[..., jnp.asarray(angles)]
    shown = jnp.concatenate([jnp.sin(turns), jnp.cos(turns), obs[..., jnp.asarray(others, jnp.int32)]], axis=-1)
    return encoding.inputs(shown, action)


def _examples(encoding: Encoding, angles: tuple[int, ...], rows: Transition) -> tuple[Array, Array]:
    _, targets = encoding.examples(rows)
    return _inputs(encoding, angles, rows.obs, rows.action), targets
