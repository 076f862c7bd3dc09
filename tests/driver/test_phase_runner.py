import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

from mbpo_jax import options
from mbpo_jax import replay as replay_lib
from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.driver.phase_runner import PhaseRunner
from mbpo_jax.driver.seeds import SeedAxis
from mbpo_jax.types import FINISHED, Phase, Programs, Report, Transition

LIFTINGS = ("each", "vmap")
SEEDS = (4, 9)
NUM_ROWS = (40, 130)  # real rows of the two seeds; the second buffer has wrapped
STEP = 110


# -- phases in slices --------------------------------------------------------------------------------------------


def never():
    return False


class StopAt:
    """`should_stop` that says yes when asked for the given time (1 is the first), and ever after."""

    def __init__(self, time):
        self._left = time

    def __call__(self):
        self._left -= 1
        return self._left <= 0


def counting_phase(unfinished):
    """Adds its key's number and one to a count; done when the count reaches the state's own goal."""

    def run(key, state, replay):
        state = {"count": state["count"] + 1, "goal": state["goal"]}
        noise = jax.random.uniform(key) + replay
        return state, Report({"count": state["count"], "noise": noise})

    def due(state):
        return jnp.where(state["count"] == 0, FINISHED, jnp.where(state["count"] < state["goal"], 1, FINISHED))

    return Phase("count", 1, 0, Programs((run, run), due) if unfinished else Programs((run,)))


def start_counting(axis):
    goals = (1, 3, 2)
    state = axis.join([{"count": jnp.int32(0), "goal": jnp.int32(goal)} for goal in goals])
    return axis.keys((5, 6, 7)), state, axis.join([jnp.float32(10 * i) for i in range(3)])


@pytest.mark.parametrize("lifting", LIFTINGS)
def test_seeds_that_are_done_stand_still_while_others_go_on(lifting):
    axis = SeedAxis(3, lifting)
    roots, state, offsets = start_counting(axis)
    done = [False] * 3
    state, metrics = PhaseRunner(axis, 2, counting_phase(True)).run(roots, 8, state, offsets, done, StopAt(20))
    assert done == [True] * 3
    assert [int(s["count"]) for s in axis.split(state)] == [1, 3, 2]
    assert [int(m["count"]) for m in metrics] == [1, 3, 2]
    # all slices of a phase have the key of (seed, phase, step), and the data of their own seed
    for i, (seed, values) in enumerate(zip((5, 6, 7), metrics, strict=True)):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1002), 8)
        assert float(values["noise"]) == float(jnp.float32(10 * i) + jax.random.uniform(key))


@pytest.mark.parametrize("lifting", LIFTINGS)
@pytest.mark.parametrize("time", (1, 2, 3))
def test_a_stop_keeps_what_is_done_and_reports_it(lifting, time):
    axis = SeedAxis(3, lifting)
    roots, state, offsets = start_counting(axis)
    runner, done = PhaseRunner(axis, 0, counting_phase(True)), [False] * 3
    state, first = runner.run(roots, 8, state, offsets, done, StopAt(time))
    counts = [int(s["count"]) for s in axis.split(state)]
    assert sum(counts) == [0, 3, 5][time - 1]  # three seeds in the first round, two in the second
    assert done == [count == goal for count, goal in zip(counts, (1, 3, 2), strict=True)]
    assert [bool(values) for values in first] == [count > 0 for count in counts]  # what ran has been reported
    state, second = runner.run(roots, 8, state, offsets, done, never)
    assert done == [True] * 3
    assert [int(s["count"]) for s in axis.split(state)] == [1, 3, 2]
    newest = [old | new for old, new in zip(first, second, strict=True)]
    assert [int(metrics["count"]) for metrics in newest] == [1, 3, 2]
    assert [bool(values) for values in second] == [count < goal for count, goal in zip(counts, (1, 3, 2))]


