"""The penalties of `theory` and the best lengths by them, with fewer words, for its tests."""

from mbpo_jax import theory

PAIRS = [(0.01, 0.05), (0.04, 0.05), (0.049, 0.05), (0.001, 0.05), (0.3, 1.0), (0.02, 0.021)]  # model error < shift


def branched(model_error, policy_shift, k, discount=0.99, **more):
    return theory.branched_penalty(
        model_error=model_error, policy_shift=policy_shift, rollout_length=k, discount=discount, **more
    )


def from_data(model_error, policy_shift, k, discount=0.99, **more):
    return theory.branched_penalty_from_data(
        model_error=model_error, policy_shift=policy_shift, rollout_length=k, discount=discount, **more
    )


def best(model_error, policy_shift, discount=0.99, longest=1000):
    return theory.best_length(model_error=model_error, policy_shift=policy_shift, discount=discount, longest=longest)


def continuous(model_error, policy_shift, discount=0.99):
    return theory.best_length_continuous(model_error=model_error, policy_shift=policy_shift, discount=discount)
