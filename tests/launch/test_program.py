import sys

import pytest

from mbpo_jax.launch import program


@pytest.mark.parametrize(
    ("program_name", "text"),
    [
        ("/venv/bin/mbpo_jax", "mbpo_jax train and mbpo_jax plot --run_dir"),
        ("C:\\Scripts\\mbpo_jax.exe".replace("\\", "/"), "mbpo_jax train and mbpo_jax plot --run_dir"),
        ("/src/mbpo_jax/__main__.py", "python -m mbpo_jax train and python -m mbpo_jax plot --run_dir"),
        ("/src/mbpo_jax/plot.py", "python -m mbpo_jax.main and python -m mbpo_jax.plot --run_dir"),
        ("ipykernel_launcher.py", "python -m mbpo_jax.main and python -m mbpo_jax.plot --run_dir"),
    ],
)
def test_messages_name_commands_as_they_were_called(program_name, text, monkeypatch):
    monkeypatch.setattr(sys, "argv", [program_name])
    assert program.as_called("python -m mbpo_jax.main and python -m mbpo_jax.plot --run_dir") == text
