import jax
import numpy as np
import pytest
from written_in_format_1 import in_format_1

from mbpo_jax import replay
from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.driver.storage import format_1, packing


@pytest.mark.parametrize("name", ["mbpo", "mbpo_ddpg", "mbpo_td3", "sac", "ddpg", "td3"])  # the rows as old as it
def test_a_state_of_format_1_becomes_the_same_state(name):
    entry = REGISTRY[name]
    algorithm = entry.build(entry.tiny_config(), entry.spec)
    state = jax.jit(algorithm.init)(jax.random.key(0))
    real = replay.init(entry.spec, 10, episodes=True)
    arrays = {"state": packing.pack(state), "replay": packing.pack(real), "obs": np.zeros(4)}
    upgraded = format_1.upgrade(in_format_1(arrays))
    for part, template in (("state", state), ("replay", real)):
        restored = packing.unpack(template, upgraded[part])
        for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(template), strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(upgraded["obs"], arrays["obs"])
