from contextlib import ExitStack

import jax
import jax.numpy as jnp
import numpy as np
import odd_worlds
import pytest

from mbpo_jax.driver.config import Diverged, RunConfig
from mbpo_jax.driver.interaction.acting import ACT, EXPLORE, Acting
from mbpo_jax.driver.interaction.seed_environments import SeedEnvironments
from mbpo_jax.driver.seeds import SeedAxis
from mbpo_jax.types import Algorithm

SEEDS = (6, 7)
SCALE = np.float32([0.125, 0.0625])  # of the two seeds' actors


def counting(exploration_steps=0):
    """An agent that counts, in its carry, how often it has acted in this episode, and acts accordingly."""

    def act(key, actor, carry, obs, explore):
        action = jnp.full((obs.shape[0], 2), actor * carry["acts"])
        return (action if explore else -action), {"acts": carry["acts"] + 1}

    return Algorithm(
        init=lambda key: None,
        actor=lambda state: state["scale"],
        begin_episode=lambda actor: {"acts": jnp.zeros((), jnp.int32)},
        act=act,
        phases=(),
        exploration_steps=exploration_steps,
        replay_capacity=1,
    )


@pytest.fixture
def begun():
    """Makes (acting, roots, states) in worlds of three steps; the first world fails in its second step, once."""
    with ExitStack() as stack:

        def begin(lifting, algorithm, scale=SCALE):
            odd_worlds.PLANS[:] = [{"ends_at": 3, "faults": {(0, 2): {"reward": np.nan}}}] + [{"ends_at": 3}] * 3
            knobs = {"env": "odd_worlds:odd/Planned-v0", "seeds": SEEDS, "env_nonfinite_episodes": 1}
            envs = SeedEnvironments(RunConfig(**knobs), stack)
            axis = SeedAxis(len(SEEDS), lifting)
            states = axis.join([{"scale": jnp.asarray(value)} for value in scale])
            acting = Acting(algorithm, axis, envs, SEEDS)
            envs.begin()
            acting.begin(states)
            return acting, axis.keys(SEEDS), states

        yield begin


@pytest.mark.parametrize("lifting", ["each", "vmap"])
def test_what_a_policy_carries_begins_with_the_episode_and_counts_every_step_once(begun, lifting):
    acting, roots, states = begun(lifting, counting())
    taken = [acting.step(roots, step, states) for step in range(6)]
    actions = [[float(step[i].row.action[0, 0]) for step in taken] for i in (0, 1)]
    # the first seed's episode is given up in step 1: it begins another and acts again, and the other seed does not
    assert actions[0] == [0.0, 0.0, 0.125, 0.25, 0.0, 0.125]
    assert actions[1] == [0.0, 0.0625, 0.125, 0.0, 0.0625, 0.125]
    assert [step[0].ended for step in taken] == [False, False, False, True, False, False]
    assert [step[1].ended for step in taken] == [False, False, True, False, False, True]
    (failure,) = acting._envs.forgiven()
    assert "gave a value that is not finite" in str(failure)
    assert acting._envs.forgiven() == []


@pytest.mark.parametrize("lifting", ["each", "vmap"])
def test_policies_are_evaluated_without_noise_and_carry_nothing_from_training(begun, lifting):
    acting, roots, states = begun(lifting, counting())
    acting.step(roots, 0, states)
    for policy, scale in zip(acting.policies(states), SCALE, strict=True):
        assert [float(policy.normalized_action(np.zeros(4))[0]) for _ in range(3)] == [0.0, -scale, -2 * scale]
        policy.reset()
        assert float(policy.normalized_action(np.zeros(4))[0]) == 0.0
    assert float(acting.step(roots, 1, states)[1].row.action[0, 0]) == 0.0625


@pytest.mark.parametrize("lifting", ["each", "vmap"])
def test_exploration_is_each_seed_s_own_and_asks_no_policy(begun, lifting):
    acting, roots, states = begun(lifting, counting(exploration_steps=1), scale=np.float32([np.nan, np.nan]))
    assert [acting.explores(step) for step in (0, 1)] == [True, False]
    for seed, taken in zip(SEEDS, acting.step(roots, 0, states), strict=True):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), EXPLORE), 0)
        np.testing.assert_array_equal(taken.row.action[0], jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0))


@pytest.mark.parametrize("lifting", ["each", "vmap"])
def test_every_seed_and_step_acts_by_a_key_of_its_own(begun, lifting):
    noisy = counting()._replace(act=lambda key, actor, carry, obs, explore: (jax.random.uniform(key, (1, 2)), carry))
    acting, roots, states = begun(lifting, noisy)
    for step in range(4):
        for seed, taken in zip(SEEDS, acting.step(roots, step, states), strict=True):
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), ACT), step)
            np.testing.assert_array_equal(taken.row.action[0], jax.random.uniform(key, (1, 2))[0])


def test_a_broken_policy_is_found_before_its_environment_steps(begun):
    acting, roots, states = begun("each", counting(), scale=np.float32([0.0, np.nan]))
    with pytest.raises(Diverged, match=r"not finite at environment step 5 \(seed 7\); the newest checkpoint"):
        acting.step(roots, 4, states)
