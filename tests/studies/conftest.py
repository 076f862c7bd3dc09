"""A run with all of its checkpoints, for the studies to look at."""

import pytest
import tiny_runs


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory):
    """Directory of a finished MBPO run with the seeds 0 and 3 and checkpoints at 40, 80, 120 and 160. Read only.

    With the usual discount value_bias would play 459 steps after each episode.
    """
    run_dir = tmp_path_factory.mktemp("studied") / "run"
    assert tiny_runs.train(run_dir, seeds="0,3", checkpoints_kept=10, discount=0.9).finished
    return run_dir


@pytest.fixture(scope="session")
def modelless_run(tmp_path_factory):
    """Directory of a finished run that learns no model. Read only."""
    run_dir = tmp_path_factory.mktemp("studied") / "sac"
    assert tiny_runs.train(run_dir, tiny_runs.SAC).finished
    return run_dir
