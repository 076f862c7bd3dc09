import errno
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax.driver.storage import metrics
from mbpo_jax.driver.storage.metrics import MetricsWriter

STRICT = {"parse_constant": lambda word: pytest.fail(f"{word} is not JSON")}


def lines(run_dir):
    return (run_dir / "metrics.jsonl").read_text().splitlines()


def test_a_line_holds_step_seed_and_plain_values(tmp_path):
    with MetricsWriter(tmp_path / "run") as writer:
        writer.write(
            np.int64(250),
            jnp.int32(3),
            {
                "int": 7,
                "numpy_int": np.int32(-2),
                "jax_int": jnp.uint8(200),
                "float": 0.5,
                "jax_float": jnp.float32(0.25),
                "bfloat": jnp.bfloat16(1.5),
                "flag": np.bool_(True),
                "members": jnp.array([1.0, 2.5]),
                "elites": np.array([4, 1]),
            },
        )
    (line,) = lines(tmp_path / "run")
    assert line == (
        '{"step": 250, "seed": 3, "int": 7, "numpy_int": -2, "jax_int": 200, "float": 0.5, '
        '"jax_float": 0.25, "bfloat": 1.5, "flag": true, "members": [1.0, 2.5], "elites": [4, 1]}'
    )


def test_non_finite_values_are_strict_json_and_come_back_as_floats(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write(1, 0, {"a": math.nan, "b": -np.inf, "c": jnp.float32(np.inf), "d": np.array([1.0, np.nan])})
    (line,) = lines(tmp_path)
    stored = json.loads(line, **STRICT)
    assert (stored["a"], stored["b"], stored["c"], stored["d"]) == ("nan", "-inf", "inf", [1.0, "nan"])
    (record,) = metrics.read(tmp_path / "metrics.jsonl")
    assert math.isnan(record["a"])
    assert (record["b"], record["c"]) == (-math.inf, math.inf)
    np.testing.assert_array_equal(record["d"], [1.0, np.nan])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"x": np.zeros((2, 1))}, "'x'.*1-D.*shape"),
        ({"x": "nan"}, "'x' must be a number"),
        ({"x": None}, "'x' must be a number"),
        ({"step": 1}, "'step'"),
    ],
)
def test_a_refused_value_names_the_metric_and_leaves_the_file_alone(tmp_path, values, message):
    with MetricsWriter(tmp_path) as writer:
        writer.write(1, 0, {"good": 1.0})
        before = writer.offset
        with pytest.raises(ValueError, match=message):
            writer.write(2, 0, {"fine": 2.0, **values})
        assert writer.offset == before
    assert len(lines(tmp_path)) == 1


def test_resuming_keeps_exactly_the_lines_before_the_offset(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        assert writer.offset == 0
        for step in (1, 2):
            writer.write(step, 0, {"x": step})
        offset = writer.offset
        writer.write(3, 0, {"x": 333})
    assert writer.offset == (tmp_path / "metrics.jsonl").stat().st_size > offset
    with MetricsWriter(tmp_path, offset=offset) as writer:
        assert writer.offset == offset
        writer.write(3, 0, {"x": -3})
    assert [record["x"] for record in metrics.read(tmp_path / "metrics.jsonl")] == [1, 2, -3]


@pytest.mark.parametrize("offset", [None, 0])
def test_a_new_run_starts_empty(tmp_path, offset):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "seed": 0}\n')
    with MetricsWriter(tmp_path, offset=offset) as writer:
        assert writer.offset == 0
    assert lines(tmp_path) == []


@pytest.mark.parametrize("offset", [11, 24, -1])
def test_an_offset_that_does_not_fit_names_the_file_and_changes_nothing(tmp_path, offset):
    content = '{"step": 1, "seed": 0}\n'  # 23 bytes
    (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(ValueError, match=r"metrics\.jsonl"):
        MetricsWriter(tmp_path, offset=offset)
    assert (tmp_path / "metrics.jsonl").read_text() == content


def test_a_missing_file_cannot_be_resumed(tmp_path):
    with pytest.raises(ValueError, match=r"metrics\.jsonl has 0 bytes"):
        MetricsWriter(tmp_path, offset=5)
    assert list(tmp_path.iterdir()) == []


def test_a_short_write_is_taken_back_and_raised(tmp_path, monkeypatch):
    with MetricsWriter(tmp_path) as writer:
        writer.write(1, 0, {"x": 1})
        before, whole_write = writer.offset, os.write
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda fd, data: whole_write(fd, data[:5]))
            with pytest.raises(OSError, match="5 of"):
                writer.write(2, 0, {"x": 2})
        assert writer.offset == before
        writer.write(3, 0, {"x": 3})
    assert [record["step"] for record in metrics.read(tmp_path / "metrics.jsonl")] == [1, 3]


