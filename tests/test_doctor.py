"""The command that checks at the machine. Two calls start children, which take seconds; the rest is in this process."""

import os

import pytest
import tiny_runs

from mbpo_jax import doctor
from mbpo_jax.driver import memory_limits
from mbpo_jax.driver.interaction import rendering
from mbpo_jax.surroundings import host
from mbpo_jax.surroundings.check import Check, guarded


@pytest.fixture(autouse=True)
def _no_graphics(monkeypatch):
    """Trials of OpenGL are processes too; `tests/driver/interaction` has them."""
    monkeypatch.setattr(rendering, "renders", lambda name: False)


def environment(monkeypatch, **changes):
    for name, value in tiny_runs.process_environment(**changes).items():
        monkeypatch.setenv(name, value)


def test_a_sound_machine_and_run(mbpo_run, tmp_path, monkeypatch, capsys):
    environment(monkeypatch, JAX_DEFAULT_MATMUL_PRECISION="highest")
    monkeypatch.chdir(tmp_path)
    assert doctor.main([f"--run_dir={mbpo_run}"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "nothing would fail"
    for words in (
        "devices: cpu 0 (cpu)",
        "jax_default_matmul_precision highest",
        "JAX_DEFAULT_MATMUL_PRECISION=highest",
        "compile cache: ",
        "run: mbpo on InvertedPendulum-v5, seeds [0, 1, 2], checkpoints at ",
        "a run of a few steps succeeded",
        "would not work: mbpo_jax evaluate --video of MuJoCo's environments",
        " cores may be used",
        "the machine ",
    ):
        assert words in out
    assert list(tmp_path.iterdir()) == []


def test_odd_surroundings_are_lines_and_no_traceback(tmp_path, monkeypatch, capsys):
    """A back end of figures that cannot be loaded, a GPU that is not there, a home that cannot be written to."""
    environment(
        monkeypatch, MPLBACKEND="module://no_such_backend", JAX_PLATFORMS="cuda", HOME="/dev/null", XDG_CACHE_HOME=""
    )
    monkeypatch.chdir(tmp_path)
    assert doctor.main([f"--run_dir={tmp_path / 'none'}"]) == 1
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out + printed.err
    fails = [line for line in printed.out.splitlines() if line.startswith("would fail: ")]
    assert any("jax does not start" in line for line in fails)
    assert any("training: " in line for line in fails)
    assert "MPLBACKEND=module://no_such_backend" in printed.out
    assert "HOME /dev/null: " in printed.out
    assert f"run_dir {tmp_path / 'none'}: no run there yet" in printed.out


def test_too_little_of_anything_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(memory_limits, "limits", lambda: {"the machine": 25 * 10**9, "its control group": 5 * 10**8})
    monkeypatch.setattr(host, "_cpu_quota", lambda: 0.5)
    monkeypatch.setattr(host, "_version", lambda name: None if name in ("flax", "submitit") else "1.0")
    checks = {fill.__name__: guarded(fill.__name__, fill) for fill in (host.memory, host.processor, host.software)}
    assert checks["memory"].fails == ["training: 500 MB of memory may be used, and small tasks need 1.0 GB"]
    assert "its control group 500 MB" in checks["memory"].lines[0]
    assert checks["processor"].slow[0].startswith("training: 0.5 cores may be used")
    assert checks["software"].fails == ["flax is not installed"]
    assert checks["software"].lacks == ["mbpo_jax sweep and reproduce: submitit is not installed"]
    monkeypatch.setattr(host, "_not_writable", lambda path: "not writable (Read-only file system)")
    check = Check("disk")
    host.disk(check, tmp_path / "runs" / "new")
    assert check.fails == [
        f"training into {tmp_path}: not writable (Read-only file system); --run_dir names another folder"
    ]


def test_a_folder_that_is_gone_is_a_line(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getcwd", lambda: (_ for _ in ()).throw(FileNotFoundError(2, "No such file")))
    check = guarded("disk", lambda check: host.disk(check, None))
    assert check.lines == ["could not be checked (FileNotFoundError: [Errno 2] No such file)"]


def test_wrong_flags_are_one_line(capsys):
    assert doctor.main(["--nonsense"]) == 2
    err = capsys.readouterr().err
    assert "--help lists the flags" in err and err.count("\n") == 1
