"""Several processes share one run. The commands are those of docs/clusters.md, on this machine."""

import json
import pathlib
import re
import shlex
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
import tiny_runs

import mbpo_jax
from mbpo_jax import main as command_line
from mbpo_jax.launch import flags, processes, rendezvous

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "clusters.md").read_text()
STOPPED_AT_100 = """
import os, signal, sys
from mbpo_jax import main
from mbpo_jax.driver.record import Record
write_lines = Record.write_lines
def write_lines_and_stop(self, writer, step, *rest):
    write_lines(self, writer, step, *rest)
    if step == 100:
        os.kill(os.getpid(), signal.SIGTERM)
Record.write_lines = write_lines_and_stop
sys.exit(main.main(sys.argv[1:]))
"""
RUN = tiny_runs.SAC | {"num_steps": 160}  # what is learnt is nothing to how seeds are shared
LAUNCH = {"distributed": "true", "coordinator": "127.0.0.1:1", "num_processes": 2, "process_id": 0}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def page_commands(run_dir):
    """What the page starts, with a run of a second and a port that is free."""
    block = re.search(r"<!-- two processes -->\n```bash\n(.*?)```", PAGE, re.DOTALL).group(1)
    flagfile = pathlib.Path(run_dir).parent / "tiny.flags"
    knobs = {name: value for name, value in RUN.items() if name != "quiet"}
    flagfile.write_text("\n".join(f"--{name}={value}" for name, value in knobs.items()))
    for old, new in (
        ("experiments/inverted_pendulum.flags", flagfile),
        ("runs/shared", run_dir),
        ("127.0.0.1:12321", f"127.0.0.1:{free_port()}"),
    ):
        assert block.count(old) == 2
        block = block.replace(old, str(new))
    *commands, wait = [line.removesuffix(" &") for line in block.replace("\\\n", "").splitlines()]
    assert wait == "wait"
    return [shlex.split(command)[1:] for command in commands]


def run_together(commands, **environments):
    """Starts Python processes at once; returns (exit status, standard output, standard error) of each."""
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "error", *map(str, command)],
            env=tiny_runs.process_environment(**{name: values[i] for name, values in environments.items()}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i, command in enumerate(commands)
    ]
    try:
        texts = [process.communicate(timeout=300) for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, *pair) for process, pair in zip(started, texts, strict=True)]


def assert_is_the_run_of_one_process(run_dir, one_process):
    assert tiny_runs.lines(run_dir) == tiny_runs.lines(one_process)
    for index, seeds in enumerate(((0, 2), (1,))):
        ours, wanted = tiny_runs.saved(run_dir / f"part_{index}_of_2"), tiny_runs.saved(one_process)
        assert set(ours.arrays) == {str(seed) for seed in seeds}
        for seed in seeds:
            tiny_runs.assert_same_bits(ours.arrays[str(seed)], wanted.arrays[str(seed)])
    for path in (one_process / "policies").iterdir():
        assert (run_dir / "policies" / path.name).read_bytes() == path.read_bytes(), path.name
    ours, wanted = (json.loads((path / "summary.json").read_text()) for path in (run_dir, one_process))
    assert {name: ours[name] for name in ("algorithm", "env", "step", "num_steps", "seeds")} == {
        name: wanted[name] for name in ("algorithm", "env", "step", "num_steps", "seeds")
    }
    assert list(ours["seeds"]) == ["0", "1", "2"]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    """Directory of the same run in one process."""
    run_dir = tmp_path_factory.mktemp("one") / "run"
    assert tiny_runs.train(run_dir, RUN, seeds="0,1,2").finished
    return run_dir


@pytest.fixture(scope="module")
def shared(tmp_path_factory, one_process):
    """(run directory, what the two processes did) of a run that went through; `one_process` compiled its programs."""
    run_dir = tmp_path_factory.mktemp("processes") / "run"
    return run_dir, run_together(page_commands(run_dir))


# -- runs that go through ------------------------------------------------------------------------------------------


def test_two_processes_make_the_run_that_one_makes(shared, one_process):
    run_dir, ended = shared
    assert [status for status, _, _ in ended] == [0, 0], ended
    assert_is_the_run_of_one_process(run_dir, one_process)
    for seed in (0, 1, 2):
        policy = mbpo_jax.load_policy(run_dir, seed=seed, best=True)
        assert policy(np.zeros(11, np.float32)).shape == (3,)
    assert (run_dir / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in run_dir.iterdir()} == {
        *("part_0_of_2", "part_1_of_2", "config.json", "metrics.jsonl", "policies", "curves.png", "summary.json"),
    }


def test_each_process_tells_of_its_seeds_and_the_last_one_of_all(shared):
    run_dir, ended = shared
    for index, seeds in enumerate(("0, 2", "1")):
        _, _, err = ended[index]
        assert f"mbpo_jax: process {index} of 2 trains seeds {seeds}\n" in err
        noted = set(re.findall(r"seed (\d)  evaluation return", err))
        assert noted == set(seeds.split(", "))
    outputs = [out for _, out, _ in ended]
    whole = [out for out in outputs if f"curve {run_dir}/curves.png" in out]
    assert 1 <= len(whole) <= 2  # two, if they finished at the same moment
    for out in outputs:
        if out in whole:
            assert re.findall(r"  seed (\d): final return", out) == ["0", "1", "2"]
        else:
            assert f"curve {run_dir}/part_" in out


def test_a_part_is_a_run_of_its_own(shared, tmp_path):
    part = tmp_path / "part_1_of_2"
    shutil.copytree(shared[0] / "part_1_of_2", part)
    result = tiny_runs.train(part, RUN, seeds="1", num_steps=165)
    assert result.finished
    assert result.summary["step"] == 165


