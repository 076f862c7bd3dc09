"""Writes a picture whole or not at all."""

import os
from pathlib import Path

from matplotlib.figure import Figure


def save(figure: Figure, path: Path) -> Path:
    """Writes a figure to `path` as a PNG, under another name first, and replaces what is there in one move.

    Returns:
      The path of the picture.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(scratch, format="png", dpi=120)
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)
    return path
