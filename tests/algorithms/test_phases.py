"""The phases serve a state of other fields than MBPO's, and an agent that MBPO does not know."""

import functools

import compiled
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs
from flax import struct

from mbpo_jax import replay, terminations
from mbpo_jax.algorithms import phases
from mbpo_jax.algorithms.reactive import reactive
from mbpo_jax.models import gaussian
from mbpo_jax.models.state import EnsembleState, GaussianConfig
from mbpo_jax.replay import Replay
from mbpo_jax.rollouts import branched
from mbpo_jax.types import FINISHED, Agent, Dynamics, Report, Spec, Transition

SPEC = Spec(obs_dim=2, action_dim=1, termination_fn=terminations.never)
MODEL = GaussianConfig(
    num_members=2, num_elites=2, model_hidden_units=8, model_weight_decays=(0.0, 0.0), fit_max_gradient_steps=3
)


def rows(num_rows=40):
    rng = np.random.default_rng(0)
    obs, next_obs = rng.normal(size=(2, num_rows, 2)).astype(np.float32)
    return Transition(
        obs=obs,
        action=rng.uniform(-1, 1, (num_rows, 1)).astype(np.float32),
        reward=rng.normal(size=num_rows).astype(np.float32),
        next_obs=next_obs,
        terminal=np.zeros(num_rows, np.float32),
    )


def run(programs, state, real, key=0):
    """Runs a phase to its end; returns the state and the metrics of all programs."""
    due, metrics = 0, {}
    while due != FINISHED:
        state, report = jax.jit(programs.functions[due])(jax.random.key(key), state, real)
        metrics, due = metrics | report.metrics, int(programs.due(state))
    return state, metrics


def cloning_agent():
    """A linear policy without critics, which regresses on the actions of its batches."""

    def act(key, weights, obs, explore):
        return jnp.tanh(obs @ weights)

    def update(key, weights, batches, learning):
        def step(weights, batch):
            loss = lambda w: jnp.mean(jnp.square(act(key, w, batch.obs, False) - batch.action))  # noqa: E731
            value, slope = jax.value_and_grad(loss)(weights)
            return weights - 0.1 * slope, value

        weights, losses = jax.lax.scan(step, weights, batches)
        return weights, Report({"cloning_loss": losses[-1]})

    return Agent(init=lambda key: jnp.zeros((2, 1)), actor=lambda weights: weights, act=act, update=update)


class TwoModels(struct.PyTreeNode, kw_only=True):
    ahead: EnsembleState
    back: EnsembleState


def test_two_models_of_one_state_are_fitted_each_by_its_own_phase():
    world = gaussian.build(MODEL, SPEC)
    real = compiled.filled(SPEC, 50, rows())
    init = jax.jit(world.init)
    before = TwoModels(ahead=init(jax.random.key(0)), back=init(jax.random.key(1)))
    after, metrics = run(phases.fit_model(world, "back"), before, real)
    assert int(metrics["gradient_steps"]) == 3
    assert jax.tree.all(jax.tree.map(np.array_equal, after.ahead, before.ahead))
    assert not jax.tree.all(jax.tree.map(np.array_equal, after.back.members, before.back.members))


class Cloning(struct.PyTreeNode, kw_only=True):
    agent: jax.Array
    imagined: Replay
    rollout: branched.Rollout
    speed: jax.Array


@pytest.fixture
def cloning():
    """A state whose dynamics are known: obs moves by `speed`, the reward is the number of the version."""
    return Cloning(
        agent=jnp.zeros((2, 1)), imagined=replay.init(SPEC, 60), rollout=branched.empty(10, 2), speed=jnp.float32(3.0)
    )


def moved(state, key, group, obs, action):
    return obs + state.speed, jnp.full(obs.shape[:1], group, jnp.float32), jnp.zeros(len(obs), bool)


def test_rollouts_take_dynamics_and_policy_of_any_state(cloning):
    agent, real = cloning_agent(), compiled.filled(SPEC, 50, rows())
    roll_out = phases.roll_out(
        num_starts=10,
        length=lambda real: jnp.asarray(3),
        limit=lambda length: 20 * length,
        policy=lambda state: phases.exploring(agent, state.agent),
        dynamics=lambda state: Dynamics(functools.partial(moved, state), 2),
        rule=lambda state: terminations.never,
        max_block_rows=4,
    )
    state, metrics = run(roll_out, cloning, real)
    assert (int(metrics["length"]), int(metrics["transitions"]), int(metrics["buffer_rows_limit"])) == (3, 30, 60)
    imagined = tiny_runs.rows_of(state.imagined)
    np.testing.assert_allclose(imagined.next_obs, imagined.obs + 3.0)
    assert np.bincount(np.asarray(imagined.reward, int)).tolist() == [15, 15]


def test_an_agent_without_critics_learns_on_batches_of_both_kinds(cloning):
    agent, real = cloning_agent(), compiled.filled(SPEC, 50, rows())
    copied = cloning.replace(imagined=compiled.add(cloning.imagined, rows()))
    state, metrics = run(phases.update_agent(agent, phases.mixed_batches(30, 4, 12)), copied, real)
    assert float(metrics["real_row_fraction"]) == 0.25
    assert float(jnp.abs(state.agent).max()) > 0
    _, alone = run(phases.update_agent(agent, phases.real_batches(30, 16)), copied, real)
    assert alone.keys() == {"cloning_loss"}


def test_an_agent_without_critics_acts_and_is_not_judged():
    fields = reactive(cloning_agent(), part=lambda state: state["policy"])
    assert fields["critic"] is None
    actor = fields["actor"]({"policy": jnp.ones((2, 1))})
    action, carry = fields["act"](jax.random.key(0), actor, (), jnp.asarray([0.25, 0.25]), True)
    np.testing.assert_allclose(action, np.tanh([0.5]), rtol=1e-6)
    assert carry == fields["begin_episode"](jax.random.key(0), actor) == ()