def test_a_stopped_process_leaves_the_other_alone_and_both_continue(tmp_path, one_process):
    run_dir = tmp_path / "run"
    first, second = page_commands(run_dir)
    (ok, _, err), (stopped, _, reason) = run_together([first, ["-c", STOPPED_AT_100, *second[2:]]])
    assert (ok, stopped) == (0, 3), (err, reason)
    assert f"this part is finished; the process that finishes last gathers all parts in {run_dir}\n" in err
    assert reason.endswith("mbpo_jax: stopped and saved; run the same command again to continue\n")
    assert {path.name for path in run_dir.iterdir()} == {"part_0_of_2", "part_1_of_2", "config.json"}
    assert json.loads((run_dir / "part_1_of_2" / "summary.json").read_text())["step"] == 100
    # The same run, as a job of SLURM: the place of each process is found in its environment.
    detected = [command[: command.index("--distributed") + 1] for command in (first, second)]
    ended = run_together(
        detected,
        SLURM_JOB_ID=["7", "7"],
        SLURM_STEP_NODELIST=["127.0.0.1", "127.0.0.1"],
        SLURM_NTASKS=["2", "2"],
        SLURM_PROCID=["0", "1"],
        SLURM_LOCALID=["0", "1"],
        JAX_COORDINATOR_PORT=[str(free_port())] * 2,
    )
    assert [status for status, _, _ in ended] == [0, 0], ended
    assert_is_the_run_of_one_process(run_dir, one_process)


def test_every_command_of_the_page_parses(monkeypatch):
    monkeypatch.chdir(ROOT)
    section = PAGE[PAGE.index("## Several processes") :].replace("\\\n", "")
    commands = re.findall(r"python -m mbpo_jax\.main ([^&\"\n]*)", section)
    assert len(commands) == 4  # SLURM, TPU pod, two processes
    for command in commands:
        run, _ = flags.parse(shlex.split(command))
        assert run.distributed


# -- what is refused -----------------------------------------------------------------------------------------------


def refusal(capsys, *argv):
    assert command_line.main([str(word) for word in argv]) == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"distributed": "false"}, ["--coordinator must come with distributed", "'127.0.0.1:1' without distributed"]),
        ({"coordinator": ""}, ["--num_processes must come with", "num_processes=2 without coordinator"]),
        ({"process_id": -1}, ["--coordinator must come with", "without process_id"]),
        ({"num_processes": 0}, ["--coordinator must come with", "without num_processes"]),
        ({"process_id": 2}, ["--process_id must be less than num_processes, which is 2, got 2"]),
        ({"coordinator": "host"}, ["--coordinator must be host:port, got 'host'"]),
        ({"coordinator": "host:99999"}, ["--coordinator must be host:port, got 'host:99999'"]),
        ({"seeds": 3}, ["seeds must be 2 or more, one for each process, got (3,)"]),
        ({}, ["distributed must be False in a process that has used jax before"]),
    ],
)
def test_a_wrong_launch_is_refused(capsys, tmp_path, changes, words):
    knobs = LAUNCH | {"coordinator": f"127.0.0.1:{free_port()}", "seeds": "0,1,2"} | changes
    if "distributed" in changes:
        knobs["coordinator"] = "127.0.0.1:1"
    line = refusal(capsys, *tiny_runs.argv(tmp_path / "run", **knobs))
    for word in words:
        assert word in line
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_is_taken_is_refused(capsys, tmp_path):
    with socket.create_server(("", 0)) as server:
        knobs = LAUNCH | {"coordinator": f"127.0.0.1:{server.getsockname()[1]}"}
        line = refusal(capsys, *tiny_runs.argv(tmp_path / "run", seeds="0,1,2", **knobs))
    assert "coordinator must be host:port with a free port, got '127.0.0.1:" in line


def test_no_launch_and_another_number_of_processes_are_refused(shared):
    run_dir, _ = shared
    config = (run_dir / "config.json").read_bytes()
    (first, _) = page_commands(run_dir)
    alone = [*first, "--num_processes=1"]
    undetected = first[: first.index("--distributed") + 1]
    (status, _, err), (status_undetected, _, err_undetected) = run_together([alone, undetected])
    assert (status, status_undetected) == (2, 2), (err, err_undetected)
    assert "num_processes was 2, is 1" in err
    assert "distributed must come with coordinator, num_processes and process_id" in err_undetected
    assert (run_dir / "config.json").read_bytes() == config


@pytest.fixture
def met(monkeypatch):
    """This process is number 0 of 2."""
    monkeypatch.setattr(rendezvous, "_meet", lambda *given: (0, 2, "127.0.0.1:1"))


def test_other_seeds_and_a_run_without_processes_are_refused(met, shared, capsys):
    run_dir, _ = shared
    others = tiny_runs.argv(run_dir, RUN, seeds="0,1,3", **LAUNCH)
    assert "seeds was (0, 1, 2), is (0, 1, 3)" in refusal(capsys, *others)
    assert "num_processes was 2, is 0" in refusal(capsys, *tiny_runs.argv(run_dir, RUN, seeds="0,1,2"))


def test_what_cannot_begin_leaves_nothing(met, capsys, tmp_path):
    line = refusal(capsys, *tiny_runs.argv(tmp_path / "run", env="CartPole-v1", seeds="0,1,2", **LAUNCH))
    assert "env must have continuous (Box) actions" in line
    assert list(tmp_path.iterdir()) == []


def test_a_jax_of_several_processes_is_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(processes.jax, "process_count", lambda: 4)
    line = refusal(capsys, *tiny_runs.argv(tmp_path / "run"))
    assert "needs a jax that does not span processes, got one of 4 processes" in line
    assert "TPU_PROCESS_BOUNDS=1,1,1" in line
