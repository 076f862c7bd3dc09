"""Files of policies: what is in them, what is refused, and the task that a policy was trained for."""

import io
import json
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs
from saved_policies import npy, observations, outcome

from mbpo_jax import terminations
from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.driver.config import StorageFailure
from mbpo_jax.driver.interaction.policy import load_policy, policy_path, save_policy

# -- files -------------------------------------------------------------------------------------------------------


def test_a_saved_policy_is_plain_arrays_with_what_acting_needs(mbpo_run):
    with np.load(policy_path(mbpo_run, 1), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    assert {"action_low", "action_high", "obs_dim"} < set(arrays)
    assert all(name.startswith("actor/") for name in arrays.keys() - {"action_low", "action_high", "obs_dim"})
    assert (arrays["action_low"].tolist(), arrays["action_high"].tolist(), arrays["obs_dim"]) == ([-3.0], [3.0], 4)
    assert not any("critic" in name or "nu" in name.split("/") for name in arrays)  # only what acting reads


def test_a_policy_is_written_whole_or_not_at_all(copy):
    path = policy_path(copy, 0)
    before = path.read_bytes()
    with tiny_runs.full_disk(1000), pytest.raises(OSError):
        save_policy(path, {"w": np.zeros(10_000)}, 4, np.zeros(1), np.ones(1))
    assert path.read_bytes() == before
    save_policy(path, {"w": np.zeros(10_000)}, 4, np.zeros(1), np.ones(1))
    assert path.read_bytes() != before
    assert {p.name for p in path.parent.iterdir()} == {f"seed_{s}{b}.npz" for s in range(3) for b in ("", "_best")}


def test_a_missing_run_or_seed_is_named(copy, tmp_path):
    with pytest.raises(StorageFailure, match=r"cannot read .*/nowhere/config.json"):
        load_policy(tmp_path / "nowhere")
    with pytest.raises(StorageFailure, match=r"cannot load a policy from .*/policies/seed_8.npz"):
        load_policy(copy, 8)
    policy_path(copy, 2, best=True).unlink()
    with pytest.raises(StorageFailure, match=r"cannot load a policy from .*/policies/seed_2_best.npz"):
        load_policy(copy, 2, best=True)
    load_policy(copy, 2)


def npz(arrays):
    made = io.BytesIO()
    np.savez(made, **arrays)
    return made.getvalue()


def archive(**members):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return made.getvalue()


class Trap:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path):
        self._path = str(path)

    def __reduce__(self):
        return Path.touch, (Path(self._path),)


