"""Knobs: one `option(...)` line gives a field of a frozen dataclass its default, its help text and its range.

Flags, `--help`, `config.json` and the checks of the Python API are all derived from these lines. A config may contain
other configs, its sections. A knob's full path includes the sections around it: `discount` in the section `agent` is
`agent.discount`. A section can be one of several classes, chosen by name (`chosen_section`); the path of the section,
`agent`, then stands for that name.
"""

import dataclasses
import functools
import math
import typing
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from typing import Any

MOST = 2**31 - 1  # largest whole number allowed: counters and indices on the device have 32 bits
CHOICE = "choice"  # in JSON, the entry of a section that says which class was chosen; no knob has this name


@dataclasses.dataclass(frozen=True)
class Knob:
    """The declaration of a knob."""

    name: str
    type: Any
    default: Any
    help: str
    minimum: float = -math.inf
    maximum: float = math.inf
    choices: Collection[str] = ()  # if there are any, nothing else is allowed
    before: Any = None  # the value that reproduces versions without this knob; None: the default


def option(
    default: Any,
    help: str,
    *,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    choices: Collection[str] = (),
    before: Any = None,
) -> Any:
    """Declares a knob: a dataclass field with a default, a help text (with its unit) and a range, bounds included.

    Args:
      before: the value with which a run from a version without this knob continues unchanged, if not the default.
    """
    metadata = {"help": help, "minimum": minimum, "maximum": maximum, "choices": choices, "before": before}
    return dataclasses.field(default=default, metadata=metadata)


def chosen_section(default: Any, help: str, classes: Mapping[str, type]) -> Any:
    """Declares a section whose config has one of several classes.

    Args:
      default: an instance of one of them.
      classes: by the names that choose them.
    """
    return dataclasses.field(default=default, metadata={"section_help": help, "classes": classes})


def allowed(knob: Knob) -> str:
    """Describes the values that a knob may have, for error messages and `--help`."""
    if knob.choices:
        return "one of " + ", ".join(knob.choices)
    kind = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        float | None: "a number, or 'auto'",
        tuple[int, ...]: "whole numbers separated by commas",
        tuple[float, ...]: "numbers separated by commas",
    }[knob.type]
    if math.isinf(knob.minimum) and math.isinf(knob.maximum):
        return kind
    if math.isinf(knob.maximum):
        return f"{kind}, {_exactly(knob.minimum)} or more"
    return f"{kind} in [{_exactly(knob.minimum)}, {_exactly(knob.maximum)}]"


