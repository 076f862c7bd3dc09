"""Writes a comparison: its figure, its numbers and its text, side by side."""

import json
from collections.abc import Sequence
from pathlib import Path

from mbpo_jax.driver.storage import files
from mbpo_jax.reports import comparison, comparison_figure, comparison_text
from mbpo_jax.reports.comparison import Experiment


def write(experiments: Sequence[Experiment], directory: Path, name: str, command: str) -> Path:
    """Writes `<name>.png`, `<name>.json` and `<name>.md`, each whole or not at all; returns the path of the text.

    Args:
      command: the command that makes this comparison again; the text quotes it.
    """
    picture, numbers, text = (directory / f"{name}.{suffix}" for suffix in ("png", "json", "md"))
    comparison_figure.draw(experiments, picture)
    encoded = (json.dumps(comparison.to_json(experiments), indent=1, allow_nan=False) + "\n").encode()
    files.write_whole(numbers, lambda file: file.write(encoded))
    report = comparison_text.report(experiments, command, picture.name).encode()
    files.write_whole(text, lambda file: file.write(report))
    return text
