"""Checks an environment before you spend a run on it: `python -m mbpo_jax.check_env ENV [--termination_fn=RULE]`.

Takes --num_steps random steps in ENV, a Gymnasium id, and some more in a second instance. Prints a summary of the
environment and one line for each finding: `problem` if a run would fail or learn something wrong, with advice, and
`note` if it is only worth knowing.
"""

if __name__ == "__main__":  # before the imports, because jax may fail in them
    from mbpo_jax.launch import process_exit

    process_exit.run_as_process("check_env")

import argparse

from mbpo_jax.driver import jax_settings
from mbpo_jax.driver.config import AUTO
from mbpo_jax.environment_check.examination import Examination, examine
from mbpo_jax.launch.command import Parser, count, positive, report_error, say
from mbpo_jax.launch.program import as_called


def main(argv: list[str] | None = None) -> int:
    """Checks and prints; returns the exit status.

    0 no problems, 1 problems, 2 wrong flags or no such environment, 3 stopped.
    """
    parser = Parser(prog=as_called("python -m mbpo_jax.check_env"), description=as_called(__doc__), allow_abbrev=False)
    add = parser.add_argument
    add("env", nargs="?", metavar="ENV", help="Gymnasium id; with module:Id, the module is imported first.")
    add("--env", dest="named_env", metavar="ENV", help="The same, as a flag.")
    add(
        "--termination_fn",
        default=AUTO,
        help="Termination rule to test: never, module:function, or auto. Default: auto.",
    )
    add("--num_steps", type=positive, default=1000, help="Random steps. Default: 1000.")
    add("--seed", type=count, default=0, help="Seed of actions and episodes. Default: 0.")
    add("--max_episode_steps", type=count, default=0, help="Time limit of an episode. Default: the environment's own.")
    try:
        arguments = parser.parse_args(argv)
        env_id = _env(arguments)
        with jax_settings.prepared():
            found = examine(
                env_id, arguments.termination_fn, arguments.num_steps, arguments.seed, arguments.max_episode_steps
            )
    except (ValueError, OSError) as error:
        return report_error(error)
    say(text(env_id, arguments.num_steps, arguments.seed, found))
    return 1 if found.problems else 0


def text(env_id: str, num_steps: int, seed: int, found: Examination) -> str:
    """Returns what is printed."""
    lines = [f"{env_id}: {num_steps:,} random steps, seed {seed}"]
    lines += [f"  {name:13} {fact}" for name, fact in found.facts.items()]
    lines += [f"note: {finding.text}" for finding in found.findings if not finding.matters]
    lines += [f"problem: {finding.text}" for finding in found.problems]
    number = len(found.problems)
    return "\n".join([*lines, f"{number or 'no'} problem{'s' * (number != 1)} found"])


def _env(arguments: argparse.Namespace) -> str:
    given = [name for name in (arguments.env, arguments.named_env) if name]
    if len(given) != 1:
        raise ValueError(f"ENV must be given once, got {len(given)} of them; --help lists the flags")
    env_id: str = given[0]
    return env_id
