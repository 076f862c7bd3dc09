"""Runs that several files look at, made once."""

import jax
import pytest
import tiny_runs
from jax.experimental.compilation_cache import compilation_cache


@pytest.fixture(scope="session", autouse=True)
def _compile_once(tmp_path_factory):
    """Programs that these tests compile are kept for later runs and for other processes."""
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
