"""A simulator in a process of its own, which can hang, exit or crash without taking the run with it.

`SimulatorProcess` is the side of the run; `python -m mbpo_jax.driver.interaction.environment_process` is the other one.
They communicate over a socket pair, one reply per request, in frames: length of the payload (4 bytes), kind (1 byte),
payload. Payloads are raw numbers or JSON, never anything that is executed when read.

No such process is left behind. It ends when the run closes its socket or dies, even while the environment hangs;
on systems other than Linux a hanging one outlives a run that was killed by SIGKILL.
"""

import contextlib
import ctypes
import faulthandler
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import gymnasium
import numpy as np

from mbpo_jax.driver.interaction.simulator import Failure, Simulator, Step
from mbpo_jax.driver.interaction.spaces import Spaces, Unfit, spaces_from_json, spaces_to_json

START, RESET, STEP = 0, 1, 2  # requests: JSON; the seed; the action [A] in its dtype
MADE, STEPPED, UNFIT, FAILED = 3, 4, 5, 6  # replies: JSON, but for STEPPED: OUTCOME and the observation [O]
HEADER = struct.Struct("<IB")
SEED = struct.Struct("<Q")
OUTCOME = struct.Struct("<d??")  # reward, terminal, truncated

START_SECONDS = 60  # an environment may import a lot, once
CLOSE_SECONDS = 5  # to close itself; also how long we wait for the kernel to end it
STDERR = 2  # where prints of the environment go
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class SimulatorProcess:
    """The interface of `Simulator`, and its numbers bit for bit, from another process.

    Raises, besides what `Simulator` does:
      Failure: no reply within `timeout_s` (making it may take START_SECONDS at least), or the process ended.
    """

    def __init__(self, env_id: str, max_episode_steps: int, timeout_s: int, seed: int = 0) -> None:
        """Starts the process and makes the environment there; `seed` as for `Simulator`."""
        self._timeout_s = timeout_s
        try:
            self._connection, self._process = _connect()
        except OSError as error:
            raise Failure(f"could not be started in a process of its own ({error})") from error
        self._connection.settimeout(1.0)  # see _read
        try:
            self.spaces = self._be_made(env_id, max_episode_steps, seed)
        except BaseException:
            self.close()
            raise

    def reset(self, seed: int) -> np.ndarray:
        """Begins an episode in the process, as `Simulator.reset`; returns its first observation [O], float32."""
        return self._outcome(RESET, SEED.pack(seed)).next_obs

    def step(self, action: np.ndarray) -> Step:
        """Takes one step in the process, as `Simulator.step`."""
        return self._outcome(STEP, np.ascontiguousarray(action, self.spaces.action_low.dtype).tobytes())

    def close(self) -> None:
        """Gives the environment CLOSE_SECONDS to close itself, then kills its process."""
        self._connection.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(CLOSE_SECONDS)
        self._kill()

    def _be_made(self, env_id: str, max_episode_steps: int, seed: int) -> Spaces:
        request = {
            "env_id": env_id,
            "max_episode_steps": max_episode_steps,
            "seed": seed,
            "registered": env_id in gymnasium.registry,
            "path": sys.path,
        }
        made = self._ask(START, json.dumps(request).encode(), max(START_SECONDS, self._timeout_s))
        return spaces_from_json(json.loads(made))

    def _outcome(self, kind: int, request: bytes) -> Step:
        payload = self._ask(kind, request, self._timeout_s)
        obs = np.frombuffer(payload, np.float32, offset=OUTCOME.size).copy()
        return Step(obs, *OUTCOME.unpack_from(payload))

    def _ask(self, kind: int, request: bytes, seconds: int) -> bytes:
        """Sends a request and returns the payload of the reply."""
        try:
            _send(self._connection, kind, request)
            reply, payload = _receive(self._connection, seconds)
        except TimeoutError:
            self._kill()
            raise Failure(f"hung (no reply within {seconds} s, see --env_timeout_s; its process was killed)") from None
        except (EOFError, OSError):
            raise Failure(self._how_it_ended()) from None
        if reply == UNFIT:
            raise Unfit(json.loads(payload))
        if reply == FAILED:
            raise Failure(*json.loads(payload))
        return payload

    def _how_it_ended(self) -> str:
        try:
            status = self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._kill()
            return "closed the connection of its process, which was killed,"
        if status >= 0:
            return f"ended its process with exit status {status}"
        return f"lost its process to signal {-status} ({signal.strsignal(-status)})"

    def _kill(self) -> None:
        """Kills the process and those that the environment started, unless it has ended; waits for its end."""
        if self._process.poll() is None:
            with contextlib.suppress(OSError):  # it ended just now
                os.killpg(self._process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the kernel, on a dead disk
                self._process.wait(CLOSE_SECONDS)


def _connect() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Starts a process; returns our end of the connection to it, and the process."""
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            return ours, _STARTER.submit(_start, theirs.fileno()).result()
        except BaseException:
            ours.close()
            raise


def _start(descriptor: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", __name__, str(descriptor), str(os.getpid())]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=STDERR,
        pass_fds=(descriptor,),
        process_group=0,  # Ctrl-C reaches the run alone, and what the environment starts is killed with it
    )


def _block_stop_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


# Starts all these processes, for two reasons. The kernel ends a process with the *thread* that started it (_die_with),
# and this thread lasts as long as the run. And it blocks the stop signals; the new process inherits that, so that none
# hits it before it ignores them.
_STARTER = ThreadPoolExecutor(1, "environment_starter", _block_stop_signals)


def _send(connection: socket.socket, kind: int, payload: bytes) -> None:
    connection.sendall(HEADER.pack(len(payload), kind) + payload)


def _receive(connection: socket.socket, seconds: int | None = None) -> tuple[int, bytes]:
    """Reads the next frame; see `_read`."""
    size, kind = HEADER.unpack(_read(connection, HEADER.size, seconds))
    return kind, _read(connection, size, seconds)


def _read(connection: socket.socket, size: int, seconds: int | None) -> bytes:
    """Reads exactly `size` bytes.

    The socket has a timeout of one second, and its timeouts are counted: if a scheduler suspends the run for hours,
    that counts as one.

    Raises:
      TimeoutError: `seconds` passed; never, if None.
      EOFError: the other side is gone.
    """
    content, passed = bytearray(), 0
    while len(content) < size:
        try:
            received = connection.recv(size - len(content))
        except TimeoutError:
            passed += 1
            if passed == seconds:
                raise
            continue
        if not received:
            raise EOFError
        content += received
    return bytes(content)


# -- the other process -----------------------------------------------------------------------------------------


def main(arguments: list[str]) -> None:
    """Serves one simulator to the process that started this one, until that process closes the connection or dies."""
    descriptor, parent = map(int, arguments)
    _die_with(parent)
    for number in STOP_SIGNALS:  # they are meant for the run, which decides when this process ends
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    faulthandler.enable()  # a crash prints its line on stderr
    with socket.socket(fileno=descriptor) as connection, contextlib.suppress(EOFError, ConnectionError):
        _serve(connection)


def _die_with(parent: int) -> None:
    """Has the kernel kill this process when the parent dies, even if it hangs in C and lets no thread run."""
    if sys.platform == "linux":
        set_death_signal = 1  # PR_SET_PDEATHSIG of linux/prctl.h
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call above
        sys.exit(1)


def _serve(connection: socket.socket) -> None:
    start = json.loads(_receive(connection)[1])
    sys.path[:] = start["path"]  # imports find what the run would find
    try:
        simulator = _make(start["env_id"], start["max_episode_steps"], start["seed"], start["registered"])
    except Unfit as unfit:
        return _send(connection, UNFIT, json.dumps(str(unfit)).encode())
    except Failure as failure:
        return _send_failure(connection, failure)
    with contextlib.closing(simulator):
        _send(connection, MADE, json.dumps(spaces_to_json(simulator.spaces)).encode())
        while True:
            kind, payload = _receive(connection)
            try:
                step = _answer(simulator, kind, payload)
            except Failure as failure:
                _send_failure(connection, failure)
            else:
                _send(connection, STEPPED, OUTCOME.pack(*step[1:]) + step.next_obs.tobytes())


def _make(env_id: str, max_episode_steps: int, seed: int, registered: bool) -> Simulator:
    if registered and env_id not in gymnasium.registry:
        raise Unfit(
            f"env must be module:Id if env_timeout_s is set, got {env_id!r}, which is registered in the run's "
            "own process only"
        )
    return Simulator(env_id, max_episode_steps, seed)


def _answer(simulator: Simulator, kind: int, payload: bytes) -> Step:
    if kind == RESET:
        return Step(simulator.reset(*SEED.unpack(payload)), 0.0, False, False)
    return simulator.step(np.frombuffer(payload, simulator.spaces.action_low.dtype))


def _send_failure(connection: socket.socket, failure: Failure) -> None:
    _send(connection, FAILED, json.dumps([failure.reason, failure.traceback]).encode())


if __name__ == "__main__":
    main(sys.argv[1:])
