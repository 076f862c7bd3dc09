import signal
from unittest import mock

import numpy as np
import odd_worlds
import pytest

from mbpo_jax.driver.config import Broken, Diverged, EnvironmentFailure, NotFinite
from mbpo_jax.driver.interaction import global_random
from mbpo_jax.driver.interaction.environment import EVALUATION, TRAINING, Environment, Limits
from mbpo_jax.driver.interaction.spaces import rescale


@pytest.fixture
def make():
    opened = []

    def open_environment(*args, **kwargs):
        opened.append(Environment(*args, **kwargs))
        return opened[-1]

    yield open_environment
    for env in opened:
        env.close()


def walk(env, obs, actions):
    """Steps with all actions, beginning the next episode where one ends; returns everything seen."""
    seen = [obs]
    for action in actions:
        step = env.step(action)
        ended = step.terminal or step.truncated
        seen.append((step, env.reset() if ended else None, env.episode, env.episode_return))
    return seen


def assert_same(seen, expected):
    assert len(seen) == len(expected)
    np.testing.assert_array_equal(seen[0], expected[0])
    for (step, first, *rest), (step_, first_, *rest_) in zip(seen[1:], expected[1:], strict=True):
        np.testing.assert_array_equal(step.next_obs, step_.next_obs)
        assert step[1:] == step_[1:]
        assert rest == rest_
        assert (first is None) == (first_ is None)
        np.testing.assert_array_equal(0.0 if first is None else first, 0.0 if first_ is None else first_)


def random_actions(num_steps, action_dim, seed=0):
    return np.random.default_rng(seed).uniform(-1.0, 1.0, (num_steps, action_dim)).astype(np.float32)


def test_rescale_by_hand():
    low, high = np.float32([-2.0, 0.0, -0.4]), np.float32([2.0, 1.0, 0.4])
    np.testing.assert_array_equal(rescale(np.float32([-1, -1, -1]), low, high), low)
    np.testing.assert_array_equal(rescale(np.float32([1, 1, 1]), low, high), high)
    np.testing.assert_allclose(rescale(np.float32([0.5, 0.5, -0.5]), low, high), [1.0, 0.75, -0.2], atol=1e-8)
    np.testing.assert_allclose(rescale(np.float32([0, 0, 0]), low, high), [0.0, 0.5, 0.0], atol=1e-8)


def test_an_action_arrives_in_the_bounds_the_shape_and_the_type_of_the_space(make):
    env = make("odd_worlds:odd/World-v0", 0)  # its action space is [1, 2], float32, from (-2, 0) to (2, 1)
    assert (env.obs_dim, env.action_dim) == (4, 2)
    np.testing.assert_array_equal(env.action_low, [-2.0, 0.0])
    np.testing.assert_array_equal(env.action_high, [2.0, 1.0])
    env.reset()
    step = env.step(np.float32([0.5, -0.5]))
    assert step.next_obs.dtype == np.float32
    np.testing.assert_array_equal(step.next_obs[[0, 2, 3]], [1.0, 1.0, 0.25])
    assert (step.reward, step.terminal, step.truncated) == (1.25, False, False)


@pytest.mark.parametrize(
    ("env_id", "reason"),
    [
        ("CartPole-v1", "must have continuous (Box) actions"),
        ("odd_worlds:odd/UnboundedActions-v0", "must have bounded actions"),
        ("odd_worlds:odd/UnboundedBelow-v0", "must have bounded actions"),
        ("odd_worlds:odd/UnboundedAbove-v0", "must have bounded actions"),
        ("odd_worlds:odd/Images-v0", "must have vector observations"),
        ("odd_worlds:odd/FloatImages-v0", "must have vector observations"),
        ("odd_worlds:odd/DictObs-v0", "wrap it in gymnasium.wrappers.FlattenObservation"),
        ("odd_worlds:odd/GrayImages-v0", "must have vector observations"),
        ("odd_worlds:odd/EmptyObs-v0", "must have observations of at least one number"),
        ("odd_worlds:odd/NoActions-v0", "must have actions of at least one number"),
        ("odd_worlds:odd/ManyWholeActions-v0", "must have actions of at most 1,048,576 whole numbers each"),
        ("odd_worlds:odd/FarBounds-v0", "must have action bounds whose distance is finite"),
        ("odd_worlds:odd/LongDoubles-v0", "must have actions of at most 64 bits a number"),
        ("odd_worlds:odd/NoSpaces-v0", "must have an observation space"),
        ("odd_worlds:odd/OtherLibrary-v0", "builtins.dict, not one of gymnasium.spaces"),
        ("odd_worlds:odd/BinaryActions-v0", "must have continuous (Box) actions"),
        ("odd_worlds:odd/NormalizedObs-v0", "must not keep running statistics"),
        ("odd_worlds:odd/NormalizedRewards-v0", "with NormalizeReward: training and evaluation would each have"),
        ("odd_worlds:odd/OwnStatistics-v0", "with Whitened: training and evaluation would each have"),
        ("odd_worlds:odd/Batch-v0", "must be one gymnasium.Env"),
        ("Hoper-v5", "there are Hopper-v4, Hopper-v5"),
        ("Hopper-v99", "there are Hopper-v4, Hopper-v5"),
        ("NoSuchThing-v0", "must be an installed Gymnasium id"),
        ("no_such_module:Thing-v0", "must be an installed Gymnasium id"),
        ("a:b:c", "must be an installed Gymnasium id"),
        (":", "must be an installed Gymnasium id"),
        ("not an id", "must be an installed Gymnasium id"),
    ],
)
def test_an_environment_that_does_not_fit_is_refused_by_name(env_id, reason):
    with pytest.raises(ValueError) as caught:
        Environment(env_id, 0)
    assert str(caught.value).startswith("env ")
    assert reason in str(caught.value)
    assert repr(env_id) in str(caught.value)


