"""Runs that several files look at, made once."""

import pytest
import tiny_runs


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
