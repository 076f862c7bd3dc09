"""The bootstrap ensemble of Gaussian networks that MBPO and PETS learn: what it is and what it predicts.

References: Chua et al. 2018 (PETS), section 4; Janner et al. 2019 (MBPO), section 5 and Appendix C.
"""

import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState

from mbpo_jax import distributions, ensemble, normalizer
from mbpo_jax.models import fitting
from mbpo_jax.models.gaussian_state import GaussianConfig, GaussianState
from mbpo_jax.networks import GaussianMlp
from mbpo_jax.types import Array, Key, Spec, WorldModel

INITIAL_MAX_LOG_VAR, INITIAL_MIN_LOG_VAR = 0.5, -10.0


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

    return WorldModel(init, fitting.build(config, network), predict, sample)
