"""Tries a Gymnasium environment with random actions, before a run is spent on it (`mbpo_jax.check_env`).

`playing` makes and steps it, as Gymnasium provides it and without any of the driver's safeguards; the others check the
outcome: `spaces`, `values` (observations and rewards), `ends` (of episodes, and the termination function), `repeats`
(seeds, instances, threads). `examination` runs all of them. A `finding` is a line.
"""
