"""Garbage, on the command line or in a flagfile, never raises anything but a FlagsError."""

import random

from mbpo_jax import options
from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.driver.config import RunConfig
from mbpo_jax.launch import flags
from mbpo_jax.launch.flags import FlagsError

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
