"""Small experiments on trained runs, one file each; `python -m mbpo_jax.study` is their command.

`episodes` (real ones) and `imagination` (long imagined ones) are what they have in common, `finding` what they return.
"""

from mbpo_jax.reports import own_backend  # noqa: F401  (before matplotlib)
