"""Noise that is correlated over time, for drawing action sequences."""

import jax
import jax.numpy as jnp

from mbpo_jax.types import Array, Key


def coloured(key: Key, exponent: float, shape: tuple[int, ...]) -> Array:
    """Draws Gaussian noise [..., T, A] of variance 1, whose power at frequency f is proportional to f^-exponent.

    0 is white noise, 1 pink, 2 a bounded random walk. The mean counts as frequency 1 / T.

    References: Timmer and König 1995, "On generating power law noise"; Pinneri et al. 2020 (iCEM).
    """
    *batch, length, width = shape
    scale = amplitudes(length, exponent)
    parts = jax.random.normal(key, (2, *batch, width, scale.size))
    spectrum = (parts[0] + 1j * parts[1]) * jnp.broadcast_to(scale, parts.shape[1:])
    return jnp.swapaxes(jnp.fft.irfft(spectrum, n=length, axis=-1), -1, -2)


def amplitudes(length: int, exponent: float) -> Array:
    """Returns the scales [T // 2 + 1] of real and imaginary parts at each frequency, for noise of variance 1."""
    frequency = jnp.arange(length // 2 + 1) / length
    amplitude = jnp.maximum(frequency, 1.0 / length) ** (-0.5 * exponent)
    # Frequencies 0 and 1/2 have no imaginary part, so the real part carries all of their power.
    is_real = (frequency == 0.0) | (2.0 * frequency == 1.0)
    amplitude = jnp.where(is_real, jnp.sqrt(2.0), 1.0) * amplitude
    variance = jnp.sum(jnp.where(is_real, 1.0, 4.0) * jnp.square(amplitude)) / length**2
    return amplitude / jnp.sqrt(variance)
