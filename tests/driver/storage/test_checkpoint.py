import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_runs

from mbpo_jax.driver.config import StorageFailure
from mbpo_jax.driver.storage import checkpoint, manifest
from mbpo_jax.driver.storage.checkpoint import Checkpoints


def arrays(number):
    return {"0": {"w": np.full((2, 3), number, np.float32), "n": np.int32(number), "empty": {}}}


def names_on_disk(run_dir):
    return sorted(path.name for path in (run_dir / "checkpoints").iterdir())


def three(run_dir, keep=3, **options):
    """Checkpoints of the steps 5, 10 and 15, whose numbers are the steps."""
    checkpoints = Checkpoints(run_dir, keep, **options)
    for step in (5, 10, 15):
        checkpoints.save(step, arrays(step), {"step": step})
    return checkpoints


def restored_step(run_dir):
    """The step of what is restored, after its arrays were found to be those of that step."""
    saved = Checkpoints(run_dir, 3).restore_latest()
    tiny_runs.assert_same_bits(saved.arrays, arrays(saved.record["step"]))
    return saved.record["step"]


# -- what is there comes back ------------------------------------------------------------------------------------


def test_there_is_none_at_first(tmp_path):
    assert Checkpoints(tmp_path, 2).restore_latest() is None


def test_the_newest_is_restored_with_its_record_by_another_process_too(tmp_path):
    checkpoints = Checkpoints(tmp_path, 2)
    record = {"phase": None, "done": [False, True], "returns": [[0.1 + 0.2, 1e-300, np.inf], []], "step": 2**40}
    checkpoints.save(10, arrays(1), {"step": 10})
    checkpoints.save(9000, arrays(2), record)
    for reader in (checkpoints, Checkpoints(tmp_path, 2)):
        saved = reader.restore_latest()
        tiny_runs.assert_same_bits(saved.arrays, arrays(2))
        assert saved.record == record
        assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(saved.arrays))
        assert reader.passed_over == []


def test_a_step_may_be_saved_again_and_the_last_is_the_newest(tmp_path):
    checkpoints = Checkpoints(tmp_path, 20)
    for number in range(12):  # two digits: names are compared as numbers
        checkpoints.save(5, arrays(number), {"number": number})
        assert Checkpoints(tmp_path, 20).restore_latest().record == {"number": number}
    assert {"5", "5.1", "5.11"} <= set(names_on_disk(tmp_path))
    checkpoints.save(6, arrays(99), {"number": 99})
    assert checkpoints.restore_latest().record == {"number": 99}


# -- which are kept ----------------------------------------------------------------------------------------------


def test_as_many_as_asked_for_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, 2)
    for step in (5, 10, 15, 20):
        checkpoints.save(step, arrays(step), {})
        assert names_on_disk(tmp_path) == sorted(str(s) for s in (step - 5, step) if s > 0)


def test_the_best_is_kept_besides_over_restarts_too(tmp_path):
    scores = {1: -5.0, 2: 7.0, 3: 3.0, 4: None, 5: 7.0, 6: -1.0, 7: 0.0, 8: None}
    kept = []
    for step, score in scores.items():
        checkpoints = Checkpoints(tmp_path, 2)  # another process each time
        checkpoints.restore_latest()
        checkpoints.save(step, arrays(step), {"step": step}, score)
        kept.append(names_on_disk(tmp_path))
    assert kept == [
        ["1"],
        ["1", "2"],
        ["2", "3"],
        *(["2", str(n - 1), str(n)] for n in (4, 5, 6)),
        ["2", "6", "7"],
        ["2", "7", "8"],
    ]


def test_without_scores_none_is_best(tmp_path):
    three(tmp_path, keep=1)
    assert names_on_disk(tmp_path) == ["15"]


@pytest.mark.parametrize("suffix", [checkpoint.WRITING, checkpoint.DELETING])
def test_what_a_killed_process_left_half_done_is_cleared_away(tmp_path, suffix):
    three(tmp_path)
    half = tmp_path / "checkpoints" / f"20{suffix}"
    shutil.copytree(tmp_path / "checkpoints" / "15", half)
    (tmp_path / "checkpoints" / f"mine{suffix}").mkdir()  # of somebody else
    assert restored_step(tmp_path) == 15
    assert names_on_disk(tmp_path) == ["10", "15", "5", f"mine{suffix}"]


def test_what_is_damaged_or_not_ours_is_never_deleted(tmp_path):
    three(tmp_path)
    folder = tmp_path / "checkpoints"
    (folder / "10" / manifest.FILE_NAME).write_text("{}")
    (folder / "7").mkdir()
    (folder / "notes.txt").write_text("mine")
    checkpoints = Checkpoints(tmp_path, 1)
    checkpoints.restore_latest()
    checkpoints.save(20, arrays(20), {"step": 20})
    assert names_on_disk(tmp_path) == ["10", "20", "7", "notes.txt"]


