import os
import signal
import subprocess
import sys

import pytest
import tiny_runs

from mbpo_jax.driver.config import StorageFailure
from mbpo_jax.driver.storage import lock

HOLD = """
import sys, time
from pathlib import Path
from mbpo_jax.driver.storage.lock import locked
with locked(Path(sys.argv[1])) as problem:
    print("held", problem, flush=True)
    time.sleep(60)
"""


def test_the_second_process_is_told_who_is_there_and_death_of_any_kind_lets_go(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path],
        stdout=subprocess.PIPE,
        text=True,
        env=tiny_runs.process_environment(),
    )
    assert holder.stdout.readline() == "held None\n"
    with (
        pytest.raises(StorageFailure, match=f"{tmp_path} is in use by process {holder.pid} on "),
        lock.locked(tmp_path),
    ):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with lock.locked(tmp_path) as problem:
        assert problem is None
        assert f"process {os.getpid()} on " in (tmp_path / lock.FILE_NAME).read_text()


def test_one_process_cannot_hold_it_twice_but_again(tmp_path):
    with lock.locked(tmp_path), pytest.raises(StorageFailure, match="in use by process"), lock.locked(tmp_path):
        pass
    with lock.locked(tmp_path) as problem:
        assert problem is None


def test_where_there_are_no_locks_it_is_said(tmp_path, monkeypatch):
    def refuse(fd, operation):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with lock.locked(tmp_path) as problem:
        assert f"{tmp_path} cannot be locked" in problem
        assert "do not start a second process there" in problem


def test_a_directory_that_cannot_be_used_is_named(tmp_path):
    with pytest.raises(StorageFailure, match=f"cannot use run_dir {tmp_path / 'none'}"), lock.locked(tmp_path / "none"):
        pass


FORK = """
import os, signal, sys, time
from pathlib import Path
from mbpo_jax.driver.stop import StopRequest
from mbpo_jax.driver.storage.lock import locked

with StopRequest() as stop, StopRequest() as inner, locked(Path(sys.argv[1])):
    child = os.fork()
    if not child:
        print("child", flush=True)
        time.sleep(1000)
        os._exit(0)
    time.sleep(0.5)
    signal.raise_signal(signal.SIGTERM)
    print("asked", stop.requested, inner.requested, flush=True)
    sys.stdin.readline()
with locked(Path(sys.argv[1])) as problem:
    print("let go", problem, flush=True)
os.kill(child, signal.SIGTERM)
print("ended by", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_a_forked_child_has_neither_our_handlers_nor_our_lock(tmp_path):
    """It was forked by an environment: one SIGTERM ends it, and it keeps no directory that we let go of."""
    process = subprocess.run(
        [sys.executable, "-c", FORK, tmp_path],
        input="go on\n",
        capture_output=True,
        text=True,
        env=tiny_runs.process_environment(),
        timeout=120,
    )
    assert process.stdout.splitlines() == ["child", "asked False True", "let go None", f"ended by {-signal.SIGTERM}"]