def test_an_environment_without_a_time_limit_needs_one(make):
    with pytest.raises(ValueError, match=r"max_episode_steps.*1 or more.*'odd_worlds:odd/Unlimited-v0'.*got 0"):
        Environment("odd_worlds:odd/Unlimited-v0", 0)
    env = make("odd_worlds:odd/Unlimited-v0", 0, max_episode_steps=2)
    env.reset()
    assert [env.step(np.zeros(2)).truncated for _ in range(2)] == [False, True]


@pytest.mark.parametrize(
    ("env_id", "max_episode_steps", "last"),
    [
        ("odd_worlds:odd/World-v0", 0, (5, False, True)),
        ("odd_worlds:odd/World-v0", 4, (4, False, True)),  # a limit of ours replaces its own
        ("odd_worlds:odd/World-v0", 9, (9, False, True)),
        ("odd_worlds:odd/Ends-v0", 0, (3, True, False)),
        ("odd_worlds:odd/EndsAtLimit-v0", 0, (5, True, True)),  # both: it is terminal
        ("InvertedPendulum-v5", 3, (3, False, True)),
    ],
)
def test_a_time_limit_truncates_and_the_end_of_the_mdp_is_terminal(make, env_id, max_episode_steps, last):
    env = make(env_id, 0, max_episode_steps=max_episode_steps)
    env.reset()
    steps = [env.step(np.zeros(env.action_dim))]
    while not (steps[-1].terminal or steps[-1].truncated):
        steps.append(env.step(np.zeros(env.action_dim)))
    assert (len(steps), steps[-1].terminal, steps[-1].truncated) == last
    assert not any(step.terminal or step.truncated for step in steps[:-1])


def test_a_pendulum_that_falls_is_terminal_and_not_truncated(make):
    env = make("InvertedPendulum-v5", 0)
    env.reset()
    for _ in range(30):
        step = env.step(np.ones(1))
        if step.terminal:
            break
    assert (step.terminal, step.truncated) == (True, False)
    assert abs(step.next_obs[1]) > 0.2


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
    with pytest.raises(Broken, match="LongObs-v0 gave an observation of 7 numbers where.* 4"):
        env.step(np.zeros(2))


@pytest.mark.parametrize(
    "env_id",
    [
        "InvertedPendulum-v5",
        "Hopper-v5",
        "HalfCheetah-v5",
        "mbpo_jax/AntTruncatedObs-v5",
        "mbpo_jax/HumanoidTruncatedObs-v5",
    ],
)
def test_repeat_brings_back_the_running_episode_and_what_follows_bit_for_bit(make, env_id):
    num_steps, follow = 90, 30
    env, other = make(env_id, 3, max_episode_steps=40), make(env_id, 3, max_episode_steps=40)
    actions = random_actions(num_steps + follow, env.action_dim)
    seen, journals = [env.reset()], []
    for action in actions:
        journals.append((env.episode, np.array(env.actions), env.episode_return))
        seen += walk(env, None, [action])[1:]
    assert {entry[2] for entry in seen[1:]} >= {0, 1, 2}  # several episodes
    for cut in (0, 1, 17, 39, 40, 41, 77, num_steps):
        now = seen[cut]
        obs = now if cut == 0 else (now[0].next_obs if now[1] is None else now[1])
        repeated = other.repeat(*journals[cut])
        np.testing.assert_array_equal(repeated, obs)
        assert (other.episode, other.episode_return) == (journals[cut][0], journals[cut][2])
        after = walk(other, repeated, actions[cut : cut + follow])
        assert_same(after, [obs, *seen[cut + 1 : cut + 1 + follow]])


