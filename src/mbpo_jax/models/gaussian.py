"""The bootstrap ensemble of Gaussian networks that MBPO and PETS learn: what it is and what it predicts.

References: Chua et al. 2018 (PETS), section 4; Janner et al. 2019 (MBPO), section 5 and Appendix C.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from flax import struct
from flax.training.train_state import TrainState

from mbpo_jax import distributions, ensemble, normalizer
from mbpo_jax.models import fitting
from mbpo_jax.networks import GaussianMlp
from mbpo_jax.normalizer import Normalizer
from mbpo_jax.options import check, option
from mbpo_jax.types import Array, Key, Spec, WorldModel

INITIAL_MAX_LOG_VAR, INITIAL_MIN_LOG_VAR = 0.5, -10.0


@dataclasses.dataclass(frozen=True)
class GaussianConfig:
    """Knobs of the model and of its fit."""

    num_members: int = option(7, "Networks in the ensemble.", minimum=1)
    num_elites: int = option(5, "Members, best on held-out rows first, that imagine.", minimum=1)
    model_hidden_units: int = option(200, "Units of each hidden layer of a member.", minimum=1)
    model_learning_rate: float = option(1e-3, "Adam step size of the model.", minimum=0.0, maximum=1.0)
    model_batch_size: int = option(256, "Rows per member in a minibatch of the fit.", minimum=1)
    model_weight_decays: tuple[float, ...] = option(
        (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4),
        "Weight decay of each layer, the output last; one fewer hidden layers than values.",
        minimum=0.0,
    )
    holdout_fraction: float = option(0.2, "Share of the real rows held out of a fit.", minimum=0.0, maximum=0.9)
    max_holdout_rows: int = option(5000, "Most real rows held out of a fit.", minimum=1)
    fit_patience_epochs: int = option(
        5, "A fit stops after more epochs than this without any member improving.", minimum=0
    )
    fit_improvement: float = option(
        0.01, "Relative fall of a member's held-out error that counts as improving.", minimum=0.0, maximum=1.0
    )
    fit_slice_minibatches: int = option(
        200, "Minibatches per compiled call of a fit; more show and stop later.", minimum=1
    )

    def __post_init__(self) -> None:
        check(self)
        if self.num_elites > self.num_members:
            raise ValueError(f"num_elites must be at most num_members ({self.num_members}), got {self.num_elites}")


class GaussianState(struct.PyTreeNode, kw_only=True):
    """An ensemble, warm: parameters and optimiser moments carry over from one fit to the next."""

    members: TrainState  # [M, ...]
    log_var_bounds: TrainState  # {"max": [D], "min": [D]}, shared by all members
    inputs: Normalizer  # of (obs, action)
    elites: Array  # [E], int32, best first
    fit: fitting.FitState  # the fit that is under way, or how the last one ended


def build(config: GaussianConfig, spec: Spec) -> WorldModel:
    """The world model of these knobs. Targets are [reward, next_obs - obs]; D = 1 + O."""
    num_inputs, num_targets = spec.obs_dim + spec.action_dim, 1 + spec.obs_dim
    network = GaussianMlp(num_targets, config.model_hidden_units, len(config.model_weight_decays) - 1)
    optimizer = optax.adam(config.model_learning_rate)

    def init_member(key: Key) -> TrainState:
        params = network.init(key, jnp.zeros(num_inputs))["params"]
        return TrainState.create(apply_fn=network.apply, params=params, tx=optimizer)

    def init(key: Key) -> GaussianState:
        members = ensemble.init_members(init_member, key, config.num_members)
        bounds = {
            "max": jnp.full(num_targets, INITIAL_MAX_LOG_VAR, jnp.float32),
            "min": jnp.full(num_targets, INITIAL_MIN_LOG_VAR, jnp.float32),
        }
        return GaussianState(
            members=members,
            log_var_bounds=TrainState.create(apply_fn=network.apply, params=bounds, tx=optimizer),
            inputs=normalizer.identity(num_inputs),
            elites=jnp.arange(config.num_elites),
            fit=fitting.idle(members.params, config.num_members),
        )

    def predict_member(model: GaussianState, params: dict, obs: Array, action: Array) -> tuple[Array, Array]:
        x = normalizer.normalize(model.inputs, jnp.concatenate([obs, action], -1))
        mean, raw_log_var = network.apply({"params": params}, x)
        bounds = model.log_var_bounds.params
        return mean, distributions.bound_log_var(raw_log_var, bounds["min"], bounds["max"])

    def predict(model: GaussianState, obs: Array, action: Array) -> tuple[Array, Array]:
        """Mean and log-variance of the targets, [M, B, D] each, by every member."""
        predict_members = ensemble.lift(predict_member, (None, 0, None, None))
        return predict_members(model, model.members.params, obs, action)

    def sample(key: Key, model: GaussianState, group: Array, obs: Array, action: Array) -> tuple[Array, Array]:
        """One draw of (next_obs [B, O], reward [B]) from the elite number `group`."""
        params = ensemble.member(model.members.params, model.elites[group])
        mean, log_var = predict_member(model, params, obs, action)
        target = mean + jnp.exp(0.5 * log_var) * jax.random.normal(key, mean.shape)
        return obs + target[..., 1:], target[..., 0]

    return WorldModel(init, fitting.build(config, network), fitting.unfinished, predict, sample)
