"""Generates the command-line flags from the frozen config dataclasses: a flag for each knob.

A flag is named after its knob if no other knob of the algorithm has that name (`--discount`), and otherwise after its
full path (`--backward_model.num_members`); the full path always works. What a flag means depends on the algorithm and
its sections (`--algorithm`, `--agent`, ...): absl reads every value as text, which is then parsed as the type of that
algorithm's knob.
"""

import functools
import math
from pathlib import Path
from typing import Any

from absl import flags

from mbpo_jax import options
from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.driver.config import AUTO, RunConfig
from mbpo_jax.launch import flagfiles
from mbpo_jax.options import Knob

FLAGFILE = "Read more flags from a file, one per line: a path, or a flagfile that comes with mbpo_jax."
HELP = "Show this help."
OWN_FLAGS = ("flagfile", "help", "h")


class FlagsError(ValueError):
    """The command line or a flagfile cannot be used; the message is one line for the user."""


def define() -> flags.FlagValues:
    """Returns the flags of the run and of every algorithm in the registry; their values are lists of strings."""
    found = flags.FlagValues()
    flags.DEFINE_string("flagfile", "", FLAGFILE, flag_values=found)
    flags.DEFINE_boolean("help", False, HELP, short_name="h", flag_values=found)
    kinds: dict[str, list[Any]] = {}
    for readers in _readers().values():
        for knobs in readers.values():
            for name, paths in options.meanings(knobs).items():
                kinds.setdefault(name, []).extend(knobs[path].type for path in paths)
    for name, types in kinds.items():
        boolean = all(kind is bool for kind in types)
        text: flags.ArgumentParser[str] = flags.ArgumentParser()
        flag = flags.MultiFlag(text, None, name, None, None, boolean=boolean)
        flags.DEFINE_flag(flag, flag_values=found, module_name="mbpo_jax")
    return found


def parse(argv: list[str]) -> tuple[RunConfig, Any]:
    """Returns the configs that a command line asks for.

    Args:
      argv: without the program's name.
    Raises:
      FlagsError: names the flag or file, the value, and what is allowed.
    """
    run, config, _ = parse_with_notes(argv)
    return run, config


def parse_with_notes(argv: list[str]) -> tuple[RunConfig, Any, list[str]]:
    """Returns what `parse` does, and a note on each flag of a flagfile that another choice has made meaningless."""
    found = define()
    rest, files = _read(found, argv)
    if found["help"].value:
        raise FlagsError(
            "--help must be given on the command line, without a value, got it with one, in a flagfile or from Python"
        )
    if rest:
        raise FlagsError(f"every argument must be a --flag=value, got {rest[0]!r}")
    try:
        given = {name: found[name].value for name in found if found[name].present and name not in OWN_FLAGS}
        return _configs(given, {name: files.get(name) for name in given})
    except ValueError as error:
        raise FlagsError(_one_line(f"--{error}")) from error


def _read(found: flags.FlagValues, argv: list[str]) -> tuple[list[str], dict[str, Path | None]]:
    """Sets the flags; returns the arguments that are not flags, and the file that each flag was given in."""
    try:
        placed = flagfiles.expand_with_files(argv)
        arguments = [argument for argument, _ in placed]
        # absl silently ignores this one, and a run would begin without what its caller meant.
        if any(argument.partition("=")[0].lstrip("-") == "undefok" for argument in arguments):
            raise FlagsError("--undefok is not a flag; --help lists the flags")
        return found(["mbpo_jax", *arguments])[1:], _files(placed)
    except FlagsError:
        raise
    except flags.UnrecognizedFlagError as error:
        raise FlagsError(_one_line(f"{error}; --help lists the flags, got {error.flagvalue!r}")) from error
    except (flags.Error, OSError, ValueError) as error:
        raise FlagsError(_one_line(error)) from error


def _files(placed: list[tuple[str, Path | None]]) -> dict[str, Path | None]:
    """Returns, by flag, the last file that it was given in; None if it was given on the command line, too."""
    files: dict[str, Path | None] = {}
    for argument, file in placed:
        name = argument.lstrip("-").partition("=")[0]
        files[name] = None if files.get(name, file) is None else file
    return files


# -- from strings to configs -------------------------------------------------------------------------------------


