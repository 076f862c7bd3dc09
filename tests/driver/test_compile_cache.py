import os

import jax
import pytest
import tiny_runs

from mbpo_jax.driver import compile_cache


def run(tmp_path, name, **environment):
    """A run in a process of its own with its own cache; returns what was kept."""
    settings = {"XDG_CACHE_HOME": str(tmp_path / "home"), "JAX_COMPILATION_CACHE_DIR": ""} | environment
    settings[compile_cache.MIN_COMPILE_SECONDS] = "0"  # else what is kept depends on how fast the machine is today
    argv = tiny_runs.argv(tmp_path / name, tiny_runs.SAC, seeds=1, num_steps=80)
    done = tiny_runs.command("-m", "mbpo_jax.main", *argv, **settings)
    assert (done.returncode, done.stderr) == (0, "")
    return sorted(path.name for path in (tmp_path / "home").rglob("*-cache"))


def test_a_second_process_finds_what_the_first_compiled_and_computes_the_same(tmp_path):
    first = run(tmp_path, "first")
    assert any("update" in name or "program" in name for name in first)
    (folder,) = (tmp_path / "home" / "mbpo_jax").iterdir()
    assert folder.name == f"xla-{compile_cache.fingerprint()}"
    assert folder.stat().st_mode & 0o077 == 0  # what lies there is run: nobody else may write it
    assert run(tmp_path, "second") == first
    tiny_runs.assert_same_run(tmp_path / "second", tmp_path / "first")


def test_a_program_whose_writing_was_cut_off_is_compiled_and_kept_anew(tmp_path):
    """Else jax would warn of it, and compile it, in every process from then on; `run` refuses a warning."""
    names = run(tmp_path, "first")
    (folder,) = (tmp_path / "home" / "mbpo_jax").iterdir()
    sizes = {name: (folder / name).stat().st_size for name in names}
    largest = max(names, key=sizes.__getitem__)
    with open(folder / largest, "r+b") as file:
        file.truncate(sizes[largest] // 2)
    (folder / min(names, key=sizes.__getitem__)).write_bytes(b"")
    assert run(tmp_path, "second") == names
    assert (folder / largest).stat().st_size > 0.9 * sizes[largest]
    tiny_runs.assert_same_run(tmp_path / "second", tmp_path / "first")


def test_only_programs_written_since_the_last_look_are_read(tmp_path, no_cache, monkeypatch):
    looked_at = []
    monkeypatch.setattr(compile_cache, "decompress_executable", looked_at.append)
    folder = tmp_path / f"xla-{compile_cache.fingerprint()}"
    folder.mkdir()
    for name, contents in (("old-cache", b"old"), ("new-cache", b"new")):
        (folder / name).write_bytes(contents)
        assert compile_cache.use(str(tmp_path)) is None
        jax.config.update("jax_compilation_cache_dir", None)
        os.utime(folder / name, ns=(0, 0))
    assert looked_at == [b"old", b"new"]


@pytest.fixture
def no_cache(monkeypatch):
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def test_off_keeps_nothing_and_a_cache_of_the_users_stays(tmp_path, no_cache):
    assert compile_cache.use("off") is None
    assert jax.config.jax_compilation_cache_dir is None
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
    assert compile_cache.use(str(tmp_path / "other")) is None
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "mine")
    assert not (tmp_path / "other").exists()


def test_a_folder_that_cannot_be_made_is_said_and_harms_nobody(tmp_path, no_cache):
    (tmp_path / "file").write_text("")
    problem = compile_cache.use(str(tmp_path / "file"))
    assert problem.startswith(f"compiled programs are not kept in {tmp_path / 'file'}")
    assert jax.config.jax_compilation_cache_dir is None


def test_without_a_home_the_folder_has_to_be_named(tmp_path, no_cache, monkeypatch):
    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(compile_cache.Path, "home", nobody)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert compile_cache.use("auto").endswith("Could not determine home directory.; --compile_cache=DIR names a folder")
    assert compile_cache.use(str(tmp_path)) is None


def test_a_folder_of_another_user_is_not_trusted(tmp_path, no_cache, monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: os.stat(tmp_path).st_uid + 1)
    assert compile_cache.use(str(tmp_path)).endswith("it belongs to another user")
    assert jax.config.jax_compilation_cache_dir is None


def test_the_fingerprint_depends_on_what_decides_whether_a_program_fits(monkeypatch):
    seen = {compile_cache.fingerprint(), compile_cache.fingerprint()}
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    seen.add(compile_cache.fingerprint())
    monkeypatch.setattr(compile_cache, "_processor", lambda: "another machine")
    seen.add(compile_cache.fingerprint())
    monkeypatch.setattr(jax, "__version__", "0.0.0")
    seen.add(compile_cache.fingerprint())
    assert len(seen) == 4


def test_the_users_cache_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    for chosen, folder in (("/a", "/a"), ("~/a", "/home/somebody/.cache"), ("", "/home/somebody/.cache")):
        monkeypatch.setenv("XDG_CACHE_HOME", chosen)
        assert str(compile_cache._user_folder()) == f"{folder}/mbpo_jax"


def test_a_folder_in_the_home_directory(tmp_path, no_cache, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compile_cache.use("~/programs") is None
    assert len(list((tmp_path / "programs").glob("xla-*"))) == 1
