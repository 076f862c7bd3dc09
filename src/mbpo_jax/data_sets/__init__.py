"""Data sets of previously recorded experience: read, checked, described, written, and scored.

`read` reads any kind into a `data_set.DataSet`; `recorded` is what the readers of each kind (`array_file`,
`minari_folder`, `run_rows`) return, `checks` what is refused, `transitions` where episodes end. `mix` joins several.
Imports no jax, except in `run_rows`, which is imported only when a run directory is read.
"""
