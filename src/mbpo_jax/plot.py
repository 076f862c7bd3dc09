"""Draws a run's learning curve again: `python -m mbpo_jax.plot --run_dir=DIR [--reference=CSV] [--output=PNG]`.

A reference is a CSV of published evaluations with the columns step, time, reward and seed; its mean and standard
deviation over seeds are drawn behind the run.
"""

import sys
from pathlib import Path

from mbpo_jax.launch.command import Parser, exit_status, report_error
from mbpo_jax.launch.program import as_called
from mbpo_jax.reports import curves


def main(argv: list[str] | None = None) -> int:
    """Draws the curve and prints the path of the picture; returns the exit status.

    0 done, 2 wrong flags or a file that is missing or damaged, 3 stopped, 6 the picture cannot be written.
    """
    parser = Parser(prog=as_called("python -m mbpo_jax.plot"), description=as_called(__doc__))
    parser.add_argument("--run_dir", required=True, type=Path, help="Directory of the run.")
    parser.add_argument("--reference", type=Path, help="CSV of published evaluations: step, time, reward, seed.")
    parser.add_argument("--output", type=Path, help="Where the picture goes; curves.png of the run if left out.")
    try:
        arguments = parser.parse_args(argv)
        path = curves.draw_curves(arguments.run_dir, arguments.reference, arguments.output)
    except (OSError, ValueError) as error:
        return report_error(error)
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main))
