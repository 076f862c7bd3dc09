import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax import options, replay, terminations
from mbpo_jax.algorithms import bmpo, planned
from mbpo_jax.launch import flags
from mbpo_jax.launch.flags import FlagsError
from mbpo_jax.rollouts import valued_starts
from mbpo_jax.types import FINISHED, Spec, Transition, WorldModel

SPEC = Spec(obs_dim=2, action_dim=1, termination_fn=terminations.never)
TINY = options.replace(bmpo.BmpoConfig(), bmpo.TINY)


def real_rows(num_rows):
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(num_rows, 2)).astype(np.float32)
    return Transition(
        obs=obs,
        action=rng.uniform(-1, 1, (num_rows, 1)).astype(np.float32),
        reward=obs[:, 0],
        next_obs=obs + 0.1,
        terminal=np.zeros(num_rows, np.float32),
    )


def test_rounds_follow_the_schedules_of_both_directions():
    """Exploration is 40 steps, an epoch 20: back 0, 1, 2 and ahead 1, 2, 3 steps in epochs 0, 1, 2; 30 starts."""
    config = dataclasses.replace(
        TINY,
        rollout_length_schedule=(0, 2, 1, 3),
        backward_length_schedule=(0, 2, 0, 2),
        beta_schedule=(0.0, 2.0, 4.0, 0.0),
    )
    algorithm = bmpo.build(config, SPEC)
    (roll_out,) = (phase.programs for phase in algorithm.phases if phase.name == "roll_out")
    start, step = map(jax.jit, roll_out.functions)
    state, real = jax.jit(algorithm.init)(jax.random.key(0)), replay.init(SPEC, 400)
    assert replay.capacity(state.imagined) == 30 * 2 * (2 + 3)
    for epoch in range(3):
        real = replay.add(real, real_rows(40 if epoch == 0 else 20))
        before = int(state.imagined.num_added)
        state, report = start(jax.random.key(epoch), state, real)
        metrics = {name: float(value) for name, value in report.metrics.items()}
        assert (metrics["backward_length"], metrics["length"], metrics["beta"]) == (epoch, epoch + 1, 4.0 - 2.0 * epoch)
        assert metrics["buffer_rows_limit"] == 30 * 2 * (2 * epoch + 1)
        np.testing.assert_array_equal(state.rollouts.backward.obs, state.rollouts.forward.obs)  # the same starts
        steps = 0
        while int(roll_out.due(state)) != FINISHED:
            state, report = step(jax.random.key(epoch), state, real)
            steps += 1
        assert steps == epoch + 1
        assert int(state.imagined.num_added) - before == 30 * (2 * epoch + 1)
        assert int(report.metrics["transitions"]) == 30 * (epoch + 1)
        assert int(report.metrics["backward_transitions"]) == 30 * epoch


def test_starts_are_valued_by_the_mean_of_critics_and_of_their_targets():
    critic = SimpleNamespace(
        q_values=lambda state, obs, action: jnp.stack([obs[:, 0], 3.0 * action[:, 0]]),
        target_q_values=lambda state, obs, action: jnp.stack([10.0 * obs[:, 0], 0.0 * obs[:, 0]]),
    )
    agent = SimpleNamespace(
        actor=lambda state: state,
        act=lambda key, actor, obs, explore: obs[:, :1] * (3.0 if explore else 0.0),
        critic=critic,
    )
    obs = jnp.asarray([[1.0, 9.0], [2.0, 9.0], [4.0, 9.0]])
    wanted = [(1 + 9) / 2 + 5.0, (2 + 18) / 2 + 10.0, (4 + 36) / 2 + 20.0]
    np.testing.assert_allclose(valued_starts.value(agent, jax.random.key(0), (), obs), wanted)
    np.testing.assert_allclose(valued_starts.values(agent, jax.random.key(0), (), obs, block_rows=2), wanted)


def test_both_models_learn_from_the_same_rows_and_their_states_are_apart():
    state = jax.eval_shape(bmpo.build(TINY, SPEC).init, jax.random.key(0))
    assert jax.tree.structure(state.model) == jax.tree.structure(state.backward_model)


@pytest.mark.parametrize(("exploration_steps", "min_replay_rows", "first_update"), [(500, 1000, 1000), (500, 40, 500)])
def test_updates_wait_for_enough_rows_and_fits_do_not(exploration_steps, min_replay_rows, first_update):
    config = dataclasses.replace(TINY, exploration_steps=exploration_steps, min_replay_rows=min_replay_rows)
    assert [(phase.name, phase.every, phase.first) for phase in bmpo.build(config, SPEC).phases] == [
        ("fit_model", 10, exploration_steps),
        ("fit_backward_model", 10, exploration_steps),
        ("roll_out", 10, exploration_steps),
        ("update_agent", 1, first_update),
        ("update_backward_policy", 1, first_update),
    ]


