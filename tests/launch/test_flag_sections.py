"""Flags of sections: agents that are chosen by name, full paths, and names that mean two knobs."""

import dataclasses

import pytest
from parsed_flags import refusal

from mbpo_jax import options
from mbpo_jax.agents.ddpg import DdpgConfig
from mbpo_jax.agents.sac import SacConfig
from mbpo_jax.agents.td3 import Td3Config
from mbpo_jax.algorithms import REGISTRY, Entry
from mbpo_jax.algorithms.mbpo import MbpoConfig
from mbpo_jax.algorithms.model_free import ModelFreeConfig
from mbpo_jax.driver.config import RunConfig
from mbpo_jax.launch import flags
from mbpo_jax.models.gaussian import GaussianConfig
from mbpo_jax.options import option


@pytest.mark.parametrize("agent", [SacConfig(discount=0.5), DdpgConfig(discount=0.5), Td3Config(discount=0.5)])
def test_an_agent_is_chosen_by_name(agent):
    name = type(agent).__name__.removesuffix("Config").lower()
    run, config = flags.parse(["--discount=0.5", f"--agent={name}"])
    assert (run, config) == (RunConfig(), MbpoConfig(agent=agent))
    assert flags.parse([f"--algorithm={name}", "--discount=0.5"])[1] == ModelFreeConfig(agent=agent)
    rows = {"sac": "mbpo"}  # that of another agent is the same algorithm with the same knobs
    assert flags.parse([f"--algorithm={rows.get(name, f'mbpo_{name}')}", "--discount=0.5"])[1] == config


def test_a_row_that_names_its_agent_has_it():
    assert flags.parse(["--algorithm=mbpo_td3"]) == (RunConfig(algorithm="mbpo_td3"), MbpoConfig(agent=Td3Config()))
    assert flags.parse(["--algorithm=ddpg"]) == (RunConfig(algorithm="ddpg"), ModelFreeConfig(agent=DdpgConfig()))


@pytest.mark.parametrize("agent", ["td3", "sac", "nobody"])
@pytest.mark.parametrize("algorithm", ["mbpo_td3", "td3"])
def test_a_row_that_names_its_agent_does_not_read_another(algorithm, agent):
    wanted = f"--agent={agent} is not read by --algorithm={algorithm}, whose agent is td3; leave it out"
    assert refusal(f"--algorithm={algorithm}", f"--agent={agent}") == wanted


def test_an_agent_that_is_none_is_refused_with_those_that_are():
    assert refusal("--agent=ppo") == "--agent must be one of sac, ddpg, td3, got 'ppo'"


def test_a_flag_of_another_agent_is_not_read():
    wanted = "--target_entropy=-0.5 is not read by --algorithm=mbpo --agent=td3; leave it out"
    assert refusal("--agent=td3", "--target_entropy=-0.5") == wanted
    assert "--target_noise_std=0.1 is not read by --algorithm=mbpo; leave" in refusal("--target_noise_std=0.1")


def test_a_flagfile_may_have_flags_of_a_choice_that_was_changed(tmp_path):
    """They are left out, and it is said. On the command line, or beside the choice itself, they are mistakes."""
    paper, chosen = tmp_path / "paper.flags", tmp_path / "chosen.flags"
    paper.write_text("--algorithm=mbpo\n--target_entropy=-0.5\n--discount=0.9\n")
    words = [f"--flagfile={paper}", "--agent=td3"]
    run, config, notes = flags.parse_with_notes(words)
    assert (run, config) == flags.parse(words)
    assert config == MbpoConfig(agent=Td3Config(discount=0.9))
    where = f"(in {paper}) is not read by --algorithm=mbpo --agent=td3"
    assert notes == [f"--target_entropy=-0.5 {where}, so it is left out"]
    assert flags.parse_with_notes([f"--flagfile={paper}"])[2] == []
    chosen.write_text("--agent=td3\n")
    assert flags.parse_with_notes([f"--flagfile={chosen}", f"--flagfile={paper}"])[1:] == (config, notes)
    assert "leave it out" in refusal(*words, "--target_entropy=-1")
    assert "leave it out" in refusal("--target_entropy=-1", *words)
    paper.write_text("--algorithm=mbpo\n--agent=td3\n--target_entropy=-0.5\n")
    assert f"--target_entropy=-0.5 {where}; leave it out" in refusal(f"--flagfile={paper}")
    paper.write_text("--algorithm=mbpo\n--horizon=3\n")
    assert "horizon=3 (in" in refusal(*words)  # no agent reads it


