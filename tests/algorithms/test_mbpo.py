import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

from mbpo_jax import agents, health, options, replay, terminations
from mbpo_jax.agents.ddpg import DdpgConfig
from mbpo_jax.agents.sac import SacConfig
from mbpo_jax.agents.td3 import Td3Config
from mbpo_jax.algorithms import REGISTRY, epochs, mbpo, phases
from mbpo_jax.models import gaussian, learned_termination
from mbpo_jax.models.gaussian import GaussianConfig
from mbpo_jax.types import FINISHED, Phase, Spec, Transition

PAPER = {
    "exploration_steps": 5000, "min_replay_rows": 1000, "epoch_steps": 1000, "rollout_batch": 100_000,
    "retain_epochs": 1, "updates_per_step": 20,
}  # fmt: skip
PAPERS_FIT = {"fit_epoch_minibatches": 1, "fit_max_gradient_steps": 0}
SMALL_MODEL = {"num_members": 3, "num_elites": 2, "model_hidden_units": 8, "model_weight_decays": (5e-5, 1e-4)}
SMALL = {
    "model": GaussianConfig(**SMALL_MODEL, **PAPERS_FIT),
    "agent": SacConfig(hidden_units=8, num_hidden_layers=1),
}
SPEC = Spec(obs_dim=2, action_dim=1, termination_fn=terminations.never)


def paper_config(**knobs):
    return mbpo.MbpoConfig(**PAPER | knobs)


def constant_rows(value, num_rows, reward=0.0):
    full = np.full((num_rows, 2), value, np.float32)
    return Transition(
        obs=full,
        action=np.zeros((num_rows, 1), np.float32),
        reward=np.full(num_rows, reward, np.float32),
        next_obs=full,
        terminal=np.zeros(num_rows, np.float32),
    )


def compiled(algorithm, name):
    """The phase as one function, which runs its programs until they have finished."""
    programs = next(phase for phase in algorithm.phases if phase.name == name).programs
    runs, programs_due = list(map(jax.jit, programs.functions)), jax.jit(programs.due)

    def run_phase(key, state, real):
        """The state, the metrics of all programs, and the text of the first fault."""
        due, metrics, text = 0, {}, None
        while due != FINISHED:
            state, report = runs[due](key, state, real)
            metrics |= report.metrics
            text = text or health.describe(FIRST_FAULT(report.watched))
            due = int(programs_due(state))
        return state, metrics, text

    return run_phase


FIRST_FAULT = jax.jit(health.first_fault)
DRAW_MIXED = jax.jit(phases.draw_mixed, static_argnums=(3, 4, 5))


def real_buffer(value, num_rows, num_added=None):
    buffer = replay.add(replay.init(SPEC, 200), constant_rows(value, num_rows))
    return buffer if num_added is None else buffer.replace(num_added=jnp.asarray(num_added, jnp.int32))


@pytest.mark.parametrize(
    ("batch_size", "fraction", "num_real"),
    [(256, 0.05, 12), (256, 0.0, 0), (256, 0.5, 128), (10, 0.99, 9), (256, 1.0, 256)],
)
def test_every_batch_holds_exactly_the_share_of_real_rows(batch_size, fraction, num_real):
    config = paper_config(batch_size=batch_size, real_fraction=fraction)
    assert mbpo.num_real_rows(config) == num_real
    real, imagined = real_buffer(1.0, 50), replay.add(replay.init(SPEC, 70), constant_rows(-1.0, 60))
    batches = DRAW_MIXED(jax.random.key(0), real, imagined, 7, num_real, batch_size - num_real)
    assert batches.obs.shape == (7, batch_size, 2)
    assert (batches.obs[..., 0] == 1.0).sum(1).tolist() == [num_real] * 7
    assert (batches.obs[..., 0] == -1.0).sum(1).tolist() == [batch_size - num_real] * 7


def test_the_share_that_is_logged_is_the_share_that_the_agent_sees(monkeypatch):
    """Real rewards are 7, which the model, new and of rewards near 0, does not imagine."""
    config = paper_config(rollout_batch=10, updates_per_step=2, **SMALL)
    build, seen = mbpo.agents.build, []

    def build_watched(*arguments):
        agent = build(*arguments)

        def update(key, state, batches, learning):
            jax.debug.callback(lambda reward: seen.append(np.asarray(reward)), batches.reward)
            return agent.update(key, state, batches, learning)

        return agent._replace(update=update)

    monkeypatch.setattr(mbpo.agents, "build", build_watched)
    algorithm = mbpo.build(config, SPEC)
    state = jax.jit(algorithm.init)(jax.random.key(0))
    real = real_buffer(1.0, 50, num_added=5000)
    real = real.replace(rows=real.rows.replace(reward=jnp.full_like(real.rows.reward, 7.0)))
    state, _, _ = compiled(algorithm, "roll_out")(jax.random.key(1), state, real)
    _, metrics, _ = compiled(algorithm, "update_agent")(jax.random.key(2), state, real)
    jax.effects_barrier()
    (rewards,) = seen
    assert rewards.shape == (2, 256)
    assert (rewards == 7.0).mean(1).tolist() == [float(metrics["real_row_fraction"])] * 2 == [12 / 256] * 2


