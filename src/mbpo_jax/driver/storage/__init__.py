"""The files of a run directory.

`run_files` (the directory of a run that trains), `run_directory` (config, summary), `checkpoint` with
`manifest`, `bundle` and `packing`, `metrics`, `lock`, and `files`, which writes and reads safely.
"""
