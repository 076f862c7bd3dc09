"""The project's environments; importing this package registers them with Gymnasium.

  mbpo_jax/CartpoleContinuous-v0          obs  4, action  1,  200 steps
  mbpo_jax/PetsCartpole-v0                obs  4, action  1,  200 steps
  mbpo_jax/PetsHalfCheetah-v0             obs 18, action  6, 1000 steps
  mbpo_jax/LineWorld-v0                   obs  2, action  1,   30 steps
  mbpo_jax/AntTruncatedObs-v5, -v4        obs 27, action  8, 1000 steps
  mbpo_jax/HumanoidTruncatedObs-v5, -v4   obs 45, action 17, 1000 steps
  mbpo_jax/HalfCheetahJump-v5             obs 17, action  6, 1000 steps
  mbpo_jax/HopperNT-v5                    obs 11, action  3, 1000 steps
  mbpo_jax/Walker2dNT-v5                  obs 17, action  6, 1000 steps
  mbpo_jax/DynaMaze-v0                    one of 54 cells, one of 4 actions, 10,000 steps

How they differ from Gymnasium's own ids:

  CartpoleContinuous-v0: `CartPole-v1` with an action in [-1, 1] times 10 N instead of a choice between -10 N
    and 10 N, a state kept in float32, and 200 steps instead of 500.
  AntTruncatedObs-v5: `Ant-v5` without the 78 contact forces in the observation. The reward still includes the
    contact cost.
  AntTruncatedObs-v4: `Ant-v4` exactly, which observes 27 numbers and has no contact cost; the id exists so that
    the two versions go by one name.
  HumanoidTruncatedObs-v5: `Humanoid-v5` without cinert, cvel, qfrc_actuator and cfrc_ext in the observation.
    The reward still includes the contact cost.
  DynaMaze-v0: the textbook's maze (maze.py). There is no time limit in the book; a random walk takes 869 steps.
  HalfCheetahJump-v5: `HalfCheetah-v5` with a reward for height, for learning offline (jump.py).
  HopperNT-v5, Walker2dNT-v5: `Hopper-v5` and `Walker2d-v5` without termination and with the reward
    v + 1 - 0.1 |a|^2 - 3 (z - 1.3)^2 of speed and height before the step, as in BMPO (Lai et al. 2020;
    unterminated.py).
  HumanoidTruncatedObs-v4: `Humanoid-v4` without the same four. No contact cost, as in `Humanoid-v4`.

PetsCartpole-v0 is the swing-up of PETS (Chua et al. 2018; pets_cartpole.py), PetsHalfCheetah-v0 its half-cheetah
(pets_half_cheetah.py), and LineWorld-v0 a point to be brought to 0, for tests of planners (line_world.py).

In all of the truncated ones the observation is [qpos[2:], qvel], and actions, rewards, initial states and
termination are those of the id that is named.

How they differ from the MBPO paper's environments (Janner et al. 2019; `AntTruncatedObs-v2`,
`HumanoidTruncatedObs-v2` on OpenAI gym, mujoco-py): the observation is the same, and so is termination
(except for a humanoid exactly 1 or 2 m high). The v2 rewards contain a contact cost, so v5 is closer to
their formula than v4; but mujoco-py on MuJoCo 2.0 and later reports contact forces of zero, so v2 returns
with and without the cost are both in circulation. v2 gives the bonus for staying up on the terminal step too,
as v4 does; v5 does not. The simulator is newer. Returns are therefore close to the published ones, but not
strictly comparable with them.

CartpoleContinuous-v0 is not one of the paper's tasks. It is the small test problem known from mbrl-lib's
continuous cart-pole: a reward of 1 per step and termination when the pole falls (the PETS cart-pole has neither).
"""

from typing import Any

import gymnasium

_SHORT_ANT = {"include_cfrc_ext_in_observation": False}
_SHORT_HUMANOID = {
    "include_cinert_in_observation": False,
    "include_cvel_in_observation": False,
    "include_qfrc_actuator_in_observation": False,
    "include_cfrc_ext_in_observation": False,
}
_MUJOCO = "gymnasium.envs.mujoco"

# id -> entry point, time limit in steps, constructor arguments
_SPECS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "mbpo_jax/CartpoleContinuous-v0": ("mbpo_jax.environments.cartpole:CartpoleContinuous", 200, {}),
    "mbpo_jax/DynaMaze-v0": ("mbpo_jax.environments.maze:DynaMaze", 10_000, {}),
    "mbpo_jax/PetsCartpole-v0": ("mbpo_jax.environments.pets_cartpole:PetsCartpole", 200, {}),
    "mbpo_jax/PetsHalfCheetah-v0": ("mbpo_jax.environments.pets_half_cheetah:PetsHalfCheetah", 1000, {}),
    "mbpo_jax/LineWorld-v0": ("mbpo_jax.environments.line_world:LineWorld", 30, {}),
    "mbpo_jax/HalfCheetahJump-v5": ("mbpo_jax.environments.jump:HalfCheetahJump", 1000, {}),
    "mbpo_jax/HopperNT-v5": ("mbpo_jax.environments.unterminated:HopperNT", 1000, {}),
    "mbpo_jax/Walker2dNT-v5": ("mbpo_jax.environments.unterminated:Walker2dNT", 1000, {}),
    "mbpo_jax/AntTruncatedObs-v4": (f"{_MUJOCO}.ant_v4:AntEnv", 1000, {}),
    "mbpo_jax/AntTruncatedObs-v5": (f"{_MUJOCO}.ant_v5:AntEnv", 1000, _SHORT_ANT),
    "mbpo_jax/HumanoidTruncatedObs-v4": (
        "mbpo_jax.environments.truncated_observations:HumanoidTruncatedObsV4",
        1000,
        {},
    ),
    "mbpo_jax/HumanoidTruncatedObs-v5": (f"{_MUJOCO}.humanoid_v5:HumanoidEnv", 1000, _SHORT_HUMANOID),
}


def register_all() -> None:
    """Registers the ids above; those that are registered already stay as they are."""
    for env_id, (entry_point, max_steps, kwargs) in _SPECS.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(env_id, entry_point=entry_point, max_episode_steps=max_steps, kwargs=dict(kwargs))


register_all()
