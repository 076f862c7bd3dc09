"""Faults are planted in a small world, one each; each is found, and nothing is found where there is none."""

import gymnasium
import jax.numpy as jnp
import pytest

from faulty_episodes import (
    ChangesAction,
    ClockInInfo,
    ClockTerminates,
    ClockTerminatesToo,
    DeafToActions,
    EndsAtOnce,
    Fails,
    FailsWhenMade,
    GlobalDraws,
    GlobalSeeds,
    HugeReward,
    IgnoresSeed,
    NanReward,
    NoReward,
    NoSeed,
    NumberFlag,
    OldReset,
    OldStep,
    OneInstance,
    OneThread,
    OtherShape,
    OwnClock,
    RefusesBounds,
    Remembers,
    SharedArray,
    Swapped,
    TextReward,
    TinyReward,
)
from faulty_spaces import (
    Blind,
    ConstantDim,
    DiscreteActions,
    HugeObs,
    Images,
    LargeObs,
    LostInFloat32,
    NanObs,
    Nothing,
    OneAction,
    OtherDtype,
    Outside,
    OwnStatistics,
    Unbounded,
    with_normalised_observations,
    with_normalised_rewards,
)
from mbpo_jax import check_env
from mbpo_jax.environment_check.examination import examine
from mbpo_jax.environment_check.finding import numbers
from sound_walk import NoisyReward, Walk, Wide

LIMIT = 50


def outside(obs, action, next_obs):
    return jnp.abs(next_obs[..., 0]) > 1.0


def always(obs, action, next_obs):
    return jnp.ones(next_obs.shape[:-1], bool)


def reads_the_action(obs, action, next_obs):
    """As `outside`, if actions are in [-1, 1]."""
    return outside(obs, action, next_obs) & (jnp.abs(action[..., 0]) <= 1.0)


PROBLEMS = {
    Unbounded: "actions 0 have no bounds",
    OneAction: "actions 1 can take only one value",
    DiscreteActions: "runs need continuous ones",
    Images: "look like images (16, 16, 3)",
    Nothing: "is empty",
    HugeObs: "observations 0 exceed float32",
    LargeObs: "observations 0 are as large as 1",
    LostInFloat32: "observations 0 vary by less than float32",
    Outside: "observations 0 leave their space (observation 0 was in [-2",
    NanObs: "observations 1 are not finite in ",
    NanReward: "rewards are not finite in ",
    Blind: "no observation ever changes",
    ClockTerminates: "episodes end after 20 steps as terminated: return truncated",
    ClockTerminatesToo: "episodes end after 20 steps, none later, as terminated",
    ClockInInfo: "info says TimeLimit.truncated",
    Swapped: "episodes are truncated before the time limit",
    EndsAtOnce: "every episode ends at its first step",
    OwnClock: "other numbers in a second instance (observations and next observations and rewards of step 1)",
    IgnoresSeed: "reset(seed=...) does not repeat an episode of the same instance",
    Remembers: "reset(seed=...) does not repeat an episode of the same instance",
    GlobalDraws: "it uses a global random generator",
    GlobalSeeds: "it uses a global random generator",
    HugeReward: "rewards are as large as 1",
    TinyReward: "rewards are as small as ",
    OldStep: "step must return (obs, reward, terminated, truncated, info)",
    OldReset: "reset returned a ndarray: return (obs, info)",
    NoSeed: "unexpected keyword argument 'seed'",
    NumberFlag: "a flag terminated that is not a boolean, int 0",
    TextReward: "a reward that is not a number, str",
    OtherShape: "shape (3,) where its space has (2,)",
    DeafToActions: "the lowest and the highest action have the same effect",
    RefusesBounds: "the lowest action [-1.0] was not accepted (step 1 of episode 0 raised AssertionError: out of "
    "bounds",
    OneInstance: "a second instance cannot be made while one is open",
    Fails: "step 4 of episode",
    FailsWhenMade: "its constructor raised RuntimeError: no robot",
    with_normalised_observations: "NormalizeObservation has running statistics",
    with_normalised_rewards: "NormalizeReward has running statistics",
    OwnStatistics: "does not repeat an episode",
}
NOTES = {
    ConstantDim: "observations 1 to 2 never change",
    OtherDtype: "observations are float64 but their space is float32",
    NoReward: "every reward was 0",
    SharedArray: "every observation is returned in the same array",
    ChangesAction: "modifies the action array that it receives",
    OneThread: "only the thread that made it can use it (RuntimeError: created in another thread)",
}
SOUND = (Walk, Wide, NoisyReward)


