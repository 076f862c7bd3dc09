"""Redraws a run's learning curve: `python -m mbpo_jax.plot --run_dir=DIR [--reference=CSV] [--output=PNG]`.

A reference is a CSV of published evaluations with the columns step, time, reward and seed. Its mean and standard
deviation over seeds are drawn behind the run's curve.
"""

if __name__ == "__main__":  # before the imports, because jax may fail in them
    from mbpo_jax.launch import process_exit

    process_exit.run_as_process("plot")


from mbpo_jax.launch import command
from mbpo_jax.launch.program import as_called
from mbpo_jax.reports import curves


def main(argv: list[str] | None = None) -> int:
    """Draws the curve and prints the path of the picture; returns the exit status.

    0 done, 2 wrong flags or a file that is missing or damaged, 3 stopped, 6 the picture cannot be written.
    """
    parser = command.Parser(prog=as_called("python -m mbpo_jax.plot"), description=as_called(__doc__))
    parser.add_argument("--run_dir", required=True, type=command.path, help="Directory of the run.")
    parser.add_argument(
        "--reference", type=command.path, help="CSV of published evaluations, with columns step, time, reward, seed."
    )
    parser.add_argument(
        "--output", type=command.path, help="Picture to write. Default: curves.png in the run's directory."
    )
    try:
        arguments = parser.parse_args(argv)
        path = curves.draw_curves(arguments.run_dir, arguments.reference, arguments.output)
        command.say(str(path))
    except (OSError, ValueError) as error:
        return command.report_error(error, ("run_dir", "reference", "output"))
    return 0
