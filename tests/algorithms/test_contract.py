"""What every row of the registry promises the driver."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mbpo_jax
from mbpo_jax import health, options, replay
from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.driver.config import RunConfig, resolve_algorithm_config
from mbpo_jax.types import FINISHED, Algorithm, Report, Transition


def real_rows(spec, num_rows=60):
    rng = np.random.default_rng(0)
    if spec.one_hot_actions:
        return one_hot_rows(rng, spec, num_rows)
    return Transition(
        obs=rng.normal(size=(num_rows, spec.obs_dim)).astype(np.float32),
        action=rng.uniform(-1, 1, (num_rows, spec.action_dim)).astype(np.float32),
        reward=rng.normal(size=num_rows).astype(np.float32),
        next_obs=rng.normal(size=(num_rows, spec.obs_dim)).astype(np.float32),
        terminal=np.zeros(num_rows, np.float32),
    )


def one_hot_rows(rng, spec, num_rows):
    states, actions = np.eye(spec.obs_dim, dtype=np.float32), np.eye(spec.action_dim, dtype=np.float32)
    return Transition(
        obs=states[rng.integers(spec.obs_dim, size=num_rows)],
        action=actions[rng.integers(spec.action_dim, size=num_rows)],
        reward=rng.normal(size=num_rows).astype(np.float32),
        next_obs=states[rng.integers(spec.obs_dim, size=num_rows)],
        terminal=np.zeros(num_rows, np.float32),
    )


FIRST_FAULT = jax.jit(health.first_fault)


class Traced(NamedTuple):
    """A program of a phase, traced once: its jaxpr, the shapes that it returns, and the program compiled."""

    jaxpr: str
    shapes: Any
    run: Callable[..., Any]


class Built(NamedTuple):
    """A row of the registry in its tiny config."""

    algorithm: Algorithm
    state: Any
    real: replay.Replay
    phases: dict[str, list[Traced]]


@pytest.fixture(scope="module", params=sorted(REGISTRY))
def built(request):
    member = REGISTRY[request.param]
    algorithm = member.build(member.tiny_config(), member.spec)
    state = jax.jit(algorithm.init)(jax.random.key(0))
    empty = replay.init(member.spec, algorithm.replay_capacity or 60, episodes=True)  # as the driver's
    real = replay.add(empty, real_rows(member.spec), first=np.arange(60) % 20 == 0)

    def trace(program):
        traced = jax.jit(program).trace(jax.random.key(0), state, real)
        return Traced(str(traced.jaxpr), traced.out_info, traced.lower().compile())

    phases = {phase.name: [trace(program) for program in phase.programs.functions] for phase in algorithm.phases}
    if member.discrete:  # a table draws among what it has seen: a row a step, so that values differ, too
        for size in range(1, 61):
            seen = real.replace(size=jnp.asarray(size), head=jnp.asarray(size))
            state, _ = phases["update_agent"][0].run(jax.random.key(size), state, seen)
    return Built(algorithm, state, real, phases)


def kinds(tree):
    return [
        (jax.tree_util.keystr(path), leaf.shape, leaf.dtype, leaf.weak_type)
        for path, leaf in jax.tree.leaves_with_path(tree)
    ]


def test_every_config_is_a_public_name():
    assert all(getattr(mbpo_jax, entry.config_class.__name__) is entry.config_class for entry in REGISTRY.values())


def test_phases_keep_the_structure_of_the_state_to_the_type(built):
    """Else the second call of a phase would compile again, and a checkpoint would not fit."""
    before = jax.eval_shape(built.algorithm.init, jax.random.key(0))
    for name, programs in built.phases.items():
        for program in programs:
            after, report = program.shapes
            assert kinds(after) == kinds(before), name
            assert isinstance(report, Report)


def test_what_a_phase_watches_counts_one_unit_and_has_a_name_for_every_magnitude(built):
    for name, programs in built.phases.items():
        watched = [group for program in programs for group in program.shapes[1].watched]
        assert watched, name
        assert len({group.unit for group in watched}) == 1, name
        for group in watched:
            assert group.values.shape[-1] == len(group.names) == len(set(group.names))


def test_programs_stay_on_the_device_and_have_no_64_bit_numbers(built):
    """What a TPU cannot do, and what makes a GPU wait for the host."""
    for name, programs in built.phases.items():
        for program in programs:
            assert "f32[" in program.jaxpr  # this is what types look like
            assert not [word for word in ("callback", "f64[", "i64[", "u64[") if word in program.jaxpr], name


def test_phases_finish_and_report_finite_numbers(built):
    algorithm, state = built.algorithm, built.state
    for phase in algorithm.phases:
        runs, due_after, due, metrics = built.phases[phase.name], jax.jit(phase.programs.due), 0, {}
        while due != FINISHED:
            state, report = runs[due].run(jax.random.key(1), state, built.real)
            due = int(due_after(state))
            fault = FIRST_FAULT(report.watched)
            assert health.describe(fault) is None, phase.name
            assert fault is None or int(fault.update) == -1, phase.name
            metrics |= report.metrics
        assert metrics, phase.name
        for name, value in metrics.items():
            assert value.ndim <= 1, name
            assert np.isfinite(value).all(), name
        assert phase.every >= 1
        assert phase.first >= algorithm.exploration_steps


def test_programs_out_of_turn_leave_the_buffers_as_they_are(built):
    """So that batched seeds can wait for one another without a copy of their buffers."""
    before = [leaf for leaf in jax.tree.leaves(built.state, is_leaf=replay.is_replay) if replay.is_replay(leaf)]
    for phase in built.algorithm.phases:
        programs = built.phases[phase.name]
        for program in programs if len(programs) > 1 else []:
            state, _ = program.run(jax.random.key(1), built.state, built.real)
            after = [leaf for leaf in jax.tree.leaves(state, is_leaf=replay.is_replay) if replay.is_replay(leaf)]
            jax.tree.map(np.testing.assert_array_equal, after, before)


def test_phases_depend_on_their_key_and_on_nothing_else(built):
    depends = []
    for program in built.phases[built.algorithm.phases[-1].name]:
        same = [jax.tree.leaves(program.run(jax.random.key(k), built.state, built.real)[0]) for k in (1, 1, 2)]
        assert all(np.array_equal(a, b) for a, b in zip(same[0], same[1]))
        depends.append(not all(np.array_equal(a, b) for a, b in zip(same[0], same[2])))
    assert any(depends)  # the end of an epoch of a fit draws nothing


def test_acting(built):
    algorithm, actor = built.algorithm, built.algorithm.actor(built.state)
    obs_dim, action_dim = (leaf.shape[-1] for leaf in (built.real.rows.obs, built.real.rows.action))
    carry, obs = algorithm.begin_episode(jax.random.key(2), actor), jnp.ones(obs_dim)
    act = jax.jit(algorithm.act, static_argnums=4)
    deterministic = [act(jax.random.key(k), actor, carry, obs, False)[0] for k in (0, 1)]
    exploring = [act(jax.random.key(k), actor, carry, obs, True)[0] for k in (0, 1)]
    assert deterministic[0].shape == (action_dim,)
    np.testing.assert_array_equal(deterministic[0], deterministic[1])
    assert not np.array_equal(exploring[0], exploring[1])
    assert (np.abs(exploring[0]) <= 1).all()


def test_what_is_carried_begins_by_a_key_and_keeps_its_structure(built):
    """Else the second step of an episode would compile again."""
    algorithm, actor, obs = built.algorithm, built.algorithm.actor(built.state), jnp.ones(built.real.rows.obs.shape[-1])
    begun = jax.eval_shape(algorithm.begin_episode, jax.random.key(0), actor)
    for explore in (False, True):
        act = functools.partial(algorithm.act, explore=explore)
        _, carry = jax.eval_shape(act, jax.random.key(0), actor, begun, obs)
        assert jax.tree.structure(carry) == jax.tree.structure(begun)
        assert kinds(carry) == kinds(begun)


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


@pytest.mark.parametrize(
    ("row", "knobs", "message"),
    [
        ("steve", {"agent": "ddpg"}, r"^num_critics must be 2 or more with weighting=inverse_variance .*, got 1"),
        ("steve", {"agent.num_critics": 1}, r"^num_critics must be 2 or more"),
        ("steve", {"agent": "ddpg", "weighting": "last"}, None),
        ("steve", {"agent": "ddpg", "agent.num_critics": 2}, None),
        ("svg", {"svg_steps": "inf", "replay_capacity": 200}, r"^replay_capacity must be above .* \(200\), got 200"),
        ("svg", {"svg_steps": "inf", "replay_capacity": 201}, None),
        ("svg", {"svg_steps": "1", "replay_capacity": 200}, None),
    ],
)
def test_what_would_quietly_be_another_algorithm_or_never_learn_is_refused(row, knobs, message):
    member = REGISTRY[row]
    config = options.replace(member.default_config(), knobs)
    build = functools.partial(member.build, config, member.spec._replace(max_episode_steps=200))
    if message is None:
        build()
    else:
        with pytest.raises(ValueError, match=message):
            build()


@pytest.mark.parametrize("row", ["sac_svg", "bmpo"])
def test_a_rule_that_cannot_be_learnt_is_not_called_unknown(row):
    member = REGISTRY[row]
    config = options.replace(member.default_config(), {"termination_fn": "learned"})
    with pytest.raises(ValueError, match="got 'learned', and it cannot learn one: pass ") as caught:
        member.build(config, member.spec)
    assert "none is known" not in str(caught.value)
