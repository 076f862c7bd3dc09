import json
import types

import jax
import numpy as np
import pytest
import tiny_runs

from mbpo_jax import study as command
from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.driver.trained import Trained
from mbpo_jax.studies import penalty
from mbpo_jax.types import Transition


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


@pytest.mark.parametrize("row", ["double_horizon", "sac_svg"])
def test_a_model_of_another_kind_is_refused(row, tmp_path, monkeypatch):
    """One has a variance that is the same for all rows, the other none."""
    entry, algorithm = REGISTRY[row], tiny_runs.build(row)
    shapes = jax.eval_shape(algorithm.init, jax.random.key(0))
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    run = types.SimpleNamespace(algorithm=row, env="Pendulum-v1", dataset="")
    trained = Trained(run, entry.tiny_config(), 0, 80, entry.spec, algorithm, state, None)
    rows = Transition(**{name: np.zeros((20, 4)) for name in ("obs", "next_obs")}, action=np.zeros((20, 2)),
                      reward=np.zeros(20), terminal=np.zeros(20))  # fmt: skip
    monkeypatch.setattr(penalty, "load_trained", lambda *arguments: trained)
    monkeypatch.setattr(penalty.imagination, "check", lambda trained: None)
    monkeypatch.setattr(penalty, "_rows", lambda *arguments: {"data": rows})
    with pytest.raises(ValueError, match=f"must have a model as MBPO has, got another of --algorithm={row}"):
        penalty.study(tmp_path)


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
