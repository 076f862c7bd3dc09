"""Plays episodes with a run's policy: `python -m mbpo_jax.evaluate RUN_DIR [--video=FILE.mp4] [--json]`.

Prints the return, length and end of every episode, and the mean, standard deviation and 95 % confidence interval of
the returns. The policy acts without exploration. Episodes start as in the run's own evaluations, numbered from
--first_episode on. --video films the first of them while they are played (pip install -e '.[video]'). If the run's
environment is given as module:Id, that module is imported, and so are the modules of the functions that its policy
plans with (--termination_fn, --reward_fn), so evaluate only runs that you trust.
"""

if __name__ == "__main__":  # before the imports, because jax may fail in them
    from mbpo_jax.launch import process_exit

    process_exit.run_as_process("evaluate")

import argparse
import contextlib
import json
import os
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from mbpo_jax import options
from mbpo_jax.driver import jax_settings
from mbpo_jax.driver.config import NO_ENVIRONMENT, Diverged, EnvironmentFailure, StorageFailure, evaluates
from mbpo_jax.driver.interaction import evaluate as evaluation
from mbpo_jax.driver.interaction import rendering
from mbpo_jax.driver.interaction import task as tasks
from mbpo_jax.driver.interaction.environment import EVALUATION, Environment, Limits
from mbpo_jax.driver.interaction.policy import Policy, load_policy, policy_path
from mbpo_jax.driver.interaction.simulator import Step
from mbpo_jax.driver.interaction.spaces import Spaces, spaces_from_json
from mbpo_jax.driver.storage import files, run_json
from mbpo_jax.launch.command import Parser, count, make_writable, path, positive, report_error, say
from mbpo_jax.launch.program import as_called
from mbpo_jax.reports import plain_json, statistics
from mbpo_jax.reports.film import Film
from mbpo_jax.types import Spec


class Episode(NamedTuple):
    """A complete episode."""

    episode: int  # its number
    episode_return: float
    length: int  # steps
    end: str  # terminated or truncated


def main(argv: list[str] | None = None) -> int:
    """Plays episodes and prints the results; returns the exit status.

    0 done, 2 wrong flags or a run that does not fit, 3 stopped, 5 the environment failed, 6 a file could not be read
    or written.
    """
    try:
        arguments = _parse(argv)
        with jax_settings.prepared():
            result = evaluate(arguments)
    except (ValueError, Diverged, EnvironmentFailure, StorageFailure, OSError) as error:
        return report_error(error)
    say(json.dumps(plain_json.plain(result), indent=2) if arguments.json else text(result))
    return 0


