"""Random command lines: every one ends with a status that is promised, and what is refused names what was given."""

import contextlib
import io
import multiprocessing
import os
import random
import tempfile
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as TooLong
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import children

from mbpo_jax import options as knobs
from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.driver.config import RunConfig

PROMISED = {0, 2, 3, 4, 5, 6}
USAGE = 2
SECONDS = 180.0
PER_WORKER = 50  # command lines: each leaves compiled programs behind
CHEAP = {  # for knobs that a line does not draw; a run that is accepted takes three steps and learns nothing
    "num_steps": "3",
    "max_episode_steps": "5",
    "eval_episodes": "1",
    "replay_capacity": "100",
    "rollout_batch": "16",
    "hidden_units": "4",
    "num_hidden_layers": "1",
    "model_hidden_units": "4",
    "quiet": "true",
}
TEXTS = ["", " ", "auto", "never", "off", "none", "ünïcödé-☃", "a b", "'", "x" * 5000, "\x01", "../..", "nan", "--env"]
WRONG = [
    "nan",
    "inf",
    "-inf",
    "1e400",
    "1e30",
    "-1",
    "0",
    "1.5",
    "many",
    "",
    "true",
    "1,2",
    ",",
    "0x10",
    "１２",
    "1_000_",
]
ENVS = [
    "InvertedPendulum-v5",
    "Pendulum-v1",
    "Hopper-v5",
    "CartPole-v1",
    "no_such_module:X-v0",
    "No such-v0",
    ":",
    "a:b:c",
]
NEVER_DRAWN = {"distributed"}  # with all that belongs to it, a launch waits for others


def flags(options):
    """Command lines of random knobs, values, files and nonsense."""
    rng, counts, wrong, pool = random.Random(options.seed), Counter(), [], None
    with children.workshop() as folder:
        for index in range(options.count):
            argv = _draw(rng, folder)
            if pool is None or index % PER_WORKER == 0:
                if pool is not None:
                    pool.shutdown()
                pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _settle, (str(folder),))
            try:
                status, stderr = pool.submit(_run, argv).result(SECONDS)
            except TooLong:
                for process in pool._processes.values():
                    process.kill()
                status, stderr, pool = "hung", "", None
            except BrokenProcessPool:
                status, stderr, pool = "died", "", None
            counts[status] += 1
            if complaint := _complaint(argv, status, stderr):
                wrong.append(f"{complaint}: {argv!r}")
                print(wrong[-1][:2000], flush=True)
            if (index + 1) % 100 == 0:
                print(f"{index + 1} command lines: {dict(counts)}", flush=True)
        if pool is not None:
            pool.shutdown()
    for status, count in sorted(counts.items(), key=str):
        print(f"exit status {status}: {count}")
    return children.verdict(not wrong, f"{options.count} command lines, {len(wrong)} of them badly answered")


# -- a command line ------------------------------------------------------------------------------------------------


def _by_flag(config):
    """The knobs of a run of these, by the names of their flags and by full path."""
    found = knobs.tree(RunConfig()) | knobs.tree(config)
    return {name: found[paths[0]] for name, paths in knobs.meanings(found).items() if len(paths) == 1}


READ = {algorithm: _by_flag(member.default_config()) for algorithm, member in REGISTRY.items()}
KNOBS = {name: knob for known in READ.values() for name, knob in known.items() if name not in NEVER_DRAWN}


def _draw(rng, folder):
    """A few knobs, mostly one of them wrong, sometimes something that is no knob; cheap values for the others."""
    algorithm = rng.choice(list(REGISTRY))
    drawn = {"algorithm": algorithm} if rng.random() < 0.9 else {}
    for name in rng.sample(list(KNOBS), rng.randrange(1, 5)):
        if name != "algorithm" or rng.random() < 0.3:
            drawn[name] = _value(rng, KNOBS[name])
    for name, value in CHEAP.items():
        if name in READ[algorithm]:
            drawn.setdefault(name, value)
    drawn.setdefault("run_dir", tempfile.mkdtemp(dir=folder))
    argv = [f"--{name}={value}" for name, value in drawn.items()]
    if rng.random() < 0.25:
        argv.insert(rng.randrange(len(argv) + 1), _nonsense(rng, folder))
    return argv


def _value(rng, knob):
    low, choices = knob.minimum, tuple(knob.choices)
    if rng.random() < 0.35:
        return rng.choice(WRONG)
    if knob.name == "env":
        return rng.choice(ENVS)
    if choices:
        return rng.choice([*choices, "neither", choices[0].upper()])
    if knob.type is bool:
        return rng.choice(["true", "false", "1", "yes", ""])
    if knob.type is str:
        return rng.choice(TEXTS)
    low = 0 if low == -float("inf") else low
    one = lambda: str(rng.choice([low, low + 1, low + 2, low - 1, low + 0.5]))  # noqa: E731
    several = knob.type in (tuple[int, ...], tuple[float, ...])
    return ",".join(one() for _ in range(rng.randrange(1, 6))) if several else one()


def _nonsense(rng, folder):
    """An argument that is no knob."""
    name = rng.choice(list(KNOBS))
    files = {
        "missing": None,
        "itself": f"--flagfile={folder / 'itself'}\n".encode(),
        "binary": bytes(rng.randrange(256) for _ in range(300)),
        "wide": "--num_steps=3\n".encode("utf-16"),
        "empty": b"",
        "wrong": f"--{name}\n--{name}=\n".encode(),
    }
    file = rng.choice(list(files))
    if files[file] is not None:
        (folder / file).write_bytes(files[file])
    return rng.choice(
        [
            f"--flagfile={folder / file}",
            f"--flagfile={folder}",
            "--flagfile=",
            f"--{name}",
            f"--no{name}",
            f"-{name}=3",
            f"--{name[:-1]}=3",
            f"--{name.upper()}=3",
            "--undefok=nonsense",
            "--nonsense=5",
            "--ünïcödé=☃",
            "--=",
            "--",
            "-",
            "stray",
            "",
            "--helpfull",
            "--help=maybe",
        ]
    )


# -- in a process of its own ---------------------------------------------------------------------------------------


def _settle(folder):
    os.environ["XDG_CACHE_HOME"] = str(Path(folder) / "cache_home")
    os.chdir(tempfile.mkdtemp(dir=folder))


def _run(argv):
    """(exit status or "raised", what was printed to stderr)."""
    from mbpo_jax.main import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            return main(argv), err.getvalue()
        except BaseException:
            return "raised", traceback.format_exc()


def _complaint(argv, status, stderr):
    """What is wrong with an answer; None if nothing is."""
    if status not in PROMISED or "Traceback" in stderr:
        return f"{status}: {stderr[-1500:]}"
    if status != USAGE:
        return None
    lines = [line for line in stderr.splitlines() if line.startswith("mbpo_jax: error: ")]
    if len(lines) != 1:
        return f"{len(lines)} lines of error: {stderr[-500:]}"
    names = {argument.lstrip("-").split("=")[0] for argument in argv} | {name for name in argv if name}
    named = [name for name in names if name and name.removeprefix("no").rpartition(".")[2] in lines[0]]
    return None if named or "''" in lines[0] else f"names nothing that was given: {lines[0]}"
