"""What each flagfile holds besides those of MBPO, of which mbpo_settings.py tells: the settings that papers publish."""

from mbpo_settings import PAPER, TASKS

# sfujim/TD3@6a9f761: what its agents share, and what TD3 adds.
DDPG_AGENT = {"exploration_noise_std": 0.1}
TD3_AGENT = DDPG_AGENT | {"target_noise_std": 0.2, "target_noise_clip": 0.5, "actor_every_updates": 2}
FUJIMOTO = {
    "env": "Hopper-v5",
    "num_steps": 1_000_000,
    "exploration_steps": 25_000,
    "replay_capacity": 1_000_000,
    "updates_per_step": 1,
    "batch_size": 256,
    "discount": 0.99,
    "hidden_units": 256,
    "num_hidden_layers": 2,
    "learning_rate": 3e-4,
    "target_update_rate": 0.005,
    "eval_every_steps": 5000,
    "eval_episodes": 10,
}


def with_agent(algorithm, task, agent):
    """MBPO's settings for a task with another agent, which has none of SAC's knobs."""
    settings = {
        name: value
        for name, value in (PAPER | TASKS[task]).items()
        if name not in ("target_entropy", "initial_temperature")
    }
    return settings | agent | {"algorithm": algorithm}


# Haarnoja et al. 2018b, Appendix D, and the above.
OTHERS = {
    "hopper_ddpg": FUJIMOTO | DDPG_AGENT | {"algorithm": "ddpg"},
    "hopper_td3": FUJIMOTO | TD3_AGENT | {"algorithm": "td3"},
    "hopper_mbpo_ddpg": with_agent("mbpo_ddpg", "hopper", DDPG_AGENT),
    "hopper_mbpo_td3": with_agent("mbpo_td3", "hopper", TD3_AGENT),
    "inverted_pendulum_mbpo_ddpg": with_agent("mbpo_ddpg", "inverted_pendulum", DDPG_AGENT),
    "inverted_pendulum_mbpo_td3": with_agent("mbpo_td3", "inverted_pendulum", TD3_AGENT),
    "hopper_sac": {
        "algorithm": "sac",
        "env": "Hopper-v5",
        "num_steps": 1_000_000,
        "exploration_steps": 5000,
        "replay_capacity": 1_000_000,
        "updates_per_step": 1,
        "batch_size": 256,
        "discount": 0.99,
        "hidden_units": 256,
        "num_hidden_layers": 2,
        "learning_rate": 3e-4,
        "target_update_rate": 0.005,
        "target_entropy": None,  # minus the action dimensions
    },
}


ROLLOUT_LENGTH_AND_PENALTY = {  # of Yu et al. 2020, by data set
    "halfcheetah": {"random": (5, 0.5), "medium": (1, 1.0), "mixed": (5, 1.0), "medium_expert": (5, 5.0)},
    "hopper": {"random": (5, 1.0), "medium": (5, 5.0), "mixed": (5, 1.0), "medium_expert": (5, 1.0)},
    "walker2d": {"random": (1, 1.0), "medium": (5, 5.0), "mixed": (1, 1.0), "medium_expert": (1, 2.0)},
}
for task, by_data in ROLLOUT_LENGTH_AND_PENALTY.items():
    for data, (length, weight) in by_data.items():
        OTHERS[f"mopo_{task}_{data}"] = {
            "algorithm": "mopo",
            "env": {"halfcheetah": "HalfCheetah-v5", "hopper": "Hopper-v5", "walker2d": "Walker2d-v5"}[task],
            "rollout_length": length,
            "penalty_weight": weight,
            "penalty": "largest_std_norm",
            "num_steps": 500_000,
            "rollout_batch": 50_000,
            "rollout_every_updates": 1000,
            "retain_rounds": 5,
            "real_fraction": 0.05,
            "batch_size": 256,
            "target_entropy": -3.0,
            "num_members": 7,
            "num_elites": 5,
            "max_holdout_rows": 1000,
            "fit_max_gradient_steps": 0,
        }
