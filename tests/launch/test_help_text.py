import dataclasses

import pytest

from mbpo_jax import options
from mbpo_jax.algorithms import REGISTRY, Entry
from mbpo_jax.driver.config import RunConfig
from mbpo_jax.launch import flags, help_text
from mbpo_jax.main import main
from mbpo_jax.models.gaussian import GaussianConfig
from mbpo_jax.options import option

READERS = [
    *((algorithm, None) for algorithm in REGISTRY),
    *(("mbpo", agent) for agent in options.tree(REGISTRY["mbpo"].default_config())["agent"].choices),
]


def entries(text):
    """The lines about each flag, joined, by its name; and the group that it stands in."""
    found, groups, group = {}, {}, None
    for line in text.splitlines():
        if line.startswith("flags of"):
            group = line.removeprefix("flags of ").rstrip(":")
        elif group and line.startswith("  --"):
            name = line.split()[0].lstrip("-").partition("=")[0]
            assert name not in found
            found[name], groups[name] = line.strip(), group
        elif group and line.startswith("  "):
            found[name] += f" {line.strip()}"
    return found, groups


@pytest.mark.parametrize(("algorithm", "agent"), READERS)
def test_every_knob_that_an_algorithm_reads_is_there_with_help_range_and_default_and_no_other(algorithm, agent):
    argv = [f"--algorithm={algorithm}", *([f"--agent={agent}"] if agent else [])]
    run, config = flags.parse(argv)
    knobs = flags.knobs_of(algorithm, config) | options.tree(run)
    names = options.short_names(knobs)
    found, groups = entries(help_text.answer([*argv, "--help"]))
    assert found.keys() == {*names.values(), "flagfile", "help"}
    for path, knob in knobs.items():
        entry = found[names[path]]
        assert entry.startswith(f"--{names[path]}={help_text._text(knob.default)} ")
        assert help_text._allowed(knob) in entry
        assert entry.endswith(" ".join(knob.help.split()))
    chosen = {"algorithm": "every run", "seeds": "every run", "flagfile": "every run", "batch_size": "the algorithm"}
    of_agent = options.choices(config).get("agent")
    chosen |= {"hidden_units": f"the agent ({of_agent})" if of_agent else "the agent"}
    of_model = "num_members" if "num_members" in groups else "model_hidden_units"  # a model of sequences is one network
    chosen |= {of_model: "the model"} if "model" in options.sections(config) else {}
    if algorithm in ("pets", "q_planning", "dyna_q"):
        del chosen["batch_size"], chosen["hidden_units"]  # they plan, or keep tables, and have no agent with networks
    assert {name: groups[name] for name in chosen} == chosen


def test_values_are_as_the_command_line_takes_them():
    for algorithm, entry in REGISTRY.items():
        found, _ = entries(help_text.answer([f"--algorithm={algorithm}", "--help"]))
        words = [
            entry.split("  (")[0] for name, entry in found.items() if name not in ("flagfile", "help", "coordinator")
        ]
        assert flags.parse(words) == (RunConfig(algorithm=algorithm), entry.default_config())


def test_an_algorithm_has_its_own_defaults_and_no_flags_of_others():
    found, _ = entries(help_text.answer(["--algorithm=sac", "--help"]))
    assert found["updates_per_step"].startswith("--updates_per_step=1  (a whole number, 1 or more)")
    assert not {"rollout_batch", "num_members", "agent", "target_noise_std"} & found.keys()
    found, _ = entries(help_text.answer(["--help", "--algorithm=mbpo_td3"]))
    assert found["updates_per_step"].startswith("--updates_per_step=10  (a whole number, 1 or more)")
    assert {"rollout_batch", "num_members", "target_noise_std"} <= found.keys()
    assert not {"agent", "target_entropy"} & found.keys()


def test_a_flagfiles_values_are_shown_beside_the_defaults():
    found, _ = entries(help_text.answer(["--flagfile=hopper", "--num_steps=7", "--help"]))
    assert found["env"].startswith("--env=Hopper-v5  (default InvertedPendulum-v5; text) ")
    assert found["num_steps"].startswith("--num_steps=7  (default 5000; a whole number, 1 or more) ")
    assert found["target_entropy"].startswith("--target_entropy=-1.0  (default auto; a number, or 'auto') ")
    assert found["eval_episodes"].startswith("--eval_episodes=5  (a whole number, 0 or more) ")


def test_it_is_short_and_fits_100_columns():
    for argv in (["--help"], *([f"--algorithm={name}", "--help"] for name in REGISTRY)):
        text = help_text.answer(argv)
        assert max(map(len, text.splitlines())) <= 100
        assert len(text.splitlines()) < 180


def test_alone_it_says_how_to_get_further():
    text = help_text.answer(["--help"])
    found, _ = entries(text)
    assert found.keys() == {*options.tree(RunConfig()), "flagfile", "help"}
    assert "--algorithm=NAME --help lists all flags of an algorithm" in text
    assert " halfcheetah, hopper, " in " ".join(text.split())  # wherever lines break
    lines = text.split("algorithms:\n")[1].split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in lines] == list(REGISTRY)
    starts = {line.index(member.summary) for line, member in zip(lines, REGISTRY.values(), strict=True)}
    assert starts == {2 + max(map(len, REGISTRY)) + 2}


def test_a_wrong_command_line_is_refused_in_a_line(capsys):
    assert main(["--algorithm=ppo", "--help"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mbpo_jax: error: --algorithm must be one of mbpo, ")
    assert err.count("\n") == 1


@dataclasses.dataclass(frozen=True)
class TwoModels:
    """A member with two sections of one class, and a knob that other rows have in another way."""

    updates_per_step: float = option(0.25, "Updates per imagined row.", minimum=0.0, maximum=1.0)
    model: GaussianConfig = GaussianConfig()
    backward_model: GaussianConfig = GaussianConfig(num_members=3, num_elites=2)


def test_each_section_has_a_group_and_its_own_defaults(monkeypatch):
    monkeypatch.setitem(REGISTRY, "two_models", Entry(TwoModels, None, "Two models", {}))
    found, groups = entries(help_text.answer(["--algorithm=two_models", "--help"]))
    wanted = "--updates_per_step=0.25  (a number in [0, 1]) Updates per imagined row."
    assert found["updates_per_step"] == wanted
    wanted = "--backward_model.num_members=3  (a whole number in [1, 1000]) Networks in the ensemble."
    assert found["backward_model.num_members"] == wanted
    assert found["model.num_members"].startswith("--model.num_members=7 ")
    assert groups["backward_model.num_members"] == "the backward_model"
    assert "num_members" in entries(help_text.answer(["--help", "--algorithm=mbpo"]))[0]
