import argparse
import io
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from mbpo_jax import main, plot, reproduce, study, sweep
from mbpo_jax.driver.config import Broken, Diverged, NotFinite, RunConfig, StorageFailure
from mbpo_jax.driver.stop import EXIT_STOPPED
from mbpo_jax.launch.command import exit_status, path, positive, report_error, say, with_dashes


def test_a_command_that_is_interrupted_says_so_in_a_line(capsys):
    def interrupted():
        raise KeyboardInterrupt

    assert exit_status(interrupted) == EXIT_STOPPED == 3
    assert capsys.readouterr() == ("", "mbpo_jax: stopped\n")
    assert exit_status(lambda: 7) == 7


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError, 2),
        (UnicodeError, 2),
        (Diverged, 4),
        (Broken, 5),
        (NotFinite, 5),
        (StorageFailure, 6),
        (OSError, 6),
    ],
)
def test_every_error_has_its_status_and_is_one_line(capsys, error, status):
    assert report_error(error("the first line\n  the second")) == status
    assert capsys.readouterr() == ("", "mbpo_jax: error: the first line the second\n")


def test_an_environments_own_traceback_comes_before_the_line(capsys):
    error = Broken("it broke")
    error.environment_traceback = "Traceback:\n  its own\n"
    assert report_error(error) == 5
    assert capsys.readouterr().err == "Traceback:\n  its own\nmbpo_jax: error: it broke\n"


@pytest.mark.parametrize(
    ("text", "reason"), [("0", "1 or more"), ("1e3", "1 or more"), (str(2**31), "at most 2147483647, got '2147483648'")]
)
def test_a_number_of_something_is_whole_and_fits_the_counters(text, reason):
    with pytest.raises(argparse.ArgumentTypeError, match=reason):
        positive(text)
    assert positive("2147483647") == 2**31 - 1


# -- output that nobody reads ------------------------------------------------------------------------------------


def run(main, stdout, code="from mbpo_jax.main import main", unbuffered=""):
    """A command in a process of its own: its exit status, and what it printed to standard error."""
    script = f"import sys\nfrom mbpo_jax.launch import command\n{code}\nsys.exit(command.exit_status({main}))"
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=240)
    return done.returncode, done.stderr


HELP = "lambda: main(['--help'])"
PLOT_HELP = "from mbpo_jax.plot import main"
CLOSED = "mbpo_jax: error: standard output is closed; redirect it to /dev/null if nobody is to read it\n"
FULL = "mbpo_jax: error: standard output cannot be written to: [Errno 28] No space left on device\n"


@pytest.fixture
def broken_pipe():
    """The writing end of a pipe that nobody reads, as after `| head` has ended."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.mark.parametrize("code", ["from mbpo_jax.main import main", PLOT_HELP])
def test_a_reader_that_went_away_has_seen_enough(broken_pipe, code):
    """`--help | head -3` ended in a traceback."""
    assert run(HELP, broken_pipe, code) == (0, "")


def test_what_a_library_printed_is_dropped_quietly_too(broken_pipe):
    assert run("lambda: print('a line') or 7", broken_pipe, "") == (7, "")
    assert run("lambda: print('a line') or 7", broken_pipe, "", unbuffered="1") == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no full device")
def test_a_full_output_is_a_line_and_status_6():
    with open("/dev/full", "w") as full:
        assert run(HELP, full, PLOT_HELP) == (6, FULL)
        assert run("lambda: print('a line')", full, "") == (6, FULL)
        assert run("lambda: print('a line')", full, "", unbuffered="1")[0] == 6
        assert run("lambda: print('a line') or 4", full, "") == (4, "")  # what went wrong before says more


CLOSE = "import os, sys; os.close(1); os.execv(sys.executable, [sys.executable, '-c', sys.argv[1]])"
TAKEN = """
import os, sys
from mbpo_jax.launch import command
def main():
    with open(sys.argv[0] or os.devnull) as file:
        return file.fileno()
