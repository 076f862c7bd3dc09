"""Writes a data set in Minari's format, from a policy, a run or other data sets.

from uniformly random actions:
  python -m mbpo_jax.collect --policy=random --env=ENV --num_steps=N --out=DIR
from the policy of a checkpoint or of the best evaluation, with its exploration noise:
  python -m mbpo_jax.collect RUN_DIR --policy=last --num_steps=N --out=DIR
  python -m mbpo_jax.collect RUN_DIR --policy=best --num_steps=N --out=DIR
from that of the first checkpoint whose evaluation returned one to two thirds of the best:
  python -m mbpo_jax.collect RUN_DIR --policy=medium --num_steps=N --out=DIR
from the real rows that a run had collected up to a checkpoint, or up to the medium policy's:
  python -m mbpo_jax.collect RUN_DIR --policy=replay --out=DIR
  python -m mbpo_jax.collect RUN_DIR --policy=medium-replay --out=DIR
from other data sets, joined one after another; or from one alone, with another reward:
  python -m mbpo_jax.collect --mix DATA_SET DATA_SET --out=DIR
  python -m mbpo_jax.collect --mix DATA_SET --reward_fn=package.module:function --out=DIR

DIR is a new folder whose name ends in a version, such as medium-v0; minari finds it by its id if it
is below MINARI_DATASETS_PATH. The metadata say how the data were made. An environment given as
module:Id is imported, so use runs that you trust. Needs pip install -e '.[offline]'.
"""

import argparse
import contextlib
import importlib.metadata
import shlex
import sys
import time
from typing import Any

import numpy as np

from mbpo_jax.data_sets import checks, medium, minari_folder, mix, run_rows, write
from mbpo_jax.data_sets import read as reading
from mbpo_jax.data_sets.data_set import DataSet, episode_returns, return_mean
from mbpo_jax.data_sets.describe import describe
from mbpo_jax.driver import jax_settings
from mbpo_jax.driver.config import Diverged, EnvironmentFailure, StorageFailure, evaluates
from mbpo_jax.driver.interaction.environment import Environment
from mbpo_jax.driver.interaction.exploring import Acts, Exploring, Uniform
from mbpo_jax.driver.interaction.policy import Policy, deterministic, load_policy
from mbpo_jax.driver.interaction.spaces import Spaces
from mbpo_jax.driver.interaction.task import named_function
from mbpo_jax.driver.storage import checkpoint, files, run_json
from mbpo_jax.driver.trained import load_trained
from mbpo_jax.launch import process_exit
from mbpo_jax.launch.command import (
    Parser,
    complain,
    count,
    exit_status,
    make_writable,
    path,
    positive,
    report_error,
    say,
)
from mbpo_jax.launch.program import as_called

REPORT_EVERY_S = 30
COLLECTION = 2  # stream of episode seeds, separate from those of training and evaluation
RANDOM, LAST, BEST, MEDIUM, REPLAY, MEDIUM_REPLAY = "random", "last", "best", "medium", "replay", "medium-replay"
POLICIES = (RANDOM, LAST, BEST, MEDIUM, REPLAY, MEDIUM_REPLAY)
READS = {
    RANDOM: {"env", "num_steps", "seed", "max_episode_steps"},
    LAST: {"run_dir", "num_steps", "seed", "agent_seed", "step", "deterministic"},
    BEST: {"run_dir", "num_steps", "seed", "agent_seed", "deterministic"},
    MEDIUM: {"run_dir", "num_steps", "seed", "agent_seed", "deterministic"},
    REPLAY: {"run_dir", "agent_seed", "step"},
    MEDIUM_REPLAY: {"run_dir", "agent_seed"},
    None: {"mix", "reward_fn"},
}
"""The flags that each policy reads; None stands for --mix. --out and --overwrite are read with all of them."""
NEEDS = {"env", "num_steps", "run_dir", "mix"}
EXPERIENCED = ("mujoco", "gymnasium")  # what the numbers of an environment depend on


