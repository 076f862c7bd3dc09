"""What is missing is run and reported, nothing else is launched, and a wrong call is refused."""

import json
import os
import sys
from pathlib import Path

import jax
import pytest
import tiny_runs
from report_calls import call, flags_of, keep, report, run_process

from mbpo_jax import number_text
from mbpo_jax.data_sets import digest
from mbpo_jax.launch import launcher
from mbpo_jax.reports import learning_curves

# -- one real run ------------------------------------------------------------------------------------------------


def test_what_is_missing_is_run_then_continued_and_reported(here, capsys):
    """A nested flagfile to 150 steps, then to 250, where another experiment is there already.

    One function of more than 50 lines: each part continues the run of the part before.
    """
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
    assert row.startswith(f"| nested | 250 (last tenth) | 1 | {number_text.whole(second.returns[-1])} |")
    assert "| tiny | 250 (last tenth) | 1 | 2.5 |" in text
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
    assert line.startswith("mbpo_jax: error: runs/nested/seeds_1 was made with flags other than those of nested.flags")
    assert "and after --: batch_size was 16, is 64. " in line
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
    assert "no curves for seed 1" in Path("report/report.md").read_text()


def test_the_report_of_nothing_is_written_too(here, launched):
    launched.status = 1
    assert call("--sweep_dir=runs") == 1
    assert set(report()) == {"report.md", "report.json", "report.png"}
    assert "no curves yet for seed 0" in Path("report/report.md").read_text()


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


@pytest.mark.parametrize("only", [[], ["--report_only"]])
def test_a_curve_of_other_data_is_refused_and_one_of_data_that_is_elsewhere_is_taken(here, launched, capsys, only):
    Path("cloned.flags").write_text("--algorithm=bc\n--env=InvertedPendulum-v5\n--num_steps=100\n")
    for name, seed in (("medium", 0), ("expert", 1)):
        tiny_runs.write_data_set(Path(f"{name}.npz"), seed=seed)
    path = keep(
        100, experiment="cloned", algorithm="bc", dataset={"dataset_sha256": digest.of_file(Path("medium.npz"))}
    )
    words = ("--sweep_dir=runs", *only, "--")
    assert call(*words, "--dataset=expert.npz", flagfiles="cloned.flags") == 2
    medium, expert = (digest.of_file(Path(f"{name}.npz"))[:12] for name in ("medium", "expert"))
    assert (
        f"{path} was learnt from the data of SHA-256 {medium}, but --dataset=expert.npz has {expert}."
    ) in capsys.readouterr().err
    assert (launched, report()) == ([], {})
    for name in ("medium.npz", "not_on_this_machine.npz"):
        assert call(*words, f"--dataset={name}", flagfiles="cloned.flags") == 0
    assert launched == []
    scored = ("--sweep_dir=runs", *only, "--score_reference=InvertedPendulum-v5=0,2000", "--", "--dataset=medium.npz")
    assert call(*scored, flagfiles="cloned.flags") == 0
    assert (
        "(random policy), 100 is 2000 (expert), measured on InvertedPendulum-v5" in Path("report/report.md").read_text()
    )
    typo = ("--sweep_dir=runs", *only, "--score_reference=Hopper-v5=0,9", "--", "--dataset=medium.npz")
    assert call(*typo, flagfiles="cloned.flags") == 2
    wanted = "--score_reference must be for an environment of offline runs (InvertedPendulum-v5), got 'Hopper-v5'"
    assert wanted in capsys.readouterr().err


def test_runs_without_returns_have_nothing_to_compare(here, launched, capsys):
    Path("cloned.flags").write_text("--algorithm=bc\n--env=none\n--num_steps=100\n--dataset=rows.npz\n")
    assert call("--sweep_dir=runs", flagfiles="cloned.flags") == 2
    assert "cloned.flags: env must be an environment, whose returns are compared, got 'none'" in capsys.readouterr().err
    Path("unseen.flags").write_text("--algorithm=sac\n--eval_episodes=0\n")
    assert call("--sweep_dir=runs", flagfiles="unseen.flags") == 2
    assert "unseen.flags: eval_episodes must be 1 or more, since returns are compared, got 0" in capsys.readouterr().err
    assert launched == []


def test_a_directory_that_cannot_be_written_to_is_noticed_before_anything_is_trained(here, launched, capsys):
    Path("report").write_text("a file")
    assert call("--sweep_dir=runs") == 2
    assert "--report_dir must be a directory that can be created" in capsys.readouterr().err
    assert launched == []


def test_a_missing_extra_is_one_line(here, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert call("--sweep_dir=runs") == 2
    assert capsys.readouterr().err == ("mbpo_jax: error: a sweep needs the extra 'sweep': pip install -e '.[sweep]'\n")
