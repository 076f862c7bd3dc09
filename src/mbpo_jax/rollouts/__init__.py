"""Imagination: dynamics, policies and critics are passed in as functions, and no model or agent is imported."""
