"""What every row of the registry promises the driver."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax import health, options, replay
from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.driver.config import RunConfig, resolve_algorithm_config
from mbpo_jax.types import FINISHED, Transition


def real_rows(spec, num_rows=60):
    rng = np.random.default_rng(0)
    return Transition(
        obs=rng.normal(size=(num_rows, spec.obs_dim)).astype(np.float32),
        action=rng.uniform(-1, 1, (num_rows, spec.action_dim)).astype(np.float32),
        reward=rng.normal(size=num_rows).astype(np.float32),
        next_obs=rng.normal(size=(num_rows, spec.obs_dim)).astype(np.float32),
        terminal=np.zeros(num_rows, np.float32),
    )


@pytest.fixture(scope="module", params=sorted(REGISTRY))
def built(request):
    member = REGISTRY[request.param]
    algorithm = member.build(member.tiny_config(), member.spec)
    state = jax.jit(algorithm.init)(jax.random.key(0))
    real = replay.add(replay.init(member.spec, algorithm.replay_capacity), real_rows(member.spec))
    return algorithm, state, real


def kinds(tree):
    return [
        (jax.tree_util.keystr(path), leaf.shape, leaf.dtype, leaf.weak_type)
        for path, leaf in jax.tree.leaves_with_path(tree)
    ]


def test_phases_keep_the_structure_of_the_state_to_the_type(built):
    """Else the second call of a phase would compile again, and a checkpoint would not fit."""
    algorithm, state, real = built
    before = jax.eval_shape(algorithm.init, jax.random.key(0))
    for phase in algorithm.phases:
        for run in phase.programs.functions:
            after, _ = jax.eval_shape(run, jax.random.key(0), before, real)
            assert kinds(after) == kinds(before), phase.name


def test_programs_of_a_phase_tell_the_same(built):
    """Else seeds that are batched could not tell theirs together; health and its names are part of it."""
    algorithm, state, real = built
    for phase in algorithm.phases:
        told = [jax.eval_shape(run, jax.random.key(0), state, real)[1] for run in phase.programs.functions]
        assert all(isinstance(metrics["health"], health.Health) for metrics in told)
        assert all(jax.tree.structure(metrics) == jax.tree.structure(told[0]) for metrics in told), phase.name
        assert all(kinds(metrics) == kinds(told[0]) for metrics in told), phase.name


def test_programs_stay_on_the_device_and_have_no_64_bit_numbers(built):
    """What a TPU cannot do, and what makes a GPU wait for the host."""
    algorithm, state, real = built
    for phase in algorithm.phases:
        for run in phase.programs.functions:
            text = str(jax.make_jaxpr(run)(jax.random.key(0), state, real))
            assert "f32[" in text  # this is what types look like
            assert not [word for word in ("callback", "f64[", "i64[", "u64[") if word in text], phase.name


def test_phases_finish_and_tell_finite_numbers(built):
    algorithm, state, real = built
    for phase in algorithm.phases:
        runs, due = [jax.jit(run) for run in phase.programs.functions], 0
        while due != FINISHED:
            state, metrics = runs[due](jax.random.key(1), state, real)
            due = int(phase.programs.due(state))
            assert health.describe(metrics["health"]) is None, phase.name
            assert int(metrics.pop("health").update) == -1, phase.name
        assert metrics, phase.name
        for name, value in metrics.items():
            assert value.ndim <= 1, name
            assert np.isfinite(value).all(), name
        assert phase.every >= 1
        assert phase.first >= algorithm.exploration_steps


def test_phases_depend_on_their_key_and_on_nothing_else(built):
    algorithm, state, real = built
    phase = algorithm.phases[-1]
    run = jax.jit(phase.programs.functions[0])
    same = [jax.tree.leaves(run(jax.random.key(k), state, real)[0]) for k in (1, 1, 2)]
    assert all(np.array_equal(a, b) for a, b in zip(same[0], same[1]))
    assert not all(np.array_equal(a, b) for a, b in zip(same[0], same[2]))


def test_acting(built):
    algorithm, state, real = built
    actor, width = algorithm.actor(state), real.rows.action.shape[-1]
    carry, obs = algorithm.begin_episode(actor), jnp.ones((1, real.rows.obs.shape[-1]))
    calm = [algorithm.act(jax.random.key(k), actor, carry, obs, False)[0] for k in (0, 1)]
    wild = [algorithm.act(jax.random.key(k), actor, carry, obs, True)[0] for k in (0, 1)]
    assert calm[0].shape == (1, width)
    np.testing.assert_array_equal(calm[0], calm[1])
    assert not np.array_equal(wild[0], wild[1])
    assert (np.abs(wild[0]) <= 1).all()


def test_no_rows_knobs_pass_for_those_of_another():
    """Else the driver would take them, and build another agent than the one they are of."""
    classes = [member.config_class for member in REGISTRY.values()]
    for one in classes:
        assert [one is other for other in classes] == [issubclass(one, other) for other in classes]
    for name, member in REGISTRY.items():
        for other in REGISTRY.values():
            config = other.default_config()
            if type(config) is member.config_class and member.agent in (None, options.choices(config).get("agent")):
                assert resolve_algorithm_config(RunConfig(algorithm=name), config) is config
            else:
                with pytest.raises(ValueError, match=f" must be .* for {name}, got "):
                    resolve_algorithm_config(RunConfig(algorithm=name), config)


def test_configs_are_frozen_hashable_and_documented():
    for member in REGISTRY.values():
        config = member.default_config()
        assert hash(config) == hash(member.default_config())
        with pytest.raises(dataclasses.FrozenInstanceError):
            config.exploration_steps = 3
        for path, knob in options.tree(config).items():
            assert len(knob.help) > 10, path
            assert options.allowed(knob)
            assert knob.name != options.CHOICE
