"""Each flagfile of experiments/ against the values that its paper publishes, and ablations against their task."""

from pathlib import Path

import pytest
from mbpo_settings import PAPER, TASKS
from parsed_flags import flat
from published_settings import OTHERS

from mbpo_jax.driver.config import RunConfig
from mbpo_jax.launch import flags

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def test_every_flagfile_has_its_row_here():
    own = {path.stem for path in EXPERIMENTS.glob("*.flags")} - {"paper", "mopo"}  # what they share
    assert own == TASKS.keys() | OTHERS.keys()


ABLATIONS = {
    "length_1": {"rollout_length_schedule": (0, 1, 1, 1)},
    "length_15": {"rollout_length_schedule": (0, 1, 15, 15)},
    "length_200": {"rollout_length_schedule": (0, 1, 200, 200), "rollout_batch": 7500},
    "no_model": {"real_fraction": 1.0},
    "no_model_1_update": {"real_fraction": 1.0, "updates_per_step": 1},
    "real_0": {"real_fraction": 0.0},
    "real_50": {"real_fraction": 0.5},
}
"""What each differs in from the flagfile of its task, and in nothing else."""


@pytest.mark.parametrize("path", sorted((EXPERIMENTS / "ablations").glob("*.flags")), ids=lambda path: path.stem)
def test_an_ablation_is_its_task_with_one_change(path, monkeypatch):
    monkeypatch.chdir(EXPERIMENTS.parent)  # they read the flagfile of their task
    task = "inverted_pendulum" if path.stem.startswith("inverted_pendulum") else "hopper"
    whole, ablated = (
        flat(run) | flat(config)
        for run, config in (flags.parse([f"--flagfile={file}"]) for file in (EXPERIMENTS / f"{task}.flags", path))
    )
    change = ABLATIONS[path.stem.removeprefix(f"{task}_")]
    assert ablated == whole | change
    assert ablated != whole


def test_every_ablation_has_a_flagfile_on_hopper():
    names = {path.stem for path in (EXPERIMENTS / "ablations").glob("hopper_*.flags")}
    assert names == {f"hopper_{change}" for change in ABLATIONS}


ONE_NETWORK = {"num_members": 1, "num_elites": 1}
PLANNING = {
    "d": ONE_NETWORK | {"member": "deterministic"},
    "p": ONE_NETWORK,
    "de_ts1": {"member": "deterministic", "propagation": "ts1"},
    "de_tsinf": {"member": "deterministic"},
    "pe_ts1": {"propagation": "ts1"},
    "pe_tsinf": {},
    "gp": {"member": "gp", "inducing_rows": 100, "propagation": "expectation", "num_particles": 1},
}
"""What each differs in from `planning/shared.flags`; what networks have is left alone by processes."""


def test_the_models_of_pets_are_compared_with_nothing_else_changed(monkeypatch):
    monkeypatch.chdir(EXPERIMENTS.parent)  # they read other flagfiles
    files = {path.stem: path for path in (EXPERIMENTS / "planning").glob("*.flags")}
    known = {
        name: flat(run) | flat(config)
        for name, (run, config) in ((name, flags.parse([f"--flagfile={path}"])) for name, path in files.items())
    }
    shared = known.pop("shared")
    assert known.keys() == {f"continuous_cartpole_{name}" for name in PLANNING}
    networks = {"model_hidden_units", "model_learning_rate", "model_weight_decays", "model_batch_size"}
    for name, change in PLANNING.items():
        unread = networks | {"fit_max_gradient_steps"} if name == "gp" else set()
        wanted = {knob: value for knob, value in (shared | change).items() if knob not in unread}
        found = known[f"continuous_cartpole_{name}"]
        assert {knob: found[knob] for knob in wanted} == wanted
    assert (shared["num_steps"], shared["exploration_steps"], shared["eval_every_steps"]) == (600, 100, 100)


SMALL = {"hidden_units": 128, "model_hidden_units": 128, "batch_size": 128, "num_steps": 5000, "updates_per_step": 10}
THROUGH_THE_MODEL = {
    "mbpo": ("inverted_pendulum", {}),
    "sac": ("inverted_pendulum", {"real_fraction": 1.0}),
    "mbpo_mve_1": ("inverted_pendulum", {"expansion_steps": 1}),
    "mbpo_mve_5": ("inverted_pendulum", {"expansion_steps": 5}),
    "mve": ("mve_inverted_pendulum", {}),
    "mve_1": ("mve_inverted_pendulum", {"expansion_steps": 1}),
    "steve": ("steve_inverted_pendulum", {}),
    "maac": ("maac_inverted_pendulum", {}),
    "svg_0": ("svg_inverted_pendulum", {"svg_steps": "0"}),
    "svg_1": ("svg_inverted_pendulum", {}),
    "sac_svg": ("sac_svg_inverted_pendulum", {}),
    "sac_svg_gru": ("sac_svg_inverted_pendulum", {"dynamics": "gru"}),
    "double_horizon": ("double_horizon_inverted_pendulum", {"updates_per_step": 2}),
}
"""The flagfile that each begins with, and what it changes besides what is SMALL."""

