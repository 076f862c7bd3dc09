import os
import re

import jax
import pytest
import tiny_runs

from mbpo_jax import main
from mbpo_jax.driver import jax_settings
from mbpo_jax.driver.storage import run_json
from mbpo_jax.launch import flags, processes

START = "import sys\nfrom mbpo_jax.main import main\nsys.exit(main(['--quiet', '--run_dir=run', '--env=Hopper-v5']))"


@pytest.mark.parametrize(
    ("variable", "value", "wanted"),
    [
        ("JAX_PLATFORMS", "cuda", "JAX_PLATFORMS must name platforms that are available: cpu; got 'cuda'"),
        ("JAX_PLATFORMS", "nonsense", "JAX_PLATFORMS must name platforms that are available: cpu; got 'nonsense' ("),
        ("JAX_PLATFORM_NAME", "cuda", "JAX_PLATFORM_NAME must name platforms that are available: cpu; got 'cuda' ("),
        ("JAX_ENABLE_X64", "maybe", "invalid truth value 'maybe' for environment 'JAX_ENABLE_X64'"),
        ("JAX_DEFAULT_PRNG_IMPL", "nonsense", 'Invalid value "nonsense" for JAX flag jax_default_prng_impl'),
        ("JAX_ENABLE_X64", "1", "JAX_ENABLE_X64 must be off (everything here is computed in 32 bits), got True"),
        ("XLA_FLAGS", "--xla_nonsense=1", "XLA_FLAGS must be flags of the installed XLA, got --xla_nonsense"),
    ],
)
def test_a_setting_that_cannot_be_served_is_a_line_at_the_start(tmp_path, monkeypatch, variable, value, wanted):
    """They were tracebacks, one a bare AssertionError; the last ended the process."""
    monkeypatch.chdir(tmp_path)
    done = tiny_runs.command("-c", START, **{variable: value})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"mbpo_jax: error: {wanted}")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_set_it_itself_is_told_too(tmp_path):
    with jax.enable_x64(True), pytest.raises(ValueError, match=r"JAX_ENABLE_X64 must be off .*, got True$"):
        processes.train(*flags.parse(tiny_runs.argv(tmp_path / "run")))
    with jax.disable_jit(), pytest.raises(ValueError, match=r"JAX_DISABLE_JIT must be off .*, got True$"):
        tiny_runs.train(tmp_path / "run")
    assert not (tmp_path / "run").exists()


WIDE = """
import gymnasium, jax
from gymnasium.envs.mujoco.inverted_pendulum_v5 import InvertedPendulumEnv
jax.config.update("jax_enable_x64", True)
gymnasium.register("sets_x64/Pendulum-v0", InvertedPendulumEnv, max_episode_steps=5)
"""


def test_an_environment_that_sets_it_is_named(tmp_path, monkeypatch):
    (tmp_path / "sets_x64.py").write_text(WIDE)
    monkeypatch.syspath_prepend(tmp_path)
    changes = {"env": "sets_x64:sets_x64/Pendulum-v0", "termination_fn": "never"}
    try:
        with pytest.raises(
            ValueError, match=r"JAX_ENABLE_X64 .* set by what --env=sets_x64:sets_x64/Pendulum-v0 imports; --env_tim"
        ):
            tiny_runs.train(tmp_path / "run", **changes)
    finally:
        jax.config.update("jax_enable_x64", False)
    assert not (tmp_path / "run").exists()


def test_what_only_forbids_is_set_aside(tmp_path):
    """Each ended a run in a traceback at its first fit. The numbers are the same."""
    assert tiny_runs.train(tmp_path / "usual", num_steps=60).finished
    strict = {
        "jax_numpy_rank_promotion": "raise",
        "jax_numpy_dtype_promotion": "strict",
        "jax_transfer_guard": "disallow",
        "jax_debug_key_reuse": True,
    }
    before = {name: getattr(jax.config, name) for name in strict}
    try:
        for name, value in strict.items():
            jax.config.update(name, value)
        assert processes.train(*flags.parse(tiny_runs.argv(tmp_path / "strict", num_steps=60))).finished
        assert {name: getattr(jax.config, name) for name in strict} == strict  # the program's own stay
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
    tiny_runs.assert_same_run(tmp_path / "strict", tmp_path / "usual")


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("jax_default_prng_impl", "rbg"),
        ("jax_threefry_partitionable", False),
        ("jax_default_matmul_precision", "highest"),
    ],
)
def test_what_changes_numbers_is_noticed_when_a_run_goes_on(name, other, tmp_path):
    run, config = flags.parse(tiny_runs.argv(tmp_path))
    run_json.write_config(tmp_path, run, config)
    saved, before = run_json.read_config(tmp_path), getattr(jax.config, name)
    assert run_json.check_same(saved, run, config) == []
    jax.config.update(name, other)
    try:
        (notice,) = run_json.check_same(saved, run, config)
    finally:
        jax.config.update(name, before)
    assert notice.startswith(f"{name} was {before}, is {other}: from here on the numbers may differ")
    older = {key: value for key, value in saved.versions.items() if not key.startswith("jax_")}
    assert run_json.check_same(saved._replace(versions=older), run, config) == []


def test_a_run_has_them_in_its_config(tmp_path):
    run, config = flags.parse(tiny_runs.argv(tmp_path))
    run_json.write_config(tmp_path, run, config)
    assert run_json.read_config(tmp_path).versions["jax_default_prng_impl"] == "threefry2x32"


# -- XLA_FLAGS ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("--xla_cpu_use_fusion_emitters=true --xla_nonsense=1 -xla_more", "got --xla_nonsense, --xla_more"),
        (
            "no_such_file",
            "must be flags, each starting with --, or a file of them, got 'no_such_file' (No such file or directory)",
        ),
        ("--xla_dump_to='a", "must have matching quotes"),
    ],
)
def test_flags_that_would_end_the_process_are_refused(monkeypatch, text, wanted):
    monkeypatch.setenv("XLA_FLAGS", text)
    with pytest.raises(ValueError, match="XLA_FLAGS .*" + re.escape(wanted)):
        jax_settings.check_xla_flags()


@pytest.mark.parametrize("text", ["", " ", "--xla_cpu_use_fusion_emitters=true\t--xla_dump_to='a b'"])
def test_flags_that_xla_knows_are_not(monkeypatch, tmp_path, text):
    monkeypatch.setenv("XLA_FLAGS", text)
    jax_settings.check_xla_flags()
    (tmp_path / "flags").write_text(text)
    monkeypatch.setenv("XLA_FLAGS", str(tmp_path / "flags"))
    jax_settings.check_xla_flags()


def test_where_no_library_is_found_nothing_is_refused(monkeypatch):
    monkeypatch.setattr(jax_settings, "_libraries", lambda: ())
    jax_settings._is_known.cache_clear()
    assert jax_settings._is_known("xla_nonsense")
    jax_settings._is_known.cache_clear()


def test_the_message_reaches_the_command(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("XLA_FLAGS", f"{os.environ.get('XLA_FLAGS', '')} --xla_nonsense=1")
    assert main.main([*tiny_runs.argv(tmp_path / "run")]) == 2
    assert "XLA_FLAGS must be flags of the installed XLA, got --xla_nonsense\n" in capsys.readouterr().err
