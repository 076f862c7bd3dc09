import dataclasses
import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_runs

from mbpo_jax import options
from mbpo_jax.agents.ddpg import DdpgConfig
from mbpo_jax.agents.sac import SacConfig
from mbpo_jax.agents.td3 import Td3Config
from mbpo_jax.algorithms import REGISTRY, Entry
from mbpo_jax.algorithms.mbpo import MbpoConfig
from mbpo_jax.algorithms.model_free import ModelFreeConfig
from mbpo_jax.driver.config import RESUMABLE_CHANGES, RunConfig, StorageFailure
from mbpo_jax.driver.storage import run_json
from mbpo_jax.driver.storage.checkpoint import Checkpoints
from mbpo_jax.driver.storage.run_json import SavedConfig, check_same, read_config, write_config, write_json
from mbpo_jax.launch import flags
from mbpo_jax.models.gaussian import GaussianConfig

RUN = RunConfig(env="Hopper-v5", seeds=(3, 1), num_steps=77, run_dir="somewhere", quiet=True)
KNOBS = MbpoConfig(
    rollout_length_schedule=(1, 2, 3, 4),
    real_fraction=0.1,
    model=GaussianConfig(num_members=9, model_weight_decays=(1e-4, 0.1 + 0.2)),
    agent=SacConfig(target_entropy=-0.05),
)


def written(run_dir, run=RUN, knobs=KNOBS):
    write_config(run_dir, run, knobs)
    return json.loads((run_dir / "config.json").read_text())


def names(value):
    return {name for key, item in value.items() for name in (names(item) if isinstance(item, dict) else [key])}


# -- config.json -------------------------------------------------------------------------------------------------


def test_config_has_every_resolved_value(tmp_path):
    value = written(tmp_path)
    assert set(value) == {"run", "algorithm", "versions", "commit", "device"}
    assert value["run"] == dataclasses.asdict(RUN) | {"seeds": [3, 1]}
    assert (value["run"]["algorithm"], value["run"]["eval_episodes"]) == ("mbpo", 5)  # defaults are there too
    knobs = dataclasses.asdict(KNOBS)
    knobs["rollout_length_schedule"], knobs["model"]["model_weight_decays"] = [1, 2, 3, 4], [1e-4, 0.1 + 0.2]
    knobs["agent"]["choice"] = "sac"
    assert value["algorithm"] == knobs
    assert names(value["run"]) | names(value["algorithm"]) == names(dataclasses.asdict(RUN)) | names(knobs)


def test_config_says_what_computed(tmp_path):
    value = written(tmp_path)
    assert value["versions"]["python"] == platform.python_version()
    for package in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "gymnasium", "mujoco", "numpy"):
        assert value["versions"][package] == importlib.metadata.version(package)
    assert value["device"] == {
        "backend": jax.default_backend(),
        "kinds": sorted({d.device_kind for d in jax.devices()}),
    }


def test_config_has_the_commit_of_the_checkout(tmp_path):
    commit, root = written(tmp_path)["commit"], Path(run_json.__file__).parents[4]
    if not (root / ".git").exists():
        assert commit is None
        return
    command = ["git", "-C", root, "rev-parse", "--short=12", "HEAD"]
    head = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert commit.removesuffix("-dirty").endswith(head)


OLD_ROWS = ("ddpg", "mbpo", "mbpo_ddpg", "mbpo_td3", "sac", "td3")  # there before agents were chosen


@pytest.mark.parametrize("algorithm", sorted(REGISTRY))
def test_a_config_comes_back(tmp_path, algorithm):
    run = dataclasses.replace(RUN, algorithm=algorithm)
    knobs = {"mbpo": KNOBS}.get(algorithm, REGISTRY[algorithm].default_config())
    write_config(tmp_path, run, knobs)
    back = read_config(tmp_path)
    assert (back.run, back.algorithm) == (run, knobs)
    assert back.versions["jax"] == jax.__version__


@pytest.mark.parametrize("agent", [SacConfig(discount=0.5), DdpgConfig(discount=0.5), Td3Config(discount=0.5)])
def test_the_agent_that_was_chosen_comes_back(tmp_path, agent):
    value = written(tmp_path, knobs=dataclasses.replace(KNOBS, agent=agent))
    assert value["algorithm"]["agent"]["choice"] == type(agent).__name__.removesuffix("Config").lower()
    assert read_config(tmp_path).algorithm == dataclasses.replace(KNOBS, agent=agent)


