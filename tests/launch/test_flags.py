import dataclasses
import random

import pytest

from mbpo_jax import options
from mbpo_jax.agents.ddpg import DdpgConfig
from mbpo_jax.agents.sac import SacConfig
from mbpo_jax.agents.td3 import Td3Config
from mbpo_jax.algorithms import REGISTRY, Entry
from mbpo_jax.algorithms.mbpo import MbpoConfig
from mbpo_jax.algorithms.model_free import ModelFreeConfig
from mbpo_jax.driver.config import RunConfig
from mbpo_jax.launch import flags
from mbpo_jax.launch.flags import FlagsError
from mbpo_jax.models.gaussian import GaussianConfig
from mbpo_jax.options import option


def flat(config):
    """All knobs of a config and its sections, by name."""
    values = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        values |= flat(value) if dataclasses.is_dataclass(value) else {field.name: value}
    return values


def refusal(*argv):
    """The message of a command line that must be refused, which is one line."""
    with pytest.raises(FlagsError) as caught:
        flags.parse(list(argv))
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


# -- from knobs to flags -----------------------------------------------------------------------------------------


def test_without_flags_all_is_as_the_dataclasses_say():
    assert flags.parse([]) == (RunConfig(), MbpoConfig())
    assert flags.parse(["--algorithm=sac"]) == (RunConfig(algorithm="sac"), ModelFreeConfig())


def test_a_flag_sets_a_knob_of_a_section_and_nothing_else():
    run, config = flags.parse(["--num_members=9", "--discount=0.5", "--rollout_batch=77", "--eval_episodes=3"])
    assert (config.model.num_members, config.agent.discount, config.rollout_batch, run.eval_episodes) == (
        9,
        0.5,
        77,
        3,
    )
    changed = {"num_members": 9, "discount": 0.5, "rollout_batch": 77}
    assert flat(config) == flat(MbpoConfig()) | changed
    assert run == RunConfig(eval_episodes=3)
    _, config = flags.parse(["--algorithm=sac", "--hidden_units=5", "--batch_size=7"])
    assert flat(config) == flat(ModelFreeConfig()) | {"hidden_units": 5, "batch_size": 7}


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("--num_steps=1e5", 100_000),
        ("--num_steps=400_000", 400_000),
        ("--num_steps= 12 ", 12),
        ("--num_steps=2.5e3", 2500),
        ("--seeds=7", (7,)),
        ("--seeds=3,1,2", (3, 1, 2)),
        ("--seeds=1e3, 5", (1000, 5)),
        ("--rollout_length_schedule=20,100,1,25", (20, 100, 1, 25)),
        ("--model_weight_decays=1e-4,0", (1e-4, 0.0)),
        ("--target_entropy=auto", None),
        ("--target_entropy=AUTO", None),
        ("--target_entropy=-0.05", -0.05),
        ("--learning_rate=1e-5", 1e-5),
        ("--real_fraction=1", 1.0),
        ("--env=my_robots:Arm-v1", "my_robots:Arm-v1"),
        ("--quiet", True),
        ("--quiet=true", True),
        ("--quiet=1", True),
        ("--quiet=False", False),
        ("--noquiet", False),
        ("-quiet", True),
    ],
)
def test_values(argument, value):
    run, config = flags.parse([argument])
    name = argument.lstrip("-").removeprefix("no" if argument == "--noquiet" else "").split("=")[0]
    got = (flat(run) | flat(config))[name]
    assert got == value
    assert type(got) is type(value)


def test_the_last_of_two_wins_and_a_space_will_do():
    run, _ = flags.parse(["--num_steps=5", "--quiet", "--num_steps", "7", "--noquiet"])
    assert (run.num_steps, run.quiet) == (7, False)


