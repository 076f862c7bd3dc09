"""Normalised scores of reports, which mean nothing without the name of their reference.

A score is 100 (R - random) / (expert - random). D4RL's constants are returns in the environments of its time; data and
policies of other versions, such as Minari's, are not on the same scale, so a table names the reference of every score.
"""

import math
from typing import NamedTuple

D4RL_RETURNS = {
    "HalfCheetah": (-280.178953, 12135.0),
    "Hopper": (-20.272305, 3234.3),
    "Walker2d": (1.629008, 4592.3),
}
"""Random and expert by environment, from d4rl/infos.py."""


class Reference(NamedTuple):
    """The two returns that score 0 and 100, and what to call them."""

    name: str
    random_return: float
    expert_return: float


def d4rl(env_id: str) -> Reference:
    """Returns D4RL's reference for an environment, whatever its version.

    Raises:
      ValueError: there is none; names those that exist.
    """
    name = env_id.rpartition(":")[2].rpartition("-v")[0]
    if name not in D4RL_RETURNS:
        raise ValueError(f"env must be one of {', '.join(D4RL_RETURNS)} for D4RL's reference returns, got {env_id!r}")
    return Reference("D4RL", *D4RL_RETURNS[name])


def measured(env_id: str, random_return: float, expert_return: float) -> Reference:
    """Returns a reference whose two returns were measured in the same version of an environment.

    Raises:
      ValueError: the expert is not better, or a return is not finite.
    """
    if not (expert_return > random_return and math.isfinite(expert_return - random_return)):
        raise ValueError(f"expert_return must be above random_return={random_return}, got {expert_return}")
    return Reference(f"measured on {env_id}", random_return, expert_return)


def parse(text: str) -> tuple[str, Reference]:
    """Returns the environment and the reference that "ENV=RANDOM,EXPERT", two returns, or "ENV=d4rl" names.

    Raises:
      ValueError: it names none.
    """
    env_id, _, returns = text.rpartition("=")
    if env_id and returns == "d4rl":
        return env_id, d4rl(env_id)
    try:
        random_return, expert_return = map(float, returns.split(","))
    except ValueError:
        env_id = ""
    if not env_id:
        raise ValueError(f"a reference must be ENV=RANDOM,EXPERT, two returns, or ENV=d4rl, got {text!r}")
    return env_id, measured(env_id, random_return, expert_return)


def normalised(episode_return: float, reference: Reference) -> float:
    """Returns the score of a return, 0 for the reference's random policy and 100 for its expert."""
    return 100.0 * (episode_return - reference.random_return) / (reference.expert_return - reference.random_return)
