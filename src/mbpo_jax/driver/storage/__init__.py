"""The files of a run directory.

`resumable_directory` (the directory of a run that trains), `run_json` (config, summary), `checkpoint` with
`manifest`, `bundle` and `packing`, `metrics`, `lock`, and `files`, which writes and reads safely.
"""