LIKE_MBPO = {  # what members that look through the model share with MBPO's own flagfiles, to be compared with them
    "inverted_pendulum": {
        "env": "InvertedPendulum-v5", "num_steps": 5000, "exploration_steps": 500, "updates_per_step": 4,
        "target_entropy": -0.05, "eval_every_steps": 250,
    },
    "hopper": {
        "env": "Hopper-v5", "num_steps": 125_000, "exploration_steps": 5000, "updates_per_step": 20,
        "target_entropy": -1.0, "eval_every_steps": 1000, "fit_epoch_minibatches": 1, "fit_max_gradient_steps": 0,
    },
}  # fmt: skip
STEVE = {"expansion_steps": 3, "weighting": "inverse_variance", "num_members": 4, "num_elites": 4, "num_critics": 4}
for algorithm, steps in (("mve", {"expansion_steps": 5}), ("steve", STEVE), ("maac", {"horizon": 3})):
    for task, shared in LIKE_MBPO.items():
        OTHERS[f"{algorithm}_{task}"] = shared | steps | {"fit_every_steps": 250, "algorithm": algorithm}
BMPO = {
    "algorithm": "bmpo", "fit_every_steps": 250, "rollout_batch": 100_000, "retain_epochs": 1, "batch_size": 256,
    "real_fraction": 0.05, "hidden_units": 256, "num_hidden_layers": 2, "learning_rate": 3e-4, "planning_steps": 6,
    "planning_candidates": 1000, "num_members": 7, "num_elites": 5, "fit_epoch_minibatches": 1,
    "fit_max_gradient_steps": 0, "min_replay_rows": 1000,
}  # fmt: skip
OTHERS["bmpo_inverted_pendulum"] = LIKE_MBPO["inverted_pendulum"] | BMPO | {
    "updates_per_step": 10, "epoch_steps": 250, "rollout_length_schedule": (1, 15, 1, 1),
    "backward_length_schedule": (1, 15, 1, 1), "beta_schedule": (0.0, 10.0, 0.01, 0.0), "backward_epochs": 5,
    "backward_variance": None,
}  # fmt: skip
OTHERS["bmpo_hopper"] = LIKE_MBPO["hopper"] | BMPO | {
    "num_steps": 100_000, "epoch_steps": 1000, "rollout_length_schedule": (20, 150, 1, 15),
    "backward_length_schedule": (20, 150, 1, 15), "beta_schedule": (20.0, 30.0, 0.004, 0.003), "backward_epochs": 10,
    "backward_variance": 0.01,
}  # fmt: skip
OTHERS["bmpo_hopper_nt"] = OTHERS["bmpo_hopper"] | {
    "env": "mbpo_jax/HopperNT-v5", "beta_schedule": (0.0, 100.0, 0.01, 0.01),
}  # fmt: skip
OTHERS["bmpo_walker2d_nt"] = OTHERS["bmpo_hopper"] | {
    "env": "mbpo_jax/Walker2dNT-v5", "num_steps": 200_000, "rollout_length_schedule": (20, 150, 1, 1),
    "backward_length_schedule": (20, 150, 1, 1), "beta_schedule": (0.0, 100.0, 0.01, 0.01), "planning_steps": 0,
    "target_entropy": -3.0,
}  # fmt: skip
OTHERS["bmpo_walker2d"] = OTHERS["bmpo_walker2d_nt"] | {
    "env": "Walker2d-v5", "beta_schedule": (0.0, 100.0, 0.01, 0.0), "planning_steps": 1,
}  # fmt: skip
OTHERS["bmpo_ant"] = OTHERS["bmpo_hopper"] | {
    "env": "mbpo_jax/AntTruncatedObs-v5", "num_steps": 300_000, "rollout_length_schedule": (20, 100, 1, 25),
    "backward_length_schedule": (20, 100, 1, 1), "beta_schedule": (0.0, 100.0, 0.003, 0.003), "planning_steps": 0,
    "target_entropy": -4.0,
}  # fmt: skip
OTHERS["bmpo_pendulum"] = OTHERS["bmpo_hopper"] | {
    "env": "Pendulum-v1", "num_steps": 4000, "exploration_steps": 200, "min_replay_rows": 200, "epoch_steps": 200,
    "fit_every_steps": 200, "rollout_batch": 80_000, "rollout_length_schedule": (1, 5, 1, 5),
    "backward_length_schedule": (1, 5, 1, 5), "beta_schedule": (0.0, 10.0, 0.01, 0.0), "backward_epochs": 5,
    "backward_variance": None, "eval_every_steps": 200, "target_entropy": -1.0,
}  # fmt: skip
DOUBLE_HORIZON = {
    "algorithm": "double_horizon", "horizon": 5, "rollout_length": 20, "rollout_batch": 256, "retain_rounds": 10,
    "updates_per_rollout": 20, "discount": 0.995, "num_critics": 5, "num_target_critics": 2, "num_hidden_layers": 3,
    "hidden_units": 256, "learning_rate": 3e-4, "target_update_rate": 0.005, "initial_temperature": 0.1,
    "target_entropy": None, "num_members": 8, "num_elites": 8, "model_hidden_units": 256, "scale_targets": True,
}  # fmt: skip
for task, env in {
    "hopper": "Hopper-v5", "halfcheetah": "HalfCheetah-v5", "walker2d": "Walker2d-v5",
    "ant": "mbpo_jax/AntTruncatedObs-v5", "humanoid": "mbpo_jax/HumanoidTruncatedObs-v5",
}.items():  # fmt: skip
    OTHERS[f"double_horizon_{task}"] = DOUBLE_HORIZON | {
        "env": env, "num_steps": 100_000, "exploration_steps": 5000, "fit_every_steps": 1000, "critic_updates": 250,
        "updates_per_step": 1, "eval_every_steps": 1000,
    }  # fmt: skip