def _exactly(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


# -- checks ------------------------------------------------------------------------------------------------------


def check(config: Any) -> None:
    """Checks every knob of a config against its type and range; called from `__post_init__`.

    Raises:
      ValueError: names the knob, its value and what is allowed.
    """
    for knob in knobs(type(config)):
        check_value(knob, getattr(config, knob.name))
    for field in _section_fields(config):
        value = getattr(config, field.name)
        classes = field.metadata.get("classes", {field.name: type(field.default)})
        if type(value) not in classes.values():
            names = " or ".join(section_class.__name__ for section_class in classes.values())
            raise ValueError(f"{field.name} must be a {names}, got {value!r}")


def check_value(knob: Knob, value: Any, name: str | None = None) -> None:
    """Checks a value against a knob's type and range.

    Args:
      name: what the knob is called in the message; its own name if left out.
    Raises:
      ValueError: names the knob, the value and what is allowed.
    """
    name = knob.name if name is None else name
    if not _fits(knob, value):
        raise ValueError(f"{name} must be {allowed(knob)}, got {value!r}")
    numbers = value if isinstance(value, tuple) else (value,)
    if knob.type in (int, tuple[int, ...]) and max(numbers) > MOST:
        raise ValueError(f"{name} must be at most {MOST}, got {value!r}")


def _fits(knob: Knob, value: Any) -> bool:
    if knob.choices:
        return isinstance(value, str) and value in knob.choices
    if knob.type in (bool, str):
        return isinstance(value, knob.type)
    if value is None:
        return bool(knob.type == float | None)
    whole = knob.type in (int, tuple[int, ...])
    if knob.type not in (tuple[int, ...], tuple[float, ...]):
        return _is_number(value, whole) and knob.minimum <= value <= knob.maximum
    return (
        isinstance(value, tuple)
        and bool(value)
        and all(_is_number(item, whole) and knob.minimum <= item <= knob.maximum for item in value)
    )


def _is_number(value: Any, whole: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or (not whole and math.isfinite(value))


# -- the knobs of a config ---------------------------------------------------------------------------------------


def knobs(config_class: type) -> tuple[Knob, ...]:
    """Returns the knobs of a config class, in order, without those of its sections."""
    return _knobs(config_class)


@functools.cache
def _knobs(config_class: Hashable) -> tuple[Knob, ...]:
    assert isinstance(config_class, type)
    hints = typing.get_type_hints(config_class)
    fields = [field for field in dataclasses.fields(config_class) if "help" in field.metadata]
    return tuple(Knob(field.name, hints[field.name], field.default, **field.metadata) for field in fields)


def sections(config: Any) -> dict[str, Any]:
    """Returns the sections of a config, by field name."""
    return {field.name: getattr(config, field.name) for field in _section_fields(config)}


def tree(config: Any) -> dict[str, Knob]:
    """Returns every knob of a config and of its sections by full path; their defaults are the config's values.

    A chosen section is also a knob, listed before those inside it: its value is the chosen name.
    """
    found = {knob.name: dataclasses.replace(knob, default=getattr(config, knob.name)) for knob in knobs(type(config))}
    for field in _section_fields(config):
        section = getattr(config, field.name)
        if "classes" in field.metadata:
            found[field.name] = _choice_knob(field, section)
        found |= {f"{field.name}.{path}": knob for path, knob in tree(section).items()}
    return found


def values(config: Any) -> dict[str, Any]:
    """Returns the value of every knob by full path; that of a chosen section is its name."""
    return {path: knob.default for path, knob in tree(config).items()}


def values_before(config: Any) -> dict[str, Any]:
    """Returns, by full path, the values that reproduce versions without a knob, where these are not its default."""
    return {path: knob.before for path, knob in tree(config).items() if knob.before is not None}


def choices(config: Any) -> dict[str, str]:
    """Returns the chosen name of each chosen section of a config, by the section's field."""
    chosen = (field for field in _section_fields(config) if "classes" in field.metadata)
    return {field.name: _choice_knob(field, getattr(config, field.name)).default for field in chosen}


def replace(config: Any, changes: Mapping[str, Any]) -> Any:
    """Returns a config with some values changed.

    Args:
      changes: by full path; a section that is given another name starts from the defaults of that class.
    Raises:
      ValueError: names the knob by its full path, and its value; or a path that is not a knob.
    """
    own: dict[str, Any] = {}
    inside: dict[str, dict[str, Any]] = {name: {} for name in sections(config)}
    known = {knob.name for knob in knobs(type(config))} | choices(config).keys()
    for path, value in changes.items():
        name, _, rest = path.partition(".")
        if rest and name in inside:
            inside[name][rest] = value
        elif path in known:
            own[path] = value
        else:
            raise ValueError(f"{path} is not a knob of {type(config).__name__}, got {value!r}")
    for field in _section_fields(config):
        section = getattr(config, field.name)
        if field.name in own:
            section = _choose(field, section, own[field.name])
        try:
            own[field.name] = replace(section, inside[field.name])
        except ValueError as error:
            raise ValueError(f"{field.name}.{error}") from error
    return dataclasses.replace(config, **own)


def _choose(field: dataclasses.Field[Any], section: Any, name: Any) -> Any:
    """Returns the section if it already has the class of this name, else the defaults of that class."""
    check_value(_choice_knob(field, section), name)
    section_class = field.metadata["classes"][name]
    return section if type(section) is section_class else section_class()


def _choice_knob(field: dataclasses.Field[Any], section: Any) -> Knob:
    """Returns the knob that stands for a chosen section; its default is the chosen name."""
    names = {section_class: name for name, section_class in field.metadata["classes"].items()}
    return Knob(field.name, str, names[type(section)], field.metadata["section_help"], choices=tuple(names.values()))


def _section_fields(config: Any) -> Iterator[dataclasses.Field[Any]]:
    return (field for field in dataclasses.fields(config) if dataclasses.is_dataclass(field.default))


# -- as JSON, and by name ----------------------------------------------------------------------------------------


def nested(config: Any) -> dict[str, Any]:
    """Returns a config as nested dicts; that of a chosen section has the chosen name under `CHOICE`."""
    value = {knob.name: getattr(config, knob.name) for knob in knobs(type(config))}
    chosen = choices(config)
    for name, section in sections(config).items():
        value[name] = ({CHOICE: chosen[name]} if name in chosen else {}) | nested(section)
    return value


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the values in nested dicts (see `nested`) by full path."""
    found: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, Mapping) and item:  # an empty one is a bad value, and rejected as such
            found |= flat(item, f"{prefix}{name}.")
        else:
            found[prefix.removesuffix(".") if name == CHOICE and prefix else prefix + name] = item
    return found


def meanings(paths: Iterable[str]) -> dict[str, list[str]]:
    """Returns the full paths that each name may mean: a path means itself, a last word every path that ends in it."""
    found: dict[str, list[str]] = {}
    for path in paths:
        found.setdefault(path.rpartition(".")[2], []).append(path)
    return found | {path: [path] for path in paths}


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """Returns the short name of each path: its last word if that is unambiguous, else the path itself."""
    paths = list(paths)
    found = meanings(paths)
    names = {path: path.rpartition(".")[2] for path in paths}
    return {path: name if found[name] == [path] else path for path, name in names.items()}


def with_paths(old: Mapping[str, Any], paths: Iterable[str]) -> dict[str, Any]:
    """Returns values by full path, given values by last word, as older versions wrote them.

    A name that may mean several paths, or none, is left unchanged.
    """
    found = meanings(paths)
    return {found[name][0] if len(found.get(name, ())) == 1 else name: value for name, value in old.items()}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    """Returns, by full path, what each differing knob was and is, in the order of their short names.

    Where another section was chosen, the knobs inside it are left out.
    """
    names = short_names(old.keys() | new.keys())
    differ = [path for path in sorted(names, key=names.__getitem__) if old.get(path) != new.get(path)]
    paths = [path for path in differ if path.rpartition(".")[0] not in differ]
    return {path: f"{names[path]} was {old.get(path)!r}, is {new.get(path, 'not known')!r}" for path in paths}
