"""A loaded policy acts as it did in its run, within the bounds of its environment."""

import json

import gymnasium
import jax
import numpy as np
import pytest
import tiny_runs
from saved_policies import observations

from mbpo_jax.driver.interaction import evaluate, policy
from mbpo_jax.driver.interaction.environment import EVALUATION, Environment
from mbpo_jax.driver.interaction.policy import Policy, load_policy
from mbpo_jax.types import Algorithm


def evaluations(run_dir, seed):
    return {line["step"]: line for line in tiny_runs.lines(run_dir, seed) if "eval/return_mean" in line}


@pytest.mark.parametrize(("run", "seed"), [("mbpo_run", 0), ("mbpo_run", 2), ("sac_run", 1)])
def test_a_loaded_policy_repeats_the_last_evaluation_bit_for_bit(request, run, seed):
    run_dir = request.getfixturevalue(run)
    knobs = tiny_runs.MBPO if run == "mbpo_run" else tiny_runs.SAC
    env = Environment(knobs["env"], seed, EVALUATION, knobs["max_episode_steps"])
    outcome = evaluate.evaluate(load_policy(run_dir, seed), env, 0, knobs["eval_episodes"])
    env.close()
    line = evaluations(run_dir, seed)[knobs["num_steps"]]
    assert outcome.metrics() == {name: value for name, value in line.items() if name.startswith("eval/")}


def test_a_loaded_policy_acts_as_the_state_in_the_checkpoint_does(mbpo_run):
    algorithm, spec = tiny_runs.build_mbpo()
    acting = policy.deterministic(algorithm)
    obs = observations(20, spec.obs_dim)
    for seed in (0, 1):
        actor = tiny_runs.saved(mbpo_run).arrays[str(seed)]["state"]["agent"]["actor"]["params"]
        low, high = np.float32([-3.0]), np.float32([3.0])
        in_memory, loaded = Policy(acting, actor, low, high), load_policy(mbpo_run, seed)
        actions = [loaded(o) for o in obs]
        assert all(action.dtype == np.float32 and action.shape == (1,) for action in actions)
        tiny_runs.assert_same_bits(actions, [in_memory(o) for o in obs])
        assert np.std(actions) > 0.0
    assert not np.array_equal(load_policy(mbpo_run, 0)(obs[0]), load_policy(mbpo_run, 1)(obs[0]))


def test_evaluation_does_not_explore(mbpo_run):
    algorithm, _ = tiny_runs.build_mbpo()
    loaded, obs = load_policy(mbpo_run, 0), observations(10, 4)
    actor, bounds = loaded.actor, (np.float32([-3.0]), np.float32([3.0]))
    network = actor["_Mlp_0"]
    hidden = np.maximum(obs @ network["Dense_0"]["kernel"] + network["Dense_0"]["bias"], 0.0)
    mean = (hidden @ network["Dense_1"]["kernel"] + network["Dense_1"]["bias"])[:, :1]
    np.testing.assert_allclose([loaded.normalized_action(o) for o in obs], np.tanh(mean), rtol=1e-5, atol=1e-6)
    again = Policy(policy.deterministic(algorithm), actor, *bounds)
    tiny_runs.assert_same_bits([again(o) for o in obs], [loaded(o) for o in obs])


def test_the_best_policy_is_that_of_the_best_evaluation(tmp_path):
    tiny_runs.train(tmp_path, tiny_runs.SAC, seeds=3, eval_every_steps=3)
    returns = {step: line["eval/return_mean"] for step, line in evaluations(tmp_path, 3).items()}
    best = max(returns.values())
    assert returns[100] < best  # it is not the last one, else this would show nothing
    env = Environment("Hopper-v5", 3, EVALUATION, 5)
    for is_best, expected in ((True, best), (False, returns[100])):
        outcome = evaluate.evaluate(load_policy(tmp_path, 3, best=is_best), env, 0, 2)
        assert outcome.metrics()["eval/return_mean"] == expected
    env.close()


def test_the_first_seed_is_the_default(mbpo_run):
    obs = observations(1, 4)[0]
    tiny_runs.assert_same_bits(load_policy(mbpo_run)(obs), load_policy(str(mbpo_run), 0)(obs))


def test_actions_are_in_bounds_and_reach_them(sac_run):
    loaded = load_policy(sac_run, 1)
    actions = np.stack([loaded(o) for o in observations(200, 11, scale=1e4)])
    assert actions.shape == (200, 3)
    assert actions.min() == -1.0
    assert actions.max() == 1.0  # far out, tanh saturates


def test_bounds_are_the_environments_own(mbpo_run):
    loaded = load_policy(mbpo_run, 0)  # of an InvertedPendulum, whose actions are in [-3, 3]
    obs = observations(200, 4, scale=1e4)
    actions, normalized = np.stack([loaded(o) for o in obs]), np.stack([loaded.normalized_action(o) for o in obs])
    assert np.abs(normalized).max() == 1.0
    np.testing.assert_array_equal(actions, np.float32(3.0 * normalized.astype(np.float64)))
    assert np.abs(actions).max() == 3.0


