"""Flagfiles: files of flags, one per line, found by path or by the name of one that comes with the package.

A line that begins with # or // is a comment. A flagfile may read another with a line --flagfile=NAME, which is searched
for next to it first.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from mbpo_jax.driver.storage import files

SUFFIX, FOLDER = ".flags", "experiments"
SHIPPED = (Path(__file__).parents[1] / FOLDER, Path(__file__).parents[3] / FOLDER)
"""Where the flagfiles that come with the package are: in a wheel, and in a checkout."""
MOST_BYTES = 2**20  # a larger file is not a flagfile


def flagfile_path(name: str, beside: Path | None = None) -> Path:
    """Returns the path of a flagfile.

    Args:
      name: a path; or the name of a flagfile that comes with the package, with or without `experiments/` and `.flags`.
      beside: a folder that is searched first.
    Raises:
      ValueError: there is none; lists the names that exist.
    """
    problem = f"--flagfile must be a text file that can be read, got {name!r}"
    if not name:
        raise ValueError("--flagfile must be a file that can be read, got ''")
    try:
        given = files.local_path(name)
    except ValueError as error:
        raise ValueError(f"--flagfile {error}") from error
    for path in ([] if beside is None else [beside / given]) + [given]:
        if os.path.exists(path) and not os.path.isdir(path):
            return path
    if (shipped := _shipped(name)) is not None:
        return shipped
    reason = "Is a directory" if os.path.isdir(given) else "No such file or directory"
    known = ", ".join(name for name in names() if "/" not in name)
    raise ValueError(f"{problem} ({reason}); these come with mbpo_jax: {known}")


def names() -> list[str]:
    """Returns the names of the flagfiles that come with the package."""
    found = {path.relative_to(folder).with_suffix("").as_posix() for folder in SHIPPED for path in _below(folder)}
    return sorted(found)


def shown(path: Path) -> str:
    """Returns what reports call a flagfile: its path in the repository if it comes with the package."""
    for folder in SHIPPED:
        if folder in path.parents:
            return (Path(FOLDER) / path.relative_to(folder)).as_posix()
    return str(path)


def expand(argv: Sequence[str]) -> list[str]:
    """Returns a command line with flagfiles replaced by their lines, up to `--`.

    Raises:
      ValueError: names the flagfile, and what is wrong with it.
    """
    return [argument for argument, _ in expand_with_files(argv)]


def expand_with_files(argv: Sequence[str]) -> list[tuple[str, Path | None]]:
    """Returns what `expand` does, and the file that each argument comes from; None: the command line."""
    return _expand(argv, None, ())


def _expand(arguments: Sequence[str], beside: Path | None, reading: tuple[Path, ...]) -> list[tuple[str, Path | None]]:
    """Expands arguments of the command line, or lines of the last file in `reading`."""
    found: list[tuple[str, Path | None]] = []
    file = reading[-1] if reading else None
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            return [*found, *((word, file) for word in (argument, *rest))]
        flag, equals, name = argument.partition("=")
        if flag not in ("--flagfile", "-flagfile"):
            found.append((argument, file))
            continue
        if not equals:
            if reading or not rest:
                raise ValueError(f"--flagfile must be given as --flagfile=NAME{_where(reading)}, got {argument!r}")
            name = rest.pop(0)
        found += _lines(flagfile_path(name, beside), reading)
    return found


def _lines(path: Path, reading: tuple[Path, ...]) -> list[tuple[str, Path | None]]:
    """Returns the flags in a file and in those that it reads."""
    whole = path.resolve()
    if whole in reading:
        chain = " > ".join(str(file) for file in [*reading[reading.index(whole) :], whole])
        raise ValueError(f"--flagfile must not read itself, got {chain}")
    try:
        with open(path, "rb") as file:  # a pipe will do
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES} bytes")
        lines = [line.strip() for line in text.decode("utf-8-sig").splitlines()]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"--flagfile must be a text file that can be read, got '{path}' ({reason})") from error
    flags = [line for line in lines if line and not line.startswith(("#", "//"))]
    return _expand(flags, path.parent, (*reading, whole))


def _where(reading: tuple[Path, ...]) -> str:
    return f" in {reading[-1]}" if reading else ""


def _below(folder: Path) -> list[Path]:
    return sorted(folder.rglob(f"*{SUFFIX}")) if folder.is_dir() else []


def _shipped(name: str) -> Path | None:
    wanted = name.removeprefix(f"{FOLDER}/").removesuffix(SUFFIX)
    for folder in SHIPPED:
        for path in _below(folder):
            if path.relative_to(folder).with_suffix("").as_posix() == wanted:
                return path
    return None
