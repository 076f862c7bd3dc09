import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs

from mbpo_jax import replay as replay_lib
from mbpo_jax.driver import checkpoint
from mbpo_jax.driver.checkpoint import Checkpoints, pack, unpack
from mbpo_jax.driver.config import StorageFailure
from mbpo_jax.driver.seeds import SeedAxis
from mbpo_jax.types import Spec, Transition

SPEC = Spec(2, 1)


def rows(*numbers):
    """Rows that are recognised by their reward."""
    n = np.float32(numbers)
    return Transition(
        obs=np.stack([n, -n], 1),
        action=n[:, None] / 100,
        reward=n,
        next_obs=np.stack([n + 1, -n - 1], 1),
        terminal=n % 2,
    )


def buffer(capacity, *numbers, limit=None):
    """A buffer to which rows were added one by one."""
    made = replay_lib.init(SPEC, capacity)
    for number in numbers:
        made = replay_lib.add(made, rows(number), limit=limit)
    return made


def contents(made):
    """The rows in force, oldest first."""
    return replay_lib.take(made, jnp.arange(int(made.size)))


# -- packing -----------------------------------------------------------------------------------------------------


def test_a_real_state_comes_back_bit_for_bit(mbpo_run):
    algorithm, spec = tiny_runs.build_mbpo()
    packed = tiny_runs.saved(mbpo_run).arrays["1"]
    (fresh,) = SeedAxis(1, "each").lift(algorithm.init)((jax.random.key(99),))
    state = unpack(fresh, packed["state"])
    assert jax.tree.structure(state) == jax.tree.structure(fresh)
    assert (int(state.imagined.size), int(state.agent.actor.step)) == (192, 101)  # a state that has learnt
    assert bool(jnp.any(state.agent.actor.opt_state[0].nu["_Mlp_0"]["Dense_0"]["kernel"] > 0.0))
    tiny_runs.assert_same_bits(pack(state), packed["state"])
    real = unpack(replay_lib.init(spec, algorithm.replay_capacity), packed["replay"])
    assert (int(real.size), int(real.num_added)) == (100, 160)
    tiny_runs.assert_same_bits(pack(real), packed["replay"])
    # every leaf is from the file: none is left as it was initialised by chance
    again = unpack(jax.tree.map(jnp.ones_like, fresh), packed["state"])
    tiny_runs.assert_same_bits(pack(again), packed["state"])


def test_what_is_packed_is_on_the_host():
    packed = pack({"buffer": buffer(3, 1, 2), "x": jnp.arange(2)})
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(packed))
    assert set(packed["buffer"]) == {"rows", "size", "num_added"}


def test_a_buffer_that_has_wrapped_is_packed_by_age():
    made = buffer(5, *range(8))  # slots hold 5, 6, 7, 3, 4
    packed = pack(made)
    assert packed["rows"]["reward"].tolist() == [3, 4, 5, 6, 7]
    assert packed["rows"]["obs"].tolist() == [[n, -n] for n in range(3, 8)]
    assert (int(packed["size"]), int(packed["num_added"])) == (5, 8)


def test_rows_that_are_out_of_force_are_not_packed():
    made = buffer(6, *range(8), limit=3)
    assert pack(made)["rows"]["reward"].tolist() == [5, 6, 7]


@pytest.mark.parametrize("numbers", [(), (1,), (1, 2, 3), tuple(range(5)), tuple(range(8)), tuple(range(23))])
@pytest.mark.parametrize("capacity", [5, 6, 11])
def test_a_buffer_comes_back_with_the_same_rows_by_age_and_goes_on_like_it(numbers, capacity):
    made = buffer(5, *numbers)
    back = unpack(buffer(capacity, 77, 78), pack(made))
    assert replay_lib.capacity(back) == capacity
    assert (int(back.size), int(back.num_added)) == (min(len(numbers), 5), len(numbers))
    tiny_runs.assert_same_bits(contents(back), contents(made))
    if numbers:
        draws = [replay_lib.sample(jax.random.key(3), b, (4, 2)) for b in (back, made)]
        tiny_runs.assert_same_bits(*draws)
    # the newest row takes the place of the oldest, at whatever limit
    more = [replay_lib.add(b, rows(100, 101), limit=5) for b in (back, made)]
    tiny_runs.assert_same_bits(*map(contents, more))
    assert contents(more[0]).reward.tolist() == [*map(float, numbers), 100.0, 101.0][-5:]


def test_a_buffer_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match="a buffer of 5 rows does not fit a capacity of 4"):
        unpack(buffer(4), pack(buffer(5, *range(5))))


def test_arrays_that_do_not_fit_are_refused():
    fresh = {"w": jnp.zeros((2, 3)), "n": jnp.int32(0), "buffer": buffer(4)}
    packed = pack({"w": jnp.ones((2, 3)), "n": jnp.int32(5), "buffer": buffer(4, 1, 2)})
    tiny_runs.assert_same_bits(pack(unpack(fresh, packed)), packed)

    def with_rows(**changes):
        return packed | {"buffer": packed["buffer"] | {"rows": packed["buffer"]["rows"] | changes}}

    wrong = {
        r"float32\(3, 2\) where float32\(2, 3\)": packed | {"w": np.ones((3, 2), np.float32)},
        r"float32\(1, 3\) where float32\(2, 3\)": packed | {"w": np.ones((1, 3), np.float32)},  # would broadcast
        r"float32\(\) where int32\(\)": packed | {"n": np.float32(5)},
        r"float64\(2, 3\) where float32": packed | {"w": np.ones((2, 3))},
        r"float32\(1,\) where float32\(2,\)": with_rows(reward=np.ones(1, np.float32)),  # would broadcast
        r"float32\(2, 1\) where float32\(2, 2\)": with_rows(obs=np.ones((2, 1), np.float32)),
        r"int32\(2,\) where float32\(2,\)": with_rows(terminal=np.ones(2, np.int32)),
        "w": {name: value for name, value in packed.items() if name != "w"},
    }
    for message, damaged in wrong.items():
        with pytest.raises(ValueError, match=message):
            unpack(fresh, damaged)


