"""Configs with sections: the paths of their knobs, values by path, differences, and short names."""

import dataclasses

import pytest

from mbpo_jax import options
from mbpo_jax.options import check, option


@dataclasses.dataclass(frozen=True)
class Model:
    members: int = option(7, "Members.", minimum=1)
    elites: int = option(5, "Elites.", minimum=1)

    def __post_init__(self) -> None:
        check(self)
        if self.elites > self.members:
            raise ValueError(f"elites must be at most members ({self.members}), got {self.elites}")


@dataclasses.dataclass(frozen=True)
class Soft:
    discount: float = option(0.99, "Discount.", minimum=0.0, maximum=1.0)
    entropy: float = option(1.0, "Nats.")


@dataclasses.dataclass(frozen=True)
class Hard:
    discount: float = option(0.9, "Discount.", minimum=0.0, maximum=1.0)
    noise: float = option(0.1, "Noise.")


@dataclasses.dataclass(frozen=True)
class Both:
    """Two sections of one class, one of them with defaults of its own, and one section that is chosen."""

    rows: int = option(10, "Rows.", minimum=1)
    model: Model = Model()
    backward_model: Model = Model(members=3, elites=2)
    agent: Soft | Hard = options.chosen_section(Soft(), "Who acts.", {"soft": Soft, "hard": Hard})

    def __post_init__(self) -> None:
        check(self)


VALUES = {
    "rows": 10,
    "model.members": 7,
    "model.elites": 5,
    "backward_model.members": 3,
    "backward_model.elites": 2,
    "agent": "soft",
    "agent.discount": 0.99,
    "agent.entropy": 1.0,
}
HARD = {name: value for name, value in VALUES.items() if name != "agent.entropy"} | {
    "agent": "hard",
    "agent.discount": 0.9,
    "agent.noise": 0.1,
}


def test_every_knob_has_its_full_path_and_a_choice_is_a_knob():
    assert options.values(Both()) == VALUES
    assert options.values(Both(agent=Hard())) == HARD
    assert list(options.tree(Both())) == list(VALUES)
    knob = options.tree(Both(agent=Hard()))["agent"]
    assert (knob.type, knob.default, knob.help, options.allowed(knob)) == (
        str,
        "hard",
        "Who acts.",
        "one of soft, hard",
    )
    assert options.choices(Both(agent=Hard())) == {"agent": "hard"}
    assert options.choices(Model()) == {}


@pytest.mark.parametrize("config", [Both(), Both(agent=Hard(noise=0.3)), Both(rows=3, backward_model=Model(9, 1))])
def test_a_config_comes_back_from_its_values_and_from_nested_dicts(config):
    assert options.replace(Both(), options.values(config)) == config
    assert options.flat(options.nested(config)) == options.values(config)


def test_nested_dicts_say_which_section_was_chosen():
    nested = options.nested(Both(agent=Hard()))
    assert nested["agent"] == {"choice": "hard", "discount": 0.9, "noise": 0.1}
    assert nested["model"] == {"members": 7, "elites": 5}


def test_nested_dicts_without_a_choice_are_read_with_the_section_that_is_there():
    nested = options.nested(Both(agent=Hard(noise=0.3)))
    del nested["agent"]["choice"]
    assert options.replace(Both(agent=Hard()), options.flat(nested)) == Both(agent=Hard(noise=0.3))
    with pytest.raises(ValueError, match=r"agent.noise is not a knob of Soft, got 0.3"):
        options.replace(Both(), options.flat(nested))


def test_values_are_replaced_where_they_are_and_nowhere_else():
    changed = options.replace(Both(), {"backward_model.elites": 1, "agent": "hard", "agent.noise": 0.7, "rows": 2})
    assert changed == Both(rows=2, backward_model=Model(members=3, elites=1), agent=Hard(noise=0.7))
    kept = options.replace(Both(agent=Hard(noise=0.7)), {"agent": "hard", "agent.discount": 0.5})
    assert kept.agent == Hard(discount=0.5, noise=0.7)  # it was the chosen one before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"agent": "wild"}, "agent must be one of soft, hard, got 'wild'"),
        ({"agent": ["soft"]}, r"agent must be one of soft, hard, got \['soft'\]"),
        ({"agent.noise": 0.3}, "agent.noise is not a knob of Soft, got 0.3"),
        ({"model": 5}, "model is not a knob of Both, got 5"),
        ({"rows.x": 5}, "rows.x is not a knob of Both, got 5"),
        ({"nothing": 5}, "nothing is not a knob of Both, got 5"),
        ({"members": 5}, "members is not a knob of Both, got 5"),
        ({"model.members": 0}, "model.members must be a whole number, 1 or more, got 0"),
        ({"backward_model.elites": 4}, r"backward_model.elites must be at most members \(3\), got 4"),
    ],
)
def test_what_cannot_be_replaced_is_named_by_its_path(changes, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        options.replace(Both(), changes)


def test_a_section_of_another_class_is_refused():
    with pytest.raises(ValueError, match=r"agent must be a Soft or Hard, got Model\("):
        Both(agent=Model())
    with pytest.raises(ValueError, match="model must be a Model, got 5"):
        Both(model=5)


def test_a_difference_between_knobs_of_one_name_is_seen():
    """Of two equal names one used to be kept, so a change of the other was none."""
    old, new = (options.values(Both(model=model)) for model in (Model(), Model(members=6)))
    assert options.differences(old, new) == {"model.members": "model.members was 7, is 6"}
    old, new = (options.flat(options.nested(Both(model=model))) for model in (Model(), Model(members=6)))
    assert options.differences(old, new) == {"model.members": "model.members was 7, is 6"}


def test_a_difference_is_told_by_the_name_that_a_flag_would_have():
    changed = {name: value for name, value in VALUES.items() if name != "rows"} | {"agent.discount": 0.5, "new": 1}
    assert list(options.differences(VALUES, changed).items()) == [
        ("agent.discount", "discount was 0.99, is 0.5"),
        ("new", "new was None, is 1"),
        ("rows", "rows was 10, is 'not known'"),
    ]


def test_of_another_section_the_choice_alone_is_told():
    assert options.differences(VALUES, HARD) == {"agent": "agent was 'soft', is 'hard'"}


def test_a_name_is_short_where_it_means_one_thing():
    paths = [*VALUES, "model.rows"]
    assert options.short_names(paths) == {path: path for path in paths} | {
        "agent.discount": "discount",
        "agent.entropy": "entropy",
    }
    assert options.meanings(paths)["members"] == ["model.members", "backward_model.members"]
    assert options.meanings(paths)["rows"] == ["rows"]  # the whole path of one of them
    assert options.meanings(paths)["discount"] == options.meanings(paths)["agent.discount"] == ["agent.discount"]


def test_what_older_versions_wrote_is_understood_where_it_means_one_thing():
    old = {"rows": 3, "discount": 0.5, "members": 4, "gone": 1, "model.elites": 2}
    assert options.with_paths(old, VALUES) == {
        "rows": 3,
        "agent.discount": 0.5,
        "members": 4,
        "gone": 1,
        "model.elites": 2,
    }