def test_episodes_depend_on_seed_stream_and_number_and_on_nothing_else(make):
    def starts(*args):
        env = make("Hopper-v5", *args)
        return [tuple(env.reset().tolist()) for _ in range(3)]

    base = starts(5, TRAINING)
    assert starts(5, TRAINING) == base
    others = [*starts(6, TRAINING), *starts(5, EVALUATION)]
    assert len({*base, *others}) == 9
    env = make("Hopper-v5", 5, TRAINING)
    assert [tuple(env.reset(n).tolist()) for n in (2, 0, 1)] == [base[2], base[0], base[1]]
    assert tuple(env.reset().tolist()) == base[2]  # and goes on counting from the number it was given


def test_equal_seeds_give_equal_episodes(make):
    envs = [make("InvertedPendulum-v5", 5), make("InvertedPendulum-v5", 5)]
    actions = random_actions(60, 1)
    assert_same(*(walk(env, env.reset(), actions) for env in envs))


def test_the_journal_holds_the_running_episode_only(make):
    env = make("odd_worlds:odd/World-v0", 0)
    env.reset()
    for action in ([0.0, 0.0], [1.0, -1.0]):
        env.step(np.float32(action))
    assert [action.tolist() for action in env.actions] == [[0.0, 0.0], [1.0, -1.0]]
    assert env.episode_return == (0.0 + 0.5) + (2.0 + 0.0)
    env.reset()
    assert (env.actions, env.episode_return, env.episode) == ([], 0.0, 1)


# -- environments that break -----------------------------------------------------------------------------------------


def play(env, num_episodes=2, num_steps=5):
    """Plays whole episodes; returns everything seen."""
    return [[env.reset(), *(env.step(np.zeros(2)) for _ in range(num_steps))] for _ in range(num_episodes)]


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
        ("OtherShape", "gave an observation of 4 numbers where its space has 4 (shape (2, 2), not (4,)) at step 3 of"),
        ("ComplexObs", "gave an observation that is no array of numbers, a ndarray of complex64, at step 3 of"),
        ("TextObs", "gave an observation that is no array of numbers, a ndarray of <U3, at step 3 of"),
        ("ObjectObs", "gave an observation that is no array of numbers, a ndarray of object, at step 3 of"),
        ("NoObs", "gave an observation that is no array of numbers, a NoneType of object, at step 3 of"),
        ("RaggedObs", "raised ValueError: setting an array element with a sequence"),
        ("TextReward", "gave a reward that is no number, a str, at step 3 of"),
        ("NoReward", "gave a reward that is no number, a NoneType, at step 3 of"),
        ("TwoRewards", "gave a reward that is no number, a ndarray, at step 3 of"),
        ("NumberFlag", "gave a flag terminated that is no boolean, a int, at step 3 of"),
        (
            "OldStep",
            "gave another number of values, as old Gym's does, where step returns (obs, reward, terminated, truncated, "
            "info) (not enough values to unpack (expected 5, got 4)), at step 3 of",
        ),
        ("ShortStep", "gave another number of values, where step returns (obs, reward, terminated, truncated, info) "),
        ("Unpacks", "raised ValueError: not enough values to unpack (expected 5, got 0) at step 3 of"),
        ("OtherSpaces", "changed a space in reset, from Box([[-2.  0.]], [[2. 1.]], (1, 2), float32) to Box("),
        ("OldReset", "gave a ndarray where reset returns (obs, info) at step 0 of"),
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


def assert_healthy(env, obs, episode, num_steps=7):  # into the episode after it
    """It has begun the episode, and steps as an environment does that never failed."""
    other = Environment("odd_worlds:odd/World-v0", 17)
    actions = random_actions(num_steps, 2)
    expected = other.reset(episode)
    assert (env.episode, env.actions, env.episode_return) == (episode, [], 0.0)
    assert_same(walk(env, obs, actions), walk(other, expected, actions))


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
        f"{caught.value}; 3 episodes had been given up before, and --env_nonfinite_episodes=3 allows no more"
    )
    assert beyond.value.__cause__ is caught.value
    assert env.nonfinite_episodes == 3


