import numpy as np
import pytest

from mbpo_jax import options, terminations
from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.driver import workload
from mbpo_jax.driver.config import RunConfig
from mbpo_jax.driver.interaction.spaces import Spaces
from mbpo_jax.driver.interaction.task import Task
from mbpo_jax.types import Spec

SPEC = Spec(obs_dim=3, action_dim=1, termination_fn=terminations.never)
TASK = Task(Spaces(3, np.float32([-2]), np.float32([2]), 200), SPEC)


def built(algorithm="mbpo", **knobs):
    config = options.replace(REGISTRY[algorithm].default_config(), knobs)
    return REGISTRY[algorithm].build(config, SPEC), config


def counts(run, algorithm, step):
    return {kind: count(step) for kind, count in workload.num_left(run, algorithm).items()}


def test_what_is_left_is_counted_as_the_loop_counts_it():
    algorithm, _ = built(exploration_steps=40, min_replay_rows=60, fit_every_steps=25)
    run = RunConfig(num_steps=100, eval_every_steps=30, checkpoint_every_steps=50)
    # fits at 40, 65 and 90; updates from 60 on; evaluations at 30, 60, 90 and the end; checkpoints at 50 and 100
    assert counts(run, algorithm, 0) == {
        "explore": 40, "act": 60, "fit_model": 3, "roll_out": 3, "update_agent": 41, "evaluate": 4, "checkpoint": 2
    }  # fmt: skip
    assert counts(run, algorithm, 65) == {
        "explore": 0, "act": 35, "fit_model": 1, "roll_out": 1, "update_agent": 35, "evaluate": 2, "checkpoint": 1
    }  # fmt: skip
    assert set(counts(run, algorithm, 100).values()) == {0}


def test_a_run_says_what_it_is_going_to_do():
    algorithm, config = built(exploration_steps=500, min_replay_rows=500, updates_per_step=10, fit_every_steps=250)
    lines = workload.describe(RunConfig(env="Pendulum-v1", num_steps=3000), TASK, algorithm, config)
    assert lines == [
        "Pendulum-v1: 3 observations, 1 action in [-2, 2], to which the policy's [-1, 1] is scaled; at most 200 steps "
        "an episode",
        "imagined episodes end by --termination_fn=auto, never",
        "this run, for each seed: 500 random steps, 2,500 steps of the policy, 11 model fits, 25,010 agent updates",
    ]
    algorithm, config = built("sac", exploration_steps=500)
    lines = workload.describe(RunConfig(env="Pendulum-v1", num_steps=1500), TASK, algorithm, config)
    assert lines[1:] == ["this run, for each seed: 500 random steps, 1,000 steps of the policy, 1,001 agent updates"]


def test_updates_that_come_after_episodes_are_not_counted_by_the_step():
    algorithm, config = built("svg", svg_steps="inf", exploration_steps=500, fit_every_steps=250, updates_per_step=3)
    lines = workload.describe(RunConfig(env="Pendulum-v1", num_steps=1500), TASK, algorithm, config)
    assert lines[1:] == [
        "this run, for each seed: 500 random steps, 1,000 steps of the policy, 5 model fits, 3 agent updates after "
        "each episode of the policy"
    ]


@pytest.mark.parametrize(
    ("num_steps", "knobs", "said"),
    [
        (300, {"exploration_steps": 5000}, "will learn nothing: 0 agent updates in 300 steps, the first at step 5,000. "
         "Change --exploration_steps and --num_steps"),
        (520, {"exploration_steps": 100, "min_replay_rows": 519, "updates_per_step": 10},
         "will learn next to nothing: 20 agent updates in 520 steps, the first at step 519. Change --min_replay_rows "
         "and --num_steps"),
        (620, {"exploration_steps": 500, "min_replay_rows": 520, "updates_per_step": 10}, None),
    ],
)  # fmt: skip
def test_a_run_that_can_learn_nothing_says_so(num_steps, knobs, said):
    algorithm, config = built(**knobs)
    problem = workload.problem(RunConfig(num_steps=num_steps), algorithm, config)
    assert problem == (None if said is None else f"warning: this run {said}")


@pytest.mark.parametrize(("num_steps", "much"), [(150, "nothing: 0 model fits in 150 steps"), (200, None)])
def test_a_planner_that_never_gets_a_model_says_so(num_steps, much):
    algorithm, config = built("pets")
    (fit,) = (phase for phase in algorithm.phases if phase.name == workload.FIT)
    assert fit.first == 200
    problem = workload.problem(RunConfig(algorithm="pets", num_steps=num_steps), algorithm, config)
    assert (problem or "").startswith("" if much is None else f"warning: this run will learn {much}, the first at step")
    assert (problem is None) == (much is None)


def test_a_fit_tells_its_epoch_at_the_end_of_each():
    reported = {"epochs": np.asarray(1234), "holdout_mse_elite_mean": np.asarray(0.25), "elites": np.arange(2)}
    assert workload.fit_progress((7,), 0, reported) == "epoch 1,234, held-out error 0.25"
    assert workload.fit_progress((7, 3), 1, reported) == "seed 3, epoch 1,234, held-out error 0.25"
    assert workload.fit_progress((7,), 0, {"train_loss_mean": np.asarray(1.0)}) == ""