class Counting:
    """An algorithm that carries how many steps the episode has had, and acts with it."""

    algorithm = Algorithm(
        init=None,
        actor=None,
        begin_episode=lambda key, actor: actor,
        act=lambda key, actor, carry, obs, explore: (0.1 * carry * np.ones(2, np.float32), carry + 1.0),
        phases=(),
        exploration_steps=1,
        replay_capacity=1,
    )


def test_what_is_carried_begins_anew_at_reset():
    acting = Policy(policy.deterministic(Counting.algorithm), np.float32(2.0), np.float32([-1, 0]), np.float32([1, 10]))
    first, second = acting(np.zeros(3)), acting(np.zeros(3))
    np.testing.assert_allclose(first, [0.2, 6.0], rtol=1e-6)
    np.testing.assert_allclose(second, [0.3, 6.5], rtol=1e-6)
    acting.reset()
    np.testing.assert_array_equal(acting(np.zeros(3)), first)


@pytest.mark.parametrize(
    ("obs", "what"),
    [
        (np.zeros((5, 11)), "got an array of shape (5, 11); call it once for each row of a batch"),
        (np.zeros(10), "got an array of shape (10,)"),
        (0.0, "got an array of shape ()"),
        ((np.zeros(11), {}), "got (obs, info), which reset returns: give it the first of them"),
        ({"obs": np.zeros(11)}, "got dict"),
        ([[0.0] * 5, [0.0] * 6], "got list"),
    ],
)
def test_what_is_not_one_observation_is_refused_with_its_length(sac_run, obs, what):
    with pytest.raises(ValueError, match="policy must be given one observation of 11 numbers") as caught:
        load_policy(sac_run, 1)(obs)
    assert what in str(caught.value)


def test_an_observation_without_an_action_is_refused(sac_run):
    with pytest.raises(ValueError, match="the policy's action is not finite for the observation"):
        load_policy(sac_run, 1)(np.full(11, np.nan))


@pytest.mark.parametrize(
    ("low", "high"), [(np.int64([[-2, 0]]), np.int64([[2, 9]])), (-0.1 * np.ones(2), 0.3 * np.ones(2))]
)
def test_actions_are_of_the_shape_and_type_of_the_space_and_inside(low, high):
    acting = Policy(policy.deterministic(Counting.algorithm), np.float32(-13.0), low, high)
    space = gymnasium.spaces.Box(low, high, dtype=low.dtype)
    taken = [acting(np.zeros(3)) for _ in range(27)]
    assert all(space.contains(action) for action in taken)
    assert (taken[0] == low).all() and (taken[-1] == high).all()


def test_a_loaded_policy_acts_in_the_space_of_its_environment(tmp_path):
    tiny_runs.train(tmp_path, tiny_runs.SAC, env="odd_worlds:odd/World-v0", max_episode_steps=0, num_steps=2, seeds=0)
    space = gymnasium.make("odd_worlds:odd/World-v0").action_space  # of shape [1, 2]
    assert space.contains(load_policy(tmp_path)(np.zeros(4)))
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    del config["task"]["action_shape"]  # as older versions wrote it
    path.write_text(json.dumps(config))
    np.testing.assert_array_equal(load_policy(tmp_path)(np.zeros(4)).shape, (2,))
    tiny_runs.train(tmp_path, tiny_runs.SAC, env="odd_worlds:odd/World-v0", max_episode_steps=0, num_steps=3, seeds=0)


class Drawing:
    """An algorithm that draws its actions, and what it carries, whether it explores or not, as a planner would."""

    algorithm = Algorithm(
        init=None,
        actor=None,
        begin_episode=lambda key, actor: jax.random.uniform(key, (2,)),
        act=lambda key, actor, carry, obs, explore: (actor * (carry + jax.random.uniform(key, (2,))), carry),
        phases=(),
        exploration_steps=1,
        replay_capacity=1,
    )


def test_what_a_policy_draws_differs_between_steps_and_between_episodes_and_comes_again():
    acting = policy.deterministic(Drawing.algorithm)

    def actions(*episodes):
        drawing, drawn = Policy(acting, np.float32(0.5), -np.ones(2), np.ones(2)), []
        for episode in episodes:
            drawing.reset(episode)
            drawn += [drawing.normalized_action(np.zeros(3)).tolist() for _ in range(3)]
        return drawn

    drawn = actions(0, 1)
    assert len({tuple(action) for action in drawn}) == 6
    assert actions(0, 1) == drawn
    assert actions(1) == drawn[3:]
    counting_on = actions(0, None)
    assert counting_on == drawn
    assert actions(0, 0) == drawn[:3] * 2


def test_two_evaluations_of_a_policy_that_draws_agree():
    drawing = Policy(policy.deterministic(Drawing.algorithm), np.float32(0.5), -np.ones(2), np.ones(2))
    env = Environment("odd_worlds:odd/World-v0", 17, EVALUATION)
    outcomes = [evaluate.evaluate(drawing, env, 0, 3) for _ in range(2)]
    assert outcomes[0] == outcomes[1]
    assert len(set(outcomes[0].returns)) == 3
    env.close()