def main(argv: list[str] | None = None) -> int:
    """Collects and writes a data set, and prints a description of it; returns the exit status.

    0 done, 2 wrong flags or a run that does not fit, 3 stopped, 4 a policy's action is not finite, 5 the environment
    failed, 6 a file could not be read or written.
    """
    words = sys.argv[1:] if argv is None else argv
    try:
        arguments = _parse(words)
        jax_settings.prepare()
        with jax_settings.neutral():
            data_set, source = collect(arguments)
        command = shlex.join([*as_called("python -m mbpo_jax.collect").split(), *words])
        write.write(arguments.out, data_set, metadata(data_set, source, command))
        lines = describe(reading.read(str(arguments.out)))
    except (ValueError, Diverged, EnvironmentFailure, StorageFailure, OSError) as error:
        return report_error(error, {"out", "env", "num_steps", "agent_seed", "step"})
    say("\n".join([*lines, *(f"when it was made: {note}" for note in data_set.notes)]))
    return 0


def collect(arguments: argparse.Namespace) -> tuple[DataSet, dict[str, Any]]:
    """Returns the data set, and metadata that record its origin."""
    if arguments.mix:
        mixed, source = mix.mixed(arguments.mix)
        return (mixed, source) if arguments.reward_fn is None else relabelled(mixed, source, arguments.reward_fn)
    if arguments.policy == RANDOM:
        env = Environment(arguments.env, arguments.seed, COLLECTION, arguments.max_episode_steps)
        with contextlib.closing(env):
            played = play(env, Uniform(arguments.seed, env.action_dim), arguments.num_steps, arguments.env)
        return played, {"policy": RANDOM, "seed": arguments.seed, "algorithm": "uniform actions"}
    run_dir = str(arguments.run_dir)
    run = run_json.read_config(arguments.run_dir).run
    agent_seed = run.seeds[0] if arguments.agent_seed is None else arguments.agent_seed
    if agent_seed not in run.seeds:
        raise ValueError(f"agent_seed must be one of {', '.join(map(str, run.seeds))} in {run_dir}, got {agent_seed}")
    source = {"policy": arguments.policy, "run_dir": run_dir, "agent_seed": agent_seed, "algorithm": run.algorithm}
    step = arguments.step
    if arguments.policy in (MEDIUM, MEDIUM_REPLAY):
        returns = medium.evaluations(arguments.run_dir, agent_seed, run.eval_episodes)
        step = medium.step(returns, checkpoint.steps(arguments.run_dir))
    if arguments.policy in (REPLAY, MEDIUM_REPLAY):
        rows = reading.assemble(run_dir, lambda: run_rows.read(arguments.run_dir, step, agent_seed))
        return rows, source | {"step": step}
    if arguments.policy == BEST and not evaluates(run):
        raise ValueError(f"RUN_DIR must be a run that is evaluated with --policy={BEST}, got '{run_dir}'")
    trained = load_trained(run_dir, agent_seed, step)
    best = arguments.policy == BEST
    rules = trained.spec.termination_fn, trained.spec.reward_fn
    actor = load_policy(run_dir, agent_seed, True, *rules).actor if best else trained.algorithm.actor(trained.state)
    env = Environment(run.env, arguments.seed, COLLECTION, run.max_episode_steps, run.env_timeout_s)
    acts: Acts
    if arguments.deterministic:
        acts = Policy(deterministic(trained.algorithm), actor, env.action_low, env.action_high)
    else:
        acts = Exploring(trained.algorithm, actor, arguments.seed)
    with contextlib.closing(env):
        played = play(env, acts, arguments.num_steps, run.env)
    return played, source | {
        "step": None if best else trained.step,
        "seed": arguments.seed,
        "deterministic": arguments.deterministic,
    }


