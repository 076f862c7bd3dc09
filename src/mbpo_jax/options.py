"""Knobs: one `option(...)` line gives a field of a frozen dataclass its default, its help text and its range.

Flags, `--help`, `config.json` and the checks of the Python API are all derived from these lines.
"""

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any

MOST = 2**31 - 1  # of any whole number: counters and indices on the device have 32 bits


def option(
    default: Any,
    help: str,
    *,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    choices: tuple[str, ...] = (),
) -> Any:
    """A dataclass field with a default, a help text (with its unit) and an allowed range, ends included."""
    return dataclasses.field(
        default=default, metadata={"help": help, "minimum": minimum, "maximum": maximum, "choices": choices}
    )


def allowed(field: dataclasses.Field[Any]) -> str:
    """The values a knob takes, in words, for error messages and `--help`."""
    low, high = field.metadata["minimum"], field.metadata["maximum"]
    if field.metadata["choices"]:
        return "one of " + ", ".join(field.metadata["choices"])
    kind = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        float | None: "a number, or 'auto'",
        tuple[int, ...]: "whole numbers separated by commas",
        tuple[float, ...]: "numbers separated by commas",
    }[field.type]  # type: ignore[index]
    if math.isinf(low) and math.isinf(high):
        return kind
    if math.isinf(high):
        return f"{kind}, {_exactly(low)} or more"
    return f"{kind} in [{_exactly(low)}, {_exactly(high)}]"


def _exactly(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def check(config: Any) -> None:
    """Checks every knob of a config against its type and range; called from `__post_init__`.

    Raises:
      ValueError: names the knob, its value and what is allowed.
    """
    for field in knobs(type(config)):
        value = getattr(config, field.name)
        if not _fits(field, value):
            raise ValueError(f"{field.name} must be {allowed(field)}, got {value!r}")
        numbers = value if isinstance(value, tuple) else (value,)
        if field.type in (int, tuple[int, ...]) and max(numbers) > MOST:
            raise ValueError(f"{field.name} must be at most {MOST}, got {value!r}")


def knobs(config_class: type) -> list[dataclasses.Field[Any]]:
    """The fields of a config class that are knobs, with their types resolved; nested configs are left out."""
    hints = typing.get_type_hints(config_class)
    fields = [field for field in dataclasses.fields(config_class) if "help" in field.metadata]
    for field in fields:
        field.type = hints[field.name]
    return fields


def sections(config_class: type) -> dict[str, type]:
    """The nested configs of a config class, by field name."""
    hints = typing.get_type_hints(config_class)
    fields = dataclasses.fields(config_class)
    return {field.name: hints[field.name] for field in fields if dataclasses.is_dataclass(hints[field.name])}


def flat(value: Mapping[str, Any]) -> dict[str, Any]:
    """Every knob by its name alone, those of nested sections too."""
    found: dict[str, Any] = {}
    for name, item in value.items():
        found |= flat(item) if isinstance(item, dict) else {name: item}
    return found


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    """For each knob that differs, by name: what it was and what it is."""
    names = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    return {name: f"{name} was {old.get(name)!r}, is {new.get(name, 'not known')!r}" for name in names}


def _fits(field: dataclasses.Field[Any], value: Any) -> bool:
    low, high = field.metadata["minimum"], field.metadata["maximum"]
    if field.metadata["choices"]:
        return value in field.metadata["choices"]
    if field.type in (bool, str):
        return isinstance(value, field.type)  # type: ignore[arg-type]
    if value is None:
        return field.type == float | None
    if field.type in (tuple[int, ...], tuple[float, ...]):
        is_list = isinstance(value, tuple) and bool(value)
        return is_list and all(_is_number(v, field.type == tuple[int, ...]) and low <= v <= high for v in value)
    return _is_number(value, field.type is int) and low <= value <= high


def _is_number(value: Any, whole: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or (not whole and math.isfinite(value))
