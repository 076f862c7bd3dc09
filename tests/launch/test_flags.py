import dataclasses
import random
from pathlib import Path

import pytest

from mbpo_jax import options
from mbpo_jax.agents.ddpg import DdpgConfig
from mbpo_jax.agents.sac import SacConfig
from mbpo_jax.agents.td3 import Td3Config
from mbpo_jax.algorithms import REGISTRY, Entry
from mbpo_jax.algorithms.mbpo import MbpoConfig
from mbpo_jax.algorithms.model_free import ModelFreeConfig
from mbpo_jax.driver.config import RunConfig
from mbpo_jax.launch import flags
from mbpo_jax.launch.flags import FlagsError
from mbpo_jax.models.gaussian import GaussianConfig
from mbpo_jax.options import option

EXPERIMENTS = Path(__file__).parents[2] / "experiments"

# Janner et al. 2019, Table 1 and Appendix C, and the official code's examples/config/*/0.py: what every task shares ...
PAPER = {
    "algorithm": "mbpo",
    "max_episode_steps": 0,  # the environment's own: 1000 steps
    "seeds": (0,),
    "eval_every_steps": 1000,
    "exploration_steps": 5000,
    "min_replay_rows": 1000,
    "replay_capacity": 1_000_000,
    "epoch_steps": 1000,
    "fit_every_steps": 250,
    "rollout_batch": 100_000,
    "rollout_length_schedule": (20, 150, 1, 1),
    "retain_epochs": 1,
    "updates_per_step": 20,
    "batch_size": 256,
    "real_fraction": 0.05,
    "termination_fn": "auto",
    "num_members": 7,
    "num_elites": 5,
    "model_hidden_units": 200,
    "model_learning_rate": 1e-3,
    "model_batch_size": 256,
    "model_weight_decays": (2.5e-5, 5e-5, 7.5e-5, 7.5e-5, 1e-4),
    "holdout_fraction": 0.2,
    "max_holdout_rows": 5000,
    "fit_patience_epochs": 5,
    "fit_improvement": 0.01,
    "fit_epoch_minibatches": 1,
    "fit_max_gradient_steps": 0,
    "discount": 0.99,
    "hidden_units": 256,
    "num_hidden_layers": 2,
    "learning_rate": 3e-4,
    "target_update_rate": 0.005,
    "initial_temperature": 1.0,
}
# ... and in what they differ.
TASKS = {
    "ant": {
        "env": "mbpo_jax/AntTruncatedObs-v5",
        "num_steps": 300_000,
        "rollout_length_schedule": (20, 100, 1, 25),
        "target_entropy": -4.0,
    },
    "cartpole": {
        "env": "mbpo_jax/CartpoleContinuous-v0",
        "num_steps": 5000,
        "exploration_steps": 500,
        "epoch_steps": 200,
        "fit_every_steps": 200,
        "rollout_length_schedule": (1, 15, 1, 1),
        "target_entropy": -0.05,
        "eval_every_steps": 200,
    },
    "halfcheetah": {
        "env": "HalfCheetah-v5",
        "num_steps": 400_000,
        "updates_per_step": 40,
        "target_entropy": -3.0,
    },
    "hopper": {
        "env": "Hopper-v5",
        "num_steps": 125_000,
        "rollout_length_schedule": (20, 150, 1, 15),
        "target_entropy": -1.0,
    },
    "humanoid": {
        "env": "mbpo_jax/HumanoidTruncatedObs-v5",
        "num_steps": 300_000,
        "fit_every_steps": 1000,
        "rollout_length_schedule": (20, 300, 1, 25),
        "retain_epochs": 5,
        "target_entropy": -2.0,
        "model_hidden_units": 400,
    },
    "inverted_double_pendulum": {
        "env": "InvertedDoublePendulum-v5",
        "num_steps": 20_000,
        "exploration_steps": 500,
        "epoch_steps": 250,
        "rollout_length_schedule": (1, 15, 1, 1),
        "target_entropy": -0.5,
        "eval_every_steps": 250,
    },
    "inverted_pendulum": {
        "env": "InvertedPendulum-v5",
        "num_steps": 5000,
        "exploration_steps": 500,
        "epoch_steps": 250,
        "rollout_length_schedule": (1, 15, 1, 1),
        "updates_per_step": 10,
        "target_entropy": -0.05,
        "eval_every_steps": 250,
    },
    "swimmer": {
        "env": "Swimmer-v5",
        "num_steps": 50_000,
        "exploration_steps": 2000,
        "rollout_length_schedule": (1, 20, 1, 1),
        "target_entropy": -1.0,
    },
    "walker2d": {
        "env": "Walker2d-v5",
        "num_steps": 300_000,
        "target_entropy": -3.0,
    },
}
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


