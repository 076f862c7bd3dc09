"""What all tests share."""

import contextlib
import importlib.util
import mmap
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import jax
import pytest
import tiny_runs
from jax.experimental.compilation_cache import compilation_cache

from mbpo_jax.driver import compile_cache

STRICT = (
    "test_branched",
    "test_distributions",
    "test_ensemble",
    "test_trajectories",
    "test_networks",
    "test_normalizer",
    "test_option_sections",
    "test_options",
    "test_permutation",
    "test_replay",
    "test_schedules",
    "test_terminations",
)
"""The files that run without rank promotion and with every key consumed once.

Not all files do. Keys: a fit splits the same key at every minibatch, on purpose (its randomness is index arithmetic on
that key), which JAX's checker reports as reuse; tests of TD3 and DDPG compare what equal keys do. Ranks: `fitting.py`
and `fit_rows.py` broadcast, and so do the algorithms that tests of agents write out.
"""

LONGEST = (
    "test_loop",
    "test_fitting",
    "test_sweep",
    "test_phase_runner",
    "test_mbpo",
    "test_branched",
    "test_processes",
    "test_reproduce",
    "test_reproduce_reports",
    "test_seeds",
    "test_rows",
    "test_policy_shift",
    "test_main",
    "test_main_stopping",
    "test_contract",
    "test_adding_an_algorithm",
    "test_checkpoint",
    "test_offline",
)
"""The files that take longest, which begin first, so that none of them is left to one process in the end."""

COMPILES_FAST = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}
"""With these XLA compiles in a sixth of its usual time, which is most of the time of the tests.

`XLA_FLAGS="--xla_backend_optimization_level=3 --xla_cpu_use_fusion_emitters=true"` tests the code as users run it.
"""
OPTIMISED = {"xla_cpu_use_fusion_emitters": True}


def _known(flags: dict[str, Any]) -> dict[str, Any]:
    """Returns those of the flags that the installed XLA has; any other in XLA_FLAGS ends the process."""
    (library,) = Path(importlib.util.find_spec("jaxlib").origin).parent.glob("libjax_common.*")
    with open(library, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return {name: value for name, value in flags.items() if text.find(name.encode()) >= 0}


def _compile_fast() -> None:
    """Sets XLA_FLAGS for this process and all that it starts. A user's own come last, which wins."""
    fast = " ".join(f"--{name}={str(value).lower()}" for name, value in _known(COMPILES_FAST).items())
    chosen = os.environ.get("XLA_FLAGS", "")
    if fast not in chosen:  # else a process of xdist, which inherits them
        os.environ["XLA_FLAGS"] = f"{fast} {chosen}".strip()


_compile_fast()  # XLA reads them when it compiles for the first time


def pytest_configure(config: pytest.Config) -> None:
    """Has pytest-xdist take files in the order of `LONGEST`; by itself it begins with those of most tests."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Brings the files that take longest to the front."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))


@pytest.fixture(scope="session")
def optimised() -> dict[str, Any]:
    """Compiler options for tests of what is done in place: XLA's own defaults, but for the level.

    XLA decides that before LLVM works: the level changes no line of a program's text and no byte of its memory.
    """
    return _known(OPTIMISED)


@pytest.fixture(params=["eager", "jitted"])
def variant(request: pytest.FixtureRequest) -> Callable[..., Callable[..., Any]]:
    """`variant(fn, **options of jax.jit)` is `fn` as it is, and in a second run of the test `fn` compiled."""
    return jax.jit if request.param == "jitted" else lambda fn, **options: fn


@pytest.fixture(scope="session", autouse=True)
def _own_cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compiled programs do not go into the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache_home")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _compile_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A program that tests of one process compile is compiled once: most of the time of the tests goes there."""
    options = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # jax decides once whether it has one
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module", autouse=True)
def _compile_once_for_all(_compile_once: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Takes programs that other processes of xdist have compiled, and gives them this one's, file by file of tests.

    They cannot write to one directory: jax writes a program in place, so that another would read half of it.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    own, shared = Path(jax.config.jax_compilation_cache_dir), tmp_path_factory.getbasetemp().parent / "compiled"
    shared.mkdir(exist_ok=True)
    _link_new(shared, own)
    yield
    compile_cache._remove_damaged(own)  # by tests that kill processes
    _link_new(own, shared)


def _link_new(source: Path, target: Path) -> None:
    """Links the programs of a directory into another that lacks them."""
    for path in source.glob("*-cache"):
        with contextlib.suppress(FileExistsError):
            os.link(path, target / path.name)


@pytest.fixture(autouse=True)
def strict_jax(request: pytest.FixtureRequest) -> Iterator[None]:
    """Raises where arrays of different rank meet, and where a key is consumed twice."""
    if request.path.stem not in STRICT:
        yield
        return
    with jax.numpy_rank_promotion("raise"), jax.debug_key_reuse(True):
        yield


@pytest.fixture(scope="module", autouse=True)
def _no_names_for_others() -> Iterator[None]:
    """Which files meet in one process of xdist is chance: an environment that one leaves may bear another's name."""
    before = set(gymnasium.registry)
    yield
    left = {name for name in gymnasium.registry if name not in before and "/" not in name}
    assert not left, f"registered and left by this file: {left}; remove them, or give them a namespace"


@pytest.fixture
def hangs_up() -> Iterator[None]:
    """A terminal's end ends processes, as it does by default; under nohup it would not."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session")
def mbpo_run(tmp_path_factory):
    """Directory of a finished MBPO run with the seeds 0, 1 and 2. Read only."""
    run_dir = tmp_path_factory.mktemp("runs") / "mbpo"
    assert tiny_runs.train(run_dir, seeds="0,1,2").finished
    return run_dir


@pytest.fixture(scope="session")
def sac_run(tmp_path_factory):
    """Directory of a finished SAC run with the seed 1. Read only."""
    run_dir = tmp_path_factory.mktemp("runs") / "sac"
    assert tiny_runs.train(run_dir, tiny_runs.SAC, seeds="1").finished
    return run_dir
