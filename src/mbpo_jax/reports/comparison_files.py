"""Writes a comparison: its figure, its numbers and its text, side by side."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from mbpo_jax.driver.storage import files
from mbpo_jax.reports import comparison, comparison_figure, comparison_text
from mbpo_jax.reports.comparison import Experiment
from mbpo_jax.reports.scores import Reference


def write(
    experiments: Sequence[Experiment], directory: Path, name: str, command: str, references: Mapping[str, Reference]
) -> Path:
    """Writes `<name>.png`, `<name>.json` and `<name>.md`, each whole or not at all; returns the path of the text.

    Args:
      command: the command that makes this comparison again; the text quotes it.
      references: of normalised scores offline, by environment.
    """
    picture, numbers, text = (directory / f"{name}.{suffix}" for suffix in ("png", "json", "md"))
    comparison_figure.draw(experiments, picture)
    encoded = (json.dumps(comparison.to_json(experiments, references), indent=1, allow_nan=False) + "\n").encode()
    files.write_whole(numbers, lambda file: file.write(encoded))
    report = comparison_text.report(experiments, command, picture.name, references).encode()
    files.write_whole(text, lambda file: file.write(report))
    return text
