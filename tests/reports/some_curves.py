"""Curves and experiments for the tests of reports."""

from mbpo_jax.reports.comparison import Experiment
from mbpo_jax.reports.learning_curves import LearningCurve


def curve(evaluations, seed=0, experiment="hopper", env="Hopper-v5", algorithm="mbpo", **changes):
    """A curve of step -> return."""
    provenance = {
        "num_steps": 125_000,
        "commit": "abc1234",
        "versions": {"jax": "0.10.2"},
        "devices": ("cpu",),
        "seconds": 5400.0,
        "stds": None,
        "flags": {"updates_per_step": 20},
    }
    return LearningCurve(
        experiment=experiment,
        algorithm=algorithm,
        env=env,
        seed=seed,
        steps=tuple(evaluations),
        returns=tuple(evaluations.values()),
        **provenance | changes,
    )


def flat(value, last_step, every=1000):
    """The same return at every evaluation."""
    return dict.fromkeys(range(every, last_step + 1, every), float(value))


def experiment(
    curves, name="hopper", env="Hopper-v5", algorithm="mbpo", missing_seeds=(), as_published=None, dataset=""
):
    """An experiment; with the published settings if its algorithm is MBPO and nothing else is said."""
    as_published = algorithm == "mbpo" if as_published is None else as_published
    return Experiment(
        name,
        f"experiments/{name}.flags",
        algorithm,
        env,
        tuple(curves),
        missing_seeds,
        as_published,
        dataset=dataset,
    )
