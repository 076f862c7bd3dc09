import pytest
import tiny_runs


def test_a_path_that_cannot_be_saved_to_is_refused_before_training(tmp_path):
    """As Python reads an umlaut in a locale without one: the first checkpoint failed, when all was computed."""
    run_dir = f"{tmp_path}/f\udcc3\udcbcr"
    with pytest.raises(
        ValueError, match=r"run_dir must be a path in UTF-8, got '.*/f\\udcc3\\udcbcr'; set PYTHONUTF8=1"
    ):
        tiny_runs.train(run_dir, tiny_runs.SAC)
    assert list(tmp_path.iterdir()) == []
