"""Checks this machine and its settings, and reports what would go wrong: `python -m mbpo_jax.doctor`.

Starts a training run of a few steps and tests the OpenGL back ends, each in a process of its own. This takes about ten
seconds. With --run_dir it also checks that run and its folder. Nothing is left behind except compiled programs in their
cache.
"""

if __name__ == "__main__":  # before the imports, because jax may fail in them
    from mbpo_jax.launch import process_exit

    process_exit.run_as_process("doctor")

import functools
from pathlib import Path

from mbpo_jax.driver.storage.files import CONFIG
from mbpo_jax.launch.command import Parser, complain, path, report_error, say
from mbpo_jax.launch.program import as_called
from mbpo_jax.surroundings import children, host
from mbpo_jax.surroundings.check import Check, guarded


def main(argv: list[str] | None = None) -> int:
    """Runs the checks and prints the results; returns the exit status.

    0 nothing would fail, 1 something would, 2 wrong flags, 3 stopped.
    """
    parser = Parser(prog=as_called("python -m mbpo_jax.doctor"), description=as_called(__doc__), allow_abbrev=False)
    parser.add_argument("--run_dir", type=path, help="Directory of a run to check, even if the run has not begun.")
    try:
        arguments = parser.parse_args(argv)
    except (ValueError, OSError) as error:
        return report_error(error)
    run_dir = arguments.run_dir.expanduser() if arguments.run_dir else None
    complain("mbpo_jax: checking, which takes about ten seconds")
    checks = run_checks(run_dir)
    say(text(checks))
    return 1 if any(check.fails for check in checks) else 0


def run_checks(run_dir: Path | None) -> list[Check]:
    """Runs every check; failures that the surroundings cause are reported, not raised."""
    checks = [
        guarded("software", host.software),
        guarded("processor", host.processor),
        guarded("memory", host.memory),
        guarded("disk", functools.partial(host.disk, run_dir=run_dir)),
        guarded("variables", host.variables),
    ]
    try:
        begun = run_dir is not None and (run_dir / CONFIG).exists()
        with children.started(run_dir if begun else None) as (run, probe):
            checks.insert(1, guarded("jax", functools.partial(children.jax_and_files, process=probe)))
            checks.append(guarded("trial", functools.partial(children.tiny_run, process=run)))
            checks.append(guarded("graphics", host.graphics))
    except OSError as error:  # no temporary folder, no room for another process
        checks.append(Check("trial", [f"could not be started: {error}"], [f"training: {error}"]))
    return checks


def text(checks: list[Check]) -> str:
    """Returns what is printed."""
    lines = []
    for check in checks:
        lines += [f"{check.title if number == 0 else '':12}{line}" for number, line in enumerate(check.lines)]
    lines += [f"would not work: {what}" for check in checks for what in check.lacks]
    lines += [f"would be slow: {what}" for check in checks for what in check.slow]
    lines += [f"would fail: {what}" for check in checks for what in check.fails]
    return "\n".join([*lines, *([] if any(check.fails for check in checks) else ["nothing would fail"])])
