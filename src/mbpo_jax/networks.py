"""The neural networks; the only file that uses flax.linen."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from mbpo_jax.types import Array

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0  # softlearning's bounds of the policy's log_std


def _truncated_normal(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
    """Draws weights of standard deviation 1 / (2 sqrt(fan_in)) before truncation at two of them, as officially."""
    std = 0.5 / jnp.sqrt(shape[0])
    return std * jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype)


class GaussianMlp(nn.Module):
    """A member of the dynamics ensemble: inputs to the mean and the unbounded log-variance of the targets.

    The two heads are the two halves of the official code's last layer, kept apart so that no output is split.
    Products run in full float32 on every backend: TPUs would otherwise round inputs to bfloat16 and GPUs to TF32,
    which is as coarse as the noise that the model has to learn.
    """

    num_targets: int
    hidden_units: int
    num_hidden_layers: int

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Maps [..., I] to (mean, raw_log_var), each [..., D]."""

        def dense(units: int, name: str) -> nn.Dense:
            return nn.Dense(units, kernel_init=_truncated_normal, precision=jax.lax.Precision.HIGHEST, name=name)

        for i in range(self.num_hidden_layers):
            x = nn.swish(dense(self.hidden_units, f"layer_{i}")(x))
        return dense(self.num_targets, "mean")(x), dense(self.num_targets, "log_var")(x)


class MeanMlp(nn.Module):
    """A member of a deterministic ensemble: the network above without the head for the log-variance."""

    num_targets: int
    hidden_units: int
    num_hidden_layers: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps [..., I] to the targets [..., D]."""

        def dense(units: int, name: str) -> nn.Dense:
            return nn.Dense(units, kernel_init=_truncated_normal, precision=jax.lax.Precision.HIGHEST, name=name)

        for i in range(self.num_hidden_layers):
            x = nn.swish(dense(self.hidden_units, f"layer_{i}")(x))
        return dense(self.num_targets, "mean")(x)


class Classifier(nn.Module):
    """Inputs [..., I] to the logit [...] of a class of two."""

    hidden_units: int
    num_hidden_layers: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns the logit."""
        return _Mlp(1, self.hidden_units, self.num_hidden_layers)(x)[..., 0]


class _Mlp(nn.Module):
    num_outputs: int
    hidden_units: int
    num_hidden_layers: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for _ in range(self.num_hidden_layers):
            x = nn.relu(nn.Dense(self.hidden_units, kernel_init=nn.initializers.glorot_uniform())(x))
        return nn.Dense(self.num_outputs, kernel_init=nn.initializers.glorot_uniform())(x)


class Actor(nn.Module):
    """A Gaussian policy before its tanh: observation [..., O] to (mean, log_std), each [..., A]."""

    action_dim: int
    hidden_units: int
    num_hidden_layers: int

    @nn.compact
    def __call__(self, obs: Array) -> tuple[Array, Array]:
        """Maps obs [..., O] to mean and log_std [..., A]."""
        mean, log_std = jnp.split(_Mlp(2 * self.action_dim, self.hidden_units, self.num_hidden_layers)(obs), 2, -1)
        return mean, jnp.clip(log_std, LOG_STD_MIN, LOG_STD_MAX)


class DeterministicActor(nn.Module):
    """A policy without noise: observation [..., O] to action [..., A], each in [-1, 1]."""

    action_dim: int
    hidden_units: int
    num_hidden_layers: int

    @nn.compact
    def __call__(self, obs: Array) -> Array:
        """Maps obs [..., O] to action [..., A]."""
        return jnp.tanh(_Mlp(self.action_dim, self.hidden_units, self.num_hidden_layers)(obs))


class Critic(nn.Module):
    """One action-value function: (obs [..., O], action [..., A]) to q [...]."""

    hidden_units: int
    num_hidden_layers: int

    @nn.compact
    def __call__(self, obs: Array, action: Array) -> Array:
        """Maps obs [..., O] and action [..., A] to q [...]."""
        return _Mlp(1, self.hidden_units, self.num_hidden_layers)(jnp.concatenate([obs, action], -1))[..., 0]
