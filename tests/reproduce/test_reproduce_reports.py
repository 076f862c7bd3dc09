"""What reports say, which curves they take, and that those in the repository are of their curves."""

import json
import shlex
from pathlib import Path

import pytest
from report_calls import TINY, call, flags_of, keep, report

from mbpo_jax import reproduce
from mbpo_jax.launch import kept_curves, sweep_flags
from mbpo_jax.launch.requested_run import read_request

ROOT = Path(__file__).parents[2]


def test_the_report_is_the_same_each_time_and_runs_nothing(here, launched):
    keep(12_000, experiment="hopper", seed=0, algorithm="mbpo", env="Hopper-v5")
    keep(12_000, experiment="hopper", seed=2, algorithm="mbpo", env="Hopper-v5")
    assert call("--report_only", "--seeds=0,1,2", flagfiles="hopper.flags") == 0
    first = report()
    assert call("--report_only", "--seeds=0,1,2", flagfiles="hopper.flags") == 0
    assert report() == first
    assert launched == []
    # Returns are steps / 100, every 50: those in (5,000, 10,000] have a mean of 75.25.
    assert b"| hopper | 10,000 | 2 | 75 | 75 [75, 75] | 75, 75 | MBPO 227" in first["report.md"]
    assert (
        b"commit unknown, device unknown, flags not recorded; hours unknown; no curves for seed 1" in first["report.md"]
    )


def test_the_command_in_the_report_makes_it_again(here):
    keep(100)
    assert call("--report_only", "--seeds=0,5", "--sweep_dir=runs", "--", "--num_steps=100") == 0
    first = report()
    command = first["report.md"].decode().splitlines()[2].split()
    assert command[:3] == ["python", "-m", "mbpo_jax.reproduce"]
    assert reproduce.main(command[3:]) == 0
    assert report() == first


def test_flags_come_from_a_file_too_and_the_command_in_the_report_says_so(here):
    keep(100)
    keep(100, experiment="nested")
    Path("of.flags").write_text("# two\n--flagfiles=tiny.flags\n\n--flagfiles=nested.flags\n--report_dir=report\n")
    assert call("--report_only", "--seeds", "0", flagfiles="tiny.flags,nested.flags") == 0
    plain = report()
    assert reproduce.main(["--flagfile=of.flags", "--report_only", "--sweep_dir", "runs", "--seeds", "0"]) == 0
    from_file = report()
    command = b"python -m mbpo_jax.reproduce --flagfile=of.flags --seeds 0 --report_only"
    assert from_file["report.md"].splitlines()[2].strip() == command
    assert from_file["report.md"].splitlines()[3:] == plain["report.md"].splitlines()[3:]
    assert from_file["report.json"] == plain["report.json"]


def test_reports_of_one_directory_share_its_curves_and_end_at_last_step(here):
    path = keep(12_000, experiment="hopper", algorithm="mbpo", env="Hopper-v5")
    assert call("--report_only", flagfiles="hopper.flags") == 0
    whole, kept = report(), path.read_bytes()
    words = ("--report_only", "--report_name=until_9-k", "--last_step=9000")
    assert call(*words, flagfiles="hopper.flags") == 0
    assert (report(), path.read_bytes()) == (whole, kept)
    text = Path("report/until_9-k.md").read_text()
    # Nothing is published by 9,000. Returns are steps / 100, every 50: those in (8,100, 9,000] have a mean of 85.75.
    assert "| hopper | 9,000 (last tenth) | 1 | 86 | 86 | 86 | - | - | not reached |" in text
    assert ("10,000 |" in text, "125,000" in text, "](until_9-k.png)" in text) == (False, False, True)
    assert Path("report/until_9-k.png").stat().st_size > 1000
    assert json.loads(Path("report/until_9-k.json").read_text())["rows"][0]["step"] == 9000
    assert reproduce.main(shlex.split(text.splitlines()[2])[3:]) == 0
    assert Path("report/until_9-k.md").read_text() == text
    assert call("--report_only", "--last_step=49", flagfiles="hopper.flags") == 2  # the first evaluation is at 50


@pytest.mark.parametrize("words", [["--report_only"], ["--sweep_dir=fresh"], ["--sweep_dir=fresh", "--report_only"]])
def test_a_kept_curve_of_other_flags_is_refused(here, launched, capsys, words):
    path = keep(5000, flags=flags_of("tiny.flags"))
    assert call(*words, "--", "--num_steps=5000", "--updates_per_step=2", "--learning_rate=0.1") == 2
    out, err = capsys.readouterr()
    assert (out, launched, report()) == ("", [], {})
    assert err == (
        f"mbpo_jax: error: {path} was made with flags other than those of tiny.flags and after --: "
        "learning_rate was 0.0003, is 0.1; updates_per_step was 1, is 2. Give the old values, or other directories to "
        "start again\n"
    )
    assert call(*words, "--", "--num_steps=5000") == 0
    assert launched == []
    assert "not recorded" not in Path("report/report.md").read_text()


