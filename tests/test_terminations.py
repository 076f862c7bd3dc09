"""The rules against hand-made cases, against `is_healthy` on the limits, and against real transitions."""

from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mbpo_jax.environments  # noqa: F401 (registers the project's ids)
from mbpo_jax import terminations
from mbpo_jax.types import TerminationFn

pytestmark = pytest.mark.filterwarnings("ignore:.*is out of date.*:DeprecationWarning")  # Gymnasium, about v4 ids

STEPS = 3_000
NAN, INF = float("nan"), float("inf")
TERMINATING = (
    "InvertedPendulum-v5",
    "InvertedPendulum-v4",
    "InvertedDoublePendulum-v5",
    "Hopper-v5",
    "Hopper-v4",
    "Walker2d-v5",
    "Walker2d-v4",
    "mbpo_jax/AntTruncatedObs-v5",
    "mbpo_jax/AntTruncatedObs-v4",
    "mbpo_jax/HumanoidTruncatedObs-v5",
    "mbpo_jax/HumanoidTruncatedObs-v4",
    "mbpo_jax/CartpoleContinuous-v0",
)
ENDLESS = (
    "HalfCheetah-v5",
    "Swimmer-v5",
    "mbpo_jax/PetsCartpole-v0",
    "mbpo_jax/PetsHalfCheetah-v0",
    "mbpo_jax/LineWorld-v0",
)
LIMITS = {  # index into qpos of what the rule bounds, and where
    "Hopper": {1: (0.7,), 2: (-0.2, 0.2), 3: (-100.0, 100.0), 5: (-100.0, 100.0)},
    "Walker2d": {1: (0.8, 2.0), 2: (-1.0, 1.0), 3: (-100.0, 100.0)},
    "Ant": {2: (0.2, 1.0), 7: (-100.0, 100.0)},
    "Humanoid": {2: (1.0, 2.0), 7: (-100.0, 100.0)},
}


def judge(rule: TerminationFn, next_obs: Any) -> list[bool]:
    batch = jnp.asarray(next_obs, dtype=jnp.float32)
    answer = jax.jit(rule)(jnp.zeros_like(batch), jnp.zeros((batch.shape[0], 1)), batch)
    assert answer.dtype == jnp.bool_
    assert answer.shape == batch.shape[:1]
    return np.asarray(answer).tolist()


def neighbours(limit: float) -> list[float]:
    """The float32 next to `limit`, and the ones below and above it."""
    nearest = np.float32(limit)
    return [float(np.nextafter(nearest, np.float32(to))) for to in (-INF, nearest, INF)]