def test_pets_planners_follow_its_flagfiles():
    for planner in ("random_shooting", "icem", "mppi"):
        _, config, notes = flags.parse_with_notes(["--flagfile=pets_cartpole", f"--planner={planner}"])
        assert config.planner.num_candidates == 400
        assert all("(in experiments/pets_cartpole.flags) is not read by" in note for note in notes)


def test_the_full_path_of_a_knob_is_a_flag_too(tmp_path):
    wanted = MbpoConfig(agent=SacConfig(discount=0.5), model=GaussianConfig(num_members=9))
    assert flags.parse(["--agent.discount=0.5", "--model.num_members", "9"])[1] == wanted
    path = tmp_path / "dotted.flags"
    path.write_text("--agent.discount=0.5\n--model.num_members=9\n")
    assert flags.parse([f"--flagfile={path}"])[1] == wanted
    assert refusal("--agent.discount=2") == "--agent.discount must be a number in [0, 1], got 2.0"


def test_one_flag_under_two_names_is_refused():
    wanted = "--agent.discount and --discount are the same flag; leave one of them out"
    assert refusal("--discount=0.5", "--agent.discount=0.5") == wanted


def test_every_value_of_a_flag_is_read_though_the_last_counts():
    assert refusal("--num_steps=many", "--num_steps=5") == "--num_steps=many must be a whole number in [1, 2147483647]"


@dataclasses.dataclass(frozen=True)
class TwoModels:
    """A member with two sections of one class, knobs that other rows have in another way, and one of two names."""

    updates_per_step: float = option(0.25, "Updates per imagined row.", minimum=0.0, maximum=1.0)
    rollout_batch: bool = option(False, "Whether rollouts come in batches.")
    model: GaussianConfig = GaussianConfig()
    backward_model: GaussianConfig = GaussianConfig(num_members=3, num_elites=2)

    def __post_init__(self) -> None:
        options.check(self)


@pytest.fixture
def two_models(monkeypatch):
    """A row of the registry with the knobs above."""
    monkeypatch.setitem(REGISTRY, "two_models", Entry(TwoModels, None, "Two models", {}))
    return "--algorithm=two_models"


def test_two_sections_of_one_class_have_flags_of_their_own(two_models, tmp_path):
    """They were a TypeError, in every run."""
    config = flags.parse([two_models, "--backward_model.num_members=4", "--model.num_elites=1"])[1]
    wanted = TwoModels(model=GaussianConfig(num_elites=1), backward_model=GaussianConfig(num_members=4, num_elites=2))
    assert config == wanted
    path = tmp_path / "two.flags"
    path.write_text(f"{two_models}\n--backward_model.num_members=4\n--model.num_elites=1\n")
    assert flags.parse([f"--flagfile={path}"])[1] == wanted
    assert flags.parse(["--num_members=9"])[1] == MbpoConfig(model=GaussianConfig(num_members=9))


def test_a_name_that_means_two_knobs_is_refused_with_both(two_models):
    wanted = (
        "--num_members is ambiguous with --algorithm=two_models: give --model.num_members or "
        "--backward_model.num_members"
    )
    assert refusal("--num_members=4", two_models) == wanted


def test_what_a_section_says_of_two_knobs_names_the_flag(two_models):
    wanted = "--backward_model.num_elites must be at most num_members (3), got 4"
    assert refusal(two_models, "--backward_model.num_elites=4") == wanted
    assert refusal("--num_elites=8") == "--num_elites must be at most num_members (7), got 8"


def test_a_flag_is_parsed_as_the_chosen_algorithm_says(two_models):
    """It was parsed as the first algorithm that has it says, whatever was chosen."""
    assert flags.parse([two_models, "--updates_per_step=0.5"])[1].updates_per_step == 0.5
    assert flags.parse([two_models, "--rollout_batch=true"])[1].rollout_batch is True
    assert flags.parse(["--updates_per_step=7", "--rollout_batch=5"])[1] == MbpoConfig(
        updates_per_step=7, rollout_batch=5
    )
    assert refusal("--updates_per_step=0.5") == "--updates_per_step=0.5 must be a whole number, 1 or more"
    assert refusal("--updates_per_step=2", two_models) == "--updates_per_step must be a number in [0, 1], got 2.0"


def test_a_knob_that_the_run_has_too_is_a_mistake_of_ours(monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Seeds:
        seeds: int = option(1, "Seeds of its own.")

    monkeypatch.setitem(REGISTRY, "wrong", Entry(Seeds, None, "Wrong", {}))
    with pytest.raises(TypeError, match="seeds: knobs of Seeds have names of the run's own"):
        flags.parse([])
