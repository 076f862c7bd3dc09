"""Command-line flags, generated from the frozen config dataclasses: a flag for each knob, with its name."""

import dataclasses
import math
from typing import Any

from absl import flags

from mbpo_jax import options
from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.driver.config import AUTO, RunConfig


class FlagsError(ValueError):
    """The command line or a flagfile cannot be used; the message is one line for the user."""


class _KnobParser(flags.ArgumentParser[Any]):
    """Text to the type of a knob."""

    def __init__(self, field: dataclasses.Field[Any]) -> None:
        self._field = field
        self.syntactic_help = options.allowed(field)

    def flag_type(self) -> str:
        """Shown by --help."""
        return options.allowed(self._field)

    def parse(self, argument: Any) -> Any:
        """The knob's value.

        Raises:
          ValueError: says what is allowed.
        """
        if not isinstance(argument, str):
            return argument
        try:
            return _convert(self._field.type, argument.strip())
        except ValueError as error:
            raise ValueError(f"must be {options.allowed(self._field)}") from error


def define() -> flags.FlagValues:
    """The flags of the run and of every algorithm in the registry."""
    values = flags.FlagValues()
    flags.DEFINE_string("flagfile", "", "Read more flags from this file, one a line.", flag_values=values)
    flags.DEFINE_boolean("help", False, "Show this help.", short_name="h", flag_values=values)
    for name, fields in _flag_fields().items():
        field = next(iter(fields.values()))
        # Defaults differ between algorithms, so a flag has none; what is not given is left to the dataclass.
        flag: flags.Flag[Any] = flags.Flag(
            _KnobParser(field), None, name, None, _describe(fields), boolean=field.type is bool
        )
        flags.DEFINE_flag(flag, flag_values=values, module_name="mbpo_jax")
    return values


def parse(argv: list[str]) -> tuple[RunConfig, Any]:
    """The configs that a command line asks for.

    Args:
      argv: without the program's name.
    Raises:
      FlagsError: names the flag or file, the value, and what is allowed.
    """
    values = define()
    rest = _read(values, argv)
    if values["help"].value:
        raise FlagsError("--help stands alone on the command line, got it in a flagfile or from Python")
    if rest:
        raise FlagsError(f"every argument must be a --flag=value, got {rest[0]!r}")
    given = {
        name: values[name].value for name in values if values[name].present and name not in ("flagfile", "help", "h")
    }
    try:
        run_names = {field.name for field in options.knobs(RunConfig)}
        run = RunConfig(**{name: value for name, value in given.items() if name in run_names})
        config_class = REGISTRY[run.algorithm].config_class
        readable = run_names | set(_knobs_of(config_class))
        for name in given:
            if name not in readable:
                text = _text(given[name])
                raise ValueError(f"{name}={text} is not read by --algorithm={run.algorithm}; leave it out")
        return run, _build(config_class, given)
    except ValueError as error:
        raise FlagsError(_one_line(f"--{error}")) from error


def help_text() -> str:
    """What --help prints."""
    values = define()
    width = 2 + max(map(len, REGISTRY))
    members = "\n".join(f"  {name:{width}}{member.summary}" for name, member in REGISTRY.items())
    usage = "usage: python -m mbpo_jax.main [--flagfile=FILE] [--flag=value ...]"
    lines = [usage, "", "algorithms:", members, "", "flags:"]
    for name in sorted(values):
        if len(name) > 1:
            lines.append(f"  --{name}\n      {values[name].help}")
    return "\n".join(lines)


def _read(values: flags.FlagValues, argv: list[str]) -> list[str]:
    """Sets the flags; returns the arguments that are none."""
    try:
        arguments = values.read_flags_from_files(argv, force_gnu=False)
        # absl passes over these two in silence, and a run would begin without what its caller meant.
        if any(argument.partition("=")[0].lstrip("-") == "undefok" for argument in arguments):
            raise FlagsError("--undefok is not a flag; --help lists them")
        if any(argument in ("--flagfile=", "-flagfile=") for argument in argv):
            raise FlagsError("--flagfile must be a file that can be read, got ''")
        return values(["mbpo_jax", *arguments])[1:]
    except FlagsError:
        raise
    except flags.UnrecognizedFlagError as error:
        raise FlagsError(_one_line(f"{error}; --help lists the flags, got {error.flagvalue!r}")) from error
    except UnicodeDecodeError as error:
        files = [argument for argument in argv if "flagfile" in argument]
        raise FlagsError(_one_line(f"{' '.join(files)} must be a text file: {error}")) from error
    except (flags.Error, OSError, ValueError) as error:
        raise FlagsError(_one_line(error)) from error


def _flag_fields() -> dict[str, dict[str, dataclasses.Field[Any]]]:
    """Per flag, the knobs that it sets, by the algorithm that reads them; "" for those of the run."""
    found: dict[str, dict[str, dataclasses.Field[Any]]] = {
        field.name: {"": field} for field in options.knobs(RunConfig)
    }
    for algorithm, member in REGISTRY.items():
        for name, field in _knobs_of(member.config_class).items():
            found.setdefault(name, {})[algorithm] = field
    return found


def _describe(fields: dict[str, dataclasses.Field[Any]]) -> str:
    """A flag's help: meaning, what is allowed, and the default of each algorithm that reads it."""
    field = next(iter(fields.values()))
    defaults = {reader: _text(knob.default) for reader, knob in fields.items()}
    if len(set(defaults.values())) == 1:
        default = _text(field.default)
    else:
        default = ", ".join(f"{value} ({reader})" for reader, value in defaults.items())
    note = "" if "" in fields else f" [{', '.join(fields)}]"
    return f"{field.metadata['help']}{note} Allowed: {options.allowed(field)}. Default: {default}."


def _knobs_of(config_class: type) -> dict[str, dataclasses.Field[Any]]:
    """The knobs of a config and of its sections, by name; a name used twice is a mistake of ours."""
    found = {field.name: field for field in options.knobs(config_class)}
    for section in options.sections(config_class).values():
        for name, field in _knobs_of(section).items():
            if name in found:
                raise TypeError(f"{config_class.__name__} has the knob {name} twice")
            found[name] = field
    return found


def _build(config_class: type, given: dict[str, Any]) -> Any:
    arguments = {name: _build(section, given) for name, section in options.sections(config_class).items()}
    arguments |= {field.name: given[field.name] for field in options.knobs(config_class) if field.name in given}
    return config_class(**arguments)


def _convert(kind: Any, text: str) -> Any:
    if kind is str:
        return text
    if kind is bool:
        if text.lower() not in ("true", "false", "1", "0"):
            raise ValueError(text)
        return text.lower() in ("true", "1")
    if kind == float | None:
        return None if text.lower() == AUTO else _number(text)
    if kind == tuple[int, ...]:
        return tuple(_whole(part) for part in text.split(","))
    if kind == tuple[float, ...]:
        return tuple(_number(part) for part in text.split(","))
    return _whole(text) if kind is int else _number(text)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _whole(text: str) -> int:
    """A whole number, also written 400_000 or 4e5."""
    try:
        return int(text)
    except ValueError:
        value = _number(text)
        if value != int(value):
            raise
        return int(value)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value)
    return AUTO if value is None else str(value)


def _one_line(error: Exception | str) -> str:
    return " ".join(str(error).split())
