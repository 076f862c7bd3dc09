import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
import submitit  # noqa: F401  (imported under capsys, its logging closes pytest's own stream)

from mbpo_jax import sweep
from mbpo_jax.driver.storage import metrics
from mbpo_jax.launch import flags, sweep_flags, sweep_jobs

TINY = """\
--algorithm=sac
--env=InvertedPendulum-v5
--max_episode_steps=5
--num_steps=1200
--exploration_steps=60
--replay_capacity=1000
--updates_per_step=1
--batch_size=16
--hidden_units=8
--num_hidden_layers=1
--log_every_steps=20
--eval_every_steps=500
--checkpoint_every_steps=100000
# The sweep's own seeds and directory win.
--seeds=7
--run_dir=nowhere
"""


def launch(directory, *words, **environment):
    """The launcher in a process of its own, on a flagfile there, with its jobs' programs compiled once."""
    (directory / "tiny.flags").write_text(TINY)
    command = [sys.executable, "-m", "mbpo_jax.sweep", "--flagfiles=tiny.flags", "--sweep_dir=sweep", *words]
    return subprocess.Popen(
        command,
        cwd=directory,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # as in a shell, where Ctrl-C reaches the launcher and all that it started
    )


def ended(process, seconds=300):
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out.splitlines(), err.splitlines()


