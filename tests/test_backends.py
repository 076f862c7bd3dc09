import pytest

from mbpo_jax import backends
from mbpo_jax.driver.config import RunConfig
from mbpo_jax.options import allowed, knobs

PHASES = ("fit_model", "update_agent")
WIDTH = "xla_cpu_prefer_vector_width"


def test_auto_is_what_was_chosen_for_the_device(monkeypatch):
    chosen = backends.choices()._replace(compiler_options=f"fit_model:{WIDTH}=256,roll_out:{WIDTH}=512")
    monkeypatch.setattr(backends, "choices", lambda: chosen)
    # an algorithm without the phase does not need its options
    assert backends.compiler_options("auto", PHASES) == {"fit_model": {WIDTH: "256"}, "update_agent": {}}


def test_auto_leaves_out_what_this_xla_does_not_know(monkeypatch):
    chosen = backends.choices()._replace(compiler_options="fit_model:xla_of_the_future=1")
    monkeypatch.setattr(backends, "choices", lambda: chosen)
    assert backends.compiler_options("auto", PHASES) == {"fit_model": {}, "update_agent": {}}


def test_a_users_options():
    assert backends.compiler_options("none", PHASES) == {"fit_model": {}, "update_agent": {}}
    text = f"update_agent:{WIDTH}=512, fit_model:{WIDTH}=256"
    assert backends.compiler_options(text, PHASES) == {"fit_model": {WIDTH: "256"}, "update_agent": {WIDTH: "512"}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("fit:a=1", "phases fit_model, update_agent, got 'fit:a=1'"),
        ("fit_model:a", "got 'fit_model:a'"),
        ("a=1", "got 'a=1'"),
        ("fit_model:xla_of_the_future=1", "XLA does not take xla_of_the_future=1"),
        (f"fit_model:{WIDTH}=wide", f"XLA does not take {WIDTH}=wide"),
        (f"fit_model:{WIDTH}=none", f"XLA does not take {WIDTH}=none"),
        ("none,none", "got 'none'"),
    ],
)
def test_what_cannot_be_used_is_named(text, words):
    with pytest.raises(ValueError, match="^compiler_options") as raised:
        backends.compiler_options(text, PHASES)
    assert words in str(raised.value)


def test_every_choice_for_a_device_is_one_that_a_user_could_make():
    (lifting,) = (field for field in knobs(RunConfig) if field.name == "seed_lifting")
    for backend in backends.BACKENDS.values():
        assert backend.seed_lifting in allowed(lifting)
        assert backend.block_rows >= 1
