import pytest
import tiny_runs

DRAW = """
import os, sys
before = os.environ["MPLBACKEND"]
from mbpo_jax.reports import pictures  # as every command does
from matplotlib.figure import Figure
import matplotlib, pathlib
figure = Figure()
figure.subplots().plot([1.0, 2.0])
pictures.save(figure, pathlib.Path(sys.argv[1]))
assert os.environ["MPLBACKEND"] == before  # what this process starts sees what the user chose
print(matplotlib.rcParams["backend"])
"""


@pytest.mark.parametrize(
    ("chosen", "in_force"),
    [("module://no_such_package.backend_inline", None), ("nonsense", None), ("svg", "svg")],
)
def test_a_backend_of_the_callers_does_not_matter_and_stays_if_it_is_there(tmp_path, chosen, in_force):
    """The first two were a traceback before anything began."""
    done = tiny_runs.command("-c", DRAW, tmp_path / "a.png", MPLBACKEND=chosen)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    if in_force is not None:
        assert done.stdout == f"{in_force}\n"


def test_commands_begin_under_it():
    code = "import runpy, sys; sys.argv[1:] = ['--help']; runpy.run_module(sys.argv[0], run_name='__main__')"
    for name in ("mbpo_jax.plot", "mbpo_jax.study", "mbpo_jax.reproduce"):
        done = tiny_runs.command("-c", code.replace("sys.argv[0]", repr(name)), MPLBACKEND="nonsense")
        assert (done.returncode, done.stderr) == (0, "")
