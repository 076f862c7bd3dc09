import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

from mbpo_jax import replay as replay_lib
from mbpo_jax.driver.seeds import SeedAxis
from mbpo_jax.types import FINISHED, Phase, Programs, Transition

LIFTINGS = ("each", "vmap")
SEEDS = (4, 9)
NUM_ROWS = (40, 130)  # real rows of the two seeds; the second buffer has wrapped
STEP = 110


# -- small functions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lifting", LIFTINGS)
def test_a_function_of_one_seed_runs_for_all_seeds(lifting):
    axis = SeedAxis(3, lifting)
    scaled = axis.lift(lambda factor, x: (factor * x, jnp.sum(x)), shared=(0,), outputs=2)
    values = axis.join([jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0]), jnp.array([5.0, 6.0])])
    products, sums = scaled(10, values)
    assert [x.tolist() for x in axis.split(products)] == [[10.0, 20.0], [30.0, 40.0], [50.0, 60.0]]
    assert [float(x) for x in axis.split(sums)] == [3.0, 7.0, 11.0]
    negative = axis.lift(lambda x: -x)(values)
    assert [x.tolist() for x in axis.split(negative)] == [[-1.0, -2.0], [-3.0, -4.0], [-5.0, -6.0]]


@pytest.mark.parametrize("lifting", LIFTINGS)
def test_what_is_donated_is_gone_and_what_is_not_stays(lifting):
    axis = SeedAxis(2, lifting)
    given, kept = (axis.place(axis.join([jnp.arange(3.0) + i for i in range(2)])) for _ in range(2))
    total = axis.lift(lambda x, y: x + y, donate=(0,))(given, kept)
    assert [x.tolist() for x in axis.split(total)] == [[0.0, 2.0, 4.0], [2.0, 4.0, 6.0]]
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(kept))


@pytest.mark.parametrize("lifting", LIFTINGS)
def test_results_are_strongly_typed_as_they_are_after_a_checkpoint(lifting):
    axis = SeedAxis(2, lifting)
    keys = axis.keys((0, 1))

    def weak(key):
        return {"x": jnp.full(3, jnp.inf), "n": 2, "p": 0.5, "b": True, "key": key}

    shapes = jax.eval_shape(weak, jax.random.key(0))
    assert all(shapes[name].weak_type for name in ("x", "n", "p"))  # what it would be
    start = axis.lift(weak)(keys)
    assert not any(getattr(leaf, "weak_type", False) for leaf in jax.tree.leaves(start))
    values = axis.split(start)[1]
    assert (values["x"].tolist(), int(values["n"]), float(values["p"]), bool(values["b"])) == (
        [jnp.inf] * 3,
        2,
        0.5,
        True,
    )
    assert (values["n"].dtype, values["p"].dtype, values["b"].dtype) == (jnp.int32, jnp.float32, bool)
    phase = Phase("weak", 1, 0, Programs((lambda key, state, replay: (weak(state["key"]), {"m": 1.0}),)))
    after, metrics = axis.lift_phase(0, phase).run(keys, 0, start, keys, [False] * 2, never)
    assert not any(getattr(leaf, "weak_type", False) for leaf in jax.tree.leaves((after, metrics)))


@pytest.mark.parametrize("lifting", LIFTINGS)
def test_split_undoes_join(lifting):
    axis = SeedAxis(3, lifting)
    values = [
        {"a": np.float32([i, 2.0]), "b": (np.int32(i), jnp.float32(-i)), "key": jax.random.key(i)} for i in range(3)
    ]
    for value, back in zip(values, axis.split(axis.join(values)), strict=True):
        assert jax.tree.structure(back) == jax.tree.structure(value)
        back["key"], wanted_key = (jax.random.key_data(tree["key"]) for tree in (back, value))
        tiny_runs.assert_same_bits(back, value | {"key": wanted_key})
    assert axis.split(axis.join([(), (), ()])) == [(), (), ()]


def test_what_is_on_the_host_is_joined_on_the_host():
    joined = SeedAxis(2, "vmap").join([{"obs": np.zeros(3, np.float32)}] * 2)
    assert isinstance(joined["obs"], np.ndarray)
    assert joined["obs"].shape == (2, 3)


@pytest.mark.parametrize("lifting", LIFTINGS)
def test_every_seed_has_the_root_key_of_its_number(lifting):
    axis = SeedAxis(2, lifting)
    keys = axis.split(axis.keys((7, 0)))
    for key, seed in zip(keys, (7, 0), strict=True):
        assert jax.random.key_data(key).tolist() == jax.random.key_data(jax.random.key(seed)).tolist()


def test_auto_is_each_on_cpu():
    assert SeedAxis(2, "auto").batched is (jax.default_backend() != "cpu")
    assert [SeedAxis(2, lifting).batched for lifting in LIFTINGS] == [False, True]


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
        return state, {"count": state["count"], "noise": noise}

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
    state, metrics = axis.lift_phase(2, counting_phase(True)).run(roots, 8, state, offsets, done, StopAt(20))
    assert done == [True] * 3
    assert [int(s["count"]) for s in axis.split(state)] == [1, 3, 2]
    assert [int(m["count"]) for m in metrics] == [1, 3, 2]
    # all slices of a phase have the key of (seed, phase, step), and the data of their own seed
    for i, (seed, values) in enumerate(zip((5, 6, 7), metrics, strict=True)):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 1002), 8)
        assert float(values["noise"]) == float(jnp.float32(10 * i) + jax.random.uniform(key))


