"""Small experiments on trained runs, one file each; `python -m mbpo_jax.study` is their command."""
