import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

from mbpo_jax.driver.phase_runner import PhaseRunner
from mbpo_jax.driver.seeds import SeedAxis
from mbpo_jax.types import Phase, Programs, Report

LIFTINGS = ("each", "vmap")


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
    phase = Phase("weak", 1, 0, Programs((lambda key, state, replay: (weak(state["key"]), Report({"m": 1.0})),)))
    after, metrics = PhaseRunner(axis, 0, phase).run(keys, 0, start, keys, [False] * 2, lambda: False)
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
    for i, arrays in enumerate(zip(self.setup.roots, self.arrays.state, self.arrays.replay, strict=True)):
        places = {frozenset(leaf.devices()) for leaf in jax.tree.leaves(arrays)}
        assert places == {frozenset([devices[i]])}, (i, places)
    print("looked at step", self.position.step)
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


def test_a_batch_of_seeds_over_a_mesh_of_two_devices_agrees_with_one_device_to_rounding(tmp_path):
    """Products of a batch of four are summed in another order than two products of a batch of two.

    Phases of several programs, of which batched seeds wait for each other, are looked at below.
    """
    runs = []
    for num_devices in (2, 1):
        knobs = {"seeds": "0,1,2,3", "seed_lifting": "vmap", "num_steps": 80}
        argv = tiny_runs.argv(tmp_path / str(num_devices), tiny_runs.SAC, **knobs)
        done = tiny_runs.command("-m", "mbpo_jax.main", *argv, JAX_NUM_CPU_DEVICES=str(num_devices))
        assert (done.returncode, done.stderr) == (0, "")
        runs.append(tiny_runs.saved(tmp_path / str(num_devices)).arrays)
    many, one = runs
    assert jax.tree.structure(many) == jax.tree.structure(one)
    for (path, leaf), wanted in zip(jax.tree.leaves_with_path(many), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(leaf, wanted, rtol=2e-3, atol=2e-4, err_msg=jax.tree_util.keystr(path))


LOOK_AT_MESH = """
import jax
import jax.numpy as jnp
from mbpo_jax import batching
from mbpo_jax.driver.phase_runner import PhaseRunner
from mbpo_jax.driver.seeds import SeedAxis
from mbpo_jax.types import FINISHED, Phase, Programs, Report

def count(key, state, replay):
    count, goal = state["count"] + 1, state["goal"]
    turns = jax.lax.fori_loop(0, batching.largest(goal), lambda i, turns: turns + (i < goal), 0)
    return {"count": count, "goal": goal, "drawn": jax.random.uniform(key)}, Report({"count": count, "turns": turns})

def due(state):
    return jnp.where((state["count"] > 0) & (state["count"] < state["goal"]), 1, FINISHED)

axis, goals = SeedAxis(16, "vmap"), [1 + i % 5 for i in range(16)]
roots = axis.keys(range(16))
state = axis.place(axis.join([{"count": 0 * g, "goal": g, "drawn": 0.0 * g} for g in map(jnp.asarray, goals)]))
phase = Phase("count", 1, 0, Programs((count, count), due))
state, metrics = PhaseRunner(axis, 0, phase).run(roots, 3, state, roots, [False] * 16, lambda: False)
assert [int(one["count"]) for one in axis.split(state)] == goals
assert [int(one["count"]) for one in metrics] == [int(one["turns"]) for one in metrics] == goals
assert {shard.data.shape[0] for shard in state["count"].addressable_shards} == {2}
keys = [jax.random.fold_in(jax.random.fold_in(jax.random.key(i), 1000), 3) for i in range(16)]
assert [float(one["drawn"]) for one in axis.split(state)] == [float(jax.random.uniform(key)) for key in keys]

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
assert jax.config.values["jax_cpu_enable_async_dispatch"]  # seeds on several devices run at the same time
use_cores(1)  # too late to matter, and harmless
assert len(jax.devices()) == min(3, num_cores())
assert not jax.config.values["jax_cpu_enable_async_dispatch"]
"""


def test_cores_become_devices_unless_the_user_said_how_many():
    done = tiny_runs.command("-c", LOOK_AT_CORES)
    assert (done.returncode, done.stderr) == (0, "")
    chosen = LOOK_AT_CORES.replace("min(3, num_cores())", "4")
    for environment in ({"JAX_NUM_CPU_DEVICES": "4"}, {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}):
        done = tiny_runs.command("-c", chosen, **environment)
        assert (done.returncode, done.stderr) == (0, ""), environment