@pytest.fixture(scope="module", autouse=True)
def _registered():
    worlds = [*PROBLEMS, *NOTES, *SOUND]
    for world in worlds:
        gymnasium.register(f"{world.__name__}-v0", entry_point=world, max_episode_steps=LIMIT)
    gymnasium.register("NoLimit-v0", entry_point=Walk)
    yield
    for world in worlds:
        del gymnasium.registry[f"{world.__name__}-v0"]
    del gymnasium.registry["NoLimit-v0"]


def examined(name, rule="never", **options):
    return examine(name, **({"termination_fn": rule, "num_steps": 400, "seed": 0, "max_episode_steps": 0} | options))


@pytest.mark.parametrize("world", PROBLEMS, ids=lambda world: world.__name__)
def test_a_planted_fault_is_a_problem(world):
    found = examined(f"{world.__name__}-v0", "auto")
    assert any(PROBLEMS[world] in finding.text for finding in found.problems), found.problems
    assert all("\n" not in finding.text for finding in found.findings)


@pytest.mark.parametrize("world", NOTES, ids=lambda world: world.__name__)
def test_what_does_no_harm_is_a_note(world):
    found = examined(f"{world.__name__}-v0", "auto")
    assert found.problems == []
    assert any(NOTES[world] in finding.text for finding in found.findings), found.findings


@pytest.mark.parametrize("world", SOUND, ids=lambda world: world.__name__)
def test_a_sound_world_is_left_alone(world):
    found = examined(f"{world.__name__}-v0", f"{__name__}:reads_the_action")
    assert found.findings == []
    assert "noise" in found.facts and ("sd" in found.facts["noise"]) == (world is NoisyReward)


@pytest.mark.parametrize(
    ("rule", "message"),
    [("never", "it misses "), (f"{__name__}:always", " and reports "), ("auto", None), (f"{__name__}:outside", None)],
)
def test_a_wrong_rule_is_counted(rule, message):
    found = examined("Walk-v0", rule)
    assert [finding.matters for finding in found.findings] == [True] * (message is not None)
    assert message is None or message in found.findings[0].text
    assert ("none is known for this id" in found.facts["rule"]) == (rule == "auto")


def test_a_time_limit_can_be_given():
    assert "it has no time limit" in examined("NoLimit-v0", "auto").problems[0].text
    assert examined("NoLimit-v0", "auto", max_episode_steps=20).findings == []


STANDARD = [
    "InvertedPendulum-v5",
    "InvertedDoublePendulum-v5",
    "Hopper-v5",
    "HalfCheetah-v5",
    "Walker2d-v5",
    "Ant-v5",
    "Swimmer-v5",
    "Pendulum-v1",
    "MountainCarContinuous-v0",
    "mbpo_jax/CartpoleContinuous-v0",
    "mbpo_jax/AntTruncatedObs-v4",
    "mbpo_jax/AntTruncatedObs-v5",
    "mbpo_jax/HumanoidTruncatedObs-v4",
    "mbpo_jax/HumanoidTruncatedObs-v5",
]


@pytest.mark.parametrize("env_id", STANDARD)
def test_no_false_alarm_on_standard_environments(env_id):
    found = examined(env_id, "auto", num_steps=1000)
    assert found.problems == []


def test_the_command(capsys):
    assert check_env.main(["Walk-v0", f"--termination_fn={__name__}:outside", "--num_steps=300"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Walk-v0: 300 random steps, seed 0"
    assert lines[-1] == "no problems found"
    assert check_env.main(["InvertedPendulum-v5", "--termination_fn=learned", "--num_steps=300"]) == 0
    assert "--termination_fn=learned is fitted to a run's own rows; nothing is compared" in capsys.readouterr().out
    assert check_env.main(["--env=HugeReward-v0"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "1 problem found"
    assert lines[-2].startswith("problem: rewards are as large as ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["NoSuch-v0"], "ENV must be an installed Gymnasium id, got 'NoSuch-v0'"),
        (["no_such_module:Walk-v0"], "got 'no_such_module:Walk-v0'"),
        ([], "ENV must be given once, got 0"),
        (["Walk-v0", "--env=Walk-v0"], "ENV must be given once, got 2"),
        (["Walk-v0", "--num_steps=0"], "--num_steps: must be a whole number, 1 or more"),
        (["Walk-v0", "--termination_fn=no_such:rule"], "that can be imported, got 'no_such:rule'"),
        (["Walk-v0", "--termination_fn=math:sin"], "must return bool"),
    ],
)
def test_wrong_flags_are_one_line(words, message, capsys):
    assert check_env.main(words) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_indices_are_short():
    assert numbers([0, 3, 4, 5, 9]) == "0, 3 to 5, 9"
