"""Knobs carry their defaults, their help and what is allowed, and what is not allowed is refused."""

import dataclasses
import math

import pytest

from mbpo_jax import options
from mbpo_jax.options import check, option


@dataclasses.dataclass(frozen=True)
class Inner:
    depth: int = option(3, "Layers.", minimum=1)


@dataclasses.dataclass(frozen=True)
class Knobs:
    share: float = option(0.5, "A share.", minimum=0.0, maximum=1.0)
    rows: int = option(10, "Rows.", minimum=1)
    gain: float = option(2.0, "A gain.")
    entropy: float | None = option(None, "Nats; auto is minus the actions.", minimum=-10.0)
    schedule: tuple[int, ...] = option((1, 2), "Epochs.", minimum=0)
    decays: tuple[float, ...] = option((0.5, 1.0), "Decays.", minimum=0.0, maximum=2.0)
    resume: bool = option(False, "Whether to go on.")
    name: str = option("run", "A name.")
    lifting: str = option("auto", "How.", choices=("auto", "each"))
    count: int = option(0, "Any whole number.")
    inner: Inner = Inner()
    derived: int = 7  # not a knob

    def __post_init__(self) -> None:
        check(self)


def field(name):
    (found,) = (field for field in options.knobs(Knobs) if field.name == name)
    return found


def test_a_knob_carries_its_default_and_its_help():
    assert Knobs().share == 0.5
    assert field("share").default == 0.5
    assert field("share").help == "A share."
    assert field("share").minimum == 0.0
    assert field("share").maximum == 1.0
    assert field("lifting").choices == ("auto", "each")


def test_knobs_come_in_order_with_types_and_without_the_rest():
    assert [(knob.name, knob.type) for knob in options.knobs(Knobs)] == [
        ("share", float),
        ("rows", int),
        ("gain", float),
        ("entropy", float | None),
        ("schedule", tuple[int, ...]),
        ("decays", tuple[float, ...]),
        ("resume", bool),
        ("name", str),
        ("lifting", str),
        ("count", int),
    ]


def test_sections_are_the_nested_configs():
    assert options.sections(Knobs()) == {"inner": Inner()}
    assert options.sections(Inner()) == {}


def test_types_written_as_text_are_resolved():
    @dataclasses.dataclass(frozen=True)
    class Late:
        rows: "int" = option(1, "Rows.", minimum=1)

    (knob,) = options.knobs(Late)
    assert knob.type is int
    assert dataclasses.fields(Late)[0].type == "int"  # which others may read, too
    with pytest.raises(ValueError, match="rows must be a whole number, 1 or more, got 0"):
        check(Late(rows=0))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("share", "a number in [0, 1]"),
        ("rows", "a whole number, 1 or more"),
        ("gain", "a number"),
        ("entropy", "a number, or 'auto', -10 or more"),
        ("schedule", "whole numbers separated by commas, 0 or more"),
        ("decays", "numbers separated by commas in [0, 2]"),
        ("resume", "true or false"),
        ("name", "text"),
        ("lifting", "one of auto, each"),
        ("count", "a whole number"),
    ],
)
def test_what_is_allowed_is_said_in_words(name, words):
    assert options.allowed(field(name)) == words


GOOD = {
    "share": [0.0, 1.0, 0.3, 0, 1],  # ends included; a whole number is a number
    "rows": [1, 2**31 - 1],
    "gain": [-1e30, 1e30, 0],
    "entropy": [None, -10.0, 3],
    "schedule": [(0,), (0, 5, 1, 1)],
    "decays": [(0.0, 2.0), (1,)],
    "resume": [True, False],
    "name": ["", "auto"],
    "lifting": ["auto", "each"],
    "count": [-5, 0],
}
BAD = {
    "share": [-1e-9, 1.0 + 1e-9, math.nan, math.inf, "0.5", None, True, (0.5,)],
    "rows": [0, -1, 1.0, 2.5, True, "3", None],
    "gain": [math.nan, math.inf, -math.inf, False, None],
    "entropy": [-10.5, math.nan, "auto", False],
    "schedule": [(), (1, -1), (1, 2.0), [1, 2], 1, (True,), None],
    "decays": [(), (0.5, 2.5), (math.nan,), (-0.1,), [0.5], "0.5", ("0.5",)],
    "resume": [0, 1, "true", None],
    "name": [3, None],
    "lifting": ["", "vmap", None],
    "count": [0.0, False],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in GOOD.items() for value in values])
def test_what_is_allowed_passes_unchanged(name, value):
    assert getattr(Knobs(**{name: value}), name) is value


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_what_is_not_allowed_is_named_with_what_is(name, value):
    with pytest.raises(ValueError, match="must be") as caught:
        Knobs(**{name: value})
    assert str(caught.value) == f"{name} must be {options.allowed(field(name))}, got {value!r}"


def test_every_type_is_covered_above():
    assert set(GOOD) == set(BAD) == {knob.name for knob in options.knobs(Knobs)}


def test_a_whole_number_that_no_counter_holds_is_refused():
    for knobs in ({"rows": 2**31}, {"count": 10**30}, {"schedule": (1, 2**31)}):
        with pytest.raises(ValueError, match=f"{next(iter(knobs))} must be at most 2147483647, got .*[(0-9]"):
            Knobs(**knobs)
    assert Knobs(gain=1e30).gain == 1e30