def test_a_changed_flagfile_is_noticed_too(here, capsys):
    keep(100, flags=flags_of("tiny.flags"))
    Path("tiny.flags").write_text(TINY.replace("--batch_size=16", "--batch_size=17"))
    assert call("--report_only") == 2
    assert "batch_size was 16, is 17." in capsys.readouterr().err


def test_a_knob_that_a_curve_is_older_than_counts_as_its_default(here, capsys):
    flags = flags_of("tiny.flags")
    del flags["agent.discount"], flags["updates_per_step"]  # 1 in the flagfile, and by default
    keep(100, flags=flags)
    assert call("--report_only") == 0
    assert call("--report_only", "--", "--discount=0.5") == 2
    assert "discount was 0.99, is 0.5." in capsys.readouterr().err
    del flags["batch_size"]  # 16 in the flagfile, 256 by default
    keep(100, flags=flags)
    assert call("--report_only") == 2
    assert "batch_size was 256, is 16." in capsys.readouterr().err
    keep(100, flags=flags_of("tiny.flags") | {"gone": 3})
    assert call("--report_only") == 2
    assert "gone was 3, is 'not known'." in capsys.readouterr().err


def test_a_curve_of_an_older_version_is_known_by_the_names_of_its_knobs(here, capsys):
    """They were kept without the sections that they are in, and without the name of the agent."""
    flags = {path.rpartition(".")[2]: value for path, value in flags_of("tiny.flags").items() if path != "agent"}
    assert {"discount", "hidden_units"} <= flags.keys()
    path = keep(100, flags=flags)
    before = path.read_bytes()
    assert call("--report_only") == 0
    assert path.read_bytes() == before
    assert call("--report_only", "--", "--discount=0.5") == 2
    assert "discount was 0.99, is 0.5." in capsys.readouterr().err


def test_a_curve_that_says_nothing_of_its_flags_is_taken_as_it_is(here):
    path = keep(100)
    before = path.read_bytes()
    assert call("--report_only", "--", "--batch_size=32") == 0
    assert "commit unknown, device unknown, flags not recorded" in Path("report/report.md").read_text()
    assert path.read_bytes() == before


def test_only_published_mbpo_counts_in_the_aggregate(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    names = ("hopper", "walker2d", "halfcheetah", "ant", "humanoid")
    arguments, _ = sweep_flags.parse(
        [
            "--flagfiles=" + ",".join(map(str, sorted(Path("experiments").glob("**/*.flags")))),
            f"--report_dir={tmp_path}",
            "--report_only",
        ],
        reproduce.parser(),
    )
    of_names = [kept_curves.collect(arguments, read_request(path, [])) for path in arguments.flagfiles]
    assert {one.name for one in of_names if one.as_published} == set(names)
    changed = read_request(Path("experiments/hopper.flags"), ["--real_fraction=1"])
    assert not kept_curves.collect(arguments, changed).as_published


def test_readme_s_command_parses(monkeypatch):
    monkeypatch.chdir(ROOT)
    text = (ROOT / "README.md").read_text().replace("\\\n", " ")
    commands = [line for line in text.splitlines() if line.startswith("python -m mbpo_jax.reproduce ")]
    assert len(commands) >= 2
    for command in commands:
        arguments, added = sweep_flags.parse(shlex.split(command, comments=True)[3:], reproduce.parser())
        for flagfile in arguments.flagfiles:
            assert read_request(flagfile, added).flagfile == flagfile


@pytest.mark.parametrize("path", sorted((ROOT / "docs/reproduction").glob("*.md")), ids=lambda path: path.stem)
def test_the_reports_in_the_repository_are_of_the_curves_beside_them(monkeypatch, tmp_path, path):
    monkeypatch.chdir(ROOT)
    text = path.read_text()
    words = shlex.split(text.splitlines()[2])[3:]
    (tmp_path / "curves").symlink_to(path.parent / "curves")
    elsewhere = f"--report_dir={tmp_path}"
    assert reproduce.main([*words, elsewhere]) == 0
    again = (tmp_path / path.name).read_text()
    command = text.splitlines()[2]
    assert again == text.replace(command, command.replace(" --report_only", f" {elsewhere} --report_only"))
    assert (tmp_path / path.name).with_suffix(".json").read_text() == path.with_suffix(".json").read_text()


def test_every_kept_curve_is_in_a_report_and_every_flagfile_of_reports_has_one():
    folder = ROOT / "docs/reproduction"
    reported = {tuple(path.parts[-2:]) for path in folder.glob("curves/*/*.json")}
    listed = set()
    for path in folder.glob("*.json"):
        for experiment in json.loads(path.read_text())["experiments"]:
            listed |= {(experiment["experiment"], f"seed_{curve['seed']}.json") for curve in experiment["curves"]}
    assert listed == reported
    assert {path.stem for path in folder.glob("*.flags")} == {path.stem for path in folder.glob("*.md")}
