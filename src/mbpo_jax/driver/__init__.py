"""The only part with clocks, files, signals and environments.

* A run: `loop` (train), `acting` (in the environments), `phase_runner` (learning), `seeds` (both for all seeds),
  `processes` (several at once), `config`, `flags`, `stop`.
* Environments: `seed_environments` (those of all seeds), `environment` (one), `simulator` and `environment_process`
  (what it runs in), `evaluate`, `policy`.
* Files: `run_files` (a directory that is taken and gone on from), `run_directory` (config, summary), `checkpoint` with
  `manifest`, `bundle` and `packing`, `metrics`, `lock`, `parts` (of several processes), `files`; `trained` opens a
  checkpoint for whoever wants to look inside.
* What is told: `record`, `progress`, `memory`, `profiler`, `compile_counter`; and `compile_cache`.
* A sweep: `launcher` submits, a `job` is one command line.
"""