def test_imagined_rows_are_kept_for_so_many_epochs_and_no_longer():
    """Retention 2 epochs of 2 fits each, 5 rows a fit at length 1: the rows of the last 4 rounds, all of them."""
    config = paper_config(
        rollout_batch=5,
        epoch_steps=20,
        fit_every_steps=10,
        retain_epochs=2,
        rollout_length_schedule=(0, 1, 1, 1),
        **SMALL,
    )
    algorithm = mbpo.build(config, SPEC)
    state = jax.jit(algorithm.init)(jax.random.key(0))
    roll_out = compiled(algorithm, "roll_out")
    for round_ in range(7):
        state, metrics, _ = roll_out(jax.random.key(round_), state, real_buffer(float(round_), 30, 5000 + 10 * round_))
        kept = tiny_runs.rows_of(state.imagined).obs[:, 0]
        rounds = range(max(0, round_ - 3), round_ + 1)
        assert kept.tolist() == [float(r) for r in rounds for _ in range(5)]
        assert int(metrics["buffer_rows"]) == len(kept)
        assert int(metrics["buffer_rows_limit"]) == 20


def test_rollout_length_and_room_follow_the_schedule():
    """Lengths 1 to 4 over epochs 1 to 4; the buffer grows by what is new and keeps what it had."""
    config = paper_config(
        exploration_steps=100,
        rollout_batch=6,
        epoch_steps=10,
        fit_every_steps=10,
        rollout_length_schedule=(1, 4, 1, 4),
        **SMALL,
    )
    algorithm, traces = mbpo.build(config, SPEC), []
    programs = next(p for p in algorithm.phases if p.name == "roll_out").programs

    def counted(run):
        def program(key, state, real):
            traces.append(1)
            return run(key, state, real)

        return program

    counting = programs._replace(functions=tuple(map(counted, programs.functions)))
    run = compiled(algorithm._replace(phases=(Phase("roll_out", 1, 1, counting),)), "roll_out")
    state = jax.jit(algorithm.init)(jax.random.key(0))
    for epoch, length in enumerate([1, 1, 2, 3, 4, 4, 4]):
        real = real_buffer(float(epoch), 30, num_added=100 + 10 * epoch + 3)
        state, metrics, _ = run(jax.random.key(epoch), state, real)
        assert int(metrics["length"]) == length
        assert int(metrics["transitions"]) == 6 * length
        assert int(metrics["buffer_rows_limit"]) == 6 * length
        assert int(state.imagined.size) == 6 * length
    assert len(traces) == 2  # each program once


@pytest.mark.parametrize(
    ("knobs", "length", "rows"),
    [
        ({}, 1, 400_000),  # systems.md 2.3: 400,000 a step of length for F = 250, E = 1000, retention 1
        ({"fit_every_steps": 1000, "retain_epochs": 5}, 25, 25 * 500_000),  # Humanoid
        ({"epoch_steps": 250}, 1, 100_000),  # InvertedPendulum
        ({"fit_every_steps": 1000, "epoch_steps": 250}, 3, 300_000),  # never less than one round
    ],
)
def test_room_for_imagined_rows(knobs, length, rows):
    assert epochs.imagined_rows_limit(paper_config(**knobs), length) == rows


def test_imagined_episodes_end_where_the_termination_function_says():
    """The rule reads where a step leads, as most rules do; where it began would say something else."""
    spec = Spec(2, 1, lambda obs, action, next_obs: next_obs[:, 0] > 0)
    config = paper_config(rollout_batch=400, rollout_length_schedule=(0, 1, 3, 3), **SMALL)
    algorithm = mbpo.build(config, spec)
    state = jax.jit(algorithm.init)(jax.random.key(0))
    to = np.where(np.arange(20)[:, None] < 15, 1.0, -1.0) * np.ones((1, 2))
    real = replay.add(replay.init(spec, 50), constant_rows(0.0, 20).replace(next_obs=to.astype(np.float32)))
    state, metrics, _ = compiled(algorithm, "roll_out")(jax.random.key(1), state, real)
    imagined = tiny_runs.rows_of(state.imagined)
    ends = imagined.terminal > 0.5
    assert 0 < ends.mean() < 1
    np.testing.assert_array_equal(ends, imagined.next_obs[:, 0] > 0)
    # Real rows say terminal 0 everywhere, and three quarters of them would end: the metric must show that.
    assert float(metrics["termination_disagreement_fraction"]) == pytest.approx(0.75, abs=0.08)