def play(env: Environment, acts: Acts, num_steps: int, env_id: str) -> DataSet:
    """Plays episodes, numbered from 0, for exactly `num_steps` steps; the last episode is cut off there."""
    _check_boxes(env.spaces, env_id)
    try:
        obs, next_obs = (np.zeros((num_steps, env.obs_dim), np.float32) for _ in range(2))
        action, first = np.zeros((num_steps, env.action_dim), np.float32), np.zeros(num_steps, bool)
        reward, terminal = np.zeros((2, num_steps), np.float32)
    except MemoryError as error:
        raise ValueError(f"num_steps must be so few that their rows fit the memory, got {num_steps}") from error
    episode, now, ended, last_report = -1, np.zeros(0, np.float32), True, time.monotonic()
    for row in range(num_steps):
        if time.monotonic() - last_report > REPORT_EVERY_S:
            last_report = time.monotonic()
            complain(f"collected {row:,} of {num_steps:,} steps")
        if ended:
            episode += 1
            now = env.reset(episode)
            acts.reset(episode)
            first[row] = True
        obs[row], action[row] = now, acts.normalized_action(now)
        step = env.step(action[row])
        next_obs[row] = now = step.next_obs
        reward[row], terminal[row] = step.reward, step.terminal
        ended = step.terminal or step.truncated
    truncated = np.append(first[1:], True) & (terminal == 0)
    return DataSet(
        name=env_id,
        kind="collected",
        obs=obs,
        action=action,
        reward=reward,
        next_obs=next_obs,
        terminal=terminal,
        truncated=truncated,
        first=first,
        has_successor=np.ones(len(reward), bool),
        left_out_reward=np.zeros_like(reward),
        action_low=env.action_low,
        action_high=env.action_high,
        max_episode_steps=env.max_episode_steps,
        env_id=env_id,
        sha256="",
    )


def _check_boxes(spaces: Spaces, env_id: str) -> None:
    """Raises ValueError if the environment has Discrete spaces, which cannot be recorded."""
    if spaces.obs_start is not None or spaces.action_start is not None:
        what = " and ".join(spaces.in_words())
        raise ValueError(f"env must have Box observations and actions to be recorded, got {env_id!r} with {what}")


def metadata(data_set: DataSet, source: dict[str, Any], command: str) -> dict[str, Any]:
    """Returns the metadata to add to Minari's own."""
    mean, num_episodes = return_mean(data_set)
    own = source | {
        "env": data_set.env_id,
        "policy_return_mean": mean,
        "policy_return_episodes": num_episodes,
        minari_folder.STILL_ENDS: int(np.sum(~data_set.has_successor)),
        minari_folder.INCOMPLETE: np.flatnonzero(~episode_returns(data_set)[1]).tolist(),
        "command": command,
        "versions": run_json.versions() | {name: importlib.metadata.version(name) for name in ("minari", "h5py")},
        "commit": run_json.commit(),
        "notes": list(data_set.notes),
    }
    return {
        "algorithm_name": str(source["algorithm"]),
        "description": f"{source['policy']} of {data_set.env_id or 'data'}, collected by mbpo_jax: {command}",
        "requirements": [f"{name}=={importlib.metadata.version(name)}" for name in EXPERIENCED if data_set.env_id],
        minari_folder.OWN: own,
    }