@pytest.mark.parametrize("lifting", LIFTINGS)
@pytest.mark.parametrize("time", (1, 2, 3))
def test_a_stop_keeps_what_is_done_and_tells_it_once(lifting, time):
    axis = SeedAxis(3, lifting)
    roots, state, offsets = start_counting(axis)
    runner, done = axis.lift_phase(0, counting_phase(True)), [False] * 3
    state, first = runner.run(roots, 8, state, offsets, done, StopAt(time))
    counts = [int(s["count"]) for s in axis.split(state)]
    assert sum(counts) == [0, 3, 5][time - 1]  # three seeds in the first round, two in the second
    assert done == [count == goal for count, goal in zip(counts, (1, 3, 2), strict=True)]
    assert [values is not None for values in first] == done  # only who came to the end has something to tell
    state, second = runner.run(roots, 8, state, offsets, done, never)
    assert done == [True] * 3
    assert [int(s["count"]) for s in axis.split(state)] == [1, 3, 2]
    told = [[m for m in both if m is not None] for both in zip(first, second, strict=True)]
    assert [[int(m["count"]) for m in values] for values in told] == [[1], [3], [2]]


@pytest.mark.parametrize("lifting", LIFTINGS)
def test_a_phase_of_one_slice_runs_once_for_every_seed(lifting):
    axis = SeedAxis(3, lifting)
    roots, state, offsets = start_counting(axis)
    done = [False] * 3
    state, metrics = axis.lift_phase(0, counting_phase(False)).run(roots, 8, state, offsets, done, never)
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
            self._runners[len(which), lifting] = [axis.lift_phase(i, phase) for i, phase in phases]
        state = axis.join([jax.tree.map(jnp.array, self._states[i]) for i in which])
        buffer = axis.join([self._replays[i] for i in which])
        return axis, self._runners[len(which), lifting], axis.keys([SEEDS[i] for i in which]), state, buffer

    def run(self, which=(0, 1), lifting="each", stop_at=None):
        """States and metrics by seed after all phases; `stop_at` interrupts the fit, and it goes on at once."""
        axis, runners, roots, state, buffer = self.start(which, lifting)
        told = [{} for _ in which]
        for runner in runners:
            done = [False] * len(which)
            stops = [] if stop_at is None or runner.phase.name != "fit_model" else [StopAt(stop_at)]
            for should_stop in [*stops, never]:
                state, metrics = runner.run(roots, STEP, state, buffer, done, should_stop)
                assert all(done) == (should_stop is never)
                for mine, values in zip(told, metrics, strict=True):
                    mine |= {f"{runner.phase.name}/{name}": v for name, v in (values or {}).items()}
        return axis.split(state), told


@pytest.fixture(scope="module")
def mbpo():
    return Mbpo()


@pytest.fixture(scope="module")
def uninterrupted(mbpo):
    return {lifting: mbpo.run(lifting=lifting) for lifting in LIFTINGS}


@pytest.mark.parametrize("lifting", LIFTINGS)
def test_fits_of_different_length_end_each_in_its_own_time(uninterrupted, lifting):
    states, told = uninterrupted[lifting]
    assert [int(values["fit_model/gradient_steps"]) for values in told] == [2 * 2, 2 * 5]
    for state in states:
        assert not bool(state.model.fit.running)
        assert int(state.model.fit.epoch) == 2
        # the members' own count of updates: a seed that went on in secret would have taken more
        assert np.unique(state.model.members.step).tolist() == [int(state.model.fit.num_steps)]


def test_vmap_agrees_with_each_to_rounding(uninterrupted):
    (states, told), (batched_states, batched_told) = uninterrupted["each"], uninterrupted["vmap"]

    def agree(batched, one):
        batched, one = np.asarray(batched), np.asarray(one)
        assert batched.dtype == one.dtype
        if one.dtype.kind == "f":
            np.testing.assert_allclose(batched, one, rtol=1e-3, atol=1e-4)
        else:
            np.testing.assert_array_equal(batched, one)

    jax.tree.map(agree, batched_states, states)
    jax.tree.map(agree, batched_told, told)


@pytest.mark.parametrize("i", range(len(SEEDS)))
def test_a_seed_of_several_is_the_seed_alone_bit_for_bit(mbpo, uninterrupted, i):
    (state,), (told,) = mbpo.run(which=(i,))
    states, all_told = uninterrupted["each"]
    tiny_runs.assert_same_bits((state, told), (states[i], all_told[i]))


# before the first round, after both fits have begun, in their first epochs, and when the shorter one is over
@pytest.mark.parametrize("lifting", LIFTINGS)
@pytest.mark.parametrize("stop_at", (1, 2, 3, 7))
def test_a_fit_that_was_stopped_goes_on_to_the_same_end_bit_for_bit(mbpo, uninterrupted, lifting, stop_at):
    tiny_runs.assert_same_bits(mbpo.run(lifting=lifting, stop_at=stop_at), uninterrupted[lifting])


