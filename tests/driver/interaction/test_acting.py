from contextlib import ExitStack

import jax
import jax.numpy as jnp
import numpy as np
import odd_worlds
import pytest

from mbpo_jax.driver.compile_counter import CompileCounter
from mbpo_jax.driver.config import Diverged, RunConfig
from mbpo_jax.driver.interaction.acting import ACT, BEGIN, EXPLORE, Acting, compile_acting
from mbpo_jax.driver.interaction.seed_environments import SeedEnvironments
from mbpo_jax.driver.seeds import SeedAxis
from mbpo_jax.types import Algorithm

SEEDS = (6, 7)
SCALE = np.float32([0.125, 0.0625])  # of the two seeds' actors


def counting(exploration_steps=0):
    """An agent that counts, in its carry, how often it has acted in this episode, and acts accordingly."""

    def act(key, actor, carry, obs, explore):
        action = jnp.full(2, actor * carry["acts"])
        return (action if explore else -action), {"acts": carry["acts"] + 1}

    return Algorithm(
        init=lambda key: None,
        actor=lambda state: state["scale"],
        begin_episode=lambda key, actor: {"acts": jnp.zeros((), jnp.int32)},
        act=act,
        phases=(),
        exploration_steps=exploration_steps,
        replay_capacity=1,
    )


class Run:
    """Steps all seeds, keeping the carry."""

    def __init__(self, acting, roots, carry):
        self.acting, self._roots, self._carry = acting, roots, carry

    def step(self, step, states):
        results, self._carry = self.acting.step(self._roots, step, states, self._carry)
        return results


@pytest.fixture
def begun():
    """Makes (run, states), see `Run`, in worlds of three steps; the first world fails in its second step, once."""
    with ExitStack() as stack:

        def begin(lifting, algorithm, scale=SCALE):
            odd_worlds.PLANS[:] = [{"ends_at": 3, "faults": {(0, 2): {"reward": np.nan}}}] + [{"ends_at": 3}] * 3
            knobs = {"env": "odd_worlds:odd/Planned-v0", "seeds": SEEDS, "env_nonfinite_episodes": 1}
            envs = SeedEnvironments(RunConfig(**knobs), stack)
            axis = SeedAxis(len(SEEDS), lifting)
            states = axis.join([{"scale": jnp.asarray(value)} for value in scale])
            functions = compile_acting(algorithm, axis, action_dim=2)
            acting, roots = Acting(algorithm, functions, axis, envs, envs.spaces, SEEDS), axis.keys(SEEDS)
            envs.begin()
            return Run(acting, roots, acting.first_carry(roots, states)), states

        yield begin


@pytest.mark.parametrize("lifting", ["each", "vmap"])
def test_what_a_policy_carries_begins_with_the_episode_and_counts_every_step_once(begun, lifting):
    run, states = begun(lifting, counting())
    results = [run.step(step, states) for step in range(6)]
    actions = [[float(step[i].row.action[0, 0]) for step in results] for i in (0, 1)]
    # the first seed's episode is given up in step 1: it begins another and acts again, and the other seed does not
    assert actions[0] == [0.0, 0.0, 0.125, 0.25, 0.0, 0.125]
    assert actions[1] == [0.0, 0.0625, 0.125, 0.0, 0.0625, 0.125]
    assert [step[0].ended for step in results] == [False, False, False, True, False, False]
    assert [step[1].ended for step in results] == [False, False, True, False, False, True]
    assert [step[0].first.tolist() for step in results] == [
        [first] for first in (True, True, False, False, True, False)
    ]
    assert [step[1].first.tolist() for step in results] == [[first] for first in (True, False, False) * 2]
    (failure,) = run.acting._envs.take_failures()
    assert "returned a value that is not finite" in str(failure)
    assert run.acting._envs.take_failures() == []


