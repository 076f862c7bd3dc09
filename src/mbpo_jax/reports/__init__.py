"""Reads run directories and reports on them.

* `curves` draws one run.
* `comparison` compares our runs with published ones: `learning_curves` reads ours, `published` has the others, and
  `statistics` summarises seeds. `comparison_files` writes the files, with the text of `comparison_text` and the figure
  of `comparison_figure`; the command is `mbpo_jax.reproduce`.
* `pictures` and `plain_json` write and read files: whole or not at all, and strict JSON.
* `own_backend` imports matplotlib whatever the environment variables say, before anything else does.
"""

from mbpo_jax.reports import own_backend  # noqa: F401
