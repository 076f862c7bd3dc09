"""What this machine and the caller's surroundings are like (`mbpo_jax.doctor`).

`host` checks them from a process that imports neither jax nor mujoco. What these would raise, or end a process for,
is found in `children`: a tiny run, by the command that users type, and `probe`, which says what jax sees. Each fills a
`check.Check`.
"""
