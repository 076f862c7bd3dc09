"""Tries a Gymnasium environment with random actions, before a run is spent on it (`mbpo_jax.check_env`).

`playing` makes and steps it, as Gymnasium gives it and without any of the driver's own care; the others look at what
came: `spaces`, `values` (observations and rewards), `ends` (of episodes, and the rule that states them), `repeats`
(seeds, instances, threads). `examination` runs all of them. A `finding` is a line.
"""
