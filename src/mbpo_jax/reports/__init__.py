"""Reads run directories and reports on them.

* `curves` draws one run.
* `comparison` sets our runs beside published ones: `learning_curves` reads ours, `published` has the others, and
  `statistics` summarises seeds. `comparison_files` writes it, as `comparison_text` and `comparison_figure` say it; the
  command is `mbpo_jax.reproduce`.
* `pictures` and `plain_json` write and read files: whole or not at all, and strict JSON.
* `own_backend` imports matplotlib whatever the process's surroundings say of it, before anything else does.
"""

from mbpo_jax.reports import own_backend  # noqa: F401