# -- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "value", "allowed"),
    [
        ("--num_steps=abc", "abc", "a whole number in [1, "),
        ("--num_steps=0", "0", "a whole number in [1, "),
        ("--num_steps=1.5", "1.5", "a whole number in [1, "),
        ("--num_steps=3e9", "3000000000", "a whole number in [1, 2147483647]"),
        ("--num_steps=", "", "a whole number in [1, "),
        ("--num_steps=nan", "nan", "a whole number in [1, "),
        ("--num_steps=inf", "inf", "a whole number in [1, "),
        ("--eval_episodes=-3", "-3", "a whole number, 1 or more"),
        ("--eval_episodes=true", "true", "a whole number, 1 or more"),
        ("--real_fraction=1.01", "1.01", "a number in [0, 1]"),
        ("--real_fraction=-0.01", "-0.01", "a number in [0, 1]"),
        ("--real_fraction=some", "some", "a number in [0, 1]"),
        ("--real_fraction=nan", "nan", "a number in [0, 1]"),
        ("--learning_rate=inf", "inf", "a number in [0, 1]"),
        ("--initial_temperature=inf", "inf", "a number, 1e-06 or more"),
        ("--initial_temperature=1e999", "1e999", "a number, 1e-06 or more"),
        ("--initial_temperature=0", "0", "a number, 1e-06 or more"),
        ("--target_entropy=-inf", "-inf", "a number, or 'auto'"),
        ("--target_entropy=none", "none", "a number, or 'auto'"),
        ("--seeds=1,x", "1,x", "whole numbers separated by commas in [0, "),
        ("--seeds=1,-1", "(1, -1)", "whole numbers separated by commas in [0, "),
        ("--seeds=", "", "whole numbers separated by commas in [0, "),
        ("--seeds=1,1", "(1, 1)", "differ"),
        ("--rollout_length_schedule=1,2,3", "(1, 2, 3)", "first_epoch,last_epoch,start,end"),
        ("--rollout_length_schedule=5,2,1,1", "(5, 2, 1, 1)", "first_epoch <= last_epoch"),
        ("--model_weight_decays=1e-4,inf", "1e-4,inf", "numbers separated by commas, 0 or more"),
        ("--quiet=maybe", "maybe", "true or false"),
        (
            "--algorithm=ppo",
            "'ppo'",
            "one of mbpo, mbpo_ddpg, mbpo_td3, bmpo, mve, steve, maac, double_horizon, svg, sac_svg, pets, sac",
        ),
        ("--seed_lifting=pmap", "'pmap'", "one of auto, each, vmap"),
        ("--env=", "''", "a Gymnasium id"),
        ("--run_dir=", "''", "a directory or 'auto'"),
        ("--num_elites=8", "8", "at most num_members (7)"),
        ("--noquiet=true", "true", "does not take an argument"),
        ("--num_step=5", "--num_step=5", "Did you mean: num_steps"),
        ("--rolout_batch=5", "--rolout_batch=5", "--help lists the flags"),
        ("--noenv", "noenv", "--help lists the flags"),
        ("--undefok=num_steps", "undefok", "--help lists"),
        ("--flagfile=", "''", "must be a file"),
        ("--flagfile=/no/such.flags", "/no/such.flags", "No such file"),
    ],
)
def test_a_refusal_names_flag_value_and_what_is_allowed(argument, value, allowed):
    message = refusal(argument)
    assert argument.lstrip("-").split("=")[0] in message
    assert value in message
    assert allowed in message


def test_a_flag_without_its_value_is_refused():
    assert "--num_steps" in refusal("--num_steps")
    assert "--flagfile" in refusal("--flagfile")


@pytest.mark.parametrize(
    ("flag", "algorithm"),
    [("--rollout_batch=10", "sac"), ("--num_members=9", "sac"), ("--target_entropy=-0.5", "mbpo_td3")],
)
def test_a_flag_that_the_algorithm_does_not_read_is_refused(flag, algorithm):
    message = refusal(f"--algorithm={algorithm}", flag)
    assert f"{flag} is not read by --algorithm={algorithm}" in message
    flags.parse([flag])  # mbpo does read it


@pytest.mark.parametrize(
    ("argv", "culprit"),
    [
        (["num_steps=5"], "num_steps=5"),
        (["--num_steps=5", "again"], "again"),
        (["x", "--num_steps=5"], "x"),
        (["--num_steps=5", "more", "and more"], "more"),
        (["--", "--num_steps=5"], "--num_steps=5"),
        (["-", "x"], "-"),
        ([""], ""),
    ],
)
def test_arguments_that_are_no_flags_are_refused(argv, culprit):
    assert f"every argument must be a --flag=value, got {culprit!r}" in refusal(*argv)


def test_a_line_break_in_a_value_stays_one_line():
    assert "must be" in refusal("--num_steps=1\n2")
    assert "two\\nlines" in refusal("--algorithm=two\nlines")


# -- sections ----------------------------------------------------------------------------------------------------


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


def test_the_full_path_of_a_knob_is_a_flag_too(tmp_path):
    wanted = MbpoConfig(agent=SacConfig(discount=0.5), model=GaussianConfig(num_members=9))
    assert flags.parse(["--agent.discount=0.5", "--model.num_members", "9"])[1] == wanted
    path = tmp_path / "dotted.flags"
    path.write_text("--agent.discount=0.5\n--model.num_members=9\n")
    assert flags.parse([f"--flagfile={path}"])[1] == wanted
    assert refusal("--agent.discount=2") == "--agent.discount must be a number in [0, 1], got 2.0"


