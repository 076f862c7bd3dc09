"""A job alone, with commands that take no time."""

import dataclasses
import fcntl
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mbpo_jax.launch.job import JobFailed, TrainingJob


@pytest.fixture
def job(tmp_path):
    """`job(shell script)`; the handlers that a job sets end with the test."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
    handlers = [signal.getsignal(number) for number in numbers]
    yield lambda script, is_local=True: TrainingJob(
        ("sh", "-c", script, str(tmp_path)), Path("run"), tmp_path / "jobs/a.log", 2, is_local
    )
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


def test_a_stop_that_nobody_asked_for_is_followed_by_another_start(job, tmp_path):
    job('echo x >> "$0/starts"; test "$(wc -l < "$0/starts")" = 4 || exit 3')()
    assert (tmp_path / "starts").read_text() == "x\n" * 4


def test_only_so_often(job, tmp_path):
    with pytest.raises(JobFailed, match="exit status 3"):
        job('echo x >> "$0/starts"; exit 3')()
    assert (tmp_path / "starts").read_text() == "x\n" * 4


def test_another_status_ends_the_job_with_the_last_lines_of_this_attempt(job, tmp_path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs/a.log").write_text("of yesterday\n")
    with pytest.raises(JobFailed) as error:
        job("echo one; echo two >&2; exit 5")()
    assert str(error.value) == f"exit status 5; the last lines of {tmp_path}/jobs/a.log:\none\ntwo"


def test_the_scheduler_s_signals_do_not_end_the_command(job, tmp_path):
    # only builtins: the signal stays blocked, as in Python, where dash would let it in when it starts another process
    job('kill -USR2 $$; : > "$0/lived"')()
    assert (tmp_path / "lived").exists()


def test_a_checkpoint_in_a_signal_handler_waits_for_the_command_to_save(job, tmp_path):
    running = job('trap "sleep 0.3; echo saved > $0/saved; exit 3" INT; kill -USR2 $PPID; while :; do sleep 0.05; done')
    requeued = []

    def preempt(number, frame):  # as submitit's handler does
        requeued.append(running.checkpoint())
        sys.exit(1)

    signal.signal(signal.SIGUSR2, preempt)
    with pytest.raises(SystemExit):
        running()
    assert (tmp_path / "saved").exists()
    assert requeued[0].function.command == running.command


def test_a_command_that_does_not_save_in_time_is_killed(job, tmp_path):
    running = job('trap "" INT; echo $$ > $0/pid; kill -USR2 $PPID; while :; do sleep 0.05; done')

    def preempt(number, frame):
        running.checkpoint()
        sys.exit(1)

    signal.signal(signal.SIGUSR2, preempt)
    began = time.monotonic()
    with pytest.raises(SystemExit):
        running()
    assert 1.5 <= time.monotonic() - began < 2.5  # of save_seconds=2
    time.sleep(0.3)
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


@pytest.mark.parametrize("is_local", [True, False])
def test_sigterm_ends_a_local_job_and_lets_one_on_slurm_go_on_until_it_is_killed(job, tmp_path, is_local):
    script = 'test -e $0/stopped && exit 0; trap "touch $0/stopped; exit 3" INT; kill -TERM $PPID; sleep 5 & wait'
    if is_local:
        with pytest.raises(JobFailed, match="run the same command again to continue"):
            job(script, is_local)()
    else:
        job(script, is_local)()
    assert (tmp_path / "stopped").exists()


def test_a_signal_while_the_command_is_being_started_is_not_lost(job, monkeypatch):
    start = subprocess.Popen

    def start_and_hit(*args, **kwargs):
        process = start(*args, **kwargs)
        signal.raise_signal(signal.SIGTERM)
        return process

    monkeypatch.setattr(subprocess, "Popen", start_and_hit)
    began = time.monotonic()
    with pytest.raises(JobFailed, match="run the same command again to continue"):
        dataclasses.replace(job(""), command=("sleep", "5"))()
    assert time.monotonic() - began < 2.0


def test_two_jobs_never_run_in_one_directory(job, tmp_path):
    (tmp_path / "jobs").mkdir()
    with (tmp_path / "jobs/a.log").open("a") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        with pytest.raises(JobFailed, match="another job is running in run"):
            job("touch $0/started")()
    assert not (tmp_path / "started").exists()
