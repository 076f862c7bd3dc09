"""Starts runs. This layer lies above the driver, which trains and imports nothing from here, and below the commands.

* Every command: `command` has the exit statuses, printing, the line that reports an error, and the parser. `flags`
  builds the flags of a run and `help_text` the text of --help, both from the knobs of the configs. `flagfiles` finds
  and reads files of flags.
* One run in several processes: `processes` trains one process's share of the seeds, `rendezvous` assigns the shares,
  `run_parts` merges the run directories of all shares into one.
* Many runs (`mbpo_jax.sweep`): `sweep_flags` has the flags and `sweep_jobs` the command lines, `launcher` submits jobs
  to one of the `executors` and waits; there, a `job` runs each command line as a `child_process`.
* Comparison with published runs (`mbpo_jax.reproduce`): `requested_run` reads what the flagfiles request,
  `missing_runs` launches what no curve covers yet, `kept_curves` collects the curves. `reports` turns them into tables
  and figures.
"""
