"""What all tests share."""

import signal
from collections.abc import Callable, Iterator
from typing import Any

import jax
import pytest
import tiny_runs
from jax.experimental.compilation_cache import compilation_cache

STRICT = (
    "test_branched",
    "test_distributions",
    "test_ensemble",
    "test_trajectories",
    "test_networks",
    "test_normalizer",
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


@pytest.fixture(autouse=True)
def strict_jax(request: pytest.FixtureRequest) -> Iterator[None]:
    """Raises where arrays of different rank meet, and where a key is consumed twice."""
    if request.path.stem not in STRICT:
        yield
        return
    with jax.numpy_rank_promotion("raise"), jax.debug_key_reuse(True):
        yield


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
