"""The numbers kept in docs/studies still give the sentences beside them, and a figure."""

import json
import pathlib

import pytest

from mbpo_jax.studies import (
    actor_gradient,
    bidirectional,
    compounding,
    episode_lengths,
    exploitation,
    penalty,
    policy_shift,
    value_bias,
    versions,
)

KEPT = pathlib.Path(__file__).parents[2] / "docs" / "studies"
STUDIES = {
    "actor_gradient": actor_gradient,
    "episode_lengths": episode_lengths,
    "bidirectional": bidirectional,
    "compounding": compounding,
    "exploitation": exploitation,
    "penalty": penalty,
    "policy_shift": policy_shift,
    "value_bias": value_bias,
    "versions": versions,
}
WITHOUT_A_FAN = {"hopper_seed_1"}
"""Runs whose compounding study was made before the fan was kept in its numbers, and whose checkpoints are gone."""


@pytest.mark.parametrize("path", sorted(KEPT.glob("*/*.json")), ids=lambda path: "/".join(path.parts[-2:]))
def test_kept_numbers_give_the_kept_sentence_and_a_figure(path):
    numbers = json.loads(path.read_text())
    sentence = numbers.pop("finding")
    if path.stem == "compounding" and path.parent.name in WITHOUT_A_FAN:
        assert "drawn" not in numbers["fan"]
        return
    finding = STUDIES[path.stem].present(numbers)
    assert finding.sentence == sentence
    assert finding.figure.axes
