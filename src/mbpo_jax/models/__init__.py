"""Learned models: `WorldModel`s with the files of their fits, `sequence`, `tables`, and policies of backward steps."""