def relabelled(data_set: DataSet, source: dict[str, Any], name: str) -> tuple[DataSet, dict[str, Any]]:
    """Replaces the rewards of a data set by those of a function of (obs, action, next_obs), row by row.

    The function receives actions in the environment's own bounds.

    Raises:
      ValueError: the function cannot be imported, raises, or does not return a finite number for every row.
    """
    action = checks.from_unit(data_set.action, data_set.action_low, data_set.action_high)
    must = f"reward_fn must be package.module:function of (obs, action, next_obs) -> [{len(action)}]"
    try:
        reward = np.asarray(named_function(name)(data_set.obs, action, data_set.next_obs), np.float32)
    except Exception as error:  # whatever a user's module or function raises
        raise ValueError(f"{must}, got {name!r} ({type(error).__name__}: {error})") from error
    if reward.shape != data_set.reward.shape:
        raise ValueError(f"{must}, got shape {list(reward.shape)} from {name!r}")
    if not (finite := np.isfinite(reward)).all():
        raise ValueError(f"{must}, all finite, got {np.sum(~finite):,} rewards that are not finite from {name!r}")
    kept = data_set.has_successor  # the next state of the others is unknown, and so is their reward
    changed = np.where(kept, reward, data_set.reward)
    notes = () if kept.all() else (f"{np.sum(~kept):,} rewards kept as recorded: their next state is not known",)
    unknown = np.where(data_set.left_out_reward != 0, np.float32(np.nan), np.float32(0))
    relabelled_set = data_set._replace(reward=changed, left_out_reward=unknown, notes=(*data_set.notes, *notes))
    return relabelled_set, source | {"reward_fn": name}


# -- the command line --------------------------------------------------------------------------------------------


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(
        prog=as_called("python -m mbpo_jax.collect"),
        description=as_called(__doc__),
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("run_dir", nargs="?", type=path, metavar="RUN_DIR", help="Directory of the run.")
    add("--policy", choices=POLICIES, help="Where the data come from; see above.")
    add("--mix", nargs="+", metavar="DATA_SET", help="Data sets to join; anything that --dataset of a run accepts.")
    add("--reward_fn", help="New rewards, with --mix: package.module:function of (obs, action, next_obs), row by row.")
    add("--env", help="Gymnasium id, with --policy=random.")
    add("--out", type=path, required=True, metavar="DIR", help="New folder for the data set.")
    add("--num_steps", type=positive, help="Steps to collect; the last episode is cut off there.")
    add("--seed", type=count, help="Seed of episode starts and of random actions or noise. Default: 0.")
    add("--agent_seed", type=count, help="Seed of the agent in the run. Default: the run's first seed.")
    add("--step", type=count, help="Environment step of the checkpoint. Default: the newest.")
    add("--deterministic", action="store_true", default=None, help="Act without noise.")
    add("--max_episode_steps", type=count, help="Time limit of an episode of --env. Default: the environment's own.")
    add("--overwrite", action="store_true", help="Replace an existing data set.")
    arguments = parser.parse_args(argv)
    _check(arguments)
    arguments.seed, arguments.max_episode_steps = arguments.seed or 0, arguments.max_episode_steps or 0
    arguments.deterministic = bool(arguments.deterministic)
    return arguments


def _check(arguments: argparse.Namespace) -> None:
    """Raises ValueError if a flag is missing, or one is given that would not be read."""
    if (arguments.policy is None) == (arguments.mix is None):
        raise ValueError(f"either --policy={'|'.join(POLICIES)} or --mix must be given; --help lists the flags")
    what = "--mix" if arguments.mix else f"--policy={arguments.policy}"
    reads = READS[arguments.policy]
    shown = {name: "RUN_DIR" if name == "run_dir" else f"--{name}" for name in set().union(*READS.values())}
    for name in sorted(shown):
        value = getattr(arguments, name)
        if value is not None and name not in reads:
            raise ValueError(f"{shown[name]} is not read with {what}, got {value}; leave it out")
        if value is None and name in reads & NEEDS:
            raise ValueError(f"{shown[name]} must be given with {what}; --help lists the flags")
    if arguments.run_dir is not None and not (arguments.run_dir / files.CONFIG).is_file():
        raise ValueError(f"RUN_DIR must be the directory of a run, got '{arguments.run_dir}'")
    arguments.out = arguments.out.absolute()
    write.check_free(arguments.out, arguments.overwrite)
    make_writable(arguments.out.parent, "out")


if __name__ == "__main__":
    sys.exit(process_exit.in_time(exit_status(main)))
