"""Checks this machine and the environment of the caller's processes (`mbpo_jax.doctor`).

`host` checks them from a process that imports neither jax nor mujoco. Errors or crashes that these two would cause are
found by `children`: a tiny run, started with the command that users type, and `probe`, which reports what jax sees.
Each check fills a `check.Check`.
"""