# -- several devices ---------------------------------------------------------------------------------------------

LOOK_AT_DEVICES = """
import sys
import jax
import tiny_runs
from mbpo_jax.driver import loop

save = loop._Trainer._save
devices = jax.devices()
assert len(devices) == 2, devices

def look_and_save(self):
    for i, arrays in enumerate(zip(self._roots, self._state, self._replay, strict=True)):
        places = {frozenset(leaf.devices()) for leaf in jax.tree.leaves(arrays)}
        assert places == {frozenset([devices[i]])}, (i, places)
    print("looked at step", self.step)
    save(self)

loop._Trainer._save = look_and_save
assert tiny_runs.train(sys.argv[1], tiny_runs.SAC, seeds="0,1").finished
"""


def test_seeds_live_on_their_own_devices_and_give_the_same_bits(tmp_path, sac_run):
    done = tiny_runs.command("-c", LOOK_AT_DEVICES, tmp_path / "run", JAX_NUM_CPU_DEVICES="2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "looked at step 100" in done.stdout
    tiny_runs.assert_same_bits(tiny_runs.saved(tmp_path / "run").arrays["1"], tiny_runs.saved(sac_run).arrays["1"])
    assert tiny_runs.lines(tmp_path / "run", seed=1) == tiny_runs.lines(sac_run)


def arrays_of(run_dir, knobs, lifting, num_devices):
    """What a run of eight seeds on so many devices saved."""
    argv = tiny_runs.argv(run_dir, knobs, seeds="0,1,2,3,4,5,6,7", seed_lifting=lifting, num_steps=80)
    done = tiny_runs.command("-m", "mbpo_jax.main", *argv, JAX_NUM_CPU_DEVICES=str(num_devices))
    assert (done.returncode, done.stderr) == (0, "")
    return tiny_runs.saved(run_dir).arrays


def test_eight_devices_give_the_bits_of_one(tmp_path):
    tiny_runs.assert_same_bits(*(arrays_of(tmp_path / str(n), tiny_runs.SAC, "each", n) for n in (8, 1)))


def test_a_batch_of_seeds_over_a_mesh_of_eight_devices_agrees_with_one_device_to_rounding(tmp_path):
    """Products of a batch of eight are summed in another order than eight products of a batch of one."""
    many, one = (arrays_of(tmp_path / str(n), tiny_runs.MBPO, "vmap", n) for n in (8, 1))
    assert jax.tree.structure(many) == jax.tree.structure(one)
    for (path, leaf), wanted in zip(jax.tree.leaves_with_path(many), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(leaf, wanted, rtol=2e-3, atol=2e-4, err_msg=jax.tree_util.keystr(path))


LOOK_AT_MESH = """
import jax
import jax.numpy as jnp
from mbpo_jax.driver.seeds import SeedAxis

for num_seeds, num_shards in ((8, 8), (16, 8), (12, 6), (5, 5), (11, 1)):
    axis = SeedAxis(num_seeds, "vmap")
    keys = axis.keys(range(num_seeds))
    drawn = axis.lift(lambda key, scale: scale * jax.random.normal(key, (3,)), shared=(1,))(keys, 2.0)
    for value in (keys, drawn):
        shards = {shard.device: shard.data.shape[0] for shard in value.addressable_shards}
        assert shards == {d: num_seeds // num_shards for d in jax.devices()[:num_shards]}, (num_seeds, shards)
    for i in (0, num_seeds - 1):
        assert axis.split(drawn)[i].tolist() == (2.0 * jax.random.normal(jax.random.key(i), (3,))).tolist()
    text = jax.jit(axis.lift(lambda key: jax.lax.while_loop(lambda x: x.sum() < 9.0, lambda x: x + 1.0,
        jax.random.uniform(key, (3,))))).lower(keys).compile().as_text()
    assert not any(word in text for word in ("all-reduce", "all-gather", "all-to-all", "collective-permute"))
print("looked")
"""


def test_seeds_are_dealt_out_in_equal_shares_and_need_no_communication():
    done = tiny_runs.command("-c", LOOK_AT_MESH, JAX_NUM_CPU_DEVICES="8")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "looked\n")


LOOK_AT_CORES = """
import jax
from mbpo_jax.driver.seeds import num_cores, use_cores

use_cores(3)
assert len(jax.devices()) == min(3, num_cores()), jax.devices()
use_cores(1)  # too late to matter, and harmless
assert len(jax.devices()) == min(3, num_cores())
"""


def test_cores_become_devices_unless_the_user_said_how_many():
    done = tiny_runs.command("-c", LOOK_AT_CORES)
    assert (done.returncode, done.stderr) == (0, "")
    chosen = LOOK_AT_CORES.replace("min(3, num_cores())", "4")
    for environment in ({"JAX_NUM_CPU_DEVICES": "4"}, {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}):
        done = tiny_runs.command("-c", chosen, **environment)
        assert (done.returncode, done.stderr) == (0, ""), environment
