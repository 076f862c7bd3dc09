"""A world model assembled from its parts: networks, an encoding, and the fit of both."""

import functools

import jax
import jax.numpy as jnp
import optax

from mbpo_jax import ensemble, learner, normalizer
from mbpo_jax.learner import Learner
from mbpo_jax.models import fitting, state
from mbpo_jax.models.encoding import Encoding
from mbpo_jax.models.fitting import Fit
from mbpo_jax.models.member import Member
from mbpo_jax.models.state import Belief, EnsembleState, GaussianConfig
from mbpo_jax.types import Array, Key, PyTree, WorldModel


def build(config: GaussianConfig, member: Member, encoding: Encoding, few_rows: tuple[int, int] = (0, 1)) -> WorldModel:
    """Builds a world model from an ensemble of such members.

    Args:
      few_rows: (rows, factor): a fit over at most `rows` rows may take `factor` times fit_max_gradient_steps.
    """
    optimizer = optax.adam(config.model_learning_rate)
    return WorldModel(
        init=functools.partial(init, config, member, encoding, optimizer),
        fit=fitting.build(Fit(config, member, encoding, optimizer, few_rows)),
        belief=state.belief,
        predict=functools.partial(predict, member, encoding),
        sample=functools.partial(sample, member, encoding),
        expect=functools.partial(expect, member, encoding),
        num_groups=config.num_elites,
    )


def init(
    config: GaussianConfig, member: Member, encoding: Encoding, optimizer: optax.GradientTransformation, key: Key
) -> EnsembleState:
    """Returns an ensemble that has not been fitted."""

    def init_member(key: Key) -> Learner:
        return learner.init(optimizer, member.init(key))

    members = ensemble.init_members(init_member, key, config.num_members)
    return EnsembleState(
        members=members,
        shared=learner.init(optimizer, member.init_shared()),
        inputs=normalizer.identity(encoding.num_inputs),
        elites=jnp.arange(config.num_elites),
        fit=fitting.no_fit(members.params, config.num_members),
        targets=normalizer.identity(encoding.num_targets) if config.scale_targets else None,
    )


def predict(member: Member, encoding: Encoding, belief: Belief, obs: Array, action: Array) -> tuple[Array, Array]:
    """Returns every member's mean and log-variance of the targets, [M, B, D] each."""
    one = functools.partial(_predict_one, member, encoding)
    predicted: tuple[Array, Array] = ensemble.lift(one, (None, 0, None, None))(belief, belief.params, obs, action)
    return predicted


def sample(
    member: Member, encoding: Encoding, key: Key, belief: Belief, group: Array, obs: Array, action: Array
) -> tuple[Array, Array]:
    """Draws (next_obs [B, O], reward [B]) from elite number `group`."""
    mean, log_var = predict_elite(member, encoding, belief, group, obs, action)
    target = mean + jnp.exp(0.5 * log_var) * jax.random.normal(key, mean.shape)
    return encoding.decode(obs, action, target)


def expect(
    member: Member, encoding: Encoding, belief: Belief, group: Array, obs: Array, action: Array
) -> tuple[Array, Array]:
    """Returns the mean prediction (next_obs [B, O], reward [B]) of elite number `group`."""
    mean, _ = predict_elite(member, encoding, belief, group, obs, action)
    return encoding.decode(obs, action, mean)


def predict_elite(
    member: Member, encoding: Encoding, belief: Belief, group: Array, obs: Array, action: Array
) -> tuple[Array, Array]:
    """Returns mean and log-variance of the targets, [B, D] each, by elite number `group`."""
    params = ensemble.member(belief.params, belief.elites[group])
    return _predict_one(member, encoding, belief, params, obs, action)


def _predict_one(
    member: Member, encoding: Encoding, belief: Belief, params: PyTree, obs: Array, action: Array
) -> tuple[Array, Array]:
    x = normalizer.normalize(belief.inputs, encoding.inputs(obs, action))
    mean, log_var = member.predict(params, belief.shared, x)
    if belief.targets is None:
        return mean, log_var
    return normalizer.denormalize(belief.targets, mean), log_var + 2.0 * jnp.log(belief.targets.std)
