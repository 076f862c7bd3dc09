import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from mbpo_jax import reproduce
from mbpo_jax.launch import kept_curves, launcher, sweep_flags
from mbpo_jax.launch.requested_run import read_request
from mbpo_jax.reports import learning_curves
from mbpo_jax.reports.learning_curves import LearningCurve

ROOT = Path(__file__).parents[1]
TINY = """\
--algorithm=sac
--env=InvertedPendulum-v5
--max_episode_steps=5
--num_steps=1000000
--exploration_steps=60
--replay_capacity=1000
--updates_per_step=1
--batch_size=16
--hidden_units=8
--num_hidden_layers=1
--log_every_steps=20
--eval_every_steps=50
--eval_episodes=2
--checkpoint_every_steps=100
"""
NESTED = "--flagfile=tiny.flags\n--replay_capacity=500\n"


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


def keep(last_step, experiment="tiny", seed=0, algorithm="sac", env="InvertedPendulum-v5", flags=None):
    """Puts a curve into the report's directory; returns its path."""
    steps = tuple(range(50, last_step + 1, 50))
    returns = tuple(step / 100 for step in steps)
    nothing = dict.fromkeys(("num_steps", "commit", "versions", "devices", "seconds"))
    path = learning_curves.path_of(Path("report"), experiment, seed)
    nothing |= {"flags": flags}
    learning_curves.save(path, LearningCurve(experiment, algorithm, env, seed, **nothing, steps=steps, returns=returns))
    return path


def flags_of(flagfile, *added):
    """The flags that a curve of a flagfile has."""
    return read_request(Path(flagfile), list(added)).flags


def call(*words, flagfiles="tiny.flags"):
    return reproduce.main([f"--flagfiles={flagfiles}", "--report_dir=report", *words])


def run_process(*words, flagfiles):
    """`call` in a process of its own, where submitit may do as it likes; returns status, output and errors."""
    command = [sys.executable, "-m", "mbpo_jax.reproduce", f"--flagfiles={flagfiles}", "--report_dir=report", *words]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240)
    return ended.returncode, ended.stdout, ended.stderr


def report():
    """Name -> bytes of what the command wrote."""
    return {path.name: path.read_bytes() for path in Path("report").glob("report.*")}


# -- one real run ------------------------------------------------------------------------------------------------


