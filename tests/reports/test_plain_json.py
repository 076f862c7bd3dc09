import json
import math
from typing import NamedTuple

import numpy as np
import pytest

from mbpo_jax.reports import plain_json


class Pair(NamedTuple):
    first: float
    second: float


def test_plain_is_what_strict_json_can_say():
    value = {
        1: Pair(math.nan, 2.5),
        "infinite": [math.inf, {"deep": -math.inf}],
        "single": np.float32(0.5),
        "count": np.int64(3),
        "array": np.array([[1.0, math.nan]]),
        "rest": (True, None, "text", 7),
    }
    wanted = {
        "1": ["nan", 2.5],
        "infinite": ["inf", {"deep": "-inf"}],
        "single": 0.5,
        "count": 3,
        "array": [[1.0, "nan"]],
        "rest": [True, None, "text", 7],
    }
    assert plain_json.plain(value) == wanted
    assert json.loads(json.dumps(plain_json.plain(value), allow_nan=False)) == wanted


@pytest.mark.parametrize("text", ["", "[1]", "\x00", "[" * 100_000, '{"a": 1'])
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(ValueError, match=r"bad\.json is damaged: "):
        plain_json.read(tmp_path / "bad.json")


def test_a_missing_file_is_named_and_a_sound_one_is_read(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read .*a\.json: No such file"):
        plain_json.read(tmp_path / "a.json")
    (tmp_path / "a.json").write_text('{"a": {"b": 1}}')
    assert plain_json.read(tmp_path / "a.json") == {"a": {"b": 1}}


def test_what_is_not_there_is_none():
    value = {"a": {"b": 1}, "c": [2]}
    assert plain_json.within(value, "a", "b") == 1
    assert plain_json.within(value, "a", "x") is plain_json.within(value, "c", "b") is None
    assert plain_json.within(None, "a") is None
