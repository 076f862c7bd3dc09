import numpy as np
import odd_worlds
import pytest

from mbpo_jax.driver.config import Broken, Diverged, NotFinite
from mbpo_jax.driver.interaction.environment import EVALUATION, Environment, Limits
from mbpo_jax.driver.interaction.evaluate import Evaluation, evaluate


class Echo:
    """Acts on what it sees and on how many steps it remembers, so that a forgotten reset shows."""

    def __init__(self):
        self.steps = 0

    def reset(self, episode):
        self.steps = 0

    def normalized_action(self, obs):
        self.steps += 1
        return np.tanh(np.float32([obs[1], 0.1 * self.steps]))


@pytest.fixture
def make():
    opened = []

    def open_environment(name, *limits):
        opened.append(Environment(f"odd_worlds:odd/{name}-v0", 17, EVALUATION, limits=Limits(*limits)))
        return opened[-1]

    yield open_environment
    for env in opened:
        env.close()


def world_with(*places, **fault):
    """Plans a world that has the fault at these (episode of the instance, step)."""
    return {"faults": {place: fault for place in places}}


def test_returns_are_those_of_the_numbered_episodes(make):
    whole, parts = evaluate(Echo(), make("World"), 0, 4), evaluate(Echo(), make("World"), 2, 2)
    assert parts == Evaluation(whole.returns[2:], whole.lengths[2:])
    assert whole.lengths == [5] * 4
    assert len(set(whole.returns)) == 4
    env = make("World")
    policy, obs, total = Echo(), env.reset(3), 0.0
    for _ in range(5):
        step = env.step(policy.normalized_action(obs))
        obs, total = step.next_obs, total + step.reward
    assert whole.returns[3] == total


def test_what_a_line_of_metrics_says():
    assert Evaluation([1.0, 3.0], [10, 20]).metrics() == {
        "eval/return_mean": 2.0,
        "eval/return_std": 1.0,
        "eval/return_min": 1.0,
        "eval/length_mean": 15.0,
        "eval/episodes": 2.0,
    }


def test_it_asks_before_every_step_and_a_repetition_gives_the_same(make):
    asked = []
    env = make("World")
    whole = evaluate(Echo(), env, 0, 3, lambda: bool(asked.append(len(env.actions))))
    assert asked == [0, 1, 2, 3, 4] * 3
    for stop_at in (0, 2, 5, 14):
        asked.clear()
        env = make("World")
        stopped = evaluate(Echo(), env, 0, 3, lambda: asked.append(0) or len(asked) == stop_at + 1)  # noqa: B023
        assert stopped is None
        assert len(env.actions) == stop_at % 5
        assert evaluate(Echo(), env, 0, 3) == whole


@pytest.mark.parametrize(
    ("fault", "counters"),
    [({"reward": np.nan}, (1, 0)), ({"does": odd_worlds.get_stuck}, (0, 1)), ({"obs": np.zeros(3)}, (0, 1))],
)
@pytest.mark.parametrize("at", [(0, 0), (0, 2), (1, 5), (2, 1)])
def test_an_episode_with_a_fault_is_left_out_and_the_others_are_as_ever(make, fault, counters, at):
    if "reward" in fault and at[1] == 0:
        fault = {"obs": [np.nan] * 4}
    healthy = evaluate(Echo(), make("World"), 0, 3)
    odd_worlds.PLANS[:] = [world_with(at, **fault), {}]
    env = make("Planned", 1, 1)
    outcome = evaluate(Echo(), env, 0, 3)
    assert (env.nonfinite_episodes, env.restarts) == counters
    (failure,) = env.failures
    assert f"of episode {at[0]} " in str(failure)
    assert outcome == Evaluation([r for i, r in enumerate(healthy.returns) if i != at[0]], [5, 5])
    assert evaluate(Echo(), env, 0, 3) == healthy  # the world has begun other episodes by now


def test_beyond_the_limit_it_ends(make):
    with pytest.raises(NotFinite, match="--env_nonfinite_episodes=1 allows no more"):
        evaluate(Echo(), make("NanOften", 1, 9), 0, 5)
    with pytest.raises(Broken, match="--env_restarts=0 allows no more"):
        evaluate(Echo(), make("Stuck", 9, 0), 0, 3)


def test_where_no_episode_remains_the_last_failure_is_raised(make):
    env = make("NanOften", 9, 9)
    with pytest.raises(NotFinite, match="observation .* at step 0 of episode 2"):
        evaluate(Echo(), env, 0, 3)
    assert (env.nonfinite_episodes, env.restarts) == (3, 0)


def test_a_stopped_evaluation_has_counted_nothing(make):
    odd_worlds.PLANS[:] = [world_with((0, 2), reward=np.nan)]
    env = make("Planned", 5, 5)
    assert evaluate(Echo(), env, 0, 3, lambda: env.episode == 2) is None
    assert (env.nonfinite_episodes, env.restarts, env.failures) == (0, 0, [])


def test_a_policy_that_diverged_is_not_the_environments_failure(make):
    policy = Echo()
    policy.normalized_action = lambda obs: np.float32([np.nan, 0.0])
    with pytest.raises(Diverged):
        evaluate(policy, make("World", 9, 9), 0, 3)