def test_what_is_missing_is_run_then_continued_and_reported(here, capsys):
    """A nested flagfile to 150 steps, then to 250, where another experiment is there already."""
    words = ("--sweep_dir=runs", "--seeds=1", "--", "--num_steps=150")
    status, out, err = run_process(*words, flagfiles="nested.flags")
    assert (status, err) == (0, "mbpo_jax: 1 of 1 jobs finished\n")
    assert out.splitlines()[0].startswith("finished  runs/nested/seeds_1  seed 1: final return ")
    assert out.splitlines()[1:] == ["report/report.md"]
    path = learning_curves.path_of(Path("report"), "nested", 1)
    first = learning_curves.load(path)
    assert first.steps == (50, 100, 150)
    assert (first.experiment, first.algorithm, first.env, first.seed) == ("nested", "sac", "InvertedPendulum-v5", 1)
    assert (first.num_steps, first.devices) == (150, ("cpu",))
    assert first.versions["jax"] == jax.__version__
    config = json.loads(Path("runs/nested/seeds_1/config.json").read_text())
    assert (config["algorithm"]["replay_capacity"], config["commit"]) == (500, first.commit)

    keep(250, seed=1)
    words = ("--sweep_dir=runs", "--seeds=1", "--", "--num_steps=250")
    status, out, err = run_process(*words, flagfiles="nested.flags,tiny.flags")
    assert (status, err) == (0, "mbpo_jax: 1 of 1 jobs finished\n")
    assert not Path("runs/tiny").exists()
    second = learning_curves.load(path)
    assert second.flags == flags_of("nested.flags", "--num_steps=9")  # length, seeds and paths aside
    assert (second.flags["replay_capacity"], second.flags["agent.hidden_units"]) == (500, 8)
    assert not {"num_steps", "seeds", "run_dir", "compile_cache"} & second.flags.keys()
    assert second.steps == (50, 100, 150, 200, 250)
    assert second.returns[:3] == first.returns  # continued, not begun again
    assert second.seconds > first.seconds > 0.0
    text = Path("report/report.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| nested |"))
    assert row.startswith(f"| nested | 250 (last tenth) | 1 | {second.returns[-1]:.0f} |")
    assert "| tiny | 250 (last tenth) | 1 | 2 |" in text
    numbers = json.loads(Path("report/report.json").read_text())
    assert [row["experiment"] for row in numbers["rows"]] == ["nested", "tiny"]
    assert numbers["rows"][0]["mean"] == second.returns[-1]

    with pytest.MonkeyPatch.context() as patch:  # nothing is missing, so nothing is launched
        patch.setitem(sys.modules, "submitit", None)
        assert call(*words, flagfiles="nested.flags,tiny.flags") == 0
    assert capsys.readouterr().out == "report/report.md\n"

    whole = report()
    run_dir = Path("runs/nested/seeds_1")
    for name, spoil in {
        "summary.json": Path.unlink,  # the run failed or was killed after its last evaluation, before its end
        "config.json": lambda path: path.write_text("{"),
        "metrics.jsonl": lambda path: path.write_text("[]\n" + path.read_text()),
    }.items():
        sound = (run_dir / name).read_bytes()
        spoil(run_dir / name)
        with pytest.MonkeyPatch.context() as patch:
            jobs = []
            patch.setattr(launcher, "launch", lambda arguments, missing, jobs=jobs: jobs.extend(missing) or 0)
            call(*words, flagfiles="nested.flags,tiny.flags")
        assert [job.run_dir for job in jobs] == [run_dir], name
        (run_dir / name).write_bytes(sound)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "submitit", None)
        assert call(*words, flagfiles="nested.flags,tiny.flags") == 0
    capsys.readouterr()
    assert report() == whole

    os.rename("runs", "gone")
    assert call("--seeds=1", "--report_only", "--", "--num_steps=250", flagfiles="nested.flags,tiny.flags") == 0
    assert report() == whole
    os.rename("gone", "runs")

    changed = ("--sweep_dir=runs", "--seeds=1", "--", "--num_steps=250", "--batch_size=32")
    capsys.readouterr()
    assert call(*changed, flagfiles="nested.flags") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "runs/nested/seeds_1" in line
    assert "batch_size was 16, is 32" in line

    changed = ("--report_only", *changed[:-1], "--batch_size=64")
    assert call(*changed, flagfiles="nested.flags") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mbpo_jax: error: runs/nested/seeds_1 was made with other flags than nested.flags")
    assert "ask for: batch_size was 16, is 64. " in line
    assert report() == whole


# -- what is launched --------------------------------------------------------------------------------------------


def test_only_what_does_not_reach_its_end_is_launched(here, launched):
    keep(300, seed=0)
    keep(250, seed=1)
    assert call("--sweep_dir=runs", "--seeds=0,1,2", "--", "--num_steps=300") == 0
    assert [command[-2:] for command in launched] == [
        (f"--seeds={seed}", f"--run_dir=runs/tiny/seeds_{seed}") for seed in (1, 2)
    ]
    assert all(command[3:5] == ("--flagfile=tiny.flags", "--num_steps=300") for command in launched)


def test_a_group_of_seeds_is_one_job_with_one_run(here, launched):
    for seed in (0, 1, 2):
        keep(300, seed=seed)
    keep(250, seed=3)
    assert call("--sweep_dir=runs", "--seeds=0,1,2,3", "--seeds_per_job=2", "--", "--num_steps=300") == 0
    assert [command[-1] for command in launched] == ["--run_dir=runs/tiny/seeds_2_3"]


