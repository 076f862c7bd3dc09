import os
import threading
from pathlib import Path

import pytest

from mbpo_jax.launch import flagfiles, flags, requested_run, sweep_flags

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """No test depends on the folder in which it runs."""
    monkeypatch.chdir(tmp_path)


def refusal(*argv):
    with pytest.raises(ValueError, match="flagfile") as caught:
        flagfiles.expand(argv)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.startswith("--flagfile")
    return message


# -- by name -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hopper", "hopper.flags", "experiments/hopper", "experiments/hopper.flags"])
def test_a_flagfile_is_found_by_its_name_from_any_folder(name):
    assert flagfiles.flagfile_path(name).samefile(EXPERIMENTS / "hopper.flags")
    assert flags.parse([f"--flagfile={name}"])[0].env == "Hopper-v5"


def test_those_in_folders_are_found_too():
    path = flagfiles.flagfile_path("ablations/hopper_real_0")
    assert path.samefile(EXPERIMENTS / "ablations" / "hopper_real_0.flags")
    run, config = flags.parse(["--flagfile=ablations/hopper_real_0"])  # which reads experiments/hopper.flags
    assert (run.env, config.real_fraction) == ("Hopper-v5", 0.0)


def test_the_package_comes_before_the_checkout(tmp_path, monkeypatch):
    package = tmp_path / "package"
    package.mkdir()
    (package / "hopper.flags").write_text("--num_steps=7\n")
    monkeypatch.setattr(flagfiles, "SHIPPED", (package, EXPERIMENTS))
    assert flagfiles.flagfile_path("hopper") == package / "hopper.flags"
    assert "ant" in flagfiles.names()
    assert flagfiles.shown(package / "hopper.flags") == "experiments/hopper.flags"
    assert flagfiles.shown(Path("/mine/hopper.flags")) == "/mine/hopper.flags"


def test_a_path_comes_before_a_name(tmp_path):
    (tmp_path / "hopper").write_text("--num_steps=7\n")
    assert flagfiles.expand(["--flagfile=hopper"]) == ["--num_steps=7"]
    (tmp_path / "hopper").unlink()
    (tmp_path / "hopper").mkdir()  # a folder of this name is none
    assert "--env=Hopper-v5" in flagfiles.expand(["--flagfile=hopper"])


def test_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.flags").write_text("--quiet\n")
    assert flagfiles.expand(["--flagfile=~/mine.flags"]) == ["--quiet"]


def test_an_unknown_name_is_refused_with_those_there_are():
    message = refusal("--flagfile=hoper")
    assert "'hoper' (No such file or directory); these come with mbpo_jax: " in message
    assert "halfcheetah, hopper, " in message


def test_sweeps_take_names():
    arguments, _ = sweep_flags.parse(
        ["--flagfiles=hopper,experiments/ant.flags", "--sweep_dir=out"], sweep_flags.build_parser("x", None)
    )
    assert [file.stem for file in arguments.flagfiles] == ["hopper", "ant"]
    assert all(file.samefile(EXPERIMENTS / file.name) for file in arguments.flagfiles)
    assert requested_run.read_request(arguments.flagfiles[0], []).run.env == "Hopper-v5"
    with pytest.raises(ValueError, match=r"--flagfiles: must be files that can be read, got 'hoper' .*hopper"):
        sweep_flags.parse(["--flagfiles=hoper", "--sweep_dir=out"], sweep_flags.build_parser("x", None))


# -- what is in them ---------------------------------------------------------------------------------------------


def test_lines_stand_where_the_file_is_named(tmp_path):
    text = "\ufeff# a comment\r\n// another\r\n\r\n  --a=1  \r\n--b=two words\r\n--c=x # no comment\r\n"
    (tmp_path / "a.flags").write_bytes(text.encode())
    lines = ["--a=1", "--b=two words", "--c=x # no comment"]
    assert flagfiles.expand(["--x", "--flagfile=a.flags", "--y"]) == ["--x", *lines, "--y"]
    assert flagfiles.expand(["-flagfile", "a.flags"]) == lines
    assert flagfiles.expand(["--", "--flagfile=a.flags"]) == ["--", "--flagfile=a.flags"]


def test_a_flagfile_reads_another_beside_it_first(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "outer.flags").write_text("--a=1\n--flagfile=hopper.flags\n--c=3\n")
    (folder / "hopper.flags").write_text("--b=2\n")
    (tmp_path / "hopper.flags").write_text("--b=wrong\n")
    assert flagfiles.expand(["--flagfile=folder/outer.flags"]) == ["--a=1", "--b=2", "--c=3"]
    (folder / "hopper.flags").unlink()
    assert flagfiles.expand(["--flagfile=folder/outer.flags"]) == ["--a=1", "--b=wrong", "--c=3"]
    (tmp_path / "hopper.flags").unlink()
    assert "--env=Hopper-v5" in flagfiles.expand(["--flagfile=folder/outer.flags"])


def test_one_file_may_be_read_twice(tmp_path):
    (tmp_path / "a.flags").write_text("--a=1\n")
    (tmp_path / "b.flags").write_text("--flagfile=a.flags\n--flagfile=a.flags\n")
    assert flagfiles.expand(["--flagfile=b.flags"]) == ["--a=1", "--a=1"]


def test_a_cycle_is_refused_by_name(tmp_path):
    """absl passed over it in silence."""
    (tmp_path / "a.flags").write_text("--flagfile=b.flags\n")
    (tmp_path / "b.flags").write_text("--flagfile=a.flags\n")
    first, second = (tmp_path / f"{name}.flags" for name in "ab")
    assert refusal("--flagfile=a.flags") == f"--flagfile must not read itself, got {first} > {second} > {first}"


# -- what cannot be read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("--flagfile=no.flags", "'no.flags' (No such file or directory)"),
        ("--flagfile=folder", "'folder' (Is a directory)"),
        ("--flagfile=binary.flags", "'binary.flags' ('utf-8' codec can't decode"),
        ("--flagfile=large.flags", "'large.flags' (it has more than 1048576 bytes)"),
        ("--flagfile=/dev/zero", "'/dev/zero' (it has more than 1048576 bytes)"),
        ("--flagfile=s3://bucket/a.flags", "must be a path on this machine, got 's3://bucket/a.flags'"),
        ("--flagfile=~nobody_of_this_name/a", "whose home directory is not known"),
        ("--flagfile=a\0b", "must be a path on this machine"),
        ("--flagfile=" + 5000 * "a", "No such file or directory"),
        ("--flagfile=outer.flags", "'inner.flags' (No such file or directory)"),
        ("--flagfile=open.flags", "must be given as --flagfile=NAME in "),
        ("--flagfile=", "must be a file that can be read, got ''"),
        ("--flagfile", "must be given as --flagfile=NAME, got '--flagfile'"),
    ],
)
def test_what_cannot_be_read_is_one_clean_line(tmp_path, word, reason):
    """A missing one was "ERROR:: Unable to open flagfile: [Errno 2] ..."."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "binary.flags").write_bytes(b"\xff\xfe--num_steps=5")
    (tmp_path / "large.flags").write_bytes(2**20 * b"#" + b"\n")
    (tmp_path / "outer.flags").write_text("--flagfile=inner.flags\n")
    (tmp_path / "open.flags").write_text("--flagfile\nhopper\n")
    message = refusal(word)
    assert reason in message
    assert "ERROR" not in message
    assert "Errno" not in message


def test_a_pipe_will_do(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=("--quiet\n",))
    writer.start()
    assert flagfiles.expand(["--flagfile=pipe"]) == ["--quiet"]
    writer.join()
