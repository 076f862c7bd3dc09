"""A working directory with flagfiles, and what would be launched there."""

import jax
import pytest
from report_calls import NESTED, TINY

from mbpo_jax.launch import launcher


@pytest.fixture(autouse=True)
def _jobs_compile_once(tmp_path_factory, monkeypatch):
    cache = jax.config.jax_compilation_cache_dir or str(tmp_path_factory.getbasetemp() / "compiled")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", cache)
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working directory, with three flagfiles."""
    monkeypatch.chdir(tmp_path)
    for name, text in (("tiny", TINY), ("nested", NESTED), ("hopper", "--env=Hopper-v5\n--num_steps=125000\n")):
        (tmp_path / f"{name}.flags").write_text(text)
    return tmp_path


@pytest.fixture
def launched(monkeypatch):
    """The commands that would be launched, none of which is; `launched.status` is what the launcher returns."""

    class Launched(list):
        status = 0

    seen = Launched()

    def launch(arguments, jobs):
        seen.extend(job.command for job in jobs)
        return seen.status

    monkeypatch.setattr(launcher, "launch", launch)
    return seen
