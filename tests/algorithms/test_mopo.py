"""MOPO's penalties by hand, and the rules of its buffer that public versions break."""

import dataclasses

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs
from flax import struct

from mbpo_jax import replay
from mbpo_jax.algorithms import REGISTRY, mopo, phases
from mbpo_jax.models import gaussian
from mbpo_jax.models.state import GaussianConfig
from mbpo_jax.replay import Replay
from mbpo_jax.rollouts import branched
from mbpo_jax.rollouts.penalties import PENALTIES, penalise
from mbpo_jax.types import FINISHED, Dynamics, Spec, Transition, WorldModel

# Two members, one row, three targets.
MEAN = jnp.asarray([[[0.0, 0.0, 0.0]], [[2.0, 4.0, 4.0]]])
STD = jnp.asarray([[[2.0, 3.0, 6.0]], [[1.0, 1.0, 7.0]]])
LOG_VAR = 2.0 * jnp.log(STD)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("largest_std_norm", np.sqrt(1 + 1 + 49)),  # against sqrt(4 + 9 + 36) = 7
        ("largest_variance_sum", 1.0 + 1.0 + 49.0),
        ("disagreement", 3.0),  # the mean is [1, 2, 2], as far from both
    ],
)
def test_penalties_by_hand(name, expected):
    penalty = PENALTIES[name](MEAN, LOG_VAR)
    assert penalty.shape == (1,)
    np.testing.assert_allclose(penalty, [expected], rtol=1e-6)


def world():
    """Predicts, with a belief b, a standard deviation of b for each of two targets by member 0 and 0 by member 1."""

    def predict(belief, obs, action):
        shape = (2, obs.shape[0], 2)
        return jnp.zeros(shape), jnp.full(shape, -jnp.inf).at[0].set(2.0 * jnp.log(belief))

    return WorldModel(
        init=None, fit=None, belief=lambda model: model, predict=predict, sample=None, expect=None, num_groups=1
    )


def counting_dynamics(ends_at=np.inf):
    """The state counts steps; the reward is 1."""
    return Dynamics(lambda key, group, obs, action: (obs + 1, jnp.ones(len(obs)), obs[:, 0] + 1 >= ends_at))


@pytest.mark.parametrize(
    ("penalty", "weight", "left"),
    [
        ("largest_std_norm", 0.5, 1 - 0.5 * np.sqrt(18)),
        ("largest_std_norm", 0.0, 1.0),
        ("disagreement", 2.0, 1.0),
        ("none", 0.5, 1.0),
    ],
)
def test_the_penalty_is_taken_from_the_belief_that_makes_the_row(penalty, weight, left):
    dynamics = penalise(counting_dynamics(ends_at=1.0), world(), jnp.asarray(3.0), penalty, weight)
    next_obs, reward, ends = dynamics.step_fn(
        jax.random.key(0), jnp.zeros((), int), jnp.zeros((4, 1)), jnp.zeros((4, 1))
    )
    np.testing.assert_allclose(reward, np.full(4, left), rtol=1e-6)
    np.testing.assert_array_equal(next_obs, 1.0)
    assert ends.all()


SPEC = Spec(obs_dim=1, action_dim=1)


class Rounds(struct.PyTreeNode, kw_only=True):
    """What `keep_newest` and `roll_out` read; the agent is the number of the round."""

    agent: jax.Array
    imagined: Replay
    rollout: branched.Rollout
    round_rows: jax.Array


def rounds(num_rounds, retain, lives, batch=6, length=3):
    """Rolls out so many rounds, in which episodes last `lives[n]` steps; returns the buffer after each."""
    state = Rounds(
        agent=jnp.zeros(()),
        imagined=replay.init(SPEC, retain * batch * length),
        rollout=branched.empty(batch, 1),
        round_rows=jnp.zeros(retain, jnp.int32),
    )
    zeros = np.zeros((8, 1), np.float32)
    rows = Transition(obs=zeros, action=zeros, reward=zeros[:, 0], next_obs=zeros, terminal=zeros[:, 0])
    real = compiled.filled(SPEC, 8, rows)
    life = jnp.asarray(lives, jnp.float32)
    programs = phases.keep_newest(
        retain,
        phases.roll_out(
            num_starts=batch,
            length=lambda real: jnp.asarray(length),
            limit=lambda steps: retain * batch * length,
            policy=lambda state: lambda key, obs: jnp.full((len(obs), 1), 0.01) * (state.agent + 1),
            dynamics=lambda state: counting_dynamics(life[state.agent.astype(int)]),
            rule=lambda state: lambda obs, action, next_obs: jnp.zeros(len(obs), bool),
            max_block_rows=4,
        ),
    )
    functions, due_after, buffers = [jax.jit(fn) for fn in programs.functions], jax.jit(programs.due), []
    for number in range(num_rounds):
        state, due = state.replace(agent=jnp.asarray(float(number))), 0
        while due != FINISHED:
            state, _ = functions[due](jax.random.key(number), state, real)
            due = int(due_after(state))
        buffers.append(tiny_runs.rows_of(state.imagined))
    return buffers


