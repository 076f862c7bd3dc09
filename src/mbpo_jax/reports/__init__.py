"""Reads run directories and tells of them.

* `curves`: the picture of one run.
* `comparison` (with `comparison_text` and `comparison_figure`): our runs beside the published numbers, from
  `learning_curves`, `published` and `statistics`; its command is `mbpo_jax.reproduce`.
* `pictures`, `plain_json`: files, whole or not at all, and strict.
"""
