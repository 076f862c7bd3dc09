"""Environments that break are shown with their place, and recovered from as often as is allowed."""

import signal
from unittest import mock

import numpy as np
import odd_worlds
import pytest
from walked import assert_healthy, play

from mbpo_jax.driver.config import Broken, Diverged, EnvironmentFailure, NotFinite
from mbpo_jax.driver.interaction.environment import Environment, Limits


@pytest.mark.parametrize(
    ("name", "episode", "step", "what"),
    [
        ("NanObs", 1, 2, "observation [0.0, nan, 0.0, 0.0]"),
        ("NanFirstObs", 1, 0, "observation [inf, 0.0, 0.0, 0.0]"),
        ("HugeObs", 0, 1, "observation [inf, 0.0, 0.0, 0.0]"),  # finite in float64 only
        ("NanReward", 1, 4, "reward nan"),
        ("HugeReward", 0, 1, "reward 1e+39"),
    ],
)
def test_what_is_not_finite_is_refused_with_its_place(make, name, episode, step, what):
    env = make(f"odd_worlds:odd/{name}-v0", 17)

    def play():
        for _ in range(2):
            env.reset()
            for _ in range(5):
                env.step(np.zeros(2))

    with pytest.raises(NotFinite) as caught:
        play()
    for word in (f"odd_worlds:odd/{name}-v0", what, f"step {step} of episode {episode} ", "(seed 17)"):
        assert word in str(caught.value)


@pytest.mark.parametrize("action", [[np.nan, 0.0], [0.0, np.inf]])
def test_an_action_that_is_not_finite_is_the_policys_fault_and_never_arrives(make, action):
    env = make("odd_worlds:odd/World-v0", 17)
    env.reset()
    env.step(np.zeros(2))
    with pytest.raises(Diverged, match=r"the policy's action is not finite at step 2 of episode 0 \(seed 17\)"):
        env.step(np.float32(action))
    assert (len(env.actions), env.step(np.zeros(2)).next_obs[0]) == (1, 2.0)


def test_an_observation_of_another_size_is_refused(make):
    env = make("odd_worlds:odd/LongObs-v0", 0)
    env.reset()
    with pytest.raises(Broken, match="LongObs-v0 returned an observation of 7 numbers where.* 4"):
        env.step(np.zeros(2))


# -- environments that break -----------------------------------------------------------------------------------------


def test_an_environment_that_raises_is_shown_with_its_place_and_its_own_traceback(make):
    env = make("odd_worlds:odd/Stuck-v0", 17)
    with pytest.raises(Broken) as caught:
        play(env)
    trace = caught.value.environment_traceback
    assert str(caught.value) == (
        "environment odd_worlds:odd/Stuck-v0 raised RuntimeError: the gripper is stuck at step 3 of episode 1 (seed 17)"
    )
    assert caught.value.__notes__ == [trace]
    assert 'odd_worlds.py", line' in trace and "in get_stuck" in trace
    assert trace.endswith("RuntimeError: the gripper is\nstuck\n")
    assert "simulator.py" not in trace  # where we called it is of no interest


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("Exits", "raised SystemExit: 3 at step 3 of"),
        ("StuckAtReset", "raised RuntimeError: the gripper is stuck at step 0 of"),
        (
            "OtherShape",
            "returned an observation of 4 numbers where its space has 4 (shape (2, 2), not (4,)) at step 3 of",
        ),
        ("ComplexObs", "returned an observation that is not an array of numbers, a ndarray of complex64, at step 3 of"),
        ("TextObs", "returned an observation that is not an array of numbers, a ndarray of <U3, at step 3 of"),
        ("ObjectObs", "returned an observation that is not an array of numbers, a ndarray of object, at step 3 of"),
        ("NoObs", "returned an observation that is not an array of numbers, a NoneType of object, at step 3 of"),
        ("RaggedObs", "raised ValueError: setting an array element with a sequence"),
        ("TextReward", "returned a reward that is not a number, a str, at step 3 of"),
        ("NoReward", "returned a reward that is not a number, a NoneType, at step 3 of"),
        ("TwoRewards", "returned a reward that is not a number, a ndarray, at step 3 of"),
        ("NumberFlag", "returned a flag terminated that is not a boolean, a int, at step 3 of"),
        (
            "OldStep",
            "returned another number of values, as old Gym's does, where step must return (obs, reward, terminated, "
            "truncated, info) (not enough values to unpack (expected 5, got 4)), at step 3 of",
        ),
        (
            "ShortStep",
            "returned another number of values, where step must return (obs, reward, terminated, truncated, info) ",
        ),
        ("Unpacks", "raised ValueError: not enough values to unpack (expected 5, got 0) at step 3 of"),
        ("OtherSpaces", "changed a space in reset, from Box([[-2.  0.]], [[2. 1.]], (1, 2), float32) to Box("),
        ("OldReset", "returned a ndarray where reset must return (obs, info) at step 0 of"),
    ],
)
def test_what_is_of_another_form_is_refused_with_its_place(make, name, what):
    with pytest.raises(Broken) as caught:
        play(make(f"odd_worlds:odd/{name}-v0", 17))
    assert f"environment odd_worlds:odd/{name}-v0 {what}" in str(caught.value)
    assert "of episode 1 (seed 17)" in str(caught.value)