def flat(config):
    """All knobs of a config and its sections, by name."""
    values = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        values |= flat(value) if dataclasses.is_dataclass(value) else {field.name: value}
    return values


def refusal(*argv):
    """The message of a command line that must be refused, which is one line."""
    with pytest.raises(FlagsError) as caught:
        flags.parse(list(argv))
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


# -- from knobs to flags -----------------------------------------------------------------------------------------


def test_without_flags_all_is_as_the_dataclasses_say():
    assert flags.parse([]) == (RunConfig(), MbpoConfig())
    assert flags.parse(["--algorithm=sac"]) == (RunConfig(algorithm="sac"), ModelFreeConfig())


def test_a_flag_sets_a_knob_of_a_section_and_nothing_else():
    run, config = flags.parse(["--num_members=9", "--discount=0.5", "--rollout_batch=77", "--eval_episodes=3"])
    assert (config.model.num_members, config.agent.discount, config.rollout_batch, run.eval_episodes) == (
        9,
        0.5,
        77,
        3,
    )
    changed = {"num_members": 9, "discount": 0.5, "rollout_batch": 77}
    assert flat(config) == flat(MbpoConfig()) | changed
    assert run == RunConfig(eval_episodes=3)
    _, config = flags.parse(["--algorithm=sac", "--hidden_units=5", "--batch_size=7"])
    assert flat(config) == flat(ModelFreeConfig()) | {"hidden_units": 5, "batch_size": 7}


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("--num_steps=1e5", 100_000),
        ("--num_steps=400_000", 400_000),
        ("--num_steps= 12 ", 12),
        ("--num_steps=2.5e3", 2500),
        ("--seeds=7", (7,)),
        ("--seeds=3,1,2", (3, 1, 2)),
        ("--seeds=1e3, 5", (1000, 5)),
        ("--rollout_length_schedule=20,100,1,25", (20, 100, 1, 25)),
        ("--model_weight_decays=1e-4,0", (1e-4, 0.0)),
        ("--target_entropy=auto", None),
        ("--target_entropy=AUTO", None),
        ("--target_entropy=-0.05", -0.05),
        ("--learning_rate=1e-5", 1e-5),
        ("--real_fraction=1", 1.0),
        ("--env=my_robots:Arm-v1", "my_robots:Arm-v1"),
        ("--quiet", True),
        ("--quiet=true", True),
        ("--quiet=1", True),
        ("--quiet=False", False),
        ("--noquiet", False),
        ("-quiet", True),
    ],
)
def test_values(argument, value):
    run, config = flags.parse([argument])
    name = argument.lstrip("-").removeprefix("no" if argument == "--noquiet" else "").split("=")[0]
    got = (flat(run) | flat(config))[name]
    assert got == value
    assert type(got) is type(value)


def test_the_last_of_two_wins_and_a_space_will_do():
    run, _ = flags.parse(["--num_steps=5", "--quiet", "--num_steps", "7", "--noquiet"])
    assert (run.num_steps, run.quiet) == (7, False)