VARIANTS = {
    ("halfcheetah", "two_updates"): {"updates_per_step": 2},
    ("walker2d", "two_updates"): {"updates_per_step": 2},
    ("halfcheetah", "dropout"): {"dropout": 0.01, "range_with_zero": False},
    ("hopper", "dropout"): {"dropout": 0.01, "range_with_zero": False},
    ("hopper", "early_fits"): {"log_std_pace": 1.0, "early_fit_factor": 5},
    ("halfcheetah", "early_fits"): {"log_std_pace": 1.0, "early_fit_factor": 5},
    ("hopper", "rollouts_40"): {"rollout_length": 40},
}
"""What each variant of the double horizon changes on a task."""

EXPANDED_ON_HOPPER = {
    "hopper_mve_1": ("mve_hopper", {"expansion_steps": 1}),
    "hopper_mbpo_mve_1": ("hopper", {"expansion_steps": 1}),
    "hopper_mbpo_mve_5": ("hopper", {"expansion_steps": 5}),
}
"""The flagfile that each begins with, and what it changes: Janner et al. 2019, section 6.2."""


def test_what_goes_through_the_model_is_compared_at_one_size(monkeypatch):
    monkeypatch.chdir(EXPERIMENTS.parent)  # they read other flagfiles
    files = {path.stem: path for path in (EXPERIMENTS / "through_the_model").glob("*.flags")}
    others = {
        "small_networks",
        *EXPANDED_ON_HOPPER,
        *(f"double_horizon_{task}_{variant}" for task, variant in VARIANTS),
    }
    assert files.keys() - others == {f"inverted_pendulum_small_{name}" for name in THROUGH_THE_MODEL}
    for name, (base, change) in THROUGH_THE_MODEL.items():
        paths = (EXPERIMENTS / f"{base}.flags", files[f"inverted_pendulum_small_{name}"])
        whole, small = (flat(run) | flat(config) for run, config in (flags.parse([f"--flagfile={p}"]) for p in paths))
        assert small == whole | {knob: value for knob, value in (SMALL | change).items() if knob in whole}


@pytest.mark.parametrize(("task", "variant"), VARIANTS)
def test_a_variant_of_the_double_horizon_changes_nothing_else(task, variant, monkeypatch):
    monkeypatch.chdir(EXPERIMENTS.parent)
    base, varied = _read(f"double_horizon_{task}.flags", f"through_the_model/double_horizon_{task}_{variant}.flags")
    assert varied == base | VARIANTS[task, variant]


@pytest.mark.parametrize("name", EXPANDED_ON_HOPPER)
def test_expanded_targets_on_hopper_change_nothing_else(name, monkeypatch):
    monkeypatch.chdir(EXPERIMENTS.parent)
    task, change = EXPANDED_ON_HOPPER[name]
    base, expanded = _read(f"{task}.flags", f"through_the_model/{name}.flags")
    assert expanded == base | change
    assert expanded != base


def _read(*names):
    """Returns the settings of flagfiles below experiments/."""
    parsed = (flags.parse([f"--flagfile={EXPERIMENTS / name}"]) for name in names)
    return [flat(run) | flat(config) for run, config in parsed]


TUNED = {  # h and lambda of OfflineRL-Kit's MOPO, by the name of the data
    "halfcheetah_medium": (5, 0.5), "halfcheetah_medium_replay": (5, 0.5), "halfcheetah_medium_expert": (5, 2.5),
    "hopper_medium": (5, 5.0), "hopper_medium_replay": (5, 2.5), "hopper_medium_expert": (5, 5.0),
    "walker2d_medium": (5, 0.5), "walker2d_medium_replay": (1, 2.5), "walker2d_medium_expert": (1, 2.5),
}  # fmt: skip


def test_tuned_settings_are_mopo_s_with_other_horizons_and_penalties():
    files = {path.stem.removeprefix("mopo_tuned_"): path for path in (EXPERIMENTS / "mopo_tuned").glob("*.flags")}
    assert files.keys() == TUNED.keys()
    for name, (length, weight) in TUNED.items():
        base = EXPERIMENTS / f"mopo_{name.replace('medium_replay', 'mixed')}.flags"
        whole, tuned = (
            flat(run) | flat(config) for run, config in (flags.parse([f"--flagfile={p}"]) for p in (base, files[name]))
        )
        change = {"rollout_length": length, "penalty_weight": weight, "num_steps": 3_000_000, "target_entropy": None}
        assert tuned == whole | change


@pytest.mark.parametrize("name", sorted(TASKS | OTHERS))
def test_a_flagfile_holds_the_published_settings(name):
    run, config = flags.parse([f"--flagfile={EXPERIMENTS / f'{name}.flags'}"])
    expected = PAPER | TASKS[name] if name in TASKS else OTHERS[name]
    actual = flat(run) | flat(config)
    assert {key: actual[key] for key in expected} == expected
    # and no flagfile says where files go, or hides what happens
    defaults = RunConfig()
    assert (run.run_dir, run.quiet, run.seed_lifting) == (defaults.run_dir, False, defaults.seed_lifting)
