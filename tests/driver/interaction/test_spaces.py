import json

import numpy as np
import pytest

from mbpo_jax.driver.interaction.spaces import Spaces, spaces_from_json, spaces_to_json

SPACES = Spaces(11, np.float32([-0.1, 0.0]), np.float32([0.3, 2.0]), 1000)


def test_spaces_come_back_from_json_to_the_bit():
    back = spaces_from_json(json.loads(json.dumps(spaces_to_json(SPACES))))
    assert (back.obs_dim, back.max_episode_steps) == (11, 1000)
    np.testing.assert_array_equal(back.action_low, SPACES.action_low, strict=True)
    np.testing.assert_array_equal(back.action_high, SPACES.action_high, strict=True)


@pytest.mark.parametrize(
    "damage",
    [
        {"obs_dim": 0},
        {"obs_dim": True},
        {"obs_dim": "11"},
        {"max_episode_steps": 2.5},
        {"action_low": [1.0]},
        {"action_low": 1.0, "action_high": 2.0},
        {"action_high": [1.0, float("inf")]},
        {"action_high": ["a", "b"]},
        {"action_high": [[1.0], [1.0]]},
        {"action_dtype": "U3"},
        {"action_dtype": "no type"},
    ],
)
def test_json_that_is_no_spaces_is_refused(damage):
    with pytest.raises((ValueError, TypeError)):
        spaces_from_json(spaces_to_json(SPACES) | damage)
