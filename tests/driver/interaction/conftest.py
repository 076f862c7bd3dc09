"""A run directory that may be damaged, and environments that are closed in the end."""

import shutil

import pytest

from mbpo_jax.driver.interaction.environment import Environment


@pytest.fixture
def copy(mbpo_run, tmp_path):
    """A run directory that may be damaged."""
    for name in ("config.json", "policies"):
        source = mbpo_run / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    return tmp_path


@pytest.fixture
def make():
    opened = []

    def open_environment(*args, **kwargs):
        opened.append(Environment(*args, **kwargs))
        return opened[-1]

    yield open_environment
    for env in opened:
        env.close()