# -- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "value", "allowed"),
    [
        ("--num_steps=abc", "abc", "a whole number in [1, "),
        ("--num_steps=0", "0", "a whole number in [1, "),
        ("--num_steps=1.5", "1.5", "a whole number in [1, "),
        ("--num_steps=3e9", "3000000000", "a whole number in [1, 2147483647]"),
        ("--num_steps=", "", "a whole number in [1, "),
        ("--num_steps=nan", "nan", "a whole number in [1, "),
        ("--num_steps=inf", "inf", "a whole number in [1, "),
        ("--eval_episodes=-3", "-3", "a whole number, 1 or more"),
        ("--eval_episodes=true", "true", "a whole number, 1 or more"),
        ("--real_fraction=1.01", "1.01", "a number in [0, 1]"),
        ("--real_fraction=-0.01", "-0.01", "a number in [0, 1]"),
        ("--real_fraction=some", "some", "a number in [0, 1]"),
        ("--real_fraction=nan", "nan", "a number in [0, 1]"),
        ("--learning_rate=inf", "inf", "a number in [0, 1]"),
        ("--initial_temperature=inf", "inf", "a number, 1e-06 or more"),
        ("--initial_temperature=1e999", "1e999", "a number, 1e-06 or more"),
        ("--initial_temperature=0", "0", "a number, 1e-06 or more"),
        ("--target_entropy=-inf", "-inf", "a number, or 'auto'"),
        ("--target_entropy=none", "none", "a number, or 'auto'"),
        ("--seeds=1,x", "1,x", "whole numbers separated by commas in [0, "),
        ("--seeds=1,-1", "(1, -1)", "whole numbers separated by commas in [0, "),
        ("--seeds=", "", "whole numbers separated by commas in [0, "),
        ("--seeds=1,1", "(1, 1)", "differ"),
        ("--rollout_length_schedule=1,2,3", "(1, 2, 3)", "first_epoch,last_epoch,start,end"),
        ("--rollout_length_schedule=5,2,1,1", "(5, 2, 1, 1)", "first_epoch <= last_epoch"),
        ("--model_weight_decays=1e-4,inf", "1e-4,inf", "numbers separated by commas, 0 or more"),
        ("--quiet=maybe", "maybe", "true or false"),
        (
            "--algorithm=ppo",
            "'ppo'",
            "one of mbpo, mbpo_ddpg, mbpo_td3, bmpo, mve, steve, maac, double_horizon, svg, sac_svg, pets, sac",
        ),
        ("--seed_lifting=pmap", "'pmap'", "one of auto, each, vmap"),
        ("--env=", "''", "a Gymnasium id"),
        ("--run_dir=", "''", "a directory or 'auto'"),
        ("--num_elites=8", "8", "at most num_members (7)"),
        ("--noquiet=true", "true", "does not take an argument"),
        ("--num_step=5", "--num_step=5", "Did you mean: num_steps"),
        ("--rolout_batch=5", "--rolout_batch=5", "--help lists the flags"),
        ("--noenv", "noenv", "--help lists the flags"),
        ("--undefok=num_steps", "undefok", "--help lists"),
        ("--flagfile=", "''", "must be a file"),
        ("--flagfile=/no/such.flags", "/no/such.flags", "No such file"),
    ],
)
def test_a_refusal_names_flag_value_and_what_is_allowed(argument, value, allowed):
    message = refusal(argument)
    assert argument.lstrip("-").split("=")[0] in message
    assert value in message
    assert allowed in message


def test_a_flag_without_its_value_is_refused():
    assert "--num_steps" in refusal("--num_steps")
    assert "--flagfile" in refusal("--flagfile")


@pytest.mark.parametrize(
    ("flag", "algorithm"),
    [("--rollout_batch=10", "sac"), ("--num_members=9", "sac"), ("--target_entropy=-0.5", "mbpo_td3")],
)
def test_a_flag_that_the_algorithm_does_not_read_is_refused(flag, algorithm):
    message = refusal(f"--algorithm={algorithm}", flag)
    assert f"{flag} is not read by --algorithm={algorithm}" in message
    flags.parse([flag])  # mbpo does read it


