"""Flags set knobs, on the command line and in flagfiles, and what is wrong is refused in one line."""

import pytest
from parsed_flags import flat, refusal

from mbpo_jax.algorithms.mbpo import MbpoConfig
from mbpo_jax.algorithms.model_free import ModelFreeConfig
from mbpo_jax.driver.config import RunConfig
from mbpo_jax.launch import flags

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
        ("--eval_episodes=-3", "-3", "a whole number, 0 or more"),
        ("--eval_episodes=true", "true", "a whole number, 0 or more"),
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