@pytest.mark.parametrize("lifting", ["each", "vmap"])
def test_policies_are_evaluated_without_noise_and_carry_nothing_from_training(begun, lifting):
    run, states = begun(lifting, counting())
    run.step(0, states)
    for policy, scale in zip(run.acting.policies(states), SCALE, strict=True):
        assert [float(policy.normalized_action(np.zeros(4))[0]) for _ in range(3)] == [0.0, -scale, -2 * scale]
        policy.reset()
        assert float(policy.normalized_action(np.zeros(4))[0]) == 0.0
    assert float(run.step(1, states)[1].row.action[0, 0]) == 0.0625


@pytest.mark.parametrize("lifting", ["each", "vmap"])
def test_exploration_is_each_seed_s_own_and_asks_no_policy(begun, lifting):
    run, states = begun(lifting, counting(exploration_steps=1), scale=np.float32([np.nan, np.nan]))
    assert [run.acting.explores(step) for step in (0, 1)] == [True, False]
    for seed, result in zip(SEEDS, run.step(0, states), strict=True):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), EXPLORE), 0)
        np.testing.assert_array_equal(result.row.action[0], jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0))


@pytest.mark.parametrize("lifting", ["each", "vmap"])
def test_every_seed_and_step_acts_by_a_key_of_its_own(begun, lifting):
    noisy = counting()._replace(act=lambda key, actor, carry, obs, explore: (jax.random.uniform(key, (2,)), carry))
    run, states = begun(lifting, noisy)
    for step in range(4):
        for seed, result in zip(SEEDS, run.step(step, states), strict=True):
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), ACT), step)
            np.testing.assert_array_equal(result.row.action[0], jax.random.uniform(key, (2,)))


def test_a_broken_policy_is_found_before_its_environment_steps(begun):
    run, states = begun("each", counting(), scale=np.float32([0.0, np.nan]))
    with pytest.raises(Diverged, match=r"not finite at environment step 5 \(seed 7\); the newest checkpoint"):
        run.step(4, states)


def perturbed(exploration_steps=0):
    """An agent that draws a part of its actions where an episode begins, and takes the other from its actor there."""

    def begin(key, actor):
        return {"action": jnp.stack([actor, jax.random.uniform(key)])}

    return counting(exploration_steps)._replace(
        begin_episode=begin, act=lambda key, actor, carry, obs, explore: (carry["action"], carry)
    )


@pytest.mark.parametrize("lifting", ["each", "vmap"])
def test_an_episode_begins_with_the_newest_actor_and_a_key_of_its_first_step(begun, lifting):
    """Step 2 ends an episode of the second seed; the next begins with the actor that the phases make after it."""
    run, states = begun(lifting, perturbed())
    later = jax.tree.map(lambda scale: scale / 2, states)
    actions = [run.step(step, states if step < 3 else later)[1].row.action[0] for step in range(6)]
    for step, action in enumerate(actions):
        began_at, scale = (0, SCALE[1]) if step < 3 else (3, SCALE[1] / 2)
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(SEEDS[1]), BEGIN), began_at)
        np.testing.assert_array_equal(action, [scale, jax.random.uniform(key)])


@pytest.mark.parametrize("lifting", ["each", "vmap"])
def test_a_policy_that_comes_into_a_running_episode_after_exploration_begins_there(begun, lifting):
    run, states = begun(lifting, perturbed(exploration_steps=2))
    actor_is = jax.tree.map(lambda scale: scale / 2, states)
    for step in range(2):
        run.step(step, states)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(SEEDS[1]), BEGIN), 2)
    np.testing.assert_array_equal(run.step(2, actor_is)[1].row.action[0], [SCALE[1] / 2, jax.random.uniform(key)])


def test_a_policy_that_carries_nothing_costs_nothing_to_begin(begun):
    nothing = counting()._replace(
        begin_episode=lambda key, actor: (), act=lambda key, actor, carry, obs, explore: (jnp.zeros(2), carry)
    )
    run, states = begun("each", nothing)
    begins = run.acting._begin
    compiled = CompileCounter()
    jax.block_until_ready(begins(run._roots, 0, run.acting.actors(states)))
    assert compiled.count > 0  # what it would cost
    run, states = begun("each", nothing)
    for step in range(2):
        run.step(step, states)
    compiled = CompileCounter()
    run.step(2, states)
    run.step(3, states)
    assert compiled.count == 0
