"""The neural networks; the only file that uses flax.linen."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from mbpo_jax.factorizations import one_at_a_time
from mbpo_jax.types import Array, Key

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0  # softlearning's bounds on the policy's log_std


def _truncated_normal(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
    """Draws weights with standard deviation 1 / (2 sqrt(fan_in)), truncated at two of them, as in the official code."""
    std = 0.5 / jnp.sqrt(shape[0])
    return std * jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype)


def _orthogonal(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
    """Draws a matrix with orthonormal rows or columns, by a QR factorisation."""
    return one_at_a_time(lambda key: nn.initializers.orthogonal()(key, shape, dtype))(key)


class GaussianMlp(nn.Module):
    """A member of the dynamics ensemble: maps inputs to the mean and the unbounded log-variance of the targets.

    The two heads are the two halves of the official code's last layer, kept separate so that no output is split.
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
    """A binary classifier: maps inputs [..., I] to a logit [...]."""

    hidden_units: int
    num_hidden_layers: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns the logit [...] of each input [..., I]."""
        return _Mlp(1, self.hidden_units, self.num_hidden_layers)(x)[..., 0]


class Scalar(nn.Module):
    """Maps inputs [..., I] to one number [...], such as a reward or the value of a state."""

    hidden_units: int
    num_hidden_layers: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Returns one number [...] for each input [..., I]."""
        return _Mlp(1, self.hidden_units, self.num_hidden_layers)(x)[..., 0]


class Recurrent(nn.Module):
    """One recurrent step: maps memory [..., L * K] and inputs [..., I] to new memory and outputs [..., D].

    The hidden layers are followed by L recurrent layers of K units, with a linear layer before the first; L = 0 is a
    network without memory.
    """

    num_outputs: int
    hidden_units: int
    num_hidden_layers: int
    num_recurrent_layers: int

    @nn.compact
    def __call__(self, memory: Array, x: Array) -> tuple[Array, Array]:
        """Returns (memory after the step, outputs)."""
        for _ in range(self.num_hidden_layers):
            x = nn.relu(nn.Dense(self.hidden_units, kernel_init=nn.initializers.glorot_uniform())(x))
        if self.num_recurrent_layers:
            x = nn.Dense(self.hidden_units, kernel_init=nn.initializers.glorot_uniform())(x)
            remembered = []
            for part in jnp.split(memory, self.num_recurrent_layers, axis=-1):
                part, x = nn.GRUCell(self.hidden_units)(part, x)
                remembered.append(part)
            memory = jnp.concatenate(remembered, axis=-1)
        return memory, nn.Dense(self.num_outputs, kernel_init=nn.initializers.glorot_uniform())(x)


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


class InverseActor(nn.Module):
    """Maps an observation [..., O] to mean, in [-1, 1], and unbounded log-variance of the action before it [..., A].

    References: Lai et al. 2020 (BMPO), official code: two heads on one body.
    """

    action_dim: int
    hidden_units: int
    num_hidden_layers: int

    @nn.compact
    def __call__(self, next_obs: Array) -> tuple[Array, Array]:
        """Maps next_obs [..., O] to (mean, raw_log_var), each [..., A]."""
        outputs = _Mlp(2 * self.action_dim, self.hidden_units, self.num_hidden_layers)(next_obs)
        mean, raw_log_var = jnp.split(outputs, 2, -1)
        return jnp.tanh(mean), raw_log_var


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


class SmoothMlp(nn.Module):
    """A network with useful gradients with respect to its inputs: smooth, with normalised layers.

    References: DHMBPO (arXiv 2512.15439), whose networks are of this kind: SiLU, and a parameter-free normalisation of
    the input of each layer but the first. Its actor has orthogonal initial weights, its other networks Kaiming's.
    """

    num_outputs: int
    hidden_units: int
    num_hidden_layers: int
    norm_epsilons: tuple[float, ...] = ()  # added to the variances in each normalisation; (): no normalisation
    dropout_rates: tuple[float, ...] = ()  # of each hidden layer's units, before the activation; needs a key
    zero_last: bool = False  # whether outputs are initially zero
    precision: jax.lax.Precision | None = None

    @nn.compact
    def __call__(self, x: Array, key: Key | None = None) -> Array:
        """Maps [..., I] to [..., num_outputs]; with a key, units are dropped at random."""

        def dense(units: int, kernel_init: nn.initializers.Initializer) -> nn.Dense:
            return nn.Dense(units, kernel_init=kernel_init, precision=self.precision)

        for i in range(self.num_hidden_layers):
            x = dense(self.hidden_units, _orthogonal)(x)
            if key is not None:
                x = nn.Dropout(self.dropout_rates[i], deterministic=False)(x, rng=jax.random.fold_in(key, i))
            x = nn.swish(x)
            if self.norm_epsilons:
                x = normalize_features(x, self.norm_epsilons[min(i, len(self.norm_epsilons) - 1)])
        return dense(self.num_outputs, nn.initializers.zeros if self.zero_last else _orthogonal)(x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def normalize_features(x: Array, epsilon: float) -> Array:
    """Returns x [..., I] with a mean of 0 and a variance of 1 over the features of each row.

    All means, also those of the gradient, are products with a column: on CPU, XLA reduces rows slower than that. It has
    no derivative in forward mode.
    """
    return _normalize_forward(x, epsilon)[0]


def _normalize_forward(x: Array, epsilon: float) -> tuple[Array, tuple[Array, Array]]:
    centred = x - _row_mean(x)
    scale = jax.lax.rsqrt(_row_mean(jnp.square(centred)) + epsilon)
    return centred * scale, (centred * scale, scale)


def _normalize_backward(epsilon: float, saved: tuple[Array, Array], grad: Array) -> tuple[Array]:
    normalized, scale = saved
    return (scale * (grad - _row_mean(grad) - normalized * _row_mean(grad * normalized)),)


normalize_features.defvjp(_normalize_forward, _normalize_backward)


def _row_mean(x: Array) -> Array:
    """Returns the mean [..., 1] of the features of each row of x [..., I]."""
    num_features = x.shape[-1]
    column = jnp.full((num_features, 1), 1.0 / num_features, x.dtype)
    return jnp.matmul(x, column, precision=jax.lax.Precision.HIGHEST)


class SmoothActor(nn.Module):
    """A Gaussian policy before its tanh: observation [..., O] to (mean, log_std), each [..., A]."""

    action_dim: int
    hidden_units: int
    num_hidden_layers: int

    @nn.compact
    def __call__(self, obs: Array) -> tuple[Array, Array]:
        """Maps obs [..., O] to mean and log_std [..., A]."""
        outputs = SmoothMlp(2 * self.action_dim, self.hidden_units, self.num_hidden_layers)(obs)
        mean, raw_std = jnp.split(outputs, 2, -1)
        return mean, jnp.log(nn.softplus(raw_std) + 1e-5)


class SmoothCritic(nn.Module):
    """One action-value function, initially zero: (obs [..., O], action [..., A]) to q [...]."""

    hidden_units: int
    num_hidden_layers: int

    @nn.compact
    def __call__(self, obs: Array, action: Array) -> Array:
        """Maps obs [..., O] and action [..., A] to q [...]."""
        network = SmoothMlp(1, self.hidden_units, self.num_hidden_layers, norm_epsilons=(1e-5,), zero_last=True)
        return network(jnp.concatenate([obs, action], -1))[..., 0]
