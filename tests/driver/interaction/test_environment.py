"""What an environment is given and gives, which do not fit, how episodes end, and how they repeat."""

import numpy as np
import odd_worlds
import pytest
from walked import assert_same, random_actions, walk

from mbpo_jax.driver.config import Broken
from mbpo_jax.driver.interaction import global_random
from mbpo_jax.driver.interaction.environment import EVALUATION, TRAINING, Environment
from mbpo_jax.driver.interaction.spaces import rescale


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
        ("odd_worlds:odd/FarBounds-v0", "must have action bounds with a finite distance"),
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
