"""Imports matplotlib whatever MPLBACKEND says; must be imported before anything from matplotlib.

matplotlib cannot be imported if the variable names a backend that is not available, such as the one that a notebook
passes to the commands it starts (`module://matplotlib_inline.backend_inline`). Our figures need none: `pictures` draws
them. A backend that is available stays in effect for whoever uses pyplot in this process.
"""

import contextlib
import os
import sys

VARIABLE = "MPLBACKEND"


def import_matplotlib() -> None:
    """Imports matplotlib with the backend of MPLBACKEND if there is one of that name, otherwise with its default."""
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
