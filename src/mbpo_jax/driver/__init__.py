"""Trains: steps environments, runs the phases that are due, and saves what they change.

* A run: `loop` (training), `setup` (what it works with), `save_restore` (its checkpoints), `phase_runner` (learning),
  `seeds` (several in one process), `evaluation`, `config`, `stop`, `compile_cache`, `jax_settings`.
* `interaction`: policies that act in environments, in training and in evaluation.
* `storage`: the files of a run directory; `trained` opens a checkpoint for analysis.
* Reporting: `record`, `progress`, `memory`, `memory_limits`, `profiler`, `compile_counter`.

Read `loop` first, then `setup`, `phase_runner`, `interaction/acting` and `save_restore`. The driver imports nothing of
`launch`, which starts runs.
"""
