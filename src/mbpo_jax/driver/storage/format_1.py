"""Converts checkpoints of format 1 (version 0.1.0 up to commit 9276b23) to today's format."""

from typing import Any

import numpy as np

Arrays = dict[str, Any]  # nested


def upgrade(arrays: Arrays) -> Arrays:
    """Returns the arrays of one seed in today's layout.

    In format 1, optimisers had a counter of their own, the temperature a name, and the state of a model the loss of its
    last minibatch; MBPO's state had what a round of rollouts reported about its starts. Which rows began an episode was
    not saved, so none is marked.
    """
    replay = arrays["replay"]
    state = {name: value for name, value in arrays["state"].items() if name != "starts"}
    if "model" in state:
        state["model"] = _model(state["model"])
    state["agent"] = _agent(state["agent"])
    return arrays | {"state": state, "replay": replay | {"first": np.zeros(replay["rows"]["reward"].shape, bool)}}


def _model(model: Arrays) -> Arrays:
    fit = {name: value for name, value in model["fit"].items() if name != "train_loss"}
    kept = {name: model[name] for name in ("inputs", "elites")}
    return kept | {"members": _learner(model["members"]), "shared": _learner(model["log_var_bounds"]), "fit": fit}


def _agent(agent: Arrays) -> Arrays:
    changed = {name: _learner(agent[name]) for name in ("actor", "critics")}
    if "log_temperature" in agent:
        changed["log_temperature"] = _without_name(_learner(agent["log_temperature"]), "log_temperature")
        changed["num_updates"] = agent["actor"]["step"]
    return agent | changed


def _learner(train_state: Arrays) -> Arrays:
    return {"params": train_state["params"], "opt_state": train_state["opt_state"]}


def _without_name(tree: Any, name: str) -> Any:
    """Replaces every {name: array} by the array."""
    if not isinstance(tree, dict):
        return tree
    return tree[name] if set(tree) == {name} else {key: _without_name(value, name) for key, value in tree.items()}
