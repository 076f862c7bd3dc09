import os

import pytest
from matplotlib.figure import Figure

from mbpo_jax.reports import pictures


def test_a_picture_replaces_the_old_one_in_one_move(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    assert pictures.save(Figure(), path) == path
    picture = path.read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert os.listdir(tmp_path) == ["a.png"]

    def full(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        pictures.save(Figure(figsize=(2.0, 2.0)), path)
    assert path.read_bytes() == picture
    assert os.listdir(tmp_path) == ["a.png"]
