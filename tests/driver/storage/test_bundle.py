import json

import jax
import ml_dtypes
import numpy as np
import tiny_runs

from mbpo_jax.driver.storage.bundle import LARGE_BYTES, bundle, unbundle

ROOM = LARGE_BYTES // 4  # float32 numbers


def test_small_arrays_share_one_of_their_type_and_all_come_back():
    tree = {
        "b": {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.int32(7), "deep": {"": np.float32([-0.0])}},
        "a": {"flag": np.bool_(True), "none": {}, "few": np.zeros((0, 4), np.float32), "i": np.int32([[1], [2]])},
        "large": np.arange(ROOM, dtype=np.float32),
        "larger": np.full((2, ROOM), np.nan, np.float32),
        "almost": np.arange(ROOM - 1, dtype=np.float32),
        "half": np.arange(5).astype(ml_dtypes.bfloat16),
    }
    bundled, layout = bundle(tree)
    assert bundled.keys() == {
        *(f"small_{name}" for name in ("float32", "int32", "bool", "bfloat16")),
        *("large_0", "large_1"),
    }
    assert bundled["small_int32"].tolist() == [7, 1, 2]
    assert bundled["small_float32"].size == 6 + 1 + ROOM - 1
    back = unbundle(bundled, json.loads(json.dumps(layout)))
    assert back["a"]["none"] == {}
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    tiny_runs.assert_same_bits(back, tree)


def test_nothing_of_a_real_state_is_lost_and_few_arrays_are_left(mbpo_run):
    arrays = tiny_runs.saved(mbpo_run).arrays
    bundled, layout = bundle(arrays)
    assert len(bundled) <= 4 < 300 < len(jax.tree.leaves(arrays))
    tiny_runs.assert_same_bits(unbundle(bundled, layout), arrays)