@pytest.mark.parametrize("restarts", [0, 2])
def test_restarts_are_counted_to_their_limit(make, restarts):
    env = make("odd_worlds:odd/StuckFirst-v0", 17, limits=Limits(9, restarts))
    with pytest.raises(Broken) as beyond:
        env.begin()
    done = f"it had been made anew {restarts} times before, and " if restarts else ""
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
        ({"low": (-2.0, 0.5)}, "had other spaces than before"),
        ({"high": (2.0, 2.0)}, "had other spaces than before"),
        ({"low": (-2.0,), "high": (2.0,)}, "had other spaces than before"),
        (ValueError("no display"), "did not fit any more (env must be an installed Gymnasium id"),
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


# -- what is served exactly ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["FewObs8", "FrozenObs", "ScaledRewards", "PointObs"])
def test_what_only_looks_odd_is_served(make, name):
    env = make(f"odd_worlds:odd/{name}-v0", 0)
    assert env.reset().shape == (env.obs_dim,)
    assert env.step(np.zeros(env.action_dim)).next_obs.shape == (env.obs_dim,)


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (-0.1, 0.3, np.float64),  # rescaled to 0.30000000000000004
        (-0.1, 0.3, np.float32),
        (-0.1, 0.3, np.float16),
        (-6e4, 6e4, np.float16),
        (1.0, 1.0, np.float32),  # of no width
        (-1.7, 1e8, np.float32),
        (-2, 2, np.int64),
        (-128, 127, np.int8),
        (0, 255, np.uint8),
        (2**63 - 3, 2**63 + 2, np.uint64),
        (-(2**63), -(2**63) + 3, np.int64),
        (5, 5, np.int32),
        (False, True, np.bool_),
    ],
)
def test_an_action_lies_in_its_space_in_its_dtype(make, low, high, dtype):
    """The world asserts it at every step."""
    odd_worlds.ACTIONS[:] = [low, high, dtype]
    env = make("odd_worlds:odd/Containing-v0", 0)
    env.reset()
    for action in (-1.0, 1.0, np.nextafter(np.float32(1), np.float32(0)), 0.0, *np.linspace(-1, 1, 41), 1.5, -1.5):
        env.step(np.float32([action]))
    taken = odd_worlds.ACTIONS[3:]
    assert {taken[0], taken[1]} == {dtype(low), dtype(high)}


def test_whole_numbers_are_reached_in_equal_shares():
    low, high = np.int64([-2, 0]), np.int64([2, 2])
    draws = np.random.default_rng(0).uniform(-1.0, 1.0, (30_000, 2)).astype(np.float32)
    taken = np.stack([rescale(draw, low, high) for draw in draws])
    assert taken.dtype == np.int64
    for column, count in ((0, 5), (1, 3)):
        values, counts = np.unique(taken[:, column], return_counts=True)
        assert values.tolist() == list(range(low[column], high[column] + 1))
        np.testing.assert_allclose(counts, 30_000 / count, rtol=0.05)


def test_a_float_action_is_to_the_bit_what_it_was():
    low, high = np.float32([-3.0, -0.4, 0.1]), np.float32([3.0, 0.4, 0.7])
    for action in random_actions(200, 3):
        before = (low + 0.5 * (action.astype(np.float64) + 1.0) * (high.astype(np.float64) - low)).astype(np.float32)
        assert rescale(action, low, high).tobytes() == before.tobytes()


@pytest.mark.parametrize("name", ["DrawsGlobally", "DrawsFromSpaces"])
def test_what_an_environment_draws_comes_from_its_seed(make, name):
    caller = global_random.state()
    env, other = make(f"odd_worlds:odd/{name}-v0", 3), make(f"odd_worlds:odd/{name}-v0", 4)
    seen = walk(env, env.reset(), random_actions(12, 2))
    assert_same(walk(env, env.reset(0), random_actions(12, 2)), seen)
    again = make(f"odd_worlds:odd/{name}-v0", 3)
    assert_same(walk(again, again.reset(), random_actions(12, 2)), seen)
    assert not np.array_equal(other.reset(), seen[0])
    global_random.restore(caller)


def test_an_environment_of_old_gym_that_takes_no_seed_is_told_so(make):
    with pytest.raises(Broken, match=r"has a reset that takes no seed, as old Gym's .*, at step 0 of episode 0"):
        make("odd_worlds:odd/TakesNoSeed-v0", 0).reset()


def test_ids_that_gymnasium_only_refuses_are_not_named():
    with pytest.raises(ValueError) as caught:
        Environment("HalfCheetah-v1", 0)
    assert "HalfCheetah-v4, HalfCheetah-v5" in str(caught.value) and "v2" not in str(caught.value).partition("; ")[2]