@pytest.mark.parametrize("lifting", LIFTINGS)
def test_a_phase_of_one_slice_runs_once_for_every_seed(lifting):
    axis = SeedAxis(3, lifting)
    roots, state, offsets = start_counting(axis)
    done = [False] * 3
    state, metrics = PhaseRunner(axis, 0, counting_phase(False)).run(roots, 8, state, offsets, done, never)
    assert [int(s["count"]) for s in axis.split(state)] == [1, 1, 1]
    assert [int(m["count"]) for m in metrics] == [1, 1, 1]


# -- the phases of MBPO ------------------------------------------------------------------------------------------


def real_rows(seed, num_rows):
    rng = np.random.default_rng(seed)
    obs, next_obs = rng.normal(size=(2, num_rows, 4)).astype(np.float32)
    action = rng.uniform(-1.0, 1.0, (num_rows, 1)).astype(np.float32)
    terminal = (np.abs(next_obs[:, 1]) > 0.2).astype(np.float32)
    return Transition(obs=obs, action=action, reward=obs[:, 0], next_obs=next_obs, terminal=terminal)


class Mbpo:
    """Two seeds of a tiny MBPO with unequally many rows, so that their fits take 2 and 6 slices."""

    def __init__(self):
        self.algorithm, spec = tiny_runs.build_mbpo()
        one = SeedAxis(len(SEEDS), "each")
        self._states = jax.tree.map(np.asarray, one.lift(self.algorithm.init)(one.keys(SEEDS)))
        add = jax.jit(replay_lib.add)
        self._replays = []
        for seed, num_rows in zip(SEEDS, NUM_ROWS, strict=True):
            buffer = replay_lib.init(spec, self.algorithm.replay_capacity)
            for start in range(0, num_rows, 10):
                rows = jax.tree.map(lambda leaf: leaf[start : start + 10], real_rows(seed, num_rows))  # noqa: B023
                buffer = add(buffer, rows)
            self._replays.append(buffer)
        self._runners = {}

    def start(self, which=(0, 1), lifting="each"):
        """(axis, phases, roots, state, replay) of some of the seeds; arrays that may be donated."""
        axis = SeedAxis(len(which), lifting)
        if (len(which), lifting) not in self._runners:
            phases = enumerate(self.algorithm.phases)
            self._runners[len(which), lifting] = [PhaseRunner(axis, i, phase) for i, phase in phases]
        state = axis.join([jax.tree.map(jnp.array, self._states[i]) for i in which])
        buffer = axis.join([self._replays[i] for i in which])
        return axis, self._runners[len(which), lifting], axis.keys([SEEDS[i] for i in which]), state, buffer

    def run(self, which=(0, 1), lifting="each", stop_at=None):
        """States and metrics by seed after all phases; `stop_at` interrupts the fit, and it goes on at once."""
        axis, runners, roots, state, buffer = self.start(which, lifting)
        reported = [{} for _ in which]
        for runner in runners:
            done = [False] * len(which)
            stops = [] if stop_at is None or runner.phase.name != "fit_model" else [StopAt(stop_at)]
            for should_stop in [*stops, never]:
                state, metrics = runner.run(roots, STEP, state, buffer, done, should_stop)
                assert all(done) == (should_stop is never)
                for mine, values in zip(reported, metrics, strict=True):
                    mine |= {f"{runner.phase.name}/{name}": v for name, v in values.items()}
        return axis.split(state), reported


@pytest.fixture(scope="module")
def mbpo():
    return Mbpo()


@pytest.fixture(scope="module")
def uninterrupted(mbpo):
    return {lifting: mbpo.run(lifting=lifting) for lifting in LIFTINGS}


@pytest.mark.parametrize("lifting", LIFTINGS)
def test_fits_of_different_length_end_each_in_its_own_time(uninterrupted, lifting):
    states, reported = uninterrupted[lifting]
    assert [int(values["fit_model/gradient_steps"]) for values in reported] == [2 * 2, 2 * 5]
    for state in states:
        assert not bool(state.model.fit.running)
        assert int(state.model.fit.epoch) == 2
        # the members' own count of updates: a seed that went on in secret would have taken more
        assert np.unique(state.model.members.opt_state[0].count).tolist() == [int(state.model.fit.num_steps)]