@pytest.mark.parametrize(
    ("argv", "culprit"),
    [
        (["num_steps=5"], "num_steps=5"),
        (["--num_steps=5", "again"], "again"),
        (["x", "--num_steps=5"], "x"),
        (["--num_steps=5", "more", "and more"], "more"),
        (["--", "--num_steps=5"], "--num_steps=5"),
        (["-", "x"], "-"),
        ([""], ""),
    ],
)
def test_arguments_that_are_no_flags_are_refused(argv, culprit):
    assert f"every argument must be a --flag=value, got {culprit!r}" in refusal(*argv)


def test_a_line_break_in_a_value_stays_one_line():
    assert "must be" in refusal("--num_steps=1\n2")
    assert "two\\nlines" in refusal("--algorithm=two\nlines")


# -- sections ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("agent", [SacConfig(discount=0.5), DdpgConfig(discount=0.5), Td3Config(discount=0.5)])
def test_an_agent_is_chosen_by_name(agent):
    name = type(agent).__name__.removesuffix("Config").lower()
    run, config = flags.parse(["--discount=0.5", f"--agent={name}"])
    assert (run, config) == (RunConfig(), MbpoConfig(agent=agent))
    assert flags.parse([f"--algorithm={name}", "--discount=0.5"])[1] == ModelFreeConfig(agent=agent)
    rows = {"sac": "mbpo"}  # that of another agent is the same algorithm with the same knobs
    assert flags.parse([f"--algorithm={rows.get(name, f'mbpo_{name}')}", "--discount=0.5"])[1] == config


def test_a_row_that_names_its_agent_has_it():
    assert flags.parse(["--algorithm=mbpo_td3"]) == (RunConfig(algorithm="mbpo_td3"), MbpoConfig(agent=Td3Config()))
    assert flags.parse(["--algorithm=ddpg"]) == (RunConfig(algorithm="ddpg"), ModelFreeConfig(agent=DdpgConfig()))


@pytest.mark.parametrize("agent", ["td3", "sac", "nobody"])
@pytest.mark.parametrize("algorithm", ["mbpo_td3", "td3"])
def test_a_row_that_names_its_agent_does_not_read_another(algorithm, agent):
    wanted = f"--agent={agent} is not read by --algorithm={algorithm}, whose agent is td3; leave it out"
    assert refusal(f"--algorithm={algorithm}", f"--agent={agent}") == wanted


def test_an_agent_that_is_none_is_refused_with_those_that_are():
    assert refusal("--agent=ppo") == "--agent must be one of sac, ddpg, td3, got 'ppo'"


def test_a_flag_of_another_agent_is_not_read():
    wanted = "--target_entropy=-0.5 is not read by --algorithm=mbpo --agent=td3; leave it out"
    assert refusal("--agent=td3", "--target_entropy=-0.5") == wanted
    assert "--target_noise_std=0.1 is not read by --algorithm=mbpo; leave" in refusal("--target_noise_std=0.1")


def test_the_full_path_of_a_knob_is_a_flag_too(tmp_path):
    wanted = MbpoConfig(agent=SacConfig(discount=0.5), model=GaussianConfig(num_members=9))
    assert flags.parse(["--agent.discount=0.5", "--model.num_members", "9"])[1] == wanted
    path = tmp_path / "dotted.flags"
    path.write_text("--agent.discount=0.5\n--model.num_members=9\n")
    assert flags.parse([f"--flagfile={path}"])[1] == wanted
    assert refusal("--agent.discount=2") == "--agent.discount must be a number in [0, 1], got 2.0"


def test_one_flag_under_two_names_is_refused():
    wanted = "--agent.discount and --discount are one flag; leave one of them out"
    assert refusal("--discount=0.5", "--agent.discount=0.5") == wanted


def test_every_value_of_a_flag_is_read_though_the_last_counts():
    assert refusal("--num_steps=many", "--num_steps=5") == "--num_steps=many must be a whole number in [1, 2147483647]"


