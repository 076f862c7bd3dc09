import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import gymnasium
import numpy as np
import odd_worlds
import pytest
from walked import assert_healthy, assert_same, play, random_actions, walk

from mbpo_jax.driver.config import Broken, NotFinite
from mbpo_jax.driver.interaction import environment_process
from mbpo_jax.driver.interaction.environment import Environment, Limits

TIMEOUT_S = 20  # of environments that answer: two cores may be busy with something else


def processes():
    """{pid: (pid of its parent, state, arguments)} of all there are; the dead have no arguments."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended just now
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            arguments = (folder / "cmdline").read_bytes().decode().split("\0")[:-1]
            found[int(folder.name)] = (int(parent), state, tuple(arguments))
    return found


def children():
    return {pid for pid, (parent, _, _) in processes().items() if parent == os.getpid()}


def running(pid):
    return processes().get(pid, (0, "Z", ()))[1] != "Z"


def wait_until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def _no_process_is_left():
    before = children()
    yield
    assert children() <= before  # zombies included
    assert odd_worlds.helper_of(os.getpid()) not in {arguments for _, _, arguments in processes().values()}


@pytest.fixture
def make():
    with contextlib.ExitStack() as stack:

        def open_environment(env_id, seed=17, timeout_s=TIMEOUT_S, **kwargs):
            env = Environment(env_id, seed, timeout_s=timeout_s, **kwargs)
            stack.callback(env.close)
            return env

        yield open_environment


def pid_of(env):
    return env._simulator._process.pid


@pytest.mark.parametrize("env_id", ["InvertedPendulum-v5", "Hopper-v5", "odd_worlds:odd/World-v0"])
def test_a_process_gives_the_same_numbers_bit_for_bit(make, env_id):
    inside, outside = make(env_id, timeout_s=0), make(env_id)
    assert pid_of(outside) in children()
    assert (outside.obs_dim, outside.action_dim) == (inside.obs_dim, inside.action_dim)
    for ours, theirs in ((outside.action_low, inside.action_low), (outside.action_high, inside.action_high)):
        assert (ours.dtype, ours.tolist()) == (theirs.dtype, theirs.tolist())
    actions = random_actions(200, inside.action_dim)
    seen, expected = walk(outside, outside.reset(), actions), walk(inside, inside.reset(), actions)
    assert_same(seen, expected)
    assert seen[-1][2] > 3  # several episodes
    assert {seen[0].dtype, seen[1][0].next_obs.dtype} == {np.dtype(np.float32)}
    assert [type(value) for value in seen[1][0][1:]] == [float, bool, bool]
    obs = outside.repeat(0, actions[:3], 1.5)
    np.testing.assert_array_equal(obs, seen[3][0].next_obs)


@pytest.mark.parametrize(
    ("env_id", "max_episode_steps"),
    [
        ("CartPole-v1", 0),
        ("NoSuchThing-v0", 0),
        ("no_such_module:Thing-v0", 0),
        ("odd_worlds:odd/DictObs-v0", 0),
        ("odd_worlds:odd/Unlimited-v0", 0),
    ],
)
def test_what_does_not_fit_is_refused_in_the_same_words(env_id, max_episode_steps):
    said = []
    for timeout_s in (0, TIMEOUT_S):
        with pytest.raises(ValueError) as caught:
            Environment(env_id, 0, max_episode_steps=max_episode_steps, timeout_s=timeout_s)
        said.append(str(caught.value))
    assert said[0] == said[1]


def test_an_id_that_only_this_process_knows_is_told_what_to_do():
    gymnasium.register("OnlyHere-v0", entry_point="odd_worlds:World", max_episode_steps=5)
    try:
        Environment("OnlyHere-v0", 0).close()
        with pytest.raises(ValueError, match="env must be module:Id if env_timeout_s is set, got 'OnlyHere-v0'"):
            Environment("OnlyHere-v0", 0, timeout_s=TIMEOUT_S)
    finally:
        del gymnasium.registry["OnlyHere-v0"]


def test_the_process_imports_no_jax_and_what_it_prints_goes_to_standard_error(make, capfd):
    inside, outside = make("odd_worlds:odd/Modules-v0", timeout_s=0), make("odd_worlds:odd/Modules-v0")
    inside.reset()
    assert inside.step(np.zeros(2)).reward == 1.0  # the world does see it
    capfd.readouterr()
    outside.reset()
    assert [outside.step(np.zeros(2)).reward for _ in range(5)] == [0.0] * 5
    outside.close()  # what it prints is written at the latest now
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.count("printed by a world\n") == printed.err.count("written by a world\n") == 5


def test_an_environment_that_raises_there_is_shown_with_its_own_traceback_and_made_anew(make):
    env = make("odd_worlds:odd/Stuck-v0", limits=Limits(0, 1))
    old = pid_of(env)
    with pytest.raises(Broken) as caught:
        play(env)
    trace = caught.value.environment_traceback
    assert str(caught.value) == (
        "environment odd_worlds:odd/Stuck-v0 raised RuntimeError: the gripper is stuck at step 3 of episode 1 (seed 17)"
    )
    assert caught.value.__notes__ == [trace]
    assert "odd_worlds.py" in trace and "in get_stuck" in trace and "environment_process.py" not in trace
    obs = env.recover(caught.value)
    assert (env.restarts, env.nonfinite_episodes) == (1, 0)
    assert pid_of(env) != old and not running(old)
    assert_healthy(env, obs, 2)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("Exits", "raised SystemExit: 3 at step 3 of"),
        ("Dies", "ended its process with exit status 7 at step 3 of"),
        ("Crashes", "lost its process to signal 11 (Segmentation fault) at step 3 of"),
        ("Hangs", "hung (no reply within 1 s, see --env_timeout_s; its process was killed) at step 3 of"),
        ("HangsAtReset", "hung (no reply within 1 s, see --env_timeout_s; its process was killed) at step 0 of"),
        ("HangsWithHelper", "hung (no reply within 1 s, see --env_timeout_s; its process was killed) at step 3 of"),
        ("Mute", "ended its process with exit status 1 at step 3 of"),
        (
            "OtherShape",
            "returned an observation of 4 numbers where its space has 4 (shape (2, 2), not (4,)) at step 3 of",
        ),
    ],
)
def test_whatever_breaks_in_the_process_is_reported_with_its_place_and_ends_there(make, capfd, name, what):
    timeout_s = 1 if name.startswith("Hangs") else TIMEOUT_S
    env = make(f"odd_worlds:odd/{name}-v0", timeout_s=timeout_s, limits=Limits(0, 1))
    old = pid_of(env)
    with pytest.raises(Broken) as caught:
        play(env)
    assert str(caught.value).startswith(f"environment odd_worlds:odd/{name}-v0 {what} episode 1 (seed 17)")
    obs = env.recover(caught.value)
    assert env.restarts == 1 and not running(old)
    assert_healthy(env, obs, 2, num_steps=4)  # where it breaks once more is not far
    if name == "Crashes":
        assert "Segmentation fault" in (printed := capfd.readouterr().err)
        assert "in crash" in printed  # the line is told, if only on standard error


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("StuckWhenMade", "raised RuntimeError: the gripper is stuck"),
        ("DiesWhenMade", "ended its process with exit status 7"),
        ("HangsWhenMade", "hung (no reply within 2 s, see --env_timeout_s; its process was killed)"),
    ],
)
def test_what_breaks_while_it_is_made_leaves_no_process(monkeypatch, name, what):
    if name.startswith("Hangs"):
        monkeypatch.setattr(environment_process, "START_SECONDS", 2)
    with pytest.raises(Broken) as caught:
        Environment(f"odd_worlds:odd/{name}-v0", 3, timeout_s=1)
    assert str(caught.value).startswith(f"environment odd_worlds:odd/{name}-v0 {what} while it was made (seed 3)")


def test_a_machine_that_gives_no_process_is_reported(monkeypatch):
    def start(descriptor):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(environment_process, "_start", start)
    with pytest.raises(
        Broken, match=r"could not be started in a process of its own \(.*unavailable\) while it was made"
    ):
        Environment("odd_worlds:odd/World-v0", 3, timeout_s=1)


def test_making_again_and_again_leaks_nothing(make):
    env = make("odd_worlds:odd/World-v0", limits=Limits(0, 4))
    descriptors = set(os.listdir("/proc/self/fd"))
    for _ in range(4):
        env.recover(Broken("planted"))
        assert set(os.listdir("/proc/self/fd")) == descriptors


def test_making_may_take_longer_than_a_step(make, monkeypatch):
    monkeypatch.setattr(environment_process, "_start", _slowly(environment_process._start))
    env = make("odd_worlds:odd/World-v0", timeout_s=1)
    assert_healthy(env, env.begin(), 0)


def _slowly(start):
    def start_and_pause(descriptor):
        process = start(descriptor)
        process.send_signal(signal.SIGSTOP)
        threading.Timer(1.5, process.send_signal, (signal.SIGCONT,)).start()
        return process

    return start_and_pause


def test_numbers_that_are_not_finite_need_no_new_process(make):
    env = make("odd_worlds:odd/NanReward-v0", limits=Limits(1, 0))
    old = pid_of(env)
    with pytest.raises(NotFinite, match=r"reward nan, at step 4 of episode 1 \(seed 17\)") as caught:
        play(env)
    assert_healthy(env, env.recover(caught.value), 2)
    assert (env.nonfinite_episodes, env.restarts, pid_of(env)) == (1, 0, old)


def test_the_limit_holds_for_processes(make):
    with pytest.raises(Broken, match="--env_restarts=1 allows no more") as caught:
        make("odd_worlds:odd/StuckFirst-v0", limits=Limits(9, 1)).begin()
    assert "in get_stuck" in caught.value.environment_traceback


def test_signals_to_stop_are_for_the_run_alone(make, monkeypatch):
    start = environment_process._start

    def start_and_signal(descriptor):
        process = start(descriptor)
        for number in environment_process.STOP_SIGNALS:  # long before it could say that it ignores them
            process.send_signal(number)
        return process

    monkeypatch.setattr(environment_process, "_start", start_and_signal)
    env = make("odd_worlds:odd/World-v0")
    obs = env.begin()
    for number in environment_process.STOP_SIGNALS:
        os.kill(pid_of(env), number)
    assert_healthy(env, obs, 0)
    assert os.getpgid(pid_of(env)) != os.getpgid(0)  # nor does a terminal's Ctrl-C reach it


def test_a_process_outlives_the_thread_that_asked_for_it(make):
    made = []
    thread = threading.Thread(target=lambda: made.append(make("odd_worlds:odd/World-v0")))
    thread.start()
    thread.join()
    time.sleep(0.1)
    assert_healthy(made[0], made[0].begin(), 0)


def test_closing_ends_the_process_whatever_state_it_is_in(make, monkeypatch):
    monkeypatch.setattr(environment_process, "CLOSE_SECONDS", 0.3)
    fine, stopped, dead = (make("odd_worlds:odd/World-v0") for _ in range(3))
    os.kill(pid_of(stopped), signal.SIGSTOP)
    os.kill(pid_of(dead), signal.SIGKILL)
    for env in (fine, stopped, dead):
        pid = pid_of(env)
        env.close()
        env.close()
        assert not running(pid)


def test_a_run_that_is_killed_takes_a_hanging_environment_with_it(tmp_path):
    script = (
        "import numpy as np\n"
        "from mbpo_jax.driver.interaction.environment import Environment\n"
        "env = Environment('odd_worlds:odd/Hangs-v0', 0, timeout_s=1000)\n"
        "print(env._simulator._process.pid, flush=True)\n"
        "for _ in range(2):\n"
        "    env.reset()\n"
        "    for _ in range(5): env.step(np.zeros(2))\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[1],  # odd_worlds
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with run:
        pid = int(run.stdout.readline())
        assert run.stderr.readline() == "a world hangs\n"
        assert running(pid)
        run.kill()
    wait_until(lambda: not running(pid))


def test_seconds_without_a_byte_are_counted_to_the_limit():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0.05)  # a short second
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            environment_process._read(ours, 1, 4)
        assert 0.2 <= time.monotonic() - began < 2.0
        threading.Timer(0.12, theirs.sendall, (b"abc",)).start()
        assert environment_process._read(ours, 2, 40) == b"ab"
        theirs.close()
        with pytest.raises(EOFError):
            environment_process._read(ours, 2, 40)  # one byte and then the end
