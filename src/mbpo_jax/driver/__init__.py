"""The only part with clocks, files, signals and environments.

* A run: `loop` (train), `setup` (what it works with), `keeper` (saves and restores it), `phase_runner` (learning),
  `seeds` (for all seeds), `processes` (several at once; each has one of the `parts` of a run directory), `config`,
  `flags`, `stop`, `compile_cache`.
* `interaction`: policies that act in environments, in training and in evaluation.
* `storage`: the files of a run directory; `trained` opens a checkpoint for analysis.
* Reports: `record`, `progress`, `memory`, `profiler`, `compile_counter`.
* A sweep: `launcher` submits, a `job` is one command line.
"""