# -- damage ------------------------------------------------------------------------------------------------------


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flip(path):
    data = bytearray(path.read_bytes())
    if data:
        data[len(data) // 2] ^= 4
    path.write_bytes(data)


DAMAGES = {
    "flipped": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "emptied": lambda path: path.write_bytes(b""),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "deleted": lambda path: path.unlink(),
    "swapped": lambda path: path.write_bytes(Path(str(path).replace("/15/", "/10/")).read_bytes()),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a link": lambda path: (path.rename(path.with_suffix(".away")), path.symlink_to(path.with_suffix(".away"))),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),  # reading one waits for ever
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_file_damaged_in_every_way_leads_to_the_one_before(tmp_path, damage):
    three(tmp_path / "whole")
    names = [path.relative_to(tmp_path / "whole") for path in files_of(tmp_path / "whole" / "checkpoints" / "15")]
    assert len(names) > 5
    for number, name in enumerate(names):
        run_dir = tmp_path / f"run_{number}"
        shutil.copytree(tmp_path / "whole", run_dir)
        if damage == "swapped" and not (run_dir / str(name).replace("/15/", "/10/")).exists():
            continue  # data files are named by their content
        before = (run_dir / name).read_bytes()
        DAMAGES[damage](run_dir / name)
        if (run_dir / name).is_file() and not (run_dir / name).is_symlink() and (run_dir / name).read_bytes() == before:
            continue  # an empty file cannot be cut
        reader = Checkpoints(run_dir, 3)
        saved = reader.restore_latest()
        assert saved.record == {"step": 10}
        tiny_runs.assert_same_bits(saved.arrays, arrays(10))
        (line,) = reader.passed_over
        assert f"{run_dir / 'checkpoints' / '15'} is passed over: " in line
        relative = name.relative_to("checkpoints/15").as_posix()
        # a link is found by the file it leads to, another manifest by the first file that it is wrong about
        assert relative in line or damage == "a link" or (damage, relative) == ("swapped", manifest.FILE_NAME)
        assert "\n" not in line


def test_a_file_more_is_damage_too(tmp_path):
    three(tmp_path)
    (tmp_path / "checkpoints" / "15" / "arrays" / "more").write_text("x")
    reader = Checkpoints(tmp_path, 3)
    assert reader.restore_latest().record == {"step": 10}
    assert "arrays/more is not part of it" in reader.passed_over[0]


def test_a_checkpoint_under_another_name_is_not_taken_for_that_step(tmp_path):
    three(tmp_path)
    shutil.copytree(tmp_path / "checkpoints" / "5", tmp_path / "checkpoints" / "999")
    (tmp_path / "checkpoints" / "998").mkdir()
    (tmp_path / "checkpoints" / "997").write_text("x")
    (tmp_path / "checkpoints" / "996").symlink_to(tmp_path / "checkpoints" / "996")
    assert restored_step(tmp_path) == 15
    reader = Checkpoints(tmp_path, 3)
    reader.restore_latest()
    assert len(reader.passed_over) == 4
    assert "it was checkpoint 5 when it was written" in reader.passed_over[0]


def test_a_checkpoint_of_another_run_is_passed_over(tmp_path):
    three(tmp_path, identity={"env": "mine", "seeds": [1, 2]})
    three(tmp_path / "other", identity={"env": "theirs", "seeds": [1, 2]}).save(20, arrays(20), {"step": 20})
    shutil.copytree(tmp_path / "other" / "checkpoints" / "20", tmp_path / "checkpoints" / "20")
    reader = Checkpoints(tmp_path, 3, {"env": "mine", "seeds": [1, 2]})
    assert reader.restore_latest().record == {"step": 15}
    assert "20 is passed over: it belongs to another run: env was 'theirs', is 'mine'" in reader.passed_over[0]


def test_a_checkpoint_that_is_older_than_a_knob_counts_as_its_default(tmp_path):
    three(tmp_path, identity={"env": "mine"})
    defaults = {"env": "any", "new": 1}
    assert Checkpoints(tmp_path, 3, {"env": "mine", "new": 1}, defaults).restore_latest().record == {"step": 15}
    with pytest.raises(StorageFailure, match=r"15 is passed over: it belongs to another run: new was 1, is 2"):
        Checkpoints(tmp_path, 3, {"env": "mine", "new": 2}, defaults).restore_latest()
    three(tmp_path / "newer", identity={"env": "mine", "newest": 5})
    with pytest.raises(StorageFailure, match=r"newest was 5, is 'not known'"):
        Checkpoints(tmp_path / "newer", 3, {"env": "mine"}, defaults).restore_latest()


def test_of_checkpoints_that_are_not_restored_only_the_manifest_is_read(tmp_path, monkeypatch):
    """Thousands may have been kept; their scores count all the same."""
    checkpoints = Checkpoints(tmp_path, 2)
    for step, score in ((5, 9.0), (10, 1.0), (15, 2.0)):
        checkpoints.save(step, arrays(step), {"step": step}, score)
    looked_at, checksums = [], manifest._checksums
    monkeypatch.setattr(manifest, "_checksums", lambda directory: looked_at.append(directory) or checksums(directory))
    reader = Checkpoints(tmp_path, 2)
    assert reader.restore_latest().record == {"step": 15}
    assert [path.name for path in looked_at] == ["15"]
    reader.save(20, arrays(20), {"step": 20}, 3.0)
    assert names_on_disk(tmp_path) == ["15", "20", "5"]  # the newest two, and the best


def test_a_manifest_of_another_format_is_not_read(tmp_path):
    three(tmp_path)
    path = tmp_path / "checkpoints" / "15" / manifest.FILE_NAME
    content = json.loads(path.read_text())["content"] | {"format": 99}
    path.write_text(json.dumps({"sha256": manifest._digest(content), "content": content}))
    reader = Checkpoints(tmp_path, 3)
    assert reader.restore_latest().record == {"step": 10}
    assert "it has format 99, this version reads formats 1 and 2" in reader.passed_over[0]


def test_a_checkpoint_of_format_1_is_read_with_no_beginning_of_an_episode_known(tmp_path, monkeypatch):
    replay = {"rows": {"reward": np.float32([1.0, 2.0, 3.0])}, "size": np.int32(3)}
    with monkeypatch.context() as patched:
        patched.setattr(manifest, "FORMAT", 1)
        learner = {"step": np.int32(7), "params": {"x": np.ones(2)}, "opt_state": {"0": {"count": np.int32(7)}}}
        state = {"agent": {"actor": learner, "critics": learner}}
        Checkpoints(tmp_path, 3).save(5, {"0": {"replay": replay, "state": state}}, {"step": 5})
    for saved in (Checkpoints(tmp_path, 3).restore_latest(), checkpoint.load(tmp_path)):
        assert saved.arrays["0"].keys() == {"replay", "state"}
        assert saved.arrays["0"]["replay"].keys() == {"rows", "size", "first"}
        np.testing.assert_array_equal(saved.arrays["0"]["replay"]["first"], np.zeros(3, bool), strict=True)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "null", "5", '{"content": {}}', '{"sha256": 5, "content": []}', "\x00"]
)
def test_a_manifest_that_is_none_is_passed_over(tmp_path, text):
    three(tmp_path)
    (tmp_path / "checkpoints" / "15" / manifest.FILE_NAME).write_text(text)
    assert restored_step(tmp_path) == 10