@pytest.mark.parametrize("lives", [[9] * 7, [1, 2, 3, 1, 1, 2, 9]])
def test_exactly_the_newest_rounds_are_there_however_short_they_were(lives):
    """A limit in rows alone would keep older rounds where episodes ended early."""
    for number, rows in enumerate(rounds(7, 3, lives)):
        made_by = np.round(rows.action[:, 0] / 0.01).astype(int) - 1
        kept = range(max(number - 2, 0), number + 1)
        assert {n: np.sum(made_by == n) for n in set(made_by)} == {n: 6 * min(lives[n], 3) for n in kept}


def test_nothing_follows_a_predicted_end_and_no_row_is_left_empty():
    for rows in rounds(4, 2, [2, 2, 1, 2]):
        assert (rows.reward == 1.0).all()  # a slot that was never written has a reward of 0
        ended = rows.next_obs[:, 0] >= np.where(np.isclose(rows.action[:, 0], 0.03), 1, 2)
        np.testing.assert_array_equal(rows.terminal, ended)
        assert rows.obs.max() < 2


def test_a_batch_has_no_row_that_was_never_written():
    member = REGISTRY["mopo"]
    algorithm = member.build(member.tiny_config(), member.spec)
    state = jax.jit(algorithm.init)(jax.random.key(0))
    rows = jax.tree.map(lambda leaf: np.ones((3, *leaf.shape[1:]), np.float32), state.imagined.rows)
    imagined = compiled.add(state.imagined, rows)  # 3 of 120 slots
    draw = jax.jit(phases.mixed_batches(50, 4, 12))
    batches, _ = draw(jax.random.key(1), state.replace(imagined=imagined), imagined)
    assert all((leaf == 1).all() for leaf in jax.tree.leaves(batches))


TWO_ROUNDS = {"rollout_batch": 30, "rollout_length": 2, "retain_rounds": 2}


def rolled_out(num_rounds, **knobs):
    """Runs MOPO's own rounds with an untrained model; returns config, spec, the last state, and each round's rows."""
    member = REGISTRY["mopo"]
    config = dataclasses.replace(member.tiny_config(), **TWO_ROUNDS, **knobs)
    ends = member.spec._replace(termination_fn=lambda obs, action, next_obs: next_obs[:, 0] > 1.0)
    algorithm = member.build(config, ends)
    (programs,) = (phase.programs for phase in algorithm.phases if phase.name == "roll_out")
    functions, due_after = [jax.jit(fn) for fn in programs.functions], jax.jit(programs.due)
    obs = np.random.default_rng(0).normal(size=(50, ends.obs_dim)).astype(np.float32)
    action, flat = np.zeros((50, ends.action_dim), np.float32), np.zeros(50, np.float32)
    rows = Transition(obs=obs, action=action, reward=flat, next_obs=obs, terminal=flat)
    real = compiled.filled(ends, 50, rows, np.ones(50, bool))
    state, stored = jax.jit(algorithm.init)(jax.random.key(0)), []
    for number in range(num_rounds):
        before, due = int(state.imagined.num_added), 0
        while due != FINISHED:
            state, _ = functions[due](jax.random.key(number), state, real)
            due = int(due_after(state))
        stored.append(int(state.imagined.num_added) - before)
    return config, ends, state, stored


def test_mopo_s_own_rewards_are_lower_by_the_weight_times_the_penalty_of_the_row():
    config, spec, state, _ = rolled_out(1, penalty_weight=0.7)
    free = tiny_runs.rows_of(rolled_out(1, penalty_weight=0.0)[2].imagined)
    rows = tiny_runs.rows_of(state.imagined)
    np.testing.assert_array_equal(rows.next_obs, free.next_obs)
    world = gaussian.build(config.model, spec)
    predict = jax.jit(lambda obs, action: world.predict(world.belief(state.model), obs, action))
    penalty = PENALTIES["largest_std_norm"](*predict(rows.obs, rows.action))
    assert np.std(penalty) > 1e-3  # so that the penalty of another row would show
    np.testing.assert_allclose(free.reward - rows.reward, 0.7 * penalty, rtol=1e-4)


def test_mopo_s_own_buffer_holds_the_newest_rounds():
    for num_rounds in (1, 2, 4):
        *_, state, stored = rolled_out(num_rounds)
        assert len(set(stored)) > 1 or num_rounds == 1  # some rollouts ended early, so that rounds differ in size
        assert int(state.imagined.size) == sum(stored[-2:])


def test_the_defaults_are_the_official_codes():
    config = mopo.MopoConfig()
    assert (config.rollout_batch, config.rollout_every_updates, config.retain_rounds) == (50_000, 1000, 5)
    assert mopo.num_real_rows(config) == 12
    paper = GaussianConfig(max_holdout_rows=1000, fit_epoch_minibatches=1, fit_max_gradient_steps=0)
    assert config.model == paper
    assert (paper.num_members, paper.num_elites) == (7, 5)


def test_a_batch_of_real_rows_alone_is_refused():
    with pytest.raises(ValueError, match=r"^real_fraction must leave room for imagined rows in a batch, got 1\.0"):
        mopo.MopoConfig(real_fraction=1.0)


def test_rounds_between_the_calls_of_the_update_are_refused():
    """They would begin with the policy of another update than the flag says."""
    with pytest.raises(
        ValueError, match="^rollout_every_updates must be a multiple of updates_per_call, which is 64, got"
    ):
        mopo.MopoConfig(updates_per_call=64)