def test_one_flag_under_two_names_is_refused():
    wanted = "--agent.discount and --discount are one flag; leave one of them out"
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


# -- flagfiles ---------------------------------------------------------------------------------------------------


def test_a_flagfile_is_read_where_it_stands(tmp_path):
    inner, outer = tmp_path / "inner.flags", tmp_path / "with a space.flags"
    inner.write_text("--num_steps=7\n--seeds=1,2\n")
    outer.write_text(f"# a comment\n\n--eval_episodes=4\n--flagfile={inner}\n  --quiet  \n")
    run, _ = flags.parse([f"--flagfile={outer}", "--num_steps=9"])
    assert (run.num_steps, run.seeds, run.eval_episodes, run.quiet) == (9, (1, 2), 4, True)
    run, _ = flags.parse(["--num_steps=9", "--flagfile", str(outer)])
    assert run.num_steps == 7


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("num_steps=5", ["'num_steps=5'", "--flag=value"]),
        ("--num_steps 5", ["num_steps 5"]),
        ("--num_steps=five", ["--num_steps=five", "a whole number"]),
        ("--nonsense=1", ["'nonsense'", "--help lists the flags"]),
        ("--help", ["--help", "flagfile"]),
        ("--flagfile=/no/such.flags", ["/no/such.flags"]),
        ("--undefok=x", ["undefok"]),
    ],
)
def test_a_wrong_line_in_a_flagfile_is_refused(tmp_path, line, words):
    path = tmp_path / "wrong.flags"
    path.write_text(f"--eval_episodes=4\n{line}\n--quiet\n")
    message = refusal(f"--flagfile={path}")
    for word in words:
        assert word in message


def test_a_flagfile_that_is_no_text_file_is_refused_by_name(tmp_path):
    path = tmp_path / "binary.flags"
    path.write_bytes(b"\xff\xfe--num_steps=5")
    assert "binary.flags" in refusal(f"--flagfile={path}")
    assert str(tmp_path) in refusal(f"--flagfile={tmp_path}")
    assert "flagfile" in refusal("--flagfile=a\0b") or "null" in refusal("--flagfile=a\0b")


# -- garbage -----------------------------------------------------------------------------------------------------

PIECES = [
    "",
    "0",
    "-1",
    "1e5",
    "1e400",
    "nan",
    "inf",
    "auto",
    "true",
    ",",
    "1,2",
    "a",
    " ",
    "=",
    "--",
    "-",
    "é",
    "\n",
]
PIECES += [
    "\t",
    "9" * 400,
    "0x10",
    "None",
    "[]",
    "__class__",
    "%s",
    "{}",
    "'",
    '"',
    "\\",
    "no",
    "½",
    "１２",
    "_",
    "1_0",
]


def garbage(random_numbers, names):
    def word(most):
        return "".join(random_numbers.choices(PIECES, k=random_numbers.randint(0, most)))

    kind = random_numbers.randrange(8)
    name = random_numbers.choice(names)
    if kind == 0:
        return word(3)
    if kind == 1:
        return f"--{word(2)}={word(2)}"
    if kind == 2:
        return f"--no{name}"
    if kind == 3:
        return f"--{name}"
    return f"{random_numbers.choice(['-', '--'])}{name}={word(3)}"


def test_garbage_never_raises_anything_but_a_flags_error():
    random_numbers = random.Random(20261120)
    knobs = flags.knobs_of("mbpo", REGISTRY["mbpo"].default_config())
    names = [*options.short_names(knobs).values(), "help", "planner", "svg_steps"]
    refused = 0
    for _ in range(120):  # tests/slow/flag_fuzz.py tries as many as one likes
        argv = [garbage(random_numbers, names) for _ in range(random_numbers.randint(1, 3))]
        try:
            run, config = flags.parse(argv)
        except FlagsError as error:
            refused += 1
            assert str(error), argv
            assert len(str(error).splitlines()) == 1, argv
        else:
            assert isinstance(run, RunConfig)
            assert isinstance(config, REGISTRY[run.algorithm].config_class)
    assert 60 < refused < 120  # some of it is fine, and that has been seen too


def test_garbage_in_a_flagfile_never_raises_anything_but_a_flags_error(tmp_path):
    random_numbers = random.Random(8)
    names = [name for name in flags.define() if name not in ("flagfile",)]
    path = tmp_path / "garbage.flags"
    refused = 0
    for _ in range(100):
        path.write_text("\n".join(garbage(random_numbers, names) for _ in range(3)))
        try:
            flags.parse([f"--flagfile={path}"])
        except FlagsError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1, path.read_text()
    assert refused > 50
