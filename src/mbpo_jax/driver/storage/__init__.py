"""The files of a run directory.

`run_files` (a directory that is taken and gone on from), `run_directory` (config, summary), `checkpoint` with
`manifest`, `bundle` and `packing`, `metrics`, `lock`, and `files`, which writes and reads safely.
"""
