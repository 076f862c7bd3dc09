import json

import numpy as np
import pytest
import tiny_runs

from mbpo_jax import study as command
from mbpo_jax.studies import penalty


def test_correlations_by_hand():
    rising = np.arange(20.0), np.arange(20.0) ** 3 + 1
    falling = np.arange(20.0), -np.arange(20.0)
    found = penalty.compare({"data": rising, "policy": falling})
    assert found["rank_correlation"]["data"] == pytest.approx(1.0)
    assert found["rank_correlation"]["policy"] == pytest.approx(-1.0)
    assert found["mean_error"] == {"data": np.mean(rising[1]), "policy": -9.5}
    assert [one["penalty"] for one in found["bins"]] == pytest.approx([2 * k + 0.5 for k in range(10)])
    assert found["share_above_error"] == 0.5  # all of those that fall, none of those that rise
    assert penalty.compare({"data": (np.ones(20), np.arange(20.0))})["rank_correlation"]["data"] is None


def test_a_run_on_data_is_judged_by_real_rows(tmp_path, capsys):
    data = tiny_runs.write_data_set(tmp_path / "rows.npz")
    run_dir = tmp_path / "run"
    knobs = tiny_runs.MOPO | {"dataset": data, "num_steps": 20}
    assert tiny_runs.train(run_dir, knobs).finished
    flags = ["penalty", f"--run_dir={run_dir}", f"--output_dir={tmp_path / 'out'}", "--num_rows=30"]
    assert command.main(flags) == 0
    assert "rank correlation" in capsys.readouterr().out
    numbers = json.loads((tmp_path / "out" / "penalty.json").read_text())
    assert numbers["penalties"].keys() == penalty.PENALTIES.keys()
    for found in numbers["penalties"].values():
        assert found["mean_error"].keys() == {"data", "policy", "random actions"}
    assert (tmp_path / "out" / "penalty.png").stat().st_size > 1000
