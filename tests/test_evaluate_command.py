"""The command that plays with a trained policy."""

import json
import subprocess
import sys

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest

from mbpo_jax import evaluate, load_policy
from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.driver.interaction import rendering
from mbpo_jax.driver.storage import metrics
from mbpo_jax.reports import film as films
from mbpo_jax.reports import statistics


def run(capsys, *words):
    """Status, output and error of a command line."""
    status = evaluate.main([str(word) for word in words])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def result(capsys, *words):
    status, out, err = run(capsys, *words, "--json")
    assert (status, err) == (0, "")
    return json.loads(out)


def test_its_episodes_are_those_of_the_runs_last_evaluation(mbpo_run, capsys):
    (line,) = [
        line
        for line in metrics.read(mbpo_run / "metrics.jsonl")
        if line["seed"] == 1 and line["step"] == 160 and "eval/return_mean" in line
    ]
    found = result(capsys, mbpo_run, "--seed=1", "--episodes=2")
    assert found["return_mean"] == line["eval/return_mean"]
    assert np.mean([episode["length"] for episode in found["episodes"]]) == line["eval/length_mean"]
    assert [episode["episode"] for episode in found["episodes"]] == [0, 1]


def test_the_statistics_and_the_ends(mbpo_run, capsys):
    found = result(capsys, f"--run_dir={mbpo_run}", "--episodes=12", "--best")
    returns = [episode["episode_return"] for episode in found["episodes"]]
    assert (found["policy"], found["seed"], len(returns)) == ("best", 0, 12)
    assert found["return_std"] == pytest.approx(np.std(returns, ddof=1))
    assert found["return_interval"] == pytest.approx(statistics.t_interval(returns))
    ends = {episode["length"] == 5 for episode in found["episodes"] if episode["end"] == "truncated"}
    assert ends <= {True}  # the run's time limit
    assert all(episode["length"] < 6 for episode in found["episodes"])
    later = result(capsys, mbpo_run, "--episodes=2", "--first_episode=10", "--best")
    assert later["episodes"] == found["episodes"][10:]


def test_the_table(mbpo_run, capsys):
    status, out, _ = run(capsys, mbpo_run, "--episodes=3")
    lines = out.splitlines()
    assert status == 0
    assert lines[0] == f"InvertedPendulum-v5: the newest policy of seed 0 of {mbpo_run}"
    assert len(lines) == 7 and lines[5].startswith("return: mean ") and "over 3 episodes" in lines[5]
    assert lines[6].startswith("95 % interval of the mean: ") and "Student's t over episodes" in lines[6]
    assert "it needs two or more episodes" in run(capsys, mbpo_run, "--episodes=1")[1]


def test_another_environment_of_the_same_sizes(mbpo_run, capsys):
    found = result(capsys, mbpo_run, "--env=InvertedPendulum-v4", "--episodes=1")
    assert found["env"] == "InvertedPendulum-v4"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seed=7"], "--seed must be one of the run's, 0, 1, 2, got 7"),
        (["--env=Hopper-v5"], "--env must have 4 observations and 1 actions, as the run's InvertedPendulum-v5 had"),
        (["--env=NoSuch-v0"], "env must be an installed Gymnasium id, got 'NoSuch-v0'"),
        (["--episodes=0"], "--episodes: must be a whole number, 1 or more, got '0'"),
        (
            ["--first_episode=2147483639"],
            "--first_episode must be at most 2147483638 with --episodes=10, got 2147483639",
        ),
        (["--video=film.avi"], "--video must be a file that ends in .mp4, got 'film.avi'"),
        (["--video_episodes=1"], "--video_episodes=1 needs --video=FILE.mp4"),
        (["--video=film.mp4", "--video_episodes=11"], "--video_episodes must be --episodes=10 or less, got 11"),
        (["--run_dir=here"], "RUN_DIR must be given once, got 2"),
        (["--video=film.mp4", "--env=mbpo_jax/CartpoleContinuous-v0"], "must have the render mode 'rgb_array'"),
    ],
)
def test_wrong_flags_are_one_line(words, message, mbpo_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, _, err = run(capsys, mbpo_run, *words)
    assert status == 2 and message in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def ends_at_once(obs, action, next_obs):
    return next_obs[:, 0] < 1e9


def test_a_policy_that_plans_with_a_function_of_the_runs_own(mbpo_run, tmp_path, monkeypatch, capsys):
    def build(config, spec):
        algorithm = entry.build(config, spec)

        def act(key, actor, carry, obs, explore):
            action, carry = algorithm.act(key, actor, carry, obs, explore)
            return jnp.where(spec.termination_fn(obs[None], action[None], obs[None])[0], 1.0, action), carry

        return algorithm._replace(act=act)

    entry = REGISTRY["mbpo"]
    monkeypatch.setitem(REGISTRY, "mbpo", entry._replace(build=build))
    (tmp_path / "policies").symlink_to(mbpo_run / "policies")
    config = (mbpo_run / "config.json").read_text()
    own = config.replace('"termination_fn": "auto"', f'"termination_fn": "{__name__}:ends_at_once"')
    (tmp_path / "config.json").write_text(own)
    assert result(capsys, tmp_path, "--episodes=1")["episodes"][0]["length"] < 6
    (tmp_path / "config.json").write_text(own.replace(":ends_at_once", ":gone"))
    status, _, err = run(capsys, tmp_path)
    assert status == 2 and "termination_fn must be 'auto', 'never' or package.module:function that can be imp" in err


def test_no_run_no_policy_and_an_environment_that_is_gone(mbpo_run, tmp_path, capsys):
    status, _, err = run(capsys, tmp_path / "none")
    assert status == 2 and err.endswith("none', which is not a directory\n")
    status, _, err = run(capsys, tmp_path)
    assert status == 2 and err.endswith("where there is no config.json\n")
    config = (mbpo_run / "config.json").read_text()
    (tmp_path / "config.json").write_text(config)
    status, _, err = run(capsys, tmp_path)
    assert status == 2 and "where none is saved yet" in err and "(--eval_every_steps=40)" in err
    (tmp_path / "policies").symlink_to(mbpo_run / "policies")
    assert '"termination_fn": "auto"' in config
    gone = config.replace("InvertedPendulum-v5", "gone_module:Gone-v0")
    (tmp_path / "config.json").write_text(gone.replace('"termination_fn": "auto"', '"termination_fn": "never"'))
    status, _, err = run(capsys, tmp_path)
    assert status == 2 and "gone_module" in err and err.count("\n") == 1
    (tmp_path / "config.json").write_text("{")
    assert run(capsys, tmp_path)[0] == 6


class Drawn(gymnasium.Wrapper):
    """Renders what it observes without any graphics: the first number as brightness."""

    def __init__(self, render_mode=None):
        super().__init__(gymnasium.make("InvertedPendulum-v5").unwrapped)
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 20}
        self.drawn = render_mode == "rgb_array"

    def reset(self, **options):
        self.obs, info = self.env.reset(**options)
        return self.obs, info

    def step(self, action):
        self.obs, *rest = self.env.step(action)
        return self.obs, *rest

    @property
    def render_mode(self):
        return "rgb_array" if self.drawn else None

    def render(self):
        assert self.drawn
        return np.full((48, 64, 3), np.clip(128 + 1000 * self.obs[1], 0, 255), np.uint8)


