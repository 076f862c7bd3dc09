"""Checks a Gymnasium environment with random actions, before a run is spent on it (`mbpo_jax.check_env`).

`playing` makes and steps it, as Gymnasium provides it and without any of the driver's safeguards. The other modules
check the outcome: `spaces`, `values` (observations and rewards), `ends` (how episodes end, and the termination
function), `repeats` (seeds, instances, threads). `examination` runs all of them. A `finding` is one line of the result.
"""
