"""Known termination rules: does the MDP end in `next_obs`?

The world model predicts the next observation and the reward; imagined rollouts ask these functions where an episode
ends. `models/learned_termination.py` learns a rule where none is known.

Each restates, on the observation, what Gymnasium's v4 and v5 MuJoCo environments
compute as `terminated` when they are made with default arguments (`gymnasium/envs/mujoco/*_v4.py`, `*_v5.py`;
both versions use the same rules). All of them share one signature and read `next_obs` only:

  (obs [..., O], action [..., A], next_obs [..., O]) -> bool [...]

Where the environment treats a non-finite number as the end (a comparison with NaN is false, so a state that
is not provably healthy is unhealthy), so does the function; where the environment looks at some entries only,
a non-finite number elsewhere does not end the episode here either.

A function of a float32 observation cannot know everything. The environments decide in float64, so a value
within half a float32 step of a limit can fall on the other side of it; and see `hopper` and
`inverted_double_pendulum` for quantities that the observation does not show exactly.

References: Janner et al. 2019 (MBPO), which uses the same rules for its v2 environments.
"""

import math

import jax.numpy as jnp

from mbpo_jax.types import Array, TerminationFn

LEARNED = "learned"  # not the name of a rule: the model learns when episodes end
ANT_STATE_DIMS = 27  # qpos[2:] (13) and qvel (14); Ant-v5 appends contact forces, which its rule ignores
CARTPOLE_MAX_POSITION = 2.4  # m, either side of the middle of the track
CARTPOLE_MAX_ANGLE = math.radians(12.0)  # rad from upright
DOUBLE_PENDULUM_LINK = 0.6  # m, each of the two poles


def never(obs: Array, action: Array, next_obs: Array) -> Array:
    """Returns False, for tasks that only a time limit ends: HalfCheetah, Swimmer, Pendulum, Reacher, Pusher."""
    del obs, action
    return jnp.zeros(next_obs.shape[:-1], dtype=bool)


def inverted_pendulum(obs: Array, action: Array, next_obs: Array) -> Array:
    """Returns whether anything is not finite or the pole leans more than 0.2 rad; next_obs = [x, angle, ...]."""
    del obs, action
    beyond = jnp.abs(next_obs[..., 1]) >= 0.2  # not `>`: 0.2 rounds up in float32, to a number beyond 0.2
    return beyond | ~jnp.isfinite(next_obs).all(axis=-1)


def inverted_double_pendulum(obs: Array, action: Array, next_obs: Array) -> Array:
    """Returns whether the tip is at most 1 m high; next_obs = [x, sin 1, sin 2, cos 1, cos 2, ...].

    Angle 1 is the lower pole's, angle 2 the upper pole's relative to it. They are recovered with arctan2, so
    that a predicted (sin, cos) pair off the unit circle still means an angle. NaN is not an end: the
    environment asks `height <= 1`.

    The environment reads the tip's height where the last stage of MuJoCo's integrator left it, which is not
    quite where the observed angles put it: 2.5 micrometres off in the median, below 0.1 mm on the free track,
    millimetres when the cart hits the end of its rail (random actions, MuJoCo 4.0). A tip that close to 1 m
    can be judged differently; it happened in 3 of 150,000 steps.
    """
    del obs, action
    angle_1 = jnp.arctan2(next_obs[..., 1], next_obs[..., 3])
    angle_2 = angle_1 + jnp.arctan2(next_obs[..., 2], next_obs[..., 4])
    return DOUBLE_PENDULUM_LINK * (jnp.cos(angle_1) + jnp.cos(angle_2)) <= 1.0


def hopper(obs: Array, action: Array, next_obs: Array) -> Array:
    """Returns True unless 0.7 < z < inf, |angle| < 0.2 and the rest is in (-100, 100); next_obs = [z, angle, ...].

    The environment applies the last bound to velocities before it clips them to 10 for the observation, so a
    real speed beyond 100 cannot be seen here. The bound still catches predictions, joint angles and NaN.
    """
    del obs, action
    height, angle, others = next_obs[..., 0], next_obs[..., 1], next_obs[..., 1:]
    healthy = (height > 0.7) & (height < jnp.inf) & (jnp.abs(angle) < 0.2)
    return ~(healthy & (jnp.abs(others) < 100.0).all(axis=-1))


