"""Writes commands in messages as the user called them: `mbpo_jax plot` or `python -m mbpo_jax.plot`."""

import re
import sys
from pathlib import Path

COMMAND_OF = {"main": "train"}  # a module whose command has another name


def as_called(text: str | None) -> str:
    """Returns a text with each `python -m mbpo_jax.NAME` replaced by how the running command was called."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py" and program.parent.name == "mbpo_jax":
        door = "python -m mbpo_jax"
    elif program.stem == "mbpo_jax":
        door = "mbpo_jax"
    else:
        return text or ""
    return re.sub(
        r"python -m mbpo_jax\.(\w+)", lambda match: f"{door} {COMMAND_OF.get(match[1], match[1])}", text or ""
    )