def test_phases_are_due_when_the_paper_says():
    algorithm = mbpo.build(paper_config(exploration_steps=500, **SMALL), SPEC)
    assert [(p.name, p.every, p.first) for p in algorithm.phases] == [
        ("fit_model", 250, 500),
        ("roll_out", 250, 500),
        ("update_agent", 1, 1000),  # waits for min_replay_rows
    ]


def test_all_real_rows_means_no_model():
    algorithm = mbpo.build(paper_config(real_fraction=1.0, **SMALL), Spec(2, 1, None))
    assert [p.name for p in algorithm.phases] == ["update_agent"]


def test_a_model_needs_a_termination_function():
    with pytest.raises(ValueError, match="termination_fn"):
        mbpo.build(paper_config(**SMALL), Spec(2, 1, None))


@pytest.mark.parametrize("schedule", [(20, 150, 1), (150, 20, 1, 1), (0, 1, 0, 1), (0, 1, 5, 2)])
def test_bad_schedules_are_refused(schedule):
    with pytest.raises(ValueError, match="rollout_length_schedule must be"):
        paper_config(rollout_length_schedule=schedule)


def test_the_chain_of_model_rollouts_and_agent_learns_the_best_actions():
    """Worlds of one step with the reward -(action - best)^2; the agent sees imagined rows alone."""
    spec = Spec(2, 1, lambda obs, action, next_obs: next_obs[:, 1] > 0.5)
    config = paper_config(
        exploration_steps=1, min_replay_rows=1, rollout_batch=500, rollout_length_schedule=(0, 1, 1, 1),
        updates_per_step=400, batch_size=64, real_fraction=0.0,
        model=GaussianConfig(
            num_members=2, num_elites=2, model_hidden_units=32, model_weight_decays=(0.0, 0.0, 0.0),
            model_learning_rate=3e-3, model_batch_size=64, fit_max_gradient_steps=1500, fit_epoch_minibatches=1,
        ),
        agent=DdpgConfig(hidden_units=32, learning_rate=3e-3, target_update_rate=0.02, discount=0.9),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    side, action = rng.choice([-1.0, 1.0], 1000), rng.uniform(-1, 1, 1000)
    rows = Transition(
        obs=np.stack([side, np.zeros(1000)], -1),
        action=action[:, None],
        reward=-np.square(action - np.where(side > 0, 0.5, -0.3)),
        next_obs=np.stack([side, np.ones(1000)], -1),
        terminal=np.ones(1000),
    )
    real = replay.add(replay.init(spec, 1000), jax.tree.map(np.float32, rows))
    algorithm = mbpo.build(config, spec)
    fit, roll_out, update = (compiled(algorithm, name) for name in ("fit_model", "roll_out", "update_agent"))
    state, _, _ = fit(jax.random.key(1), jax.jit(algorithm.init)(jax.random.key(0)), real)
    for round_ in range(5):
        key_roll, key_update = jax.random.split(jax.random.key(10 + round_))
        state, metrics, _ = roll_out(key_roll, state, real)
        assert float(metrics["terminal_fraction"]) == 1.0
        state, _, _ = update(key_update, state, real)
    sides, actor = jnp.asarray([[1.0, 0.0], [-1.0, 0.0]]), algorithm.actor(state)
    learnt = [algorithm.act(jax.random.key(0), actor, (), obs, False)[0][0] for obs in sides]
    np.testing.assert_allclose(learnt, [0.5, -0.3], atol=0.15)


# -- rounds in programs, and faults --------------------------------------------------------------------------------

ROUND = paper_config(
    rollout_batch=40, rollout_length_schedule=(0, 1, 3, 3), batch_size=8, updates_per_step=5, real_fraction=0.5, **SMALL
)


@functools.cache
def a_round():
    """The algorithm of ROUND, and its first state."""
    algorithm = mbpo.build(ROUND, SPEC)
    return algorithm, jax.jit(algorithm.init)(jax.random.key(0))


def varied_rows(num_rows=60):
    rng = np.random.default_rng(0)
    rows = constant_rows(0.0, num_rows)
    return rows.replace(
        obs=rng.normal(size=(num_rows, 2)).astype(np.float32), reward=rng.normal(size=num_rows).astype(np.float32)
    )


def test_a_round_reads_the_real_rows_only_when_it_starts():
    algorithm, fresh = a_round()
    programs = next(p for p in algorithm.phases if p.name == "roll_out").programs
    start, step = map(jax.jit, programs.functions)
    real = replay.add(replay.init(SPEC, 200), varied_rows())
    started, first = start(jax.random.key(1), fresh, real)
    ends = []
    for rest in (real, replay.init(SPEC, 200)):
        state = started
        while programs.due(state) != FINISHED:
            assert programs.due(state) == 1
            state, report = step(jax.random.key(1), state, rest)
        ends.append((state, report))
    for a, b in zip(jax.tree.leaves(ends[0]), jax.tree.leaves(ends[1]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(report.metrics["transitions"]) == 120
    reward = np.asarray(varied_rows().reward)
    lowest, highest = (float(first.metrics[f"real_reward_{end}"]) for end in ("min", "max"))
    assert reward.min() <= lowest < highest <= reward.max()


def test_a_step_of_a_round_writes_the_model_buffer_in_place(optimised):
    algorithm = mbpo.build(dataclasses.replace(ROUND, retain_epochs=1000), SPEC)  # half a million rows
    programs = next(p for p in algorithm.phases if p.name == "roll_out").programs
    real = real_buffer(1.0, 50)
    state = jax.eval_shape(algorithm.init, jax.random.key(0))
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.imagined))
    for program in programs.functions:
        lowered = jax.jit(program, donate_argnums=1).lower(jax.random.key(1), state, real)
        memory = lowered.compile(optimised).memory_analysis()
        assert memory.alias_size_in_bytes > size > 10_000_000
        assert memory.temp_size_in_bytes < size / 20


@pytest.fixture(scope="module")
def update_of_a_round():
    """The phase of updates, compiled once, and a fresh state."""
    algorithm, fresh = a_round()
    return compiled(algorithm, "update_agent"), fresh


@pytest.mark.parametrize(("buffer", "name"), [("real", "a real row"), ("imagined", "an imagined row")])
@pytest.mark.parametrize("where", ["obs", "reward", "next_obs"])
def test_an_update_says_which_kind_of_row_is_not_finite(update_of_a_round, buffer, name, where):
    buffers = {kind: replay.add(replay.init(SPEC, 480), varied_rows(40)) for kind in ("real", "imagined")}
    (update, fresh), key = update_of_a_round, jax.random.key(5)
    imagined = fresh.replace(imagined=buffers["imagined"])
    assert update(key, imagined, buffers["real"])[2] is None
    # every row of the last three batches' kind that no earlier one drew is spoilt
    drawn = DRAW_MIXED(jax.random.split(key)[0], *buffers.values(), 5, 4, 4)
    mine = np.asarray(drawn.reward[:, :4] if buffer == "real" else drawn.reward[:, 4:])
    late = next(row for row in np.unique(mine[2:]) if row not in mine[:2])
    at = int(np.argmax((mine == late).any(1))) + 1
    rows = buffers[buffer].rows
    leaf = getattr(rows, where)
    spoilt = jnp.where((rows.reward == late).reshape(-1, *[1] * (leaf.ndim - 1)), jnp.inf, leaf)
    buffers[buffer] = buffers[buffer].replace(rows=rows.replace(**{where: spoilt}))
    _, _, text = update(key, imagined.replace(imagined=buffers["imagined"]), buffers["real"])
    assert text == f"{name} is not finite (inf) at update {at}"


def test_a_round_by_a_broken_actor_names_its_actions():
    algorithm, state = a_round()
    broken = jax.tree.map(lambda leaf: leaf * jnp.nan, state.agent.actor.params)
    state = state.replace(agent=state.agent.replace(actor=state.agent.actor.replace(params=broken)))
    state, metrics, text = compiled(algorithm, "roll_out")(jax.random.key(1), state, real_buffer(1.0, 50))
    assert text == "a policy action is not finite (nan) at rollout step 1"
    assert (int(metrics["dropped_nonfinite"]), int(state.imagined.size)) == (40, 0)


# -- other agents --------------------------------------------------------------------------------------------------

NOISY = pytest.mark.parametrize("agent_class", [DdpgConfig, Td3Config])


@functools.cache
def other_agent(agent_class):
    """(knobs of an agent, MBPO with it, its first state)."""
    knobs = agent_class(hidden_units=8, num_hidden_layers=1, exploration_noise_std=0.1)
    numbers = {"rollout_batch": 600, "batch_size": 8, "updates_per_step": 3, "real_fraction": 0.5}
    algorithm = mbpo.build(paper_config(**numbers, model=SMALL["model"], agent=knobs), SPEC)
    return knobs, algorithm, jax.jit(algorithm.init)(jax.random.key(0))


@NOISY
def test_rollouts_have_the_exploration_noise(agent_class):
    """All start from one state, so that without noise they would all act alike."""
    knobs, algorithm, state = other_agent(agent_class)
    state, _, _ = compiled(algorithm, "roll_out")(jax.random.key(1), state, real_buffer(0.3, 50))
    assert int(state.imagined.size) == 600
    imagined = tiny_runs.rows_of(state.imagined)
    act = jax.jit(agents.build(knobs, SPEC).act, static_argnums=3)
    calm = np.asarray(act(jax.random.key(2), algorithm.actor(state), imagined.obs, False))
    assert np.abs(calm).max() < 0.6  # so that no noise is clipped
    noise = imagined.action - calm
    assert len(np.unique(noise)) > 590
    assert noise.std() == pytest.approx(0.1, rel=0.1)
    assert abs(noise.mean()) < 0.02


@NOISY
def test_the_agent_of_the_config_learns_on_batches_of_both_kinds(agent_class):
    """The phase draws the batches that SAC would draw, and gives them to the agent as they are."""
    knobs, algorithm, fresh = other_agent(agent_class)
    agent, key = agents.build(knobs, SPEC), jax.random.key(5)
    real, imagined = (replay.add(replay.init(SPEC, 480), varied_rows(40)) for _ in range(2))
    state = fresh.replace(imagined=imagined)
    after, _, _ = compiled(algorithm, "update_agent")(key, state, real)
    key_batches, key_update = jax.random.split(key)
    batches = DRAW_MIXED(key_batches, real, imagined, 3, 4, 4)
    wanted, _ = jax.jit(agent.update)(key_update, state.agent, batches)
    for a, b in zip(jax.tree.leaves(after.agent), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert int(after.agent.num_updates) == 3


def test_critics_regress_on_expanded_targets_where_that_is_asked_for():
    agent, knobs = agents.build(SMALL["agent"], SPEC), {"real_fraction": 0.5, **SMALL}
    world = phases.with_ends(gaussian.build(SMALL["model"], SPEC), SPEC, "auto")
    learning = functools.partial(mbpo._learning, spec=SPEC, agent=agent, world=world)
    assert learning(mbpo.MbpoConfig(**knobs)) is phases.own_targets
    with pytest.raises(
        ValueError, match=r"^expansion_steps must be 0 with real_fraction=1, .*, got 2; --algorithm=mve"
    ):
        mbpo.MbpoConfig(**knobs | {"real_fraction": 1.0}, expansion_steps=2)
    config = mbpo.MbpoConfig(**knobs, expansion_steps=2)
    state = jax.eval_shape(functools.partial(mbpo.init, config, SPEC, agent, world), jax.random.key(0))
    rows = jax.eval_shape(
        lambda state, batch: learning(config)(state).regression(jax.random.key(0), state.agent, batch),
        state,
        constant_rows(0.0, 4),
    )
    assert (rows.obs.shape, rows.target.shape, rows.weight.shape) == ((12, 2), (12,), (12,))


def test_mbpo_learns_when_episodes_end_where_no_rule_is_known():
    """Traced only: the classifier itself is tested with MOPO, whose fit and rollouts are the same programs."""
    member = REGISTRY["mbpo"]
    spec = member.spec._replace(termination_fn=None)
    config = options.replace(member.tiny_config(), {"termination_fn": "learned"})
    algorithm, real = member.build(config, spec), jax.eval_shape(lambda: replay.init(spec, 100))
    state, reported = jax.eval_shape(algorithm.init, jax.random.key(0)), set()
    assert isinstance(state.model, learned_termination.ModelWithEnds)
    for phase in algorithm.phases:
        for program in phase.programs.functions:
            after, report = jax.eval_shape(program, jax.random.key(0), state, real)
            assert jax.tree.structure(after) == jax.tree.structure(state)
            reported |= {f"{phase.name}/{name}" for name in report.metrics}
    assert {"fit_model/termination_recall", "fit_model/termination_precision", "roll_out/transitions"} <= reported