@pytest.mark.parametrize("algorithm", OLD_ROWS)
def test_a_config_from_before_agents_were_chosen_has_that_of_its_row(tmp_path, algorithm):
    run, knobs = dataclasses.replace(RUN, algorithm=algorithm), REGISTRY[algorithm].default_config()
    knobs = options.replace(knobs, {"agent.discount": 0.5})
    value = written(tmp_path, run, knobs)
    del value["algorithm"]["agent"]["choice"]
    (tmp_path / "config.json").write_text(json.dumps(value))
    assert read_config(tmp_path)[:2] == (run, knobs)


def test_a_real_run_comes_back(mbpo_run, sac_run):
    for run_dir, knobs, seeds in ((mbpo_run, tiny_runs.MBPO, "0,1,2"), (sac_run, tiny_runs.SAC, "1")):
        assert read_config(run_dir)[:2] == flags.parse(tiny_runs.argv(run_dir, knobs, seeds=seeds))


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})
    with tiny_runs.full_disk(1000), pytest.raises(OSError):
        write_json(path, {"a": list(range(10_000))})
    assert json.loads(path.read_text()) == {"a": 1}
    write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["value.json"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda value, text: text[: len(text) // 2],
        lambda value, text: "",
        lambda value, text: "[1, 2]",
        lambda value, text: "null",
        lambda value, text: "[" * 100_000,
        lambda value, text: json.dumps(value | {"run": 5}),
        lambda value, text: json.dumps(value | {"run": value["run"] | {"num_steps": -1}}),
        lambda value, text: json.dumps(value | {"run": value["run"] | {"num_steps": "many"}}),
        lambda value, text: json.dumps(value | {"run": value["run"] | {"algorithm": "ppo"}}),
        lambda value, text: json.dumps(value | {"run": value["run"] | {"new_knob": 5}}),
        lambda value, text: json.dumps(value | {"algorithm": value["algorithm"] | {"model": [1]}}),
        lambda value, text: json.dumps({"run": value["run"]}),
    ],
)
def test_a_config_that_cannot_be_read_is_named(tmp_path, damage):
    value = written(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(damage(value, path.read_text()))
    with pytest.raises(StorageFailure, match="cannot read ") as caught:
        read_config(tmp_path)
    assert str(path) in str(caught.value)


def test_a_missing_or_binary_config_is_named(tmp_path):
    with pytest.raises(StorageFailure, match=r"cannot read .*config.json: FileNotFoundError"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StorageFailure, match=r"cannot read .*config.json: UnicodeDecodeError"):
        read_config(tmp_path)


# -- resuming ----------------------------------------------------------------------------------------------------


def test_the_same_knobs_may_go_on():
    check_same(SavedConfig(RUN, KNOBS), RUN, KNOBS)
    check_same(
        SavedConfig(RunConfig(algorithm="sac"), ModelFreeConfig()), RunConfig(algorithm="sac"), ModelFreeConfig()
    )


def test_what_may_change_is_reported_old_and_new_and_so_are_versions():
    saved = SavedConfig(RUN, KNOBS, run_json.versions())
    assert check_same(saved, RUN, KNOBS) == []
    changed = dataclasses.replace(RUN, num_steps=RUN.num_steps + 1, tensorboard=True, run_dir="elsewhere", quiet=False)
    assert check_same(saved, changed, KNOBS) == [
        f"num_steps was {RUN.num_steps}, is {RUN.num_steps + 1}",
        "tensorboard was False, is True",
    ]
    older = saved._replace(versions=saved.versions | {"jax": "0.0.1", "mujoco": "3.0.0"})
    (notice,) = check_same(older, RUN, KNOBS)
    assert notice.startswith(f"jax was 0.0.1, is {jax.__version__}; mujoco was 3.0.0, is ")
    assert notice.endswith("from here on the numbers may differ from those of one run")


def test_the_identity_of_a_run_is_what_may_not_change_as_json():
    identity = run_json.identity(RUN, KNOBS)
    assert json.loads(json.dumps(identity)) == identity
    assert not identity.keys() & RESUMABLE_CHANGES
    assert identity["seeds"] == list(RUN.seeds)
    assert identity["model.num_members"] == KNOBS.model.num_members
    assert (identity["agent"], identity["agent.target_entropy"]) == ("sac", KNOBS.agent.target_entropy)
    assert run_json.identity(dataclasses.replace(RUN, num_steps=5, run_dir="x"), KNOBS) == identity
    assert run_json.identity(dataclasses.replace(RUN, env="Ant-v5"), KNOBS) != identity


def test_another_agent_is_another_run():
    td3 = dataclasses.replace(KNOBS, agent=Td3Config())
    with pytest.raises(ValueError, match=r"another run: agent was 'sac', is 'td3'\. Give the old"):
        check_same(SavedConfig(RUN, KNOBS), RUN, td3)
    assert run_json.identity(RUN, td3) != run_json.identity(RUN, KNOBS)


def identity_of_an_older_version(run, knobs, *unknown):
    """The identity as it was kept when agents could not be chosen: by the names of the knobs alone."""
    identity = run_json.identity(run, knobs)
    return {path.rpartition(".")[2]: value for path, value in identity.items() if path not in ("agent", *unknown)}


@pytest.mark.parametrize("algorithm", OLD_ROWS)
def test_checkpoints_of_older_versions_are_known_by_the_names_of_their_knobs(tmp_path, algorithm):
    run, knobs = dataclasses.replace(RUN, algorithm=algorithm), REGISTRY[algorithm].default_config()
    knobs = options.replace(knobs, {"agent.discount": 0.5})
    old = identity_of_an_older_version(run, knobs, "agent.hidden_units")  # a knob that it did not have
    Checkpoints(tmp_path, 3, old).save(1, {"a": np.arange(3)}, {"step": 1})

    def restore(config):
        identity, defaults = run_json.identity(run, config), run_json.default_identity(run, config)
        return Checkpoints(tmp_path, 3, identity, defaults).restore_latest()

    assert restore(knobs).record == {"step": 1}
    for changes, reason in (
        ({"agent.discount": 0.6}, "discount was 0.5, is 0.6"),
        ({"agent.hidden_units": 8}, "hidden_units was 256, is 8"),
    ):
        with pytest.raises(StorageFailure, match=f"belongs to another run: {reason}$"):
            restore(options.replace(knobs, changes))


@pytest.mark.parametrize("names", [("sac", "td3"), ("td3", "sac")])
def test_a_checkpoint_of_another_agent_belongs_to_another_run(tmp_path, names):
    before, after = (options.replace(KNOBS, {"agent": name}) for name in names)
    Checkpoints(tmp_path, 3, run_json.identity(RUN, before)).save(1, {"a": np.arange(3)}, {"step": 1})
    defaults = run_json.default_identity(RUN, after)
    with pytest.raises(StorageFailure, match=f"another run: agent was {names[0]!r}, is {names[1]!r}$"):
        Checkpoints(tmp_path, 3, run_json.identity(RUN, after), defaults).restore_latest()


def test_an_older_checkpoint_of_mbpo_is_not_that_of_another_agent(tmp_path):
    Checkpoints(tmp_path, 3, identity_of_an_older_version(RUN, KNOBS)).save(1, {"a": np.arange(3)}, {"step": 1})
    td3 = dataclasses.replace(KNOBS, agent=Td3Config())
    defaults = run_json.default_identity(RUN, td3)
    with pytest.raises(StorageFailure, match="another run: agent was 'sac', is 'td3'; .*target_entropy was -0.05"):
        Checkpoints(tmp_path, 3, run_json.identity(RUN, td3), defaults).restore_latest()


def test_a_change_of_one_of_two_knobs_of_one_name_is_another_run(monkeypatch):
    """Of equal names only one was kept, so that nobody saw the other change."""

    @dataclasses.dataclass(frozen=True)
    class TwoModels:
        model: GaussianConfig = GaussianConfig()
        backward_model: GaussianConfig = GaussianConfig()

    monkeypatch.setitem(REGISTRY, "two_models", Entry(TwoModels, None, "Two models", {}))
    run = dataclasses.replace(RUN, algorithm="two_models")
    before, after = TwoModels(), TwoModels(model=GaussianConfig(num_members=9))
    assert run_json.identity(run, before) != run_json.identity(run, after)
    with pytest.raises(ValueError, match=r"holds another run: model.num_members was 7, is 9\. Give"):
        check_same(SavedConfig(run, before), run, after)


def test_every_difference_is_listed_old_and_new():
    run = dataclasses.replace(RUN, env="Walker2d-v5", seeds=(3, 2), num_steps=99)
    knobs = dataclasses.replace(
        KNOBS, updates_per_step=7, model=dataclasses.replace(KNOBS.model, num_members=5), agent=SacConfig(discount=0.5)
    )
    with pytest.raises(ValueError, match="run_dir 'somewhere' holds another run: ") as caught:
        check_same(SavedConfig(RUN, KNOBS), run, knobs)
    message = str(caught.value)
    listed = message.split("another run: ")[1].split(". Give")[0].split("; ")
    assert listed == [
        "discount was 0.99, is 0.5",
        "env was 'Hopper-v5', is 'Walker2d-v5'",
        "num_members was 9, is 5",
        "seeds was (3, 1), is (3, 2)",
        "target_entropy was -0.05, is None",
        "updates_per_step was 10, is 7",
    ]
    assert "another --run_dir" in message


def test_another_algorithm_is_another_run():
    with pytest.raises(ValueError, match="algorithm was 'mbpo', is 'sac'"):
        check_same(SavedConfig(RUN, KNOBS), dataclasses.replace(RUN, algorithm="sac"), ModelFreeConfig())


# What each may be changed to; everything that is not here may not change.
CHANGES = {
    "num_steps": 1000,
    "run_dir": "elsewhere",
    "dataset": "elsewhere.npz",
    "fitted_model": "runs/other",
    "checkpoint_every_steps": 10,
    "checkpoints_kept": 5,
    "seed_lifting": "each",
    "compiler_options": "none",
    "compile_cache": "off",
    "eval_env": "shared",
    "env_nonfinite_episodes": 3,
    "env_timeout_s": 30,
    "env_restarts": 2,
    "deterministic": True,
    "profile": 3,
    "tensorboard": True,
    "quiet": False,
    "distributed": True,
    "coordinator": "other:1234",
    "process_id": 0,
}


def test_what_may_change_may_change():
    assert CHANGES.keys() == RESUMABLE_CHANGES
    processes = {"distributed": True, "coordinator": "one:1234", "num_processes": 2, "process_id": 1}
    before = dataclasses.replace(RUN, **processes)
    check_same(SavedConfig(before, KNOBS), dataclasses.replace(before, **CHANGES), KNOBS)


OTHER_VALUES = {
    "algorithm": "sac",
    "env": "Ant-v5",
    "seeds": (1, 3),
    "max_episode_steps": 9,
    "eval_every_steps": 9,
    "eval_episodes": 9,
    "log_every_steps": 9,
}


def test_nothing_else_may_change():
    fields = {field.name for field in dataclasses.fields(RunConfig)}
    assert OTHER_VALUES.keys() | CHANGES.keys() == fields - {
        "num_processes"
    }  # which tests/launch/test_processes.py has
    for name, value in OTHER_VALUES.items():
        with pytest.raises(ValueError, match=f"another run: {name} was "):
            check_same(SavedConfig(RUN, KNOBS), dataclasses.replace(RUN, **{name: value}), KNOBS)


# -- summary.json ------------------------------------------------------------------------------------------------


def test_a_summary_says_how_the_run_ended(mbpo_run):
    summary = json.loads((mbpo_run / "summary.json").read_text())
    expected = {"algorithm": "mbpo", "env": "InvertedPendulum-v5", "step": 160, "num_steps": 160}
    assert {name: summary[name] for name in expected} == expected
    assert set(summary["seeds"]) == {"0", "1", "2"}
    for seed, outcome in summary["seeds"].items():
        lines = tiny_runs.lines(mbpo_run, int(seed))
        returns = {line["step"]: line["eval/return_mean"] for line in lines if "eval/return_mean" in line}
        assert list(returns) == [40, 80, 120, 160]
        assert outcome["final"] == {"step": 160, "return_mean": returns[160]}
        best = max(returns, key=lambda step: returns[step])  # the first of equals
        assert outcome["best"] == {"step": best, "return_mean": returns[best]}
    phases = {"env_step", "fit_model", "roll_out", "update_agent", "evaluate", "checkpoint"}
    assert set(summary["seconds_per_phase"]) == phases
    assert 0.0 < sum(summary["seconds_per_phase"].values()) <= summary["seconds"]
    assert summary["env_steps_per_second"] == pytest.approx(160 / summary["seconds"])
    assert summary["compilations"] >= 1