def damages(good, arrays, marker):
    """Name -> bytes that are no policy of this run."""
    kernel = next(name for name in arrays if name.endswith("kernel"))
    without_bounds = {name: value for name, value in arrays.items() if name != "action_low"}
    without_kernel = {name: value for name, value in arrays.items() if name != kernel}
    trap = np.array([Trap(marker)], dtype=object)
    return {
        "empty": b"",
        "text": b"this is no archive",
        "cut in half": good[: len(good) // 2],
        "cut at the end": good[:-3],
        "one array": npy(np.zeros(3)),
        "a pickle": npy(trap, allow_pickle=True),
        "a pickle inside": archive(**{f"{kernel}.npy": npy(trap, allow_pickle=True)}),
        "objects inside": npz(arrays | {kernel: np.array([None, 1], dtype=object)}),
        "an archive of something else": archive(**{"readme.txt": b"hello"}),
        "no bounds": npz(without_bounds),
        "no kernel": npz(without_kernel),
        "another kernel": npz(arrays | {kernel: np.zeros((2, 2), np.float32)}),
        "a kernel that would broadcast": npz(arrays | {kernel: arrays[kernel][:1]}),
        "doubles": npz(arrays | {kernel: arrays[kernel].astype(np.float64)}),
        "another algorithm's": npz({n: a for n, a in arrays.items() if "/" not in n} | {"actor/plan": np.zeros(3)}),
        "another array": npz(arrays | {"actor/extra/kernel": np.zeros(3, np.float32)}),
        "bounds that differ": npz(arrays | {"action_low": np.zeros(2, np.float32)}),
        "a matrix of bounds": npz(arrays | {n: np.zeros((1, 1), np.float32) for n in ("action_low", "action_high")}),
        "several sizes": npz(arrays | {"obs_dim": np.array([4, 4])}),
        "another size": npz(arrays | {"obs_dim": np.array(5)}),
        "a negative size": npz(arrays | {"obs_dim": np.array(-4)}),
        "a size that is no whole number": npz(arrays | {"obs_dim": np.array(4.0)}),
    }


def test_files_that_are_no_policy_are_refused_by_name_and_run_nothing(copy, tmp_path):
    path, marker = policy_path(copy, 1), tmp_path / "marker"
    good = path.read_bytes()
    with np.load(path) as file:
        arrays = dict(file)
    wrong = damages(good, arrays, marker)
    for damage, data in wrong.items():
        path.write_bytes(data)
        assert str(outcome(copy)).startswith(f"cannot load a policy from {path}: "), damage
    assert not marker.exists()
    np.load(io.BytesIO(wrong["a pickle"]), allow_pickle=True)
    assert marker.exists()  # the trap does work
    path.write_bytes(good)
    load_policy(copy, 1)


# -- the task that a policy was trained for ----------------------------------------------------------------------


def rewritten(run_dir, **changes):
    """Changes config.json: sections, or knobs of sections."""
    path = run_dir / "config.json"
    value = json.loads(path.read_text())
    for section, knobs in changes.items():
        value[section] = value[section] | knobs
    path.write_text(json.dumps(value))


def test_a_policy_of_a_run_that_kept_no_task_loads_from_its_arrays(copy):
    obs = observations(3, 4)
    before = [load_policy(copy)(o) for o in obs]
    value = json.loads((copy / "config.json").read_text())
    del value["task"]
    (copy / "config.json").write_text(json.dumps(value))
    tiny_runs.assert_same_bits([load_policy(copy)(o) for o in obs], before)


@pytest.mark.parametrize(
    "task", [{"obs_dim": 5}, {"action_low": [-3.5]}, {"action_high": [3.0, 3.0]}, {"action_low": "none"}]
)
def test_a_policy_of_other_spaces_than_the_run_kept_is_refused(copy, task):
    rewritten(copy, task=task)
    with pytest.raises(StorageFailure, match="cannot load a policy from .*seed_0.npz: ValueError"):
        load_policy(copy)


def planning(build):
    """An algorithm whose actions depend on where episodes end, as those of a planner do."""

    def built(config, spec):
        algorithm = build(config, spec)

        def act(key, actor, carry, obs, explore):
            action, carry = algorithm.act(key, actor, carry, obs, explore)
            ends = spec.termination_fn(obs[None], action[None], obs[None])[0]
            return jnp.where(ends, 1.0, action), carry

        return algorithm._replace(act=act)

    return built


def test_a_rule_of_ones_own_is_asked_for_where_a_policy_plans_with_it_and_nowhere_else(copy, monkeypatch):
    obs, named = observations(1, 4)[0], {"algorithm": {"termination_fn": "no_such_module:ends"}}
    known = load_policy(copy).normalized_action(obs)
    rewritten(copy, **named)
    tiny_runs.assert_same_bits(load_policy(copy).normalized_action(obs), known)  # it looks at observations alone
    entry = REGISTRY["mbpo"]
    monkeypatch.setitem(REGISTRY, "mbpo", entry._replace(build=planning(entry.build)))
    with pytest.raises(ValueError, match="termination_fn must be given .*'no_such_module:ends'"):
        load_policy(copy)
    ends, never = (lambda obs, action, next_obs: next_obs[:, 0] < 1e9), terminations.never
    assert load_policy(copy, termination_fn=ends).normalized_action(obs) == 1.0
    tiny_runs.assert_same_bits(load_policy(copy, termination_fn=never).normalized_action(obs), known)


def test_a_planning_policy_ends_imagined_episodes_by_the_rule_that_is_known(copy, monkeypatch):
    entry = REGISTRY["mbpo"]
    monkeypatch.setitem(REGISTRY, "mbpo", entry._replace(build=planning(entry.build)))
    fallen, upright = np.float32([0.0, 1.0, 0.0, 0.0]), np.zeros(4, np.float32)
    loaded = load_policy(copy)  # of an InvertedPendulum
    assert loaded.normalized_action(fallen) == 1.0
    assert loaded.normalized_action(upright) != 1.0