@pytest.mark.parametrize("learning", bmpo.BACKWARD_POLICIES)
def test_steps_back_take_the_actions_of_the_backward_policy_as_it_has_learnt_them(learning):
    config = dataclasses.replace(TINY, backward_policy=learning, backward_length_schedule=(0, 2, 1, 1))
    algorithm = bmpo.build(config, SPEC)
    programs = {phase.name: phase.programs.functions for phase in algorithm.phases}
    update, start, step = map(jax.jit, programs["update_backward_policy"] + programs["roll_out"])
    state, real = jax.jit(algorithm.init)(jax.random.key(0)), replay.add(replay.init(SPEC, 400), real_rows(40))
    learnt, _ = update(jax.random.key(0), state, real)
    actions = []
    for now in (state, learnt):
        now, _ = step(jax.random.key(1), start(jax.random.key(1), now, real)[0], real)
        actions.append(replay.take(now.imagined, jnp.arange(60)).action)
    assert np.all(actions[0][:30] != actions[1][:30])  # 30 rows back, then as many ahead
    np.testing.assert_array_equal(actions[0][30:], actions[1][30:])


# -- acting ----------------------------------------------------------------------------------------------------------


def plan_to(target):
    """x moves by a tenth of the action, which costs nothing; the value is minus the distance to `target`."""
    agent = SimpleNamespace(
        actor=lambda state: (),
        act=lambda key, actor, obs, explore: (
            jax.random.uniform(key, (len(obs), 1), minval=-1.0) if explore else jnp.zeros((len(obs), 1))
        ),
        critic=SimpleNamespace(
            q_values=lambda state, obs, action: jnp.stack([9.0 - obs[:, 0], -jnp.abs(obs[:, 0] - target)])
        ),
    )
    world = WorldModel(
        init=None,
        fit=None,
        belief=None,
        predict=None,
        sample=None,
        expect=lambda belief, group, obs, action: (obs.at[:, 0].add(0.1 * action[:, 0]), jnp.zeros(len(obs))),
        num_groups=2,
    )
    return planned.Plan(world, SPEC, agent, num_candidates=400, num_steps=3, discount=0.9)


@pytest.mark.parametrize(("target", "wanted"), [(1.0, 1.0), (-1.0, -1.0), (0.05, 0.5)])
def test_training_takes_the_action_that_the_model_and_the_smallest_critic_like_best(target, wanted):
    actor, obs = planned.Actor(agent=(), belief=()), jnp.zeros(2)
    action, carry = planned.act(plan_to(target), jax.random.key(0), actor, (), obs, True)
    assert carry == ()
    np.testing.assert_allclose(action, [wanted], atol=0.02)
    evaluated, _ = planned.act(plan_to(target), jax.random.key(0), actor, (), obs, False)
    np.testing.assert_array_equal(evaluated, [0.0])  # the agent's own


def test_without_planning_the_actor_is_the_agents_alone():
    state = jax.eval_shape(bmpo.build(TINY, SPEC).init, jax.random.key(0))
    assert isinstance(bmpo.build(TINY, SPEC).actor(state), planned.Actor)
    assert not isinstance(bmpo.build(dataclasses.replace(TINY, planning_steps=0), SPEC).actor(state), planned.Actor)


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("--rollout_length_schedule=1,2,0,3", "rollout_length_schedule must be first_epoch,last_epoch,start,end"),
        ("--rollout_length_schedule=1,2,0,3", "and 1 <= start <= end, got (1, 2, 0, 3)"),
        ("--backward_length_schedule=1,2,3,1", "and 0 <= start <= end, got (1, 2, 3, 1)"),
        ("--backward_length_schedule=2,1,0,1", "backward_length_schedule must be first_epoch,last_epoch,start,end"),
        ("--beta_schedule=5,1,0,1", "with first_epoch <= last_epoch, got (5.0, 1.0, 0.0, 1.0)"),
        ("--beta_schedule=0,1,-1,1", "--beta_schedule must be numbers separated by commas, 0 or more"),
        ("--real_fraction=1", "--real_fraction must leave room for imagined rows in a batch, got 1.0"),
        ("--backward_variance=-1", "--backward_variance must be a number, or 'auto', 0 or more, got "),
        ("--backward_policy=gan", "--backward_policy must be one of likelihood, adversarial, got 'gan'"),
        ("--planning_candidates=0", "--planning_candidates must be a whole number, 1 or more, got 0"),
        ("--expansion_steps=1", "expansion_steps=1 is not read by --algorithm=bmpo"),
    ],
)
def test_a_refusal_names_flag_value_and_what_is_allowed(words, problem):
    with pytest.raises(FlagsError) as refused:
        flags.parse(["--algorithm=bmpo", *words.split()])
    assert problem in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_planning_beyond_the_end_of_an_episode_is_refused():
    with pytest.raises(ValueError, match=r"planning_steps must be at most the steps of an episode \(1\), got 2"):
        bmpo.build(TINY, SPEC._replace(max_episode_steps=1))
    bmpo.build(TINY, SPEC._replace(max_episode_steps=2))


def test_a_rule_of_ends_is_needed_and_cannot_be_learnt():
    for spec, rule in ((SPEC._replace(termination_fn=None), "auto"), (SPEC, "learned")):
        with pytest.raises(ValueError, match="termination_fn must be a rule for this algorithm, got "):
            bmpo.build(dataclasses.replace(TINY, termination_fn=rule), spec)
