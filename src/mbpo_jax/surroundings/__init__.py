"""Checks this machine and the environment of the caller's processes (`mbpo_jax.doctor`).

`host` checks them from a process that imports neither jax nor mujoco. Errors or crashes that these would cause are
found in `children`: a tiny run, with the command that users type, and `probe`, which reports what jax sees. Each fills
a `check.Check`.
"""
