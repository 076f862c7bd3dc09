"""Defines small experiments on trained runs, one file each; `python -m mbpo_jax.study` runs them.

They share `episodes` (real episodes) and `imagination` (the model of a run), and return a `finding`.
"""

from mbpo_jax.reports import own_backend  # noqa: F401  (before matplotlib)