def walker2d(obs: Array, action: Array, next_obs: Array) -> Array:
    """Returns True unless 0.8 <= z < 2 and |angle| < 1; next_obs = [z, angle, ...]. Other entries do not matter."""
    del obs, action
    height, angle = next_obs[..., 0], next_obs[..., 1]
    high_enough = height >= 0.8  # not `>`: 0.8 rounds up in float32, to a number above 0.8
    return ~(high_enough & (height < 2.0) & (jnp.abs(angle) < 1.0))


def ant(obs: Array, action: Array, next_obs: Array) -> Array:
    """Returns True unless 0.2 <= z <= 1 and the state is finite; next_obs = [z, ...].

    The state is the first 27 entries; contact forces that may follow do not matter.
    """
    del obs, action
    height, state = next_obs[..., 0], next_obs[..., :ANT_STATE_DIMS]
    return ~(jnp.isfinite(state).all(axis=-1) & (height >= 0.2) & (height <= 1.0))


def humanoid(obs: Array, action: Array, next_obs: Array) -> Array:
    """Returns True unless 1 < z < 2; next_obs = [z, ...]. Other entries do not matter."""
    del obs, action
    height = next_obs[..., 0]
    return ~((height > 1.0) & (height < 2.0))


def cartpole(obs: Array, action: Array, next_obs: Array) -> Array:
    """Returns True unless |x| <= 2.4 m, |theta| <= 12 degrees and all is finite.

    next_obs = [x, x_dot, theta, theta_dot]. The rule of `mbpo_jax/CartpoleContinuous-v0`, and of Gymnasium's
    classic cart-pole for finite numbers.
    """
    del obs, action
    on_track = jnp.abs(next_obs[..., 0]) <= CARTPOLE_MAX_POSITION
    upright = jnp.abs(next_obs[..., 2]) <= CARTPOLE_MAX_ANGLE
    return ~(on_track & upright & jnp.isfinite(next_obs).all(axis=-1))


BY_NAME: dict[str, TerminationFn] = {
    "Ant": ant,
    "AntTruncatedObs": ant,
    "CartpoleContinuous": cartpole,
    "HalfCheetah": never,
    "HalfCheetahJump": never,
    "Hopper": hopper,
    "HopperNT": never,
    "Humanoid": humanoid,
    "HumanoidTruncatedObs": humanoid,
    "InvertedDoublePendulum": inverted_double_pendulum,
    "InvertedPendulum": inverted_pendulum,
    "LineWorld": never,
    "Pendulum": never,
    "PetsCartpole": never,
    "PetsHalfCheetah": never,
    "Pusher": never,
    "Reacher": never,
    "Swimmer": never,
    "Walker2d": walker2d,
    "Walker2dNT": never,
}
"""Rules by the environment's name without module, namespace and version."""

_MUJOCO_VERSIONS = ("4", "5")
_OTHER_VERSIONS = {
    "CartpoleContinuous": ("0",),
    "HalfCheetahJump": ("5",),
    "HopperNT": ("5",),
    "LineWorld": ("0",),
    "Pendulum": ("1",),
    "PetsCartpole": ("0",),
    "PetsHalfCheetah": ("0",),
    "Walker2dNT": ("5",),
}
_NAMESPACES = ("", "mbpo_jax")


def lookup(env_id: str) -> TerminationFn | None:
    """Returns the rule of a Gymnasium id, `[module:][namespace/]Name-vN`, or None when it is not known for sure.

    A wrong rule would silently corrupt every imagined rollout, so only ids whose rule has been checked get
    one. None for another version (the next one may end its episodes differently), for no version (Gymnasium
    would take the newest), and for a namespace that is neither Gymnasium's own nor `mbpo_jax` (somebody
    else's `Hopper`).
    """
    path = env_id.rpartition(":")[2]
    namespace, _, versioned_name = path.rpartition("/")
    name, _, version = versioned_name.rpartition("-v")
    if namespace not in _NAMESPACES or version not in _OTHER_VERSIONS.get(name, _MUJOCO_VERSIONS):
        return None
    return BY_NAME.get(name)


def known_ids(env_id: str) -> list[str]:
    """Returns the ids of the same name whose rule is known, for an id without a version or with another one."""
    path = env_id.rpartition(":")[2]
    namespace, slash, versioned_name = path.rpartition("/")
    name = versioned_name.rpartition("-v")[0] or versioned_name
    if namespace not in _NAMESPACES or name not in BY_NAME:
        return []
    return [f"{namespace}{slash}{name}-v{version}" for version in _OTHER_VERSIONS.get(name, _MUJOCO_VERSIONS)]
