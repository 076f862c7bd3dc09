"""Small experiments on trained runs: `python -m mbpo_jax.study NAME --run_dir=RUN --output_dir=DIR`.

Each prints its finding in a sentence, and writes NAME.json, the numbers, and NAME.png into the output directory.
"""

if __name__ == "__main__":  # before the imports, because jax may fail in them
    from mbpo_jax.launch import process_exit

    process_exit.run_as_process("study")

import argparse
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mbpo_jax.driver import jax_settings
from mbpo_jax.driver.config import Diverged, EnvironmentFailure, StorageFailure
from mbpo_jax.driver.storage import run_directory
from mbpo_jax.launch import command
from mbpo_jax.launch.command import Parser, count, make_writable, positive, report_error, say
from mbpo_jax.launch.program import as_called
from mbpo_jax.reports import pictures, plain_json
from mbpo_jax.studies import (
    actor_gradient,
    best_length,
    bidirectional,
    compounding,
    episode_lengths,
    exploitation,
    penalty,
    policy_shift,
    value_bias,
    versions,
)
from mbpo_jax.studies.finding import Finding


class Study(NamedTuple):
    """A study: its function, whose parameters become the flags, and its line in --help."""

    run: Callable[..., Finding]
    summary: str


STUDIES = {
    "exploitation": Study(exploitation.study, "returns in the model beside real ones, at every checkpoint of a run"),
    "compounding": Study(
        compounding.study, "error against steps in the model, and percentiles of many rollouts of one action sequence"
    ),
    "bidirectional": Study(
        bidirectional.study, "error of rollouts back and ahead against those of the same length ahead alone (BMPO)"
    ),
    "value_bias": Study(
        value_bias.study, "the critics' values beside discounted returns, at every checkpoint of a run"
    ),
    "policy_shift": Study(policy_shift.study, "model error against the policy's distance from the data policy"),
    "penalty": Study(penalty.study, "MOPO's penalties against the true error of a run's model"),
    "versions": Study(versions.study, "a policy's returns in another version of its environment"),
    "episode_lengths": Study(
        episode_lengths.study, "steps of each training episode, of runs that kept all their rows (Dyna-Q's figure)"
    ),
    "actor_gradient": Study(
        actor_gradient.study, "the actor's gradient through a wrong model and critic (MAAC's lemma); needs no run"
    ),
    "best_length": Study(best_length.study, "the best rollout length over model error and policy shift; needs no run"),
}
HELP = {
    "run_dir": "Directory of the run.",
    "run_dirs": "Directories of runs, separated by commas.",
    "seed": "Seed of the agent. Default: the run's first.",
    "step": "Environment step of the checkpoint. Default: the newest.",
    "num_episodes": "Starts of episodes; of episode_lengths, the first episodes of every seed.",
    "short_steps": "Fewer steps than these are a short episode.",
    "other_env": "Gymnasium id of the other version; auto: version 4 of the run's own.",
    "rows_per_start": "Imagined trajectories from each start.",
    "fan_steps": "Length of the action sequence of the fan.",
    "fan_rows": "Model rollouts of that sequence.",
    "num_steps": "Most steps in the model of the error curve.",
    "num_starts": "Starts of the error curve.",
    "num_rows": "Transitions: of each kind (penalty), or that a model is fitted to (several, separated by commas).",
    "num_measurements": "Measurements after the one at the data policy.",
    "updates_between": "Agent updates between measurements; fewer where the first moves nats away (20 on Hopper).",
    "visited_steps": "Environment steps of the moving policy at each measurement.",
    "discount": "Discount of the bound.",
    "model_error": "Added to the coefficients of the dynamics in the model.",
    "critic_error": "Share by which the critic takes later costs for higher than they are.",
}


def main(argv: list[str] | None = None) -> int:
    """Runs a study, and prints its finding and its files; returns the exit status.

    0 done, 2 wrong flags or a run that does not fit, 4 learning diverged, 5 the environment failed, 6 files failed.
    """
    try:
        arguments = vars(_parser().parse_args(argv))
        study, output_dir = arguments.pop("study"), arguments.pop("output_dir")
        make_writable(output_dir, "output_dir")
        with jax_settings.prepared():
            finding = STUDIES[study].run(**arguments)
        paths = output_dir / f"{study}.json", output_dir / f"{study}.png"
        run_directory.write_json(paths[0], plain_json.plain({"finding": finding.sentence} | finding.numbers))
        pictures.save(finding.figure, paths[1])
        say("\n".join(map(str, (finding.sentence, *paths))))
    except (ValueError, Diverged, EnvironmentFailure, StorageFailure, OSError) as error:
        return report_error(error, {*HELP, "output_dir"})
    return 0


def _parser() -> Parser:
    parser = Parser(prog=as_called("python -m mbpo_jax.study"), description=as_called(__doc__))
    studies = parser.add_subparsers(dest="study", required=True, metavar="NAME")
    for name, study in STUDIES.items():
        flags = studies.add_parser(name, help=study.summary, description=study.summary, allow_abbrev=False)
        flags.add_argument(
            "--output_dir", required=True, type=command.path, help="Where the numbers and the picture go."
        )
        for parameter in inspect.signature(study.run).parameters.values():
            _add_flag(flags, parameter)
    return parser


def _add_flag(flags: argparse.ArgumentParser, parameter: inspect.Parameter) -> None:
    """Adds the flag of a study's parameter: its name, its type, and its default if it has one."""
    kinds: dict[Any, Callable[[str], Any]] = {
        Path: command.path,
        int: positive,
        int | None: count,
        float: float,
        str: str,
        Sequence[Path]: lambda text: [command.path(part) for part in text.split(",")],
        Sequence[int]: lambda text: [positive(part) for part in text.split(",")],
    }
    given: dict[str, Any] = {"required": True}
    note = ""
    if parameter.default is not inspect.Parameter.empty:
        given = {"default": parameter.default}
        shown = ",".join(map(str, parameter.default)) if isinstance(parameter.default, tuple) else parameter.default
        note = "" if shown is None else f" Default: {shown}."
    flags.add_argument(
        f"--{parameter.name}", type=kinds[parameter.annotation], help=HELP[parameter.name] + note, **given
    )