def evaluate(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the episodes and their statistics, as --json prints them."""
    arguments.gl = _choose_gl() if arguments.video else None
    saved = _saved(arguments.run_dir)
    if saved.run.env == NO_ENVIRONMENT and not arguments.env:
        raise ValueError("--env must be the Gymnasium id of an environment to play in: the run had --env=none")
    seed = _seed(saved.run.seeds, arguments.seed)
    policy = _policy(arguments.run_dir, saved, seed, arguments.best)
    played, failed = _play(arguments, saved, seed, policy)
    returns = [episode.episode_return for episode in played]
    return {
        "run_dir": str(arguments.run_dir),
        "env": arguments.env or saved.run.env,
        "seed": seed,
        "policy": "best" if arguments.best else "newest",
        "episodes": [episode._asdict() for episode in played],
        "failed_episodes": failed,
        "return_mean": float(statistics.mean(returns)),
        "return_std": statistics.sample_std(returns),
        "return_interval": statistics.t_interval(returns),
        "video": str(arguments.video) if arguments.video else None,
    }


def text(result: dict[str, Any]) -> str:
    """Returns the table that is printed."""
    lines = [
        f"{result['env']}: the {result['policy']} policy of seed {result['seed']} of {result['run_dir']}",
        f"{'episode':>9}{'return':>14}{'length':>9}  end",
    ]
    for episode in result["episodes"]:
        lines.append("{episode:9,}{episode_return:14.3f}{length:9,}  {end}".format(**episode))
    number, interval = len(result["episodes"]), result["return_interval"]
    spread = f", sd {result['return_std']:.3f}" if number > 1 else ""
    lines.append(f"return: mean {result['return_mean']:.3f}{spread} over {number:,} episode{'s' * (number > 1)}")
    if interval is None:
        lines.append("no interval of the mean: it needs two or more episodes")
    else:
        lines.append(
            f"95 % interval of the mean: {interval[0]:.3f} to {interval[1]:.3f} (Student's t over episodes; it says "
            "nothing about other seeds)"
        )
    if result["failed_episodes"]:
        lines.append(f"left out: {result['failed_episodes']:,} episodes in which the environment failed")
    return "\n".join([*lines, *([f"video: {result['video']}"] if result["video"] else [])])


# -- the command line --------------------------------------------------------------------------------------------


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog=as_called("python -m mbpo_jax.evaluate"), description=as_called(__doc__), allow_abbrev=False)
    add = parser.add_argument
    add("run_dir", nargs="?", type=path, metavar="RUN_DIR", help="Directory of the run.")
    add("--run_dir", type=path, dest="named_run_dir", metavar="RUN_DIR", help="The same, as a flag.")
    add("--seed", type=count, help="Seed of the agent. Default: the run's first.")
    add("--best", action="store_true", help="Play the policy of the best evaluation, not the newest.")
    add("--episodes", type=positive, default=10, help="Episodes to play. Default: 10.")
    add(
        "--first_episode",
        type=count,
        default=0,
        help="Number of the first episode; it determines the start. Default: 0.",
    )
    add("--env", help="Gymnasium id of another environment whose spaces have the same sizes. Default: the run's.")
    add("--video", type=path, metavar="FILE.mp4", help="Film the first episodes, in full, into this file.")
    add("--video_episodes", type=positive, help="Episodes to film. Default: 1.")
    add("--json", action="store_true", help="Print the results as JSON.")
    arguments = parser.parse_args(argv)
    given = [path for path in (arguments.run_dir, arguments.named_run_dir) if path is not None]
    if len(given) != 1:
        raise ValueError(f"RUN_DIR must be given once, got {len(given)} of them; --help lists the flags")
    arguments.run_dir = given[0].expanduser()
    if arguments.first_episode > (most := options.MOST - arguments.episodes + 1):
        raise ValueError(
            f"--first_episode must be at most {most} with --episodes={arguments.episodes}, got "
            f"{arguments.first_episode}"
        )
    _check_video(arguments)
    return arguments


def _check_video(arguments: argparse.Namespace) -> None:
    if arguments.video is None:
        if arguments.video_episodes is not None:
            raise ValueError(f"--video_episodes={arguments.video_episodes} needs --video=FILE.mp4; leave it out")
        return
    arguments.video = arguments.video.expanduser()
    if arguments.video.suffix.lower() != ".mp4" or arguments.video.is_dir():
        raise ValueError(f"--video must be a file that ends in .mp4, got '{arguments.video}'")
    arguments.video_episodes = arguments.video_episodes or 1
    if arguments.video_episodes > arguments.episodes:
        raise ValueError(
            f"--video_episodes must be --episodes={arguments.episodes} or less, got {arguments.video_episodes}"
        )
    make_writable(arguments.video.parent, "video")


# -- the run -----------------------------------------------------------------------------------------------------


def _saved(run_dir: Path) -> run_json.SavedConfig:
    if not (run_dir / files.CONFIG).exists():
        why = f"where there is no {files.CONFIG}" if run_dir.is_dir() else "which is not a directory"
        raise ValueError(f"RUN_DIR must be the directory of a run, got '{run_dir}', {why}")
    return run_json.read_config(run_dir)


def _seed(seeds: tuple[int, ...], seed: int | None) -> int:
    if seed is not None and seed not in seeds:
        raise ValueError(f"--seed must be one of the run's, {', '.join(map(str, seeds))}, got {seed}")
    return seeds[0] if seed is None else seed


def _policy(run_dir: Path, saved: run_json.SavedConfig, seed: int, best: bool) -> Policy:
    if best and not evaluates(saved.run):
        raise ValueError(f"--best must be left out, since the run in '{run_dir}' is never evaluated")
    if not policy_path(run_dir, seed, best).exists():
        raise ValueError(
            f"RUN_DIR must have a {'best ' * best}policy of seed {seed}, got '{run_dir}', where none is saved yet: the "
            f"first is saved at the first evaluation (--eval_every_steps={saved.run.eval_every_steps})"
        )
    try:
        return load_policy(run_dir, seed, best)
    except ValueError:  # it plans with functions of the run's own
        rules = tasks.with_rules(Spec(0, 0), saved.algorithm, saved.run.env)
        return load_policy(run_dir, seed, best, rules.termination_fn, rules.reward_fn)


# -- the episodes ------------------------------------------------------------------------------------------------


class Watched(Environment):
    """An environment that records how its episodes ended, and films some of them."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.played: list[Episode] = []
        self.film: Film | None = None
        self.filmed = range(0)  # numbers of episodes

    def reset(self, episode: int | None = None) -> Any:
        """Begins an episode, as Environment.reset does."""
        obs = super().reset(episode)
        self._shoot()
        return obs

    def step(self, action: Any) -> Step:
        """Takes a step, as Environment.step does."""
        step = super().step(action)
        self._shoot()
        if step.terminal or step.truncated:
            end = "terminated" if step.terminal else "truncated"
            self.played.append(Episode(self.episode, self.episode_return, len(self.actions), end))
        return step

    def _shoot(self) -> None:
        if self.film is not None and self.episode in self.filmed:
            self.film.add(self.render())


def _play(
    arguments: argparse.Namespace, saved: run_json.SavedConfig, seed: int, policy: Policy
) -> tuple[list[Episode], int]:
    """Returns the complete episodes, and the number of those in which the environment failed."""
    run, films = saved.run, arguments.video is not None
    name = arguments.env or run.env
    limits = Limits(run.env_nonfinite_episodes, run.env_restarts)
    # An environment in its own process, as --env_timeout_s asks for, cannot hand over pictures.
    timeout_s = 0 if films else run.env_timeout_s
    env = Watched(name, seed, EVALUATION, run.max_episode_steps, timeout_s, limits, renders=films)
    with contextlib.ExitStack() as stack:
        stack.callback(env.close)
        if saved.task is not None:
            _check_sizes(env, spaces_from_json(saved.task), run.env)
        if films:
            _try_rendering(env, arguments.first_episode, arguments.gl)
            env.film = stack.enter_context(Film(arguments.video, env.frames_per_second))
            env.filmed = range(arguments.first_episode, arguments.first_episode + arguments.video_episodes)
        evaluation.evaluate(policy, env, arguments.first_episode, arguments.episodes)
        return env.played, arguments.episodes - len(env.played)


def _check_sizes(env: Environment, own: Spaces, own_id: str) -> None:
    """Raises ValueError if an environment's spaces are not those that the policy was trained for."""
    wanted, got = (own.obs_dim, own.action_low.size), (env.obs_dim, env.action_dim)
    kinds = own.in_words(), env.spaces.in_words()
    if got == wanted and kinds[0] != kinds[1]:
        (obs, action), (other_obs, other_action) = kinds
        raise ValueError(
            f"--env must have {obs} and {action}, as the run's {own_id} had, got {other_obs} and {other_action}"
        )
    if got != wanted:
        raise ValueError(
            f"--env must have {wanted[0]} observations and {wanted[1]} actions, as the run's {own_id} had, got one "
            f"with {got[0]} and {got[1]}"
        )


def _choose_gl() -> str | None:
    """Sets MUJOCO_GL before anything imports MuJoCo, which reads it only once; returns it, or None if it is not set."""
    name = rendering.choose_gl()
    if name is not None:
        os.environ[rendering.VARIABLE] = name
    return os.environ.get(rendering.VARIABLE)  # may be the user's own, which does not render


def _try_rendering(env: Environment, episode: int, gl: str | None) -> None:
    """Raises ValueError, before anything is played, if the environment cannot be rendered; the message says why."""
    env.reset(episode)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="glfw")  # two warnings about a missing display
            env.render()
    except EnvironmentFailure as error:
        none = "no OpenGL back end works here" if gl is None else f"{rendering.VARIABLE}={gl}"
        raise ValueError(
            f"--video needs pictures, but {error} ({none}). MuJoCo's environments need {rendering.needs(gl)}"
        ) from error