class Blind(Drawn):
    def render(self):
        raise AttributeError("'NoneType' object has no attribute\n'eglQueryString'")


@pytest.fixture(scope="module", autouse=True)
def _registered():
    for cls in (Drawn, Blind):
        gymnasium.register(f"{cls.__name__}-v0", entry_point=cls, max_episode_steps=5)
    yield
    for cls in (Drawn, Blind):
        del gymnasium.registry[f"{cls.__name__}-v0"]


def expected_brightness(run_dir, episode):
    """Of the frames of an episode, played without the command."""
    from mbpo_jax.driver.interaction.environment import EVALUATION, Environment

    env, policy = Environment("InvertedPendulum-v5", 0, EVALUATION, 5), load_policy(run_dir)
    obs, ended, seen = env.reset(episode), False, []
    policy.reset(episode)
    while not ended:
        seen.append(obs[1])
        step = env.step(policy.normalized_action(obs))
        obs, ended = step.next_obs, step.terminal or step.truncated
    return np.clip(128 + 1000 * np.array([*seen, obs[1]]), 0, 255)


def test_the_film_shows_the_episodes_of_the_table(mbpo_run, tmp_path, capsys):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    video = tmp_path / "new" / "film ü.mp4"
    words = [mbpo_run, "--env=Drawn-v0", "--episodes=3", "--first_episode=4"]
    found = result(capsys, *words, f"--video={video}", "--video_episodes=2")
    assert found["episodes"] == result(capsys, *words)["episodes"]  # filming changes nothing
    assert list(video.parent.iterdir()) == [video]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(video), "-f", "rawvideo", "-pix_fmt", "gray", "-"]
    read = subprocess.run(command, capture_output=True, timeout=60)
    assert b"64x48" in read.stderr and b"20 fps" in read.stderr
    brightness = np.frombuffer(read.stdout, np.uint8).reshape(-1, 64 * 48).mean(axis=1)
    expected = np.concatenate([expected_brightness(mbpo_run, episode) for episode in (4, 5)])
    assert len(expected) == sum(episode["length"] + 1 for episode in found["episodes"][:2])
    assert len(brightness) == len(expected)
    assert np.abs(brightness - expected).max() < 12  # compression


def test_what_is_missing_for_a_film_is_named(mbpo_run, tmp_path, monkeypatch, capsys):
    words = [mbpo_run, f"--video={tmp_path / 'film.mp4'}", "--episodes=1"]
    status, _, err = run(capsys, *words, "--env=Blind-v0")
    assert status == 2 and "eglQueryString" in err.splitlines()[-1] and "libegl1" in err.splitlines()[-1]
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    status, _, err = run(capsys, *words, "--env=Drawn-v0")
    assert status == 2 and "pip install -e '.[video]'" in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("gl", "end"),
    [
        ("glfw", "(MUJOCO_GL=glfw). MuJoCo's environments need a display\n"),
        (None, "(no OpenGL back end works here). MuJoCo's environments need libEGL (Debian: libegl1) or OSMesa "),
    ],
)
def test_what_renders_nothing_is_told_by_what_it_needs(gl, end, mbpo_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(rendering, "renders", lambda name: False)
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    if gl:
        monkeypatch.setenv("MUJOCO_GL", gl)
    status, _, err = run(capsys, mbpo_run, f"--video={tmp_path / 'film.mp4'}", "--episodes=1", "--env=Blind-v0")
    assert status == 2 and end in err


def test_a_film_without_ffmpeg_and_one_that_cannot_be_written(tmp_path, monkeypatch):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    with (
        pytest.raises(OSError, match=r"film.mp4 cannot be written: .*No such file"),
        films.Film(tmp_path / "no" / "film.mp4", 30.0) as film,
    ):
        for _ in range(100):
            film.add(np.zeros((64, 64, 3), np.uint8))

    def none():
        raise RuntimeError("No ffmpeg exe could be found")

    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", none)
    with pytest.raises(ValueError, match="IMAGEIO_FFMPEG_EXE"):
        films.Film(tmp_path / "film.mp4", 30.0)