@dataclasses.dataclass(frozen=True)
class TwoModels:
    """A member with two sections of one class, knobs that other rows have in another way, and one of two names."""

    updates_per_step: float = option(0.25, "Updates per imagined row.", minimum=0.0, maximum=1.0)
    rollout_batch: bool = option(False, "Whether rollouts come in batches.")
    model: GaussianConfig = GaussianConfig()
    backward_model: GaussianConfig = GaussianConfig(num_members=3, num_elites=2)

    def __post_init__(self) -> None:
        options.check(self)


@pytest.fixture
def two_models(monkeypatch):
    """A row of the registry with the knobs above."""
    monkeypatch.setitem(REGISTRY, "two_models", Entry(TwoModels, None, "Two models", {}))
    return "--algorithm=two_models"


def test_two_sections_of_one_class_have_flags_of_their_own(two_models, tmp_path):
    """They were a TypeError, in every run."""
    config = flags.parse([two_models, "--backward_model.num_members=4", "--model.num_elites=1"])[1]
    wanted = TwoModels(model=GaussianConfig(num_elites=1), backward_model=GaussianConfig(num_members=4, num_elites=2))
    assert config == wanted
    path = tmp_path / "two.flags"
    path.write_text(f"{two_models}\n--backward_model.num_members=4\n--model.num_elites=1\n")
    assert flags.parse([f"--flagfile={path}"])[1] == wanted
    assert flags.parse(["--num_members=9"])[1] == MbpoConfig(model=GaussianConfig(num_members=9))


def test_a_name_that_means_two_knobs_is_refused_with_both(two_models):
    wanted = (
        "--num_members is ambiguous with --algorithm=two_models: give --model.num_members or "
        "--backward_model.num_members"
    )
    assert refusal("--num_members=4", two_models) == wanted


def test_what_a_section_says_of_two_knobs_names_the_flag(two_models):
    wanted = "--backward_model.num_elites must be at most num_members (3), got 4"
    assert refusal(two_models, "--backward_model.num_elites=4") == wanted
    assert refusal("--num_elites=8") == "--num_elites must be at most num_members (7), got 8"


def test_a_flag_is_parsed_as_the_chosen_algorithm_says(two_models):
    """It was parsed as the first algorithm that has it says, whatever was chosen."""
    assert flags.parse([two_models, "--updates_per_step=0.5"])[1].updates_per_step == 0.5
    assert flags.parse([two_models, "--rollout_batch=true"])[1].rollout_batch is True
    assert flags.parse(["--updates_per_step=7", "--rollout_batch=5"])[1] == MbpoConfig(
        updates_per_step=7, rollout_batch=5
    )
    assert refusal("--updates_per_step=0.5") == "--updates_per_step=0.5 must be a whole number, 1 or more"
    assert refusal("--updates_per_step=2", two_models) == "--updates_per_step must be a number in [0, 1], got 2.0"


def test_a_knob_that_the_run_has_too_is_a_mistake_of_ours(monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Seeds:
        seeds: int = option(1, "Seeds of its own.")

    monkeypatch.setitem(REGISTRY, "wrong", Entry(Seeds, None, "Wrong", {}))
    with pytest.raises(TypeError, match="seeds: knobs of Seeds have names of the run's own"):
        flags.parse([])


# -- flagfiles ---------------------------------------------------------------------------------------------------


def test_a_flagfile_is_read_where_it_stands(tmp_path):
    inner, outer = tmp_path / "inner.flags", tmp_path / "with a space.flags"
    inner.write_text("--num_steps=7\n--seeds=1,2\n")
    outer.write_text(f"# a comment\n\n--eval_episodes=4\n--flagfile={inner}\n  --quiet  \n")
    run, _ = flags.parse([f"--flagfile={outer}", "--num_steps=9"])
    assert (run.num_steps, run.seeds, run.eval_episodes, run.quiet) == (9, (1, 2), 4, True)
    run, _ = flags.parse(["--num_steps=9", "--flagfile", str(outer)])
    assert run.num_steps == 7


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("num_steps=5", ["'num_steps=5'", "--flag=value"]),
        ("--num_steps 5", ["num_steps 5"]),
        ("--num_steps=five", ["--num_steps=five", "a whole number"]),
        ("--nonsense=1", ["'nonsense'", "--help lists the flags"]),
        ("--help", ["--help", "flagfile"]),
        ("--flagfile=/no/such.flags", ["/no/such.flags"]),
        ("--undefok=x", ["undefok"]),
    ],
)
def test_a_wrong_line_in_a_flagfile_is_refused(tmp_path, line, words):
    path = tmp_path / "wrong.flags"
    path.write_text(f"--eval_episodes=4\n{line}\n--quiet\n")
    message = refusal(f"--flagfile={path}")
    for word in words:
        assert word in message


