"""Runs small experiments on trained runs: `python -m mbpo_jax.study NAME --run_dir=RUN --output_dir=DIR`.

Each prints its finding in a sentence or two, and writes its numbers to NAME.json and a figure to NAME.png in the output
directory.
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
from mbpo_jax.driver.storage import run_json
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
    """A study: its function, whose parameters become flags, and its line in --help."""

    run: Callable[..., Finding]
    summary: str


STUDIES = {
    "exploitation": Study(
        exploitation.study, "returns in the model against real returns, at every checkpoint of a run"
    ),
    "compounding": Study(
        compounding.study, "error against steps in the model, and percentiles of many rollouts of one action sequence"
    ),
    "bidirectional": Study(
        bidirectional.study,
        "error of rollouts half backward, half forward against forward ones of the same length (BMPO)",
    ),
    "value_bias": Study(
        value_bias.study, "the critics' values against discounted returns, at every checkpoint of a run"
    ),
    "policy_shift": Study(policy_shift.study, "model error against the policy's distance from the data policy"),
    "penalty": Study(penalty.study, "MOPO's penalties against the true error of a run's model"),
    "versions": Study(versions.study, "a policy's returns in another version of its environment"),
    "episode_lengths": Study(
        episode_lengths.study, "length of each training episode, for runs that kept all their rows (Dyna-Q's figure)"
    ),
    "actor_gradient": Study(
        actor_gradient.study,
        "error of the actor's gradient through a wrong model and critic (MAAC's lemma); needs no run",
    ),
    "best_length": Study(
        best_length.study, "the best rollout length for each model error and policy shift; needs no run"
    ),
}
HELP = {
    "run_dir": "Directory of the run.",
    "run_dirs": "Directories of runs, separated by commas.",
    "seed": "Seed of the agent. Default: the run's first.",
    "step": "Environment step of the checkpoint. Default: the newest.",
    "num_episodes": "Episodes, each from its own start; episode_lengths: the first episodes of every seed.",
    "short_steps": "An episode with fewer steps than this counts as short.",
    "other_env": "Gymnasium id of the other version; auto: version 4 of the run's own.",
    "rows_per_start": "Imagined trajectories from each start.",
    "fan_steps": "Length of the action sequence that all rollouts of the fan follow, in steps.",
    "fan_rows": "Model rollouts in the fan.",
    "num_steps": "Largest number of steps in the model on the error curve.",
    "num_starts": "Number of action sequences behind the error curve, each from its own start.",
    "num_rows": "Transitions: of each kind (penalty); to fit a model to (policy_shift: several, separated by commas).",
    "num_measurements": "Measurements after the first, which is at the data policy.",
    "updates_between": "Agent updates between measurements; use fewer if the first shift is already nats (Hopper: 20).",
    "visited_steps": "Environment steps of the current policy at each measurement.",
    "discount": "Reward discount per environment step in the bound, in (0, 1).",
    "model_error": "Added to the coefficients of the dynamics in the model.",
    "critic_error": "Share by which the critic overestimates later costs.",
}


def main(argv: list[str] | None = None) -> int:
    """Runs a study, and prints its finding and its files; returns the exit status.

    0 done, 2 wrong flags or a run that does not fit, 4 learning diverged, 5 the environment failed, 6 a file could not
    be read or written.
    """
    try:
        arguments = vars(_parser().parse_args(argv))
        study, output_dir = arguments.pop("study"), arguments.pop("output_dir")
        make_writable(output_dir, "output_dir")
        with jax_settings.prepared():
            finding = STUDIES[study].run(**arguments)
        paths = output_dir / f"{study}.json", output_dir / f"{study}.png"
        run_json.write_json(paths[0], plain_json.plain({"finding": finding.sentence} | finding.numbers))
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
            "--output_dir", required=True, type=command.path, help="Directory for the numbers and the figure."
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