def real_transitions(env_id: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """STEPS steps of uniform random actions: obs, action and next_obs in float32, terminated in bool."""
    env = gymnasium.make(env_id, disable_env_checker=True)
    env.action_space.seed(0)
    obs, _ = env.reset(seed=0)
    rows: list[tuple[Any, Any, Any, bool]] = []
    for _ in range(STEPS):
        action = env.action_space.sample()
        next_obs, _, terminated, truncated, _ = env.step(action)
        rows.append((obs, action, next_obs, terminated))
        obs = env.reset()[0] if terminated or truncated else next_obs
    env.close()
    *arrays, ends = zip(*rows)
    obs, action, next_obs = (np.asarray(array, dtype=np.float32) for array in arrays)
    return obs, action, next_obs, np.asarray(ends)


@pytest.mark.parametrize("env_id", TERMINATING + ENDLESS)
def test_agrees_with_every_real_transition(env_id: str) -> None:
    obs, action, next_obs, terminated = real_transitions(env_id)
    rule = terminations.lookup(env_id)
    assert rule is not None
    predicted = np.asarray(jax.jit(rule)(obs, action, next_obs))
    assert predicted.shape == terminated.shape == (STEPS,)
    assert np.flatnonzero(predicted != terminated).tolist() == []
    assert set(terminated.tolist()) == ({True, False} if env_id in TERMINATING else {False})


@pytest.mark.parametrize("version", ["v4", "v5"])
@pytest.mark.parametrize("name", list(LIMITS))
def test_agrees_with_is_healthy_next_to_the_limits_and_on_non_finite_numbers(name: str, version: str) -> None:
    env: Any = gymnasium.make(f"{name}-{version}").unwrapped
    env.reset(seed=0)
    start, first = (
        env.init_qpos.copy(),
        1 if name in ("Hopper", "Walker2d") else 2,
    )  # x (and y) are not observed
    cases = [("qpos", i, v) for i, limits in LIMITS[name].items() for x in limits for v in neighbours(x)]
    cases += [("qpos", i, v) for i in range(first, start.size) for v in (NAN, INF, -INF)]
    cases += [("qvel", i, NAN) for i in range(env.init_qvel.size)]
    rule = terminations.lookup(f"{name}-{version}")
    assert rule is not None
    observations, healthy = [], []
    for part, index, value in cases:
        env.data.qpos[:], env.data.qvel[:] = start, 0.0
        getattr(env.data, part)[index] = value
        observations.append(env._get_obs())
        healthy.append(bool(env.is_healthy))
    assert [not terminal for terminal in judge(rule, observations)] == healthy
    assert {True, False} == set(healthy)


def test_inverted_pendulum() -> None:
    angles = [0.0, 0.199, *neighbours(0.2), 0.201]
    expected = [False, False, False, True, True, True]  # the float32 nearest to 0.2 is 0.2000000030
    assert judge(terminations.inverted_pendulum, [[0.0, angle, 0.0, 0.0] for angle in angles]) == expected
    assert judge(terminations.inverted_pendulum, [[0.0, -angle, 0.0, 0.0] for angle in angles]) == expected
    broken = [[NAN, 0.0, 0.0, 0.0], [0.0, NAN, 0.0, 0.0], [0.0, 0.0, 0.0, INF], [-INF, 0.0, 0.0, 0.0]]
    assert judge(terminations.inverted_pendulum, broken) == [True] * 4


def test_inverted_double_pendulum() -> None:
    def observe(angle_1: float, angle_2: float, length: float = 1.0) -> list[float]:
        sines, cosines = np.sin([angle_1, angle_2]), np.cos([angle_1, angle_2])
        return [0.0, *(length * sines), *(length * cosines), 0.0, 0.0, 0.0, 0.0]

    fold = np.arccos(1.0 / 0.6 - 1.0)  # lower pole upright, upper pole so far over that the tip is 1 m high
    lean = np.arccos(1.0 / 1.2)  # both poles in line, tip 1 m high
    cases = [(0.0, 0.0), (0.0, fold - 0.001), (0.0, fold + 0.001), (lean - 0.001, 0.0), (-lean - 0.001, 0.0)]
    cases += [(1.0, -1.0), (0.6, -0.6), (0.0, np.pi)]  # heights 0.92, 1.10 and 0.0
    expected = [False, False, True, False, True, True, False, True]
    rule = terminations.inverted_double_pendulum
    assert judge(rule, [observe(*case) for case in cases]) == expected
    assert judge(rule, [observe(*case, length=0.7) for case in cases]) == expected  # off the unit circle
    assert judge(rule, [[NAN] * 9]) == [False]  # `nan <= 1` is false in the environment too


def test_hopper() -> None:
    standing = [1.25, *[0.0] * 10]
    cases = np.tile(np.asarray(standing), (8, 1))
    cases[1, 0], cases[2, 0] = 0.69, 0.71
    cases[3, 1], cases[4, 1] = -0.21, -0.19
    cases[5, 10], cases[6, 10] = 101.0, -101.0  # the official MBPO rule misses the negative one
    cases[7, 10] = -99.0
    assert judge(terminations.hopper, cases) == [False, True, False, True, False, True, True, False]


def test_walker2d() -> None:
    cases = [[h, a, *[0.0] * 15] for h, a in [(1.25, 0.0), (0.79, 0.0), (2.01, 0.0), (1.25, 1.01), (1.25, -0.99)]]
    assert judge(terminations.walker2d, cases) == [False, True, True, True, False]
    assert judge(terminations.walker2d, [[1.25, 0.0, *[NAN] * 15]]) == [False]


def test_ant() -> None:
    cases = np.zeros((6, 105))
    cases[:, 0] = [0.75, 0.2, 1.0, 0.19, 1.01, 0.75]
    cases[5, 26] = NAN
    assert judge(terminations.ant, cases) == [False, False, False, True, True, True]
    assert judge(terminations.ant, cases[:, :27]) == [False, False, False, True, True, True]
    cases[:, 27] = NAN  # a contact force, which Ant-v5 does not ask
    assert judge(terminations.ant, cases) == [False, False, False, True, True, True]


def test_humanoid() -> None:
    cases = [[height, *[0.0] * 44] for height in (1.4, 1.0, 1.01, 1.99, 2.0, NAN)]
    assert judge(terminations.humanoid, cases) == [False, True, False, False, True, True]


def test_cartpole() -> None:
    twelve_degrees = 0.20943951
    cases = [[x, 0.0, 0.0, 0.0] for x in (2.4, -2.4, 2.4001, -2.4001, INF, NAN)]
    cases += [[0.0, 0.0, sign * twelve_degrees + by, 0.0] for sign in (-1, 1) for by in (-1e-4, 1e-4)]
    cases += [[0.0, NAN, 0.0, 0.0], [0.0, 1e6, 0.0, -1e6]]
    expected = [False, False, True, True, True, True, True, False, False, True, True, False]
    assert judge(terminations.cartpole, cases) == expected


def test_never_and_leading_axes() -> None:
    assert judge(terminations.never, [[NAN] * 17, [0.0] * 17]) == [False, False]
    for name, rule in terminations.BY_NAME.items():
        stack = jnp.full((2, 3, 45), 0.9)  # [group, row, O]
        assert jax.eval_shape(rule, stack, stack, stack).shape == (2, 3), name


def test_lookup_knows_the_ids_whose_rules_were_checked() -> None:
    for env_id in TERMINATING + ENDLESS:
        name = env_id.rpartition("/")[2].rpartition("-v")[0]
        assert terminations.lookup(env_id) is terminations.BY_NAME[name]
    assert terminations.lookup("mbpo_jax/AntTruncatedObs-v5") is terminations.ant
    assert terminations.lookup("some_module:Hopper-v4") is terminations.hopper
    assert terminations.lookup("mbpo_jax.environments:mbpo_jax/CartpoleContinuous-v0") is terminations.cartpole
    assert terminations.lookup("Pendulum-v1") is terminations.never


@pytest.mark.parametrize(
    "env_id",
    [
        "some_module:Foo-v1",
        "Hopper-v6",
        "Hopper-v3",
        "Hopper",
        "other/Hopper-v5",
        "CartPole-v1",
        "Pendulum-v5",
        "",
    ],
)
def test_lookup_does_not_guess(env_id: str) -> None:
    assert terminations.lookup(env_id) is None


@pytest.mark.parametrize(
    ("env_id", "known"),
    [
        ("HalfCheetah", ["HalfCheetah-v4", "HalfCheetah-v5"]),
        ("module:Hopper-v3", ["Hopper-v4", "Hopper-v5"]),
        ("mbpo_jax/CartpoleContinuous", ["mbpo_jax/CartpoleContinuous-v0"]),
        ("Pendulum-v7", ["Pendulum-v1"]),
        ("else/Hopper-v4", []),
        ("MyRobot-v0", []),
    ],
)
def test_the_ids_of_a_name_whose_rules_are_known(env_id: str, known: list[str]) -> None:
    assert terminations.known_ids(env_id) == known
    assert all(terminations.lookup(one) is not None for one in known)