def test_a_full_disk_keeps_its_error(tmp_path, monkeypatch):
    def full(fd, data):
        raise OSError(errno.ENOSPC, "no space")

    with MetricsWriter(tmp_path) as writer:
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OSError, match="no space") as caught:
            writer.write(1, 0, {})
        assert caught.value.errno == errno.ENOSPC
        assert writer.offset == 0


def test_each_line_is_one_write_call(tmp_path, monkeypatch):
    calls, whole_write = [], os.write
    with MetricsWriter(tmp_path) as writer:
        monkeypatch.setattr(os, "write", lambda fd, data: calls.append(data) or whole_write(fd, data))
        writer.write(1, 0, {"x": np.zeros(5000)})
    (data,) = calls
    assert data.endswith(b"\n")
    assert data.count(b"\n") == 1


def test_a_killed_process_leaves_lines_that_can_be_read(tmp_path):
    """All but the last: lines of 9 kB are longer than a page of memory, where a kill may stop a write."""
    code = (
        "import sys, numpy as np\n"
        "from mbpo_jax.driver.storage.metrics import MetricsWriter\n"
        "writer, values = MetricsWriter(sys.argv[1]), {'x': np.arange(500) / 7.0}\n"
        "for step in range(10**9): writer.write(step, 0, values)\n"
    )
    path = tmp_path / "metrics.jsonl"
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    try:
        deadline = time.monotonic() + 60.0
        while not (path.exists() and path.stat().st_size > 200_000):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    records = metrics.read(path)
    assert len(records) == path.read_bytes().count(b"\n") > 10
    assert [record["step"] for record in records] == list(range(len(records)))
    assert all(len(record["x"]) == 500 for record in records)


@pytest.mark.parametrize(
    "bad", ['{"step": 2, "se', '{"step": 2, "seed": 0, "x": NaN}', "[1]", '{"step": 1.5, "seed": 0}']
)
def test_a_damaged_line_is_named(tmp_path, bad):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "seed": 0}\n' + bad + "\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2 is damaged"):
        metrics.read(path)


def test_a_last_line_that_is_being_written_or_was_torn_is_no_line_yet(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "seed": 0}\n{"step": 2, "se')
    assert metrics.read(path) == [{"step": 1, "seed": 0}]
    path.write_text("")
    assert metrics.read(path) == []


def test_a_closed_writer_says_so(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.close()
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.write(1, 0, {})


def test_tensorboard_gets_the_scalars_of_each_seed(tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    with MetricsWriter(tmp_path, tensorboard=True) as writer:
        writer.write(10, 0, {"loss": 0.5, "members": np.ones(3)})
        writer.write(10, 1, {"loss": 0.75})
    found = {}
    for seed in (0, 1):
        (path,) = (tmp_path / "tensorboard" / f"seed_{seed}").iterdir()
        data = path.read_bytes()
        while data:  # length (8 bytes), its checksum (4), the event, its checksum (4)
            length = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + length])
            found.update({(seed, event.step, value.tag): value.simple_value for value in event.summary.value})
            data = data[16 + length :]
    assert found == {(0, 10, "loss"): 0.5, (1, 10, "loss"): 0.75}


def test_tensorboard_on_a_full_disk_is_an_error_and_nobody_waits(tmp_path):
    """tensorboardX's own writer would wait for ever for a thread that the first error ended."""
    line, before = {f"metric_{i}": float(i) for i in range(20)}, resource.getrlimit(resource.RLIMIT_FSIZE)
    with MetricsWriter(tmp_path, tensorboard=True) as writer:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        try:
            with pytest.raises(OSError) as caught:
                for step in range(1000):
                    writer.write(step, 0, line)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG
    assert 5 < len(metrics.read(tmp_path / "metrics.jsonl")) < 100  # it is no shorter than the events


def test_a_resumed_run_hides_what_the_interrupted_one_showed_from_there_on(tmp_path):
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    for offset in (None, 0):
        with MetricsWriter(tmp_path, offset, tensorboard=True) as writer:
            writer.write(10, 0, {"loss": 0.5})
        (path,) = set((tmp_path / "tensorboard" / "seed_0").iterdir())
        data, starts = path.read_bytes(), []
        while data:
            length = int.from_bytes(data[:8], "little")
            event = Event.FromString(data[12 : 12 + length])
            starts += [event.step] * (event.session_log.status == SessionLog.START)
            data = data[16 + length :]
        assert starts == [10]
        path.unlink()


def test_tensorboard_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ValueError, match=r"pip install -e '\.\[tensorboard\]'"):
        MetricsWriter(tmp_path, tensorboard=True)
    assert not (tmp_path / "metrics.jsonl").exists()
