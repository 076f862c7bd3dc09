"""Checkpoint arrays as commit 9276b23 wrote them."""

import numpy as np


def train_state(learner, name=None):
    """What format 1 had in the place of a learner; `name` stands around each of its numbers."""

    def wrapped(tree):
        if name is None:
            return tree
        return {key: wrapped(value) for key, value in tree.items()} if isinstance(tree, dict) else {name: tree}

    moments = {key: value if key == "count" else wrapped(value) for key, value in learner["opt_state"]["0"].items()}
    opt_state = learner["opt_state"] | {"0": moments}
    return {"step": moments["count"], "params": wrapped(learner["params"]), "opt_state": opt_state}


def in_format_1(arrays):
    """The arrays of a seed as commit 9276b23 wrote them."""
    state, old = arrays["state"], {}
    agent = dict(state["agent"])
    for part in ("actor", "critics"):
        agent[part] = train_state(agent[part])
    if "log_temperature" in agent:
        agent["log_temperature"] = train_state(agent["log_temperature"], "log_temperature")
        agent["actor"]["step"] = agent.pop("num_updates")
    old["agent"] = agent
    if "model" in state:
        model = state["model"]
        old["model"] = {
            "members": train_state(model["members"]),
            "log_var_bounds": train_state(model["shared"]),
            "fit": model["fit"] | {"train_loss": np.zeros(3)},
            "inputs": model["inputs"],
            "elites": model["elites"],
        }
        old |= {"imagined": state["imagined"], "rollout": state["rollout"], "starts": {"reward_min": np.zeros(())}}
    rows = {name: value for name, value in arrays["replay"].items() if name != "first"}
    return arrays | {"state": old, "replay": rows}
