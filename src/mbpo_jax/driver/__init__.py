"""The only part with clocks, files, signals and environments.

* A run: `loop` (train), `processes` (several at once), `config`, `flags`, `seeds` (how phases run over seeds), `stop`.
* Environments: `seed_environments` (those of all seeds), `environment` (one), `simulator` and `environment_process`
  (what it runs in), `evaluate`, `policy`.
* Files: `run_files` (a directory that is taken and gone on from), `run_directory` (config, summary), `checkpoint` with
  `manifest`, `bundle` and `packing`, `metrics`, `lock`, `parts` (of several processes), `files`; `trained` opens a
  checkpoint for whoever wants to look inside.
* What is told: `record`, `progress`, `memory`, `profiler`, `compile_counter`; and `compile_cache`, `job` (of a sweep).
"""