@pytest.mark.parametrize("name", ["DoubleObs", "ListObs", "ArrayReward", "ArrayFlag"])
def test_numbers_and_flags_may_be_of_any_type_that_holds_them(make, name):
    step = play(make(f"odd_worlds:odd/{name}-v0", 0))[1][3]
    assert (type(step.reward), type(step.terminal), step.next_obs.dtype) == (float, bool, np.float32)
    assert step.reward == (0.5 if name == "ArrayReward" else 0.5 * (0.0 + 1.0))  # the middle of [0, 1]
    if name in ("DoubleObs", "ListObs"):
        np.testing.assert_array_equal(step.next_obs, np.float32([3.0, 0.1, 0.0, 0.0]))


def test_an_observation_stays_what_it_was_while_the_environment_writes_into_its_array(make):
    episode = play(make("odd_worlds:odd/Reusing-v0", 0), 1)[0]
    assert [episode[0][0], *(step.next_obs[0] for step in episode[1:])] == [0, 1, 2, 3, 4, 5]


def test_an_interruption_is_not_the_environments_failure(make):
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        with pytest.raises(KeyboardInterrupt):
            play(make("odd_worlds:odd/Interrupted-v0", 0))
    finally:
        signal.signal(signal.SIGINT, handler)


def test_an_environment_that_cannot_be_made_is_shown_with_its_traceback():
    with pytest.raises(Broken, match=r"raised RuntimeError: .* while it was made \(seed 4\)\n(.*\n)*.*get_stuck"):
        Environment("odd_worlds:odd/StuckWhenMade-v0", 4)


@pytest.mark.parametrize(("name", "counters"), [("NanReward", (1, 0)), ("Stuck", (0, 1)), ("OtherShape", (0, 1))])
def test_recovering_begins_the_next_episode_as_if_nothing_had_happened(make, name, counters):
    env = make(f"odd_worlds:odd/{name}-v0", 17, limits=Limits(1, 1))
    with pytest.raises(EnvironmentFailure) as caught:
        play(env)
    with mock.patch.object(odd_worlds.World, "close") as close:
        obs = env.recover(caught.value)
    assert close.call_count == counters[1]  # the broken one
    assert (env.nonfinite_episodes, env.restarts) == counters
    assert_healthy(env, obs, 2)


def test_a_number_that_is_not_finite_needs_no_new_instance(make):
    odd_worlds.PLANS[:] = [{"faults": {(0, 1): {"reward": np.nan}}}]  # a second one could not be made
    env = make("odd_worlds:odd/Planned-v0", 17, limits=Limits(1, 0))
    with pytest.raises(NotFinite) as caught:
        play(env)
    assert_healthy(env, env.recover(caught.value), 1)