@pytest.mark.parametrize("status", [1, 3])
def test_the_report_is_written_where_jobs_failed_or_were_stopped(here, launched, status):
    launched.status = status
    keep(200)
    assert call("--sweep_dir=runs", "--seeds=0,1", "--", "--num_steps=300") == status
    assert "seed 0 to 200 steps" in Path("report/report.md").read_text()
    assert "no curves for seeds 1" in Path("report/report.md").read_text()


def test_the_report_of_nothing_is_written_too(here, launched):
    launched.status = 1
    assert call("--sweep_dir=runs") == 1
    assert set(report()) == {"report.md", "report.json", "report.png"}
    assert "no curves yet for seeds 0" in Path("report/report.md").read_text()


# -- what is reported --------------------------------------------------------------------------------------------


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
        b"commit unknown, device unknown, flags not recorded; hours unknown; no curves for seeds 1"
        in first["report.md"]
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
        f"mbpo_jax: error: {path} was made with other flags than tiny.flags and what follows -- ask for: "
        "learning_rate was 0.0003, is 0.1; updates_per_step was 1, is 2. Give the old values, or other directories to "
        "start anew\n"
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


# -- what cannot begin -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], ["--sweep_dir must be", "got none", "--report_only"]),
        (["--report_only"], ["--report_only needs curves", "none", "report"]),
        (["--report_only", "--sweep_dir=runs"], ["--report_only needs curves", "runs or report"]),
        (["--sweep_dir=runs", "--seeds=x"], ["--seeds", "whole numbers", "'x'"]),
        (["--sweep_dir=runs", "--flagfiles=no.flags"], ["--flagfiles", "files that can be read", "'no.flags'"]),
        (["--sweep_dir=runs", "--", "--num_steps=many"], ["tiny.flags", "--num_steps=many", "a whole number"]),
        (["--sweep_dir=runs", "--", "--no_such=1"], ["tiny.flags", "no_such", "--help lists the flags"]),
        (["--sweep_dir=runs", "--", "--run_dir=x"], ["--run_dir", "the sweep sets"]),
        (["--sweep_dir=runs", "--nonsense=1"], ["--nonsense=1", "--help"]),
        (["--report_only", "--report_name=../x"], ["--report_name", "letters, digits, _ and -", "'../x'"]),
        (["--report_only", "--last_step=0"], ["--last_step", "1 or more"]),
    ],
)
def test_a_wrong_call_ends_with_2_and_one_line(here, launched, capsys, words, wanted):
    assert call(*words) == 2
    out, err = capsys.readouterr()
    assert (out, launched) == ("", [])
    (line,) = err.splitlines()
    assert line.startswith("mbpo_jax: error: ")
    for word in wanted:
        assert word in line


@pytest.mark.parametrize("only", [[], ["--report_only"]])
def test_a_damaged_or_foreign_curve_is_named(here, launched, capsys, only):
    path = keep(100, env="Hopper-v5")
    assert call("--sweep_dir=runs", *only) == 2
    assert f"{path} holds sac on Hopper-v5, but tiny.flags asks for sac on InvertedPendulum-v5" in (
        capsys.readouterr().err
    )
    path.write_text("{")
    assert call("--sweep_dir=runs", *only) == 2
    assert f"{path} is damaged" in capsys.readouterr().err
    assert (launched, report()) == ([], {})


def test_a_directory_that_cannot_be_written_to_is_noticed_before_anything_is_trained(here, launched, capsys):
    Path("report").write_text("a file")
    assert call("--sweep_dir=runs") == 2
    assert "--report_dir must be a directory that can be made" in capsys.readouterr().err
    assert launched == []


def test_a_missing_extra_is_one_line(here, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert call("--sweep_dir=runs") == 2
    assert capsys.readouterr().err == ("mbpo_jax: error: a sweep needs the extra 'sweep': pip install -e '.[sweep]'\n")
