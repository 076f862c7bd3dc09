"""Writes the text of --help: alone, an overview; with an algorithm or a flagfile, every flag of such a run."""

import re
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from mbpo_jax import options
from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.driver.config import AUTO, RunConfig
from mbpo_jax.launch import flagfiles, flags
from mbpo_jax.launch.program import as_called
from mbpo_jax.options import Knob

COLUMNS = 100
USAGE = "usage: python -m mbpo_jax.main [--flagfile=NAME] [--flag=value ...]"
HELP_FLAGS = ("--help", "-help", "--h", "-h")


def is_asked(argv: Iterable[str]) -> bool:
    """Returns whether a command line asks for help instead of a run."""
    return any(argument in HELP_FLAGS for argument in argv)


def answer(argv: Iterable[str]) -> str:
    """Returns the answer to a command line that asks for help.

    Raises:
      ValueError: the rest of it cannot be used; names the flag, the value and what is allowed.
    """
    rest = [argument for argument in argv if argument not in HELP_FLAGS]
    return describe_run(*flags.parse(rest)) if rest else overview()


def overview() -> str:
    """Returns what --help alone prints."""
    width = 2 + max(map(len, REGISTRY))
    known = options.tree(RunConfig())
    return "\n".join(
        [
            as_called(USAGE),
            "",
            "algorithms:",
            *(f"  {name:{width}}{entry.summary}" for name, entry in REGISTRY.items()),
            "",
            *_wrapped(
                "--algorithm=NAME --help lists all flags of an algorithm with their defaults, for example "
                "--rollout_batch of mbpo; --flagfile=NAME --help lists them with the values of a flagfile.",
                "",
            ),
            "",
            "flagfiles that come with mbpo_jax:",
            *_wrapped(", ".join(flagfiles.names()), "  "),
            "",
            "flags of every run:",
            *_group(known, {path: path for path in known}, known),
            *_own_flags(),
        ]
    )


def describe_run(run: RunConfig, config: Any) -> str:
    """Returns every flag that a run reads, with the value that it would have, in groups."""
    entry = REGISTRY[run.algorithm]
    knobs = flags.knobs_of(run.algorithm, config) | options.tree(run)
    same_sections = options.replace(entry.default_config(), options.choices(config))
    defaults = {**options.tree(same_sections), **options.tree(RunConfig())}
    names = options.short_names(knobs)
    lines = [USAGE, "", f"{run.algorithm}: {entry.summary}", "", "flags of every run:"]
    lines += [*_group(options.tree(run), names, defaults), *_own_flags()]
    chosen = options.choices(config)
    for section in ("", *options.sections(config)):
        group = {path: knob for path, knob in knobs.items() if _section_of(path, chosen) == section}
        group = {path: knob for path, knob in group.items() if path not in options.tree(run)}
        if group:
            title = f"{section} ({chosen[section]})" if section in chosen else section
            lines += ["", f"flags of the {title or 'algorithm'}:", *_group(group, names, defaults)]
    return "\n".join(lines)


def _section_of(path: str, chosen: Mapping[str, str]) -> str:
    first, dot, _ = path.partition(".")
    return first if dot or path in chosen else ""


def _group(group: Mapping[str, Knob], names: Mapping[str, str], defaults: Mapping[str, Knob]) -> list[str]:
    """Returns two lines for each knob: its flag with its value and what is allowed; and its meaning."""
    lines = []
    for path, knob in group.items():
        default = defaults[path].default
        note = "" if knob.default == default else f"default {_text(default)}; "
        lines += _entry(f"--{names[path]}={_text(knob.default)}  ({note}{_allowed(knob)})", knob.help)
    return lines


def _own_flags() -> list[str]:
    return _entry("--flagfile=NAME", flags.FLAGFILE) + _entry("--help", flags.HELP)


def _entry(flag: str, meaning: str) -> list[str]:
    return _wrapped(flag, "  ", "    ") + _wrapped(meaning, "      ")


def _wrapped(text: str, indent: str, further: str | None = None) -> list[str]:
    later = indent if further is None else further
    return textwrap.wrap(
        text, COLUMNS, initial_indent=indent, subsequent_indent=later, break_on_hyphens=False, break_long_words=False
    )


def _allowed(knob: Knob) -> str:
    """Returns what a knob may be; the 32-bit bound of whole numbers is mentioned only when one exceeds it."""
    return re.sub(rf" in \[(\d+), {options.MOST}\]", r", \1 or more", options.allowed(knob))


def _text(value: Any) -> str:
    """Returns a value as written on the command line."""
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    return AUTO if value is None else str(value).lower() if isinstance(value, bool) else str(value)
