"""The MBPO paper's bounds on what a learned model costs, and the rollout length that they recommend.

Plain numbers in double precision go in and come out; nothing is learned, nothing is an array. `distances` compares
distributions, `bounds` compares returns, `lengths` picks the rollout length.

All distances are total variation, half the sum of absolute differences, in [0, 1]; `distance_of_kl` converts a KL
divergence. Names, with the paper's symbols:

  model_error     eps_m: distance between the true and the modelled next state, given state and action; the mean over
                  the states that a policy visits at one time step, the maximum over time steps.
  policy_shift    eps_pi: distance between the current policy and the one that collected the data, in the worst state.
  discount        gamma, in (0, 1).
  max_reward      r_max: no reward is further from zero; in units of reward, like every gap and penalty.
  rollout_length  k: steps taken in the model from a branch point, a state that the data policy reached.

A gap bounds the difference between two returns, in either direction. A penalty is subtracted from the return in the
model to bound the return in the environment from below: eta >= eta_model - penalty.

The reward function is taken as known. The paper writes the model error for next state and reward together, but its
proofs use one reward function for both sides. Where the reward is learned too, the model's part of `returns_gap` and
`full_rollout_penalty` can be exceeded by a factor of up to 1 / discount.

References: Janner et al. 2019 (MBPO), section 4 and appendices A and B, with their numbering; Lai et al. 2020 (BMPO).
"""

from mbpo_jax.theory.bounds import (
    StepErrors,
    bidirectional_penalty,
    branched_penalty,
    branched_penalty_from_data,
    branched_returns_gap,
    full_rollout_penalty,
    returns_gap,
)
from mbpo_jax.theory.distances import distance_of_kl, joint_distance, state_distance
from mbpo_jax.theory.lengths import (
    Recommendation,
    best_length,
    best_length_continuous,
    current_model_error,
    recommend_length,
)

__all__ = [
    "Recommendation",
    "StepErrors",
    "best_length",
    "best_length_continuous",
    "bidirectional_penalty",
    "branched_penalty",
    "branched_penalty_from_data",
    "branched_returns_gap",
    "current_model_error",
    "distance_of_kl",
    "full_rollout_penalty",
    "joint_distance",
    "recommend_length",
    "returns_gap",
    "state_distance",
]