def test_faults_while_recovering_are_recovered_from_too(make):
    nan, stuck = {(0, 0): {"obs": [np.nan] * 4}}, {(0, 0): {"does": odd_worlds.get_stuck}}
    odd_worlds.PLANS[:] = [{"faults": nan | {(1, 0): stuck[0, 0]}}, RuntimeError("no"), {"faults": stuck}, {}]
    env = make("odd_worlds:odd/Planned-v0", 17, limits=Limits(1, 3))
    obs = env.begin()  # episode 0: nan; 1: stuck; then none could be made; 2: stuck
    assert (env.nonfinite_episodes, env.restarts, odd_worlds.PLANS) == (1, 3, [])
    assert_healthy(env, obs, 3)


def test_nonfinite_episodes_are_counted_to_their_limit(make):
    env = make("odd_worlds:odd/NanOften-v0", 17, limits=Limits(3, 9))  # in episodes 0, 1, 2 (at its reset) and 3
    for given_up, episode in ((1, 1), (3, 3)):
        with pytest.raises(NotFinite) as caught:
            play(env, 1) if env.episode < 0 else [env.step(np.zeros(2)) for _ in range(5)]
        env.recover(caught.value)
        assert (env.nonfinite_episodes, env.restarts, env.episode) == (given_up, 0, episode)
    env.step(np.zeros(2))
    with pytest.raises(NotFinite) as caught:
        env.step(np.zeros(2))
    with pytest.raises(NotFinite) as beyond:
        env.recover(caught.value)
    assert str(beyond.value) == (
        f"{caught.value}; 3 episodes had already been given up, and --env_nonfinite_episodes=3 allows no more"
    )
    assert beyond.value.__cause__ is caught.value
    assert env.nonfinite_episodes == 3


@pytest.mark.parametrize("restarts", [0, 2])
def test_restarts_are_counted_to_their_limit(make, restarts):
    env = make("odd_worlds:odd/StuckFirst-v0", 17, limits=Limits(9, restarts))
    with pytest.raises(Broken) as beyond:
        env.begin()
    done = f"it had already been made again {restarts} times, and " if restarts else ""
    assert str(beyond.value) == (
        f"environment odd_worlds:odd/StuckFirst-v0 raised RuntimeError: the gripper is stuck at step 0 of episode "
        f"{restarts} (seed 17); {done}--env_restarts={restarts} allows no more"
    )
    assert "in get_stuck" in beyond.value.environment_traceback
    assert isinstance(beyond.value.__cause__, Broken)
    assert (env.restarts, env.nonfinite_episodes) == (restarts, 0)


@pytest.mark.parametrize(
    ("plan", "what"),
    [
        ({"low": (-2.0, 0.5)}, "has spaces other than before"),
        ({"high": (2.0, 2.0)}, "has spaces other than before"),
        ({"low": (-2.0,), "high": (2.0,)}, "has spaces other than before"),
        (ValueError("no display"), "no longer fits the run (env must be an installed Gymnasium id"),
    ],
)
def test_a_new_instance_must_be_as_the_old_one_was(make, plan, what):
    odd_worlds.PLANS[:] = [{"faults": {(0, 0): {"does": odd_worlds.get_stuck}}}, plan]
    env = make("odd_worlds:odd/Planned-v0", 17, limits=Limits(0, 1))
    with pytest.raises(Broken) as caught:
        env.begin()
    assert f"odd/Planned-v0 {what}" in str(caught.value)
    assert "while it was made (seed 17)" in str(caught.value)


def test_what_was_given_up_does_not_step_before_it_is_reset(make):
    env = make("odd_worlds:odd/World-v0", 17, limits=Limits(0, 1))
    env.reset()
    env.give_up(Broken("planted"))
    with pytest.raises(RuntimeError, match="must be reset before it steps"):
        env.step(np.zeros(2))
    assert_healthy(env, env.reset(), 1)


def test_closing_raises_nothing_and_twice_is_once(monkeypatch):
    monkeypatch.setattr(odd_worlds.World, "close", lambda self: odd_worlds.get_stuck())
    env = Environment("odd_worlds:odd/World-v0", 0)
    env.close()
    env.close()