sys.exit(command.exit_status(main))
"""


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (
            f"import sys\nfrom mbpo_jax.launch import command\n{PLOT_HELP}\nsys.exit(command.exit_status({HELP}))",
            (6, CLOSED),
        ),
        (TAKEN.replace("sys.argv[0] or ", ""), (3, "")),  # no file becomes standard output, into which libraries print
    ],
)
def test_a_closed_output_is_a_line_and_status_6(script, expected):
    done = subprocess.run([sys.executable, "-c", CLOSE, script], stderr=subprocess.PIPE, text=True, timeout=240)
    assert (done.returncode, done.stderr) == expected


INHERITED = """
import subprocess, sys
from mbpo_jax.launch import command
begin = "import os; os.fstat(0), os.fstat(1), os.fstat(2)"
sys.exit(command.exit_status(lambda: subprocess.run([sys.executable, "-c", begin]).returncode))
"""


def test_what_is_started_without_standard_streams_has_some():
    """glfw, which MuJoCo's environments import, looks for its library in a process that needs them."""
    done = subprocess.run(["sh", "-c", '"$@" <&- >&- 2>&-', "sh", sys.executable, "-c", INHERITED], timeout=240)
    assert done.returncode == 0


def test_nobody_needs_to_read_an_error(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", None)
    assert report_error(ValueError("wrong")) == 2
    assert capsys.readouterr() == ("", "")  # print(file=None) would print to standard output


def test_an_output_that_lacks_a_letter_shows_its_number(monkeypatch):
    """A run into a folder with an umlaut ended with status 2 after its last step."""
    plain = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", plain)
    say("runs/für \udcff")
    assert plain.buffer.getvalue() == b"runs/f\\xfcr \\udcff\n"


# -- names of flags ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("num_steps must be 1 or more", "--num_steps must be 1 or more"),
        ("seeds, num_steps and env must fit", "--seeds, --num_steps and --env must fit"),
        ("env: unknown", "--env: unknown"),
        ("--num_steps must be 1 or more", "--num_steps must be 1 or more"),
        ("environment X raised", "environment X raised"),
        ("agent.discount must be", "--agent.discount must be"),
        ("num_elites must be at most num_members (7)", "--num_elites must be at most num_members (7)"),
        ("seeds", "--seeds"),
        ("", ""),
    ],
)
def test_a_message_that_begins_with_a_knob_names_the_flag(message, shown):
    names = ["env", "num_steps", "seeds", "num_elites", "discount", "agent.discount", "agent"]
    assert with_dashes(message, names) == shown
    assert with_dashes(message, []) == message


# -- paths -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["gs://bucket/run", "s3://a", "file:///tmp/x", "file:/tmp/x", "a\0b", "~nobody_so_named/x", ""]
)
def test_what_is_no_path_of_this_machine_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="must be a path"):
        path(text)


def test_a_tilde_is_the_home_directory(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert path("~/x") == Path("/home/somebody/x")
    assert path("a/~/x") == Path("a/~/x")
    assert path("a:b/c") == Path("a:b/c")
    root = pwd.getpwuid(0)
    assert path(f"~{root.pw_name}/x") == Path(root.pw_dir) / "x"


@pytest.mark.parametrize("name", ["run_dir", "compile_cache"])
def test_a_runs_paths_are_of_this_machine(name, monkeypatch):
    with pytest.raises(ValueError, match=f"{name} must be a path on this machine, got 'gs://bucket/run'"):
        RunConfig(**{name: "gs://bucket/run"})
    monkeypatch.setenv("HOME", "/home/somebody")
    assert RunConfig(run_dir="~/x").directory == "/home/somebody/x"


@pytest.mark.parametrize("url", ["gs://bucket/run", "s3://bucket/run"])
def test_every_command_refuses_a_url_before_anything_is_made(url, tmp_path, monkeypatch, capsys):
    """A folder named gs: was made, and the first save failed."""
    monkeypatch.chdir(tmp_path)
    commands = [
        (main.main, ["--quiet", f"--run_dir={url}"]),
        (main.main, ["--quiet", f"--compile_cache={url}"]),
        (main.main, ["--quiet", f"--flagfile={url}"]),
        (plot.main, [f"--run_dir={url}"]),
        (plot.main, ["--run_dir=run", f"--output={url}"]),
        (plot.main, ["--run_dir=run", f"--reference={url}"]),
        (study.main, ["best_length", f"--output_dir={url}"]),
        (study.main, ["exploitation", "--output_dir=out", f"--run_dir={url}"]),
        (sweep.main, ["--flagfiles=hopper", f"--sweep_dir={url}"]),
        (sweep.main, [f"--flagfiles={url}", "--sweep_dir=out"]),
        (reproduce.main, ["--flagfiles=hopper", "--report_only", f"--report_dir={url}"]),
    ]
    for command, argv in commands:
        assert command(argv) == 2
        out, err = capsys.readouterr()
        assert out == ""
        flag = next(word for word in argv if url in word).partition("=")[0]
        assert err.startswith(f"mbpo_jax: error: {flag}")
        assert f"on this machine, got '{url}'" in err
        assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