def _configs(given: dict[str, list[str]], files: dict[str, Path | None]) -> tuple[RunConfig, Any, list[str]]:
    """Returns the configs of flags that were given, each with all values it was given, the last of which counts.

    Args:
      files: by flag, the file that it was given in; None: the command line.
    Returns:
      The configs, and notes on flags that are left out because of a choice made elsewhere.
    Raises:
      ValueError: names the flag without its dashes, the value, and what is allowed.
    """
    run_knobs = options.tree(RunConfig())
    named = given.get("algorithm", [run_knobs["algorithm"].default])
    algorithm = [_value(run_knobs["algorithm"], "algorithm", text) for text in named][-1]
    entry = REGISTRY[algorithm]
    config = entry.default_config()
    chooses = [name for name in open_choices(algorithm) if name in given]
    config = options.replace(config, {name: given[name][-1].strip() for name in chooses})
    reader = " ".join([f"--algorithm={algorithm}", *(f"--{name}={given[name][-1].strip()}" for name in chooses)])
    knobs = knobs_of(algorithm, config)
    found = options.meanings(knobs)
    changes: dict[str, Any] = {}
    notes: list[str] = []
    for name, texts in given.items():
        paths = found.get(name, [])
        if len(paths) > 1:
            raise ValueError(f"{name} is ambiguous with {reader}: give {' or '.join(f'--{path}' for path in paths)}")
        if not paths:
            unread = f"{name}={texts[-1]}{_in_file(files[name])} is not read by {reader}{_why(algorithm, name)}"
            chosen_elsewhere = bool(chooses) and files[name] not in {files[choice] for choice in chooses}
            if files[name] is None or not chosen_elsewhere or not _read_with_another_choice(algorithm, name):
                raise ValueError(f"{unread}; leave it out")
            notes.append(f"--{unread}, so it is left out")
            continue
        if paths[0] in changes:
            raise ValueError(
                f"{name} and --{options.short_names(knobs)[paths[0]]} are the same flag; leave one of them out"
            )
        changes[paths[0]] = [_value(knobs[paths[0]], name, text) for text in texts][-1]
    run = options.replace(RunConfig(), {path: value for path, value in changes.items() if path in run_knobs})
    try:
        config = options.replace(config, {path: value for path, value in changes.items() if path not in run_knobs})
        return run, config, notes
    except ValueError as error:  # a section's check of several knobs; it begins with the path of one
        path, _, reason = str(error).partition(" ")
        raise ValueError(f"{options.short_names(knobs).get(path, path)} {reason}") from error


def _in_file(file: Path | None) -> str:
    return "" if file is None else f" (in {flagfiles.shown(file)})"


def _read_with_another_choice(algorithm: str, name: str) -> bool:
    """Returns whether an algorithm reads a flag with other sections than those that were chosen."""
    return any(name in options.meanings(knobs) for knobs in _readers()[algorithm].values())


def _why(algorithm: str, name: str) -> str:
    agent = REGISTRY[algorithm].agent
    return f", whose agent is {agent}" if name == "agent" and agent is not None else ""


def open_choices(algorithm: str) -> list[str]:
    """Returns the names of an algorithm's sections that can be chosen by a flag of that name."""
    entry = REGISTRY[algorithm]
    return [name for name in options.choices(entry.default_config()) if name != "agent" or entry.agent is None]


def knobs_of(algorithm: str, config: Any) -> dict[str, Knob]:
    """Returns the knobs that are flags of a run of an algorithm with these sections, keyed by full path."""
    own, run = options.tree(config), options.tree(RunConfig())
    if both := own.keys() & run.keys():
        raise TypeError(f"{', '.join(sorted(both))}: knobs of {type(config).__name__} have names of the run's own")
    closed = options.choices(config).keys() - open_choices(algorithm)
    return run | {path: knob for path, knob in own.items() if path not in closed}


def _value(knob: Knob, name: str, text: str) -> Any:
    """Returns a knob's value.

    Raises:
      ValueError: names the flag, the text and what is allowed.
    """
    try:
        value = _convert(knob.type, text.strip())
    except ValueError as error:
        raise ValueError(f"{name}={text} must be {options.allowed(knob)}") from error
    options.check_value(knob, value, name)
    return value


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
    """Returns a whole number, which may also be written 400_000 or 4e5."""
    try:
        return int(text)
    except ValueError:
        value = _number(text)
        if value != int(value):
            raise
        return int(value)


def _readers() -> dict[str, dict[str, dict[str, Knob]]]:
    """Returns, by algorithm, each reader of flags (`mbpo --agent=td3`) with the knobs that they set, by full path."""
    return {name: _readers_of(name, entry.config_class, entry.agent) for name, entry in REGISTRY.items()}


@functools.cache  # keyed by what the knobs depend on: every parse asks for all rows of the registry
def _readers_of(algorithm: str, config_class: type, agent: str | None) -> dict[str, dict[str, Knob]]:
    del config_class, agent
    default = REGISTRY[algorithm].default_config()
    readers = {}
    for name in open_choices(algorithm):
        for choice in options.tree(default)[name].choices:
            knobs = knobs_of(algorithm, options.replace(default, {name: choice}))
            readers[f"{algorithm} --{name}={choice}"] = knobs | {name: options.tree(default)[name]}
    return readers or {algorithm: knobs_of(algorithm, default)}


def _one_line(error: Exception | str) -> str:
    return " ".join(str(error).split())