def test_vmap_agrees_with_each_to_rounding(uninterrupted):
    (states, reported), (batched_states, batched_reported) = uninterrupted["each"], uninterrupted["vmap"]

    def agree(batched, one):
        batched, one = np.asarray(batched), np.asarray(one)
        assert batched.dtype == one.dtype
        if one.dtype.kind == "f":
            np.testing.assert_allclose(batched, one, rtol=1e-3, atol=1e-4)
        else:
            np.testing.assert_array_equal(batched, one)

    jax.tree.map(agree, batched_states, states)
    jax.tree.map(agree, batched_reported, reported)


@pytest.mark.parametrize("i", range(len(SEEDS)))
def test_a_seed_of_several_is_the_seed_alone_bit_for_bit(mbpo, uninterrupted, i):
    (state,), (reported,) = mbpo.run(which=(i,))
    states, all_reported = uninterrupted["each"]
    tiny_runs.assert_same_bits((state, reported), (states[i], all_reported[i]))


# before the first round, after both fits have begun, in their first epochs, and when the shorter one is over
@pytest.mark.parametrize("lifting", LIFTINGS)
@pytest.mark.parametrize("stop_at", (1, 2, 3, 7))
def test_a_fit_that_was_stopped_goes_on_to_the_same_end_bit_for_bit(mbpo, uninterrupted, lifting, stop_at):
    tiny_runs.assert_same_bits(mbpo.run(lifting=lifting, stop_at=stop_at), uninterrupted[lifting])


# -- what batching must not cost -----------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[1, 4])
def vmap_programs(request, optimised):
    """By phase, programs of seeds of MBPO with TD3 under `vmap`, and the bytes of imagined rows.

    Of four seeds, the programs for when some of them wait. Of the fit, which does not write the buffer, only its start.
    """
    entry, axis = REGISTRY["mbpo_td3"], SeedAxis(request.param, "vmap")
    config = options.replace(entry.tiny_config(), {"retain_epochs": 1000})
    algorithm = entry.build(config, entry.spec)
    roots = axis.keys(range(axis.num_seeds))
    state = jax.eval_shape(axis.lift(algorithm.init), roots)
    real = jax.eval_shape(axis.lift(lambda key: replay_lib.init(entry.spec, algorithm.replay_capacity)), roots)
    compiled = {}
    for i, phase in enumerate(algorithm.phases):
        runner = PhaseRunner(axis, i, phase)
        if axis.batched:
            programs = [program.lower(roots, 1, state, real, np.ones(4, bool)) for program in runner._active]
        else:
            programs = [program.lower(roots[0], 1, state[0], real[0]) for program in runner._one]
        if phase.name == "fit_model":
            programs = programs[:1]
        compiled[phase.name] = [program.compile(optimised) for program in programs]
    imagined = state.imagined if axis.batched else state[0].imagined
    return compiled, sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(imagined))


def test_programs_copy_no_buffer_under_vmap(vmap_programs):
    compiled, buffer_bytes = vmap_programs
    assert buffer_bytes > 2_500_000
    for name, programs in compiled.items():
        for program in programs:
            memory = program.memory_analysis()
            assert memory.alias_size_in_bytes > buffer_bytes, name
            assert memory.temp_size_in_bytes < buffer_bytes / 20, name
            copied = re.findall(r"= f32\[(?:4,)?60000[\d,]*\]\S* (?:copy|select)\(", program.as_text())
            assert copied == [], name


def test_updates_branch_where_the_actor_waits_under_vmap(vmap_programs):
    """The delayed step of the actor, and the check of all weights, stand in branches of their own."""
    for program in vmap_programs[0]["update_agent"]:
        assert len(re.findall(r" conditional\(", program.as_text())) == 2


def test_one_seed_is_never_batched():
    assert not SeedAxis(1, "vmap").batched
    assert SeedAxis(2, "vmap").batched