def test_a_flagfile_that_is_no_text_file_is_refused_by_name(tmp_path):
    path = tmp_path / "binary.flags"
    path.write_bytes(b"\xff\xfe--num_steps=5")
    assert "binary.flags" in refusal(f"--flagfile={path}")
    assert str(tmp_path) in refusal(f"--flagfile={tmp_path}")
    assert "flagfile" in refusal("--flagfile=a\0b") or "null" in refusal("--flagfile=a\0b")


# -- garbage -----------------------------------------------------------------------------------------------------

PIECES = [
    "",
    "0",
    "-1",
    "1e5",
    "1e400",
    "nan",
    "inf",
    "auto",
    "true",
    ",",
    "1,2",
    "a",
    " ",
    "=",
    "--",
    "-",
    "é",
    "\n",
]
PIECES += [
    "\t",
    "9" * 400,
    "0x10",
    "None",
    "[]",
    "__class__",
    "%s",
    "{}",
    "'",
    '"',
    "\\",
    "no",
    "½",
    "１２",
    "_",
    "1_0",
]


def garbage(random_numbers, names):
    def word(most):
        return "".join(random_numbers.choices(PIECES, k=random_numbers.randint(0, most)))

    kind = random_numbers.randrange(8)
    name = random_numbers.choice(names)
    if kind == 0:
        return word(3)
    if kind == 1:
        return f"--{word(2)}={word(2)}"
    if kind == 2:
        return f"--no{name}"
    if kind == 3:
        return f"--{name}"
    return f"{random_numbers.choice(['-', '--'])}{name}={word(3)}"


def test_garbage_never_raises_anything_but_a_flags_error():
    random_numbers = random.Random(20261120)
    knobs = flags.knobs_of("mbpo", REGISTRY["mbpo"].default_config())
    names = [*options.short_names(knobs).values(), "help", "planner", "svg_steps"]
    refused = 0
    for _ in range(120):  # tests/slow/flag_fuzz.py tries as many as one likes
        argv = [garbage(random_numbers, names) for _ in range(random_numbers.randint(1, 3))]
        try:
            run, config = flags.parse(argv)
        except FlagsError as error:
            refused += 1
            assert str(error), argv
            assert len(str(error).splitlines()) == 1, argv
        else:
            assert isinstance(run, RunConfig)
            assert isinstance(config, REGISTRY[run.algorithm].config_class)
    assert 60 < refused < 120  # some of it is fine, and that has been seen too


def test_garbage_in_a_flagfile_never_raises_anything_but_a_flags_error(tmp_path):
    random_numbers = random.Random(8)
    names = [name for name in flags.define() if name not in ("flagfile",)]
    path = tmp_path / "garbage.flags"
    refused = 0
    for _ in range(100):
        path.write_text("\n".join(garbage(random_numbers, names) for _ in range(3)))
        try:
            flags.parse([f"--flagfile={path}"])
        except FlagsError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1, path.read_text()
    assert refused > 50


# -- the published runs ------------------------------------------------------------------------------------------


def test_every_flagfile_has_its_row_here():
    own = {path.stem for path in EXPERIMENTS.glob("*.flags")} - {"paper", "mopo"}  # what they share
    assert own == TASKS.keys() | OTHERS.keys()


