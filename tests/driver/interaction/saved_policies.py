"""What a saved policy is given, and what loading it says."""

import io

import numpy as np

from mbpo_jax.driver.config import StorageFailure
from mbpo_jax.driver.interaction.policy import load_policy


def observations(num, dims, scale=1.0):
    return scale * np.random.default_rng(1).normal(size=(num, dims)).astype(np.float32)


def npy(array, **kwargs):
    made = io.BytesIO()
    np.save(made, array, **kwargs)
    return made.getvalue()


def outcome(run_dir):
    """What loading the policy of seed 1 says: the policy, or the message of its StorageFailure."""
    try:
        return load_policy(run_dir, 1)
    except StorageFailure as error:
        return str(error)