OTHERS["double_horizon_inverted_pendulum"] = DOUBLE_HORIZON | {
    "env": "InvertedPendulum-v5", "num_steps": 5000, "exploration_steps": 500, "fit_every_steps": 250,
    "critic_updates": 60, "updates_per_step": 2, "eval_every_steps": 250,
}  # fmt: skip
for task, shared in LIKE_MBPO.items():
    no_entropy = {name: value for name, value in shared.items() if name != "target_entropy"}
    OTHERS[f"svg_{task}"] = no_entropy | {"algorithm": "svg", "svg_steps": "1", "num_members": 1, "num_elites": 1}
SAC_SVG = {"algorithm": "sac_svg", "horizon": 2, "fit_minibatches": 4, "initial_temperature": 0.1}
OTHERS["sac_svg_inverted_pendulum"] = LIKE_MBPO["inverted_pendulum"] | SAC_SVG | {"warmup_steps": 1000}
OTHERS["sac_svg_hopper"] = SAC_SVG | {
    "env": "Hopper-v5", "num_steps": 125_000, "eval_every_steps": 1000, "exploration_steps": 1000,
    "warmup_steps": 10_000, "updates_per_step": 1, "batch_size": 1024, "hidden_units": 512, "num_hidden_layers": 4,
    "learning_rate": 1e-4, "dynamics": "gru", "model_hidden_units": 512, "model_batch_size": 512,
    "first_target_entropy": 0.0, "target_entropy": -2.0, "entropy_decay_steps": 1_000_000,
    "entropy_decay_power": 2**-5,
}  # fmt: skip
MAZE = {
    "env": "mbpo_jax/DynaMaze-v0", "discount": 0.95, "table_model": "deterministic", "eval_episodes": 1,
}  # fmt: skip
OTHERS["dyna_q"] = MAZE | {
    "algorithm": "dyna_q", "planning_updates": 5, "learning_rate": 0.1, "epsilon": 0.1, "num_steps": 6000,
    "prioritised_sweeping": False, "replay_capacity": 10_000,
}  # fmt: skip
OTHERS["q_planning"] = MAZE | {
    "algorithm": "q_planning", "planning_updates": 50, "learning_rate": 1.0, "epsilon": 1.0, "num_steps": 5000,
}  # fmt: skip
OTHERS["bc"] = {"algorithm": "bc", "batch_size": 256, "hidden_units": 256, "obs_scaling": "none"}
OTHERS["td3_bc"] = {
    "algorithm": "td3_bc",
    "num_steps": 1_000_000,
    "value_weight": 2.5,
    "obs_scaling": "standard",
    "batch_size": 256,
    "learning_rate": 3e-4,
    "target_noise_std": 0.2,
    "target_noise_clip": 0.5,
    "actor_every_updates": 2,
    "target_update_rate": 0.005,
    "discount": 0.99,
}
OTHERS["pets_cartpole"] = {
    "algorithm": "pets", "env": "mbpo_jax/PetsCartpole-v0", "num_candidates": 400, "elite_candidates": 40,
    "iterations": 5, "smoothing": 0.1, "horizon": 25, "num_particles": 20, "propagation": "tsinf", "num_members": 5,
    "num_elites": 5, "model_hidden_units": 500, "model_weight_decays": (1e-4, 2.5e-4, 2.5e-4, 5e-4),
    "model_learning_rate": 1e-3, "model_batch_size": 32, "angles": "1", "fit_every_steps": 200,
    "exploration_steps": 200, "reward_fn": "mbpo_jax.rewards:pets_cartpole",
}  # fmt: skip
OTHERS["pets_continuous_cartpole"] = {
    "algorithm": "pets", "env": "mbpo_jax/CartpoleContinuous-v0", "num_candidates": 500, "elite_candidates": 50,
    "iterations": 5, "smoothing": 0.1, "horizon": 15, "num_particles": 20, "num_members": 5, "model_hidden_units": 200,
    "model_weight_decays": (5e-5,) * 4, "fit_every_steps": 50, "angles": "none",
}  # fmt: skip
OTHERS["pets_halfcheetah"] = {
    "algorithm": "pets", "env": "mbpo_jax/PetsHalfCheetah-v0", "num_candidates": 500, "elite_candidates": 50,
    "iterations": 5, "horizon": 30, "num_particles": 20, "propagation": "tsinf", "model_hidden_units": 200,
    "model_weight_decays": (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4), "model_learning_rate": 1e-3, "model_batch_size": 32,
    "angles": "2", "absolute_targets": "0", "exploration_steps": 1000, "fit_every_steps": 1000, "num_steps": 300_000,
    "replay_capacity": 300_000, "fit_max_gradient_steps": 0,
    "reward_fn": "mbpo_jax.rewards:pets_half_cheetah",
}  # fmt: skip
OTHERS["pets_gp_continuous_cartpole"] = {
    "algorithm": "pets", "env": "mbpo_jax/CartpoleContinuous-v0", "num_candidates": 500, "elite_candidates": 50,
    "iterations": 5, "smoothing": 0.1, "horizon": 15, "member": "gp", "inducing_rows": 200, "fit_every_steps": 50,
    "propagation": "expectation", "num_particles": 1,
}  # fmt: skip
OTHERS["pets_small"] = {"algorithm": "pets", "num_candidates": 100, "num_particles": 5, "model_hidden_units": 64}
OTHERS["pets_pendulum"] = {
    "algorithm": "pets", "env": "Pendulum-v1", "num_steps": 5000, "num_candidates": 500, "elite_candidates": 50,
    "iterations": 5, "horizon": 20, "model_hidden_units": 128, "reward_fn": "mbpo_jax.rewards:pendulum",
}  # fmt: skip