ABLATIONS = {
    "length_1": {"rollout_length_schedule": (0, 1, 1, 1)},
    "length_15": {"rollout_length_schedule": (0, 1, 15, 15)},
    "length_200": {"rollout_length_schedule": (0, 1, 200, 200), "rollout_batch": 7500},
    "no_model": {"real_fraction": 1.0},
    "no_model_1_update": {"real_fraction": 1.0, "updates_per_step": 1},
    "real_0": {"real_fraction": 0.0},
    "real_50": {"real_fraction": 0.5},
}
"""What each differs in from the flagfile of its task, and in nothing else."""


@pytest.mark.parametrize("path", sorted((EXPERIMENTS / "ablations").glob("*.flags")), ids=lambda path: path.stem)
def test_an_ablation_is_its_task_with_one_change(path, monkeypatch):
    monkeypatch.chdir(EXPERIMENTS.parent)  # they read the flagfile of their task
    task = "inverted_pendulum" if path.stem.startswith("inverted_pendulum") else "hopper"
    whole, ablated = (
        flat(run) | flat(config)
        for run, config in (flags.parse([f"--flagfile={file}"]) for file in (EXPERIMENTS / f"{task}.flags", path))
    )
    change = ABLATIONS[path.stem.removeprefix(f"{task}_")]
    assert ablated == whole | change
    assert ablated != whole


def test_every_ablation_has_a_flagfile_on_hopper():
    names = {path.stem for path in (EXPERIMENTS / "ablations").glob("hopper_*.flags")}
    assert names == {f"hopper_{change}" for change in ABLATIONS}


ONE_NETWORK = {"num_members": 1, "num_elites": 1}
PLANNING = {
    "d": ONE_NETWORK | {"member": "deterministic"},
    "p": ONE_NETWORK,
    "de_ts1": {"member": "deterministic", "propagation": "ts1"},
    "de_tsinf": {"member": "deterministic"},
    "pe_ts1": {"propagation": "ts1"},
    "pe_tsinf": {},
    "gp": {"member": "gp", "inducing_rows": 100, "propagation": "expectation", "num_particles": 1},
}
"""What each differs in from `planning/shared.flags`; what networks have is left alone by processes."""


def test_the_models_of_pets_are_compared_with_nothing_else_changed(monkeypatch):
    monkeypatch.chdir(EXPERIMENTS.parent)  # they read other flagfiles
    files = {path.stem: path for path in (EXPERIMENTS / "planning").glob("*.flags")}
    known = {
        name: flat(run) | flat(config)
        for name, (run, config) in ((name, flags.parse([f"--flagfile={path}"])) for name, path in files.items())
    }
    shared = known.pop("shared")
    assert known.keys() == {f"continuous_cartpole_{name}" for name in PLANNING}
    networks = {"model_hidden_units", "model_learning_rate", "model_weight_decays", "model_batch_size"}
    for name, change in PLANNING.items():
        unread = networks | {"fit_max_gradient_steps"} if name == "gp" else set()
        wanted = {knob: value for knob, value in (shared | change).items() if knob not in unread}
        found = known[f"continuous_cartpole_{name}"]
        assert {knob: found[knob] for knob in wanted} == wanted
    assert (shared["num_steps"], shared["exploration_steps"], shared["eval_every_steps"]) == (600, 100, 100)


@pytest.mark.parametrize("name", sorted(TASKS | OTHERS))
def test_a_flagfile_holds_the_published_settings(name):
    run, config = flags.parse([f"--flagfile={EXPERIMENTS / f'{name}.flags'}"])
    expected = PAPER | TASKS[name] if name in TASKS else OTHERS[name]
    actual = flat(run) | flat(config)
    assert {key: actual[key] for key in expected} == expected
    # and no flagfile says where files go, or hides what happens
    defaults = RunConfig()
    assert (run.run_dir, run.quiet, run.seed_lifting) == (defaults.run_dir, False, defaults.seed_lifting)