def test_if_none_is_sound_nothing_begins_anew(tmp_path):
    three(tmp_path)
    for step in (5, 10, 15):
        flip(files_of(tmp_path / "checkpoints" / str(step))[0])
    with pytest.raises(StorageFailure, match="no checkpoint can be used.*15 is passed over.*10 is.*5 is"):
        Checkpoints(tmp_path, 3).restore_latest()
    assert names_on_disk(tmp_path) == ["10", "15", "5"]


def test_what_does_not_go_with_the_rest_of_the_directory_is_passed_over(tmp_path):
    def fits(record):
        if record["step"] > 5:
            raise ValueError("lines are missing")

    reader = three(tmp_path)
    assert reader.restore_latest(fits).record == {"step": 5}
    assert [line.split(": ")[1] for line in reader.passed_over] == ["lines are missing"] * 2
    assert Checkpoints(tmp_path, 3).restore_latest().record == {"step": 15}


# -- a disk that fails -------------------------------------------------------------------------------------------


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "checkpoints").write_text("not a directory")
    with pytest.raises(StorageFailure, match="cannot use .*/checkpoints"):
        Checkpoints(tmp_path, 2)


def test_what_storage_gives_back_otherwise_than_it_got_it_is_not_announced(tmp_path, monkeypatch):
    """Storage that loses the last bit of one number."""
    checkpoints = three(tmp_path)
    read = checkpoint._read_arrays

    def forgetful(path):
        found = read(path)
        found["small_float32"] = np.nextafter(found["small_float32"], np.float32(99))
        return found

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "_read_arrays", forgetful)
        with pytest.raises(StorageFailure, match="step 20 .*small_float32 was not what had been written"):
            checkpoints.save(20, arrays(20), {"step": 20})
    assert names_on_disk(tmp_path) == ["10", "15", "5"]  # nothing half done is left
    assert restored_step(tmp_path) == 15


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from mbpo_jax.driver.storage.checkpoint import Checkpoints
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
"""


def test_a_full_disk_is_reported_and_leaves_the_older_checkpoint(tmp_path):
    done = tiny_runs.command("-c", FULL_DISK, tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"cannot save the checkpoint of step 10 in {(tmp_path / 'checkpoints').resolve()} (" in done.stdout
    assert "older checkpoints are intact" in done.stdout
    assert len(done.stdout.splitlines()) == 1


def test_messages_of_storage_are_cut_to_their_first_line():
    assert checkpoint.first_line(RuntimeError("disk\nfull")) == "disk"
    assert checkpoint.first_line(RuntimeError()) == "RuntimeError"
