"""Imports matplotlib whatever MPLBACKEND says; to be imported before anything of matplotlib.

matplotlib refuses to be imported where the variable names a backend that is not there, as the one that a notebook hands
to the commands it starts (`module://matplotlib_inline.backend_inline`). Our figures need none: `pictures` draws them. A
backend that is there stays in force for whoever uses pyplot in this process.
"""

import contextlib
import os
import sys

VARIABLE = "MPLBACKEND"


def import_matplotlib() -> None:
    """Imports matplotlib with the backend of MPLBACKEND where there is one of this name, and else with its own."""
    chosen = os.environ.get(VARIABLE)
    if not chosen or "matplotlib" in sys.modules:
        return
    del os.environ[VARIABLE]
    try:
        import matplotlib
    finally:
        os.environ[VARIABLE] = chosen
    with contextlib.suppress(ValueError):
        matplotlib.rcParams["backend"] = chosen


import_matplotlib()
