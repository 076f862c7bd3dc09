import jax
import numpy as np
import pytest

from mbpo_jax import replay
from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.driver.storage import format_1, packing


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


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_a_state_of_format_1_becomes_the_same_state(name):
    entry = REGISTRY[name]
    algorithm = entry.build(entry.tiny_config(), entry.spec)
    state = jax.jit(algorithm.init)(jax.random.key(0))
    real = replay.init(entry.spec, 10, episodes=True)
    arrays = {"state": packing.pack(state), "replay": packing.pack(real), "obs": np.zeros(4)}
    upgraded = format_1.upgrade(in_format_1(arrays))
    for part, template in (("state", state), ("replay", real)):
        restored = packing.unpack(template, upgraded[part])
        for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(template), strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(upgraded["obs"], arrays["obs"])