@pytest.fixture(scope="module", autouse=True)
def _jobs_compile_once(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    cache = jax.config.jax_compilation_cache_dir or str(tmp_path_factory.mktemp("compiled"))
    patch.setenv("JAX_COMPILATION_CACHE_DIR", cache)
    patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    patch.setenv("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    yield
    patch.undo()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(directory, exit status, lines printed, lines of standard error) of a sweep of two jobs that went through."""
    directory = tmp_path_factory.mktemp("sweep")
    return directory, *ended(launch(directory, "--seeds=1,2", "--cpus_per_job=1", "--", "--eval_episodes=2"))


def lines(run_dir):
    """The lines of metrics without what depends on the clock and on what was compiled before."""
    return [
        {name: value for name, value in line.items() if not name.startswith(("seconds/", "compilations"))}
        for line in metrics.read(run_dir / "metrics.jsonl")
    ]


def wait_for(condition, process, seconds=300.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def at_step(run_dir, step):
    path = run_dir / "metrics.jsonl"
    return lambda: path.exists() and f'"step": {step},' in path.read_text()


def descendants(pid):
    for path in Path("/proc", str(pid), "task").glob("*/children"):
        for child in map(int, path.read_text().split()):
            yield child
            yield from descendants(child)


def job_process(launcher):
    """The process in which submitit runs our callable; its local controller sends it the preemption signal."""
    (pid,) = [
        pid
        for pid in descendants(launcher.pid)
        if b"submitit.core._submit" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return pid


# -- real runs ---------------------------------------------------------------------------------------------------


def test_two_jobs_run_to_their_ends(finished):
    directory, status, out, err = finished
    assert (status, err) == (0, ["mbpo_jax: 2 of 2 jobs finished"])
    wanted = []
    for seed in (1, 2):
        summary = json.loads((directory / f"sweep/tiny/seeds_{seed}/summary.json").read_text())
        assert (summary["step"], list(summary["seeds"])) == (1200, [str(seed)])
        final = summary["seeds"][str(seed)]["final"]["return_mean"]
        wanted.append(f"finished  sweep/tiny/seeds_{seed}  seed {seed}: final return {final:.1f}")
        config = json.loads((directory / f"sweep/tiny/seeds_{seed}/config.json").read_text())
        assert config["run"]["eval_episodes"] == 2
    assert sorted(out) == wanted
    assert not (directory / "nowhere").exists()


def test_the_same_command_skips_what_has_finished(finished):
    directory = finished[0]
    run_dir = directory / "sweep/tiny/seeds_1"
    before = (run_dir / "metrics.jsonl").read_bytes()
    status, out, _ = ended(launch(directory, "--seeds=1", "--", "--eval_episodes=2"))
    assert (status, out) == (0, [line for line in finished[2] if "seeds_1 " in line])
    assert (run_dir / "metrics.jsonl").read_bytes() == before
    log = (directory / "sweep/jobs/tiny.seeds_1.log").read_text()
    assert log.rpartition("mbpo_jax: starting\n")[2].startswith("step 1,200/1,200  100%")


def test_a_job_that_is_stopped_and_preempted_ends_as_if_it_had_not_been(finished, tmp_path, hangs_up):
    """By Ctrl-C, by the end of its terminal and by the scheduler: local jobs save, and the same command continues."""
    words = ("--seeds=1,2", f"--cpus_per_job={os.cpu_count()}", "--", "--eval_episodes=2")  # one at a time
    run_dir, step = tmp_path / "sweep/tiny/seeds_1", 0
    for number in (signal.SIGINT, signal.SIGHUP):
        launcher = launch(tmp_path, *words)
        try:
            wait_for(at_step(run_dir, step + 100), launcher)
            os.killpg(launcher.pid, number)
            status, out, err = ended(launcher)
        finally:
            launcher.kill()
        assert (status, out) == (3, ["stopped   sweep/tiny/seeds_1  stopped; run the same command again to continue"])
        assert err == ["mbpo_jax: 0 of 2 jobs finished"]
        assert not (tmp_path / "sweep/tiny/seeds_2").exists()
        step, before = json.loads((run_dir / "summary.json").read_text())["step"], step
        assert before < step < 1200
        step -= step % 20  # there are lines of every 20 steps, and of the step where it stopped

    log = tmp_path / "sweep/jobs/tiny.seeds_1.log"
    times = [log.read_text().count(f"mbpo_jax: {what}") for what in ("stopped and saved; run the same", "starting")]
    assert times == [2, 2]
    launcher = launch(tmp_path, "--seeds=1", *words[1:])
    try:
        wait_for(at_step(run_dir, step + 60), launcher)
        os.kill(job_process(launcher), signal.SIGUSR2)
        status, out, _ = ended(launcher)
    finally:
        launcher.kill()
    assert (status, out) == (0, [line for line in finished[2] if "seeds_1 " in line])
    times = [log.read_text().count(f"mbpo_jax: {what}") for what in ("stopped and saved; run the same", "starting")]
    assert times == [3, 4]
    logs = [path.read_text() for path in (tmp_path / "sweep/jobs").glob("*_0_log.out")]
    assert ["Requeued job" in text for text in logs].count(True) == 1
    assert lines(run_dir) == lines(finished[0] / "sweep/tiny/seeds_1")


def test_a_job_that_fails_is_reported_with_its_message(tmp_path):
    status, out, err = ended(launch(tmp_path, "--", "--num_steps=many"))
    assert (status, err) == (1, ["mbpo_jax: 0 of 1 jobs finished"])
    assert out[0] == "failed    sweep/tiny/seeds_0  exit status 2; the last lines of sweep/jobs/tiny.seeds_0.log:"
    assert out[-1].startswith("mbpo_jax: error: ")
    assert "--num_steps=many" in out[-1]
    assert "a whole number" in out[-1]


# -- what is submitted -------------------------------------------------------------------------------------------


def test_slurm_gets_one_array_with_what_was_asked_for(tmp_path):
    """SLURM's commands are stand-ins here; none was at hand."""
    for name, text in (("sbatch", f'cp "$1" {tmp_path}/script; echo Submitted batch job 7'), ("srun", "")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    launcher = launch(
        tmp_path,
        "--seeds=0,1,2",
        "--seeds_per_job=2",
        "--executor=slurm",
        "--detach",
        "--timeout_minutes=600",
        "--cpus_per_job=4",
        "--slurm_partition=long",
        "--memory_gb_per_job=8",
        PATH=f"{tmp_path}:{os.environ['PATH']}",
    )
    status, out, err = ended(launcher)
    assert (status, err) == (0, [])
    assert out == ["submitted  sweep/tiny/seeds_0_1  job 7_0", "submitted  sweep/tiny/seeds_2  job 7_1"]
    script = (tmp_path / "script").read_text().splitlines()
    for option in (
        "array=0-1%2",
        "time=600",
        "partition=long",
        "cpus-per-task=4",
        "mem=8GB",
        "signal=USR2@120",
        "requeue",
    ):
        assert f"#SBATCH --{option}" in script
    assert not [line for line in script if "gpus" in line or "account" in line]
    assert [line for line in script if line.startswith("srun ") and " --cpus-per-task=4 " in line]


def test_the_command_is_one_that_a_person_would_type(tmp_path):
    (tmp_path / "a.flags").write_text("")
    words = (f"--flagfiles={tmp_path}/a.flags", "--seeds=0,1", "--sweep_dir=out", "--seeds_per_job=2")
    arguments, added = sweep_flags.parse([*words, "--", "--quiet"], sweep.parser())
    (job,) = sweep_jobs.plan(arguments, added)
    assert job.command == (
        *(sys.executable, "-m", "mbpo_jax.main", f"--flagfile={tmp_path}/a.flags"),
        *("--quiet", "--seeds=0,1", "--run_dir=out/a/seeds_0_1"),
    )


def test_every_documented_command_parses(monkeypatch):
    root = Path(__file__).parents[1]
    monkeypatch.chdir(root)
    text = (root / "docs/clusters.md").read_text().replace("\\\n", " ")
    commands = [line for line in text.splitlines() if line.startswith("python -m mbpo_jax.sweep ")]
    assert len(commands) >= 2
    for command in commands:
        arguments, added = sweep_flags.parse(shlex.split(command)[3:], sweep.parser())
        for job in sweep_jobs.plan(arguments, added):
            flags.parse(list(job.command[3:]))


# -- what cannot begin -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--flagfiles=no.flags"], ["--flagfiles", "files that can be read", "'no.flags'"]),
        (["--flagfiles=b/a.flags"], ["--flagfiles must differ", "a,a"]),
        (["--flagfile=no.flags"], ["--flagfile must be a text file that can be read", "no.flags"]),
        (["--flagfile=binary.flags"], ["--flagfile must be a text file that can be read"]),
        (["--flagfile=wrong.flags"], ["--nonsense=2", "--help"]),
        (["--seeds=0,x"], ["--seeds", "whole numbers", "'0,x'"]),
        (["--seeds=-1"], ["--seeds", "in [0, 2147483647]", "'-1'"]),
        (["--seeds=1,1"], ["--seeds must differ", "1,1"]),
        (["--cpus_per_job=0"], ["--cpus_per_job", "1 or more", "'0'"]),
        (["--executor=ray"], ["--executor", "'ray'", "local", "slurm"]),
        (["--detach"], ["--detach is not read by --executor=local"]),
        (["--slurm_partition=p"], ["--slurm_partition is not read by --executor=local"]),
        (["--timeout_minutes=1"], ["--save_seconds must be less than --timeout_minutes=1", "120"]),
        (["--executor=slurm"], ["--executor=slurm needs SLURM", "srun"]),
        (["--nonsense=1"], ["--nonsense=1", "--help"]),
        (["--sweep_dir=a.flags/runs"], ["--sweep_dir must be a directory that can be created", "a.flags"]),
        (["--", "--run_dir=x"], ["--run_dir", "the sweep sets", "--run_dir=x"]),
    ],
)
def test_a_wrong_call_ends_with_2_and_one_line(tmp_path, monkeypatch, capsys, words, wanted):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "b").mkdir()
    for path in ("a.flags", "b/a.flags"):
        (tmp_path / path).write_text("")
    (tmp_path / "wrong.flags").write_text("--nonsense=2")
    (tmp_path / "binary.flags").write_bytes(b"--seeds=\xff")
    assert sweep.main(["--flagfiles=a.flags", "--sweep_dir=out", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("mbpo_jax: error: ")
    for word in wanted:
        assert word in line


def test_a_missing_extra_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "submitit", None)
    (tmp_path / "a.flags").write_text("")
    assert sweep.main(["--flagfiles=a.flags", "--sweep_dir=out"]) == 2
    assert capsys.readouterr().err == ("mbpo_jax: error: a sweep needs the extra 'sweep': pip install -e '.[sweep]'\n")
