"""Writes figures, whole or not at all."""

from pathlib import Path
from typing import TYPE_CHECKING

from mbpo_jax.driver.storage import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save(figure: "Figure", path: Path) -> Path:
    """Writes a figure to `path` as a PNG, replacing an older one atomically; returns the path.

    Raises:
      OSError: it could not be written; what was there before is unchanged.
    """
    files.write_whole(path, lambda file: figure.savefig(file, format="png", dpi=120, backend="agg"))
    return path