# -- files -------------------------------------------------------------------------------------------------------


@pytest.fixture
def open_checkpoints(tmp_path):
    opened = []

    def open_them(keep=2, run_dir=tmp_path):
        opened.append(Checkpoints(run_dir, keep))
        return opened[-1]

    yield open_them
    for checkpoints in opened:
        checkpoints.close()


def arrays(number):
    return {"0": {"w": np.full((2, 3), number, np.float32), "n": np.int32(number), "empty": {}}}


def steps_on_disk(run_dir):
    return sorted(int(path.name) for path in (run_dir / "checkpoints").iterdir())


def test_there_is_none_at_first(open_checkpoints):
    assert open_checkpoints().restore_latest() is None


def test_the_newest_is_restored_with_its_record_by_another_process_too(open_checkpoints, tmp_path):
    checkpoints = open_checkpoints()
    record = {"phase": None, "done": [False, True], "returns": [[0.1 + 0.2, 1e-300], []], "step": 2**40}
    checkpoints.save(10, arrays(1), {"step": 10})
    checkpoints.save(9000, arrays(2), record)
    for reader in (checkpoints, open_checkpoints()):
        saved = reader.restore_latest()
        tiny_runs.assert_same_bits(saved.arrays, arrays(2))
        assert saved.record == record
        assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(saved.arrays))


def test_as_many_as_asked_for_are_kept(open_checkpoints, tmp_path):
    checkpoints = open_checkpoints(keep=2)
    for step in (5, 10, 15, 20):
        checkpoints.save(step, arrays(step), {})
        assert steps_on_disk(tmp_path) == [s for s in (step - 5, step) if s > 0]


def test_a_step_is_saved_once(open_checkpoints):
    checkpoints = open_checkpoints()
    checkpoints.save(5, arrays(1), {"first": True})
    checkpoints.save(5, arrays(2), {"first": False})
    assert checkpoints.restore_latest().record == {"first": True}
    tiny_runs.assert_same_bits(checkpoints.restore_latest().arrays, arrays(1))


# Reading what is damaged can leave a future of tensorstore's behind, whose event loop orbax has closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_checkpoint_that_cannot_be_read_is_named_and_the_one_before_is_there(open_checkpoints, tmp_path):
    checkpoints = open_checkpoints()
    checkpoints.save(5, arrays(1), {"step": 5})
    checkpoints.save(10, arrays(2), {"step": 10})
    newest = tmp_path / "checkpoints" / "10"
    data = [path for path in newest.rglob("*") if path.is_file() and path.parent.name == "d"]
    assert data
    for path in data:
        path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(StorageFailure) as caught:
        open_checkpoints().restore_latest()
    assert f"cannot read checkpoint {newest.resolve()} (" in str(caught.value)
    assert "remove it to continue from the one before" in str(caught.value)
    newest.rename(tmp_path / "aside")
    assert open_checkpoints().restore_latest().record == {"step": 5}


def test_a_directory_that_is_no_checkpoint_is_named(open_checkpoints, tmp_path):
    open_checkpoints().save(5, arrays(1), {"step": 5})
    (tmp_path / "checkpoints" / "999").mkdir()
    with pytest.raises(StorageFailure, match=r"cannot read checkpoint .*/checkpoints/999 "):
        open_checkpoints().restore_latest()


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "checkpoints").write_text("not a directory")
    with pytest.raises(StorageFailure, match="cannot use .*/checkpoints"):
        Checkpoints(tmp_path, 2)


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from mbpo_jax.driver.checkpoint import Checkpoints
from mbpo_jax.driver.config import StorageFailure

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writes fail, as on a full disk
checkpoints = Checkpoints(Path(sys.argv[1]), 2)
noise = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
checkpoints.save(5, {"0": {"w": noise}}, {"step": 5})
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
try:
    checkpoints.save(10, {"0": {"w": noise + 1}}, {"step": 10})
except StorageFailure as error:
    print(error)
else:
    raise SystemExit("the save was announced as done")
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
again = Checkpoints(Path(sys.argv[1]), 2)
saved = again.restore_latest()
assert saved.record == {"step": 5} and saved.arrays["0"]["w"].tobytes() == noise.tobytes()
checkpoints.save(15, {"0": {"w": noise + 2}}, {"step": 15})  # once there is room
saved = checkpoints.restore_latest()
assert saved.record == {"step": 15} and saved.arrays["0"]["w"].tobytes() == (noise + 2).tobytes()
again.close()
checkpoints.close()
"""


def test_a_full_disk_is_reported_and_leaves_the_older_checkpoint(tmp_path):
    done = tiny_runs.command("-c", FULL_DISK, tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"cannot save the checkpoint of step 10 in {(tmp_path / 'checkpoints').resolve()} (" in done.stdout
    assert "older checkpoints are intact" in done.stdout
    assert len(done.stdout.splitlines()) == 1


def test_messages_of_storage_are_cut_to_their_first_line():
    assert checkpoint._first_line(RuntimeError("disk\nfull")) == "disk"
    assert checkpoint._first_line(RuntimeError()) == "RuntimeError"
