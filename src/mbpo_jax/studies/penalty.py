"""Compares MOPO's penalties with what they stand for: the true error of the model, on real transitions.

References: Yu et al. 2020 (MOPO), section 4.3: a penalty must bound the error; Lu et al. 2022, "Revisiting Design
Choices in Offline Model Based Reinforcement Learning", section 4, for rank correlations.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from mbpo_jax import replay
from mbpo_jax.algorithms import phases
from mbpo_jax.driver.config import NO_ENVIRONMENT
from mbpo_jax.driver.trained import Trained, load_trained
from mbpo_jax.models import gaussian
from mbpo_jax.models.encoding import forward
from mbpo_jax.models.state import GaussianConfig
from mbpo_jax.rollouts.penalties import PENALTIES
from mbpo_jax.studies import episodes, imagination
from mbpo_jax.studies.finding import Finding
from mbpo_jax.types import Array, PyTree, Transition, WorldModel

NUM_BINS = 10  # of equally many rows


def study(run_dir: Path, seed: int | None = None, step: int | None = None, num_rows: int = 2000) -> Finding:
    """Compares every penalty with the model's true error, on the data, along the policy, and under random actions.

    The error of a row is the distance between the true (reward, change of the observation) and the mean prediction of
    the elites. All three kinds of rows are real: the environment is stepped for two of them.

    Args:
      num_rows: transitions of each kind.
    Raises:
      StorageFailure, ValueError: see `load_trained`; or the run has no environment, or no model of MBPO's kind.
    """
    trained = load_trained(run_dir, seed, step)
    imagination.check(trained)
    world = _world(trained)
    if trained.run.env == NO_ENVIRONMENT:
        raise ValueError("the run must have an environment, got --env=none")
    kinds = _rows(trained, num_rows)
    judged = {kind: _measure(trained, world, rows) for kind, rows in kinds.items()}
    pairs = {name: {kind: (found[name], error) for kind, (found, error) in judged.items()} for name in PENALTIES}
    numbers = {
        "env": trained.run.env,
        "algorithm": trained.run.algorithm,
        "dataset": trained.run.dataset,
        "seed": trained.seed,
        "step": trained.step,
        "num_rows": num_rows,
        "penalties": {name: compare(by_kind) for name, by_kind in pairs.items()},
    }
    return present(numbers)


def _rows(trained: Trained, num_rows: int) -> dict[str, Transition]:
    """Returns real transitions [num_rows, ...] of each kind."""
    env, rng = episodes.open_environment(trained), np.random.default_rng(trained.seed)
    policy = episodes.deterministic_policy(trained, env)
    along, next_episode = episodes.collect(env, policy, 0, num_rows)
    action_dim = trained.spec.action_dim
    random, _ = episodes.collect(
        env, lambda obs: rng.uniform(-1.0, 1.0, action_dim).astype(np.float32), next_episode, num_rows
    )
    env.close()
    data = replay.sample(jax.random.key(trained.seed), trained.replay, (num_rows,))
    return {"data": data, "policy": along, "random actions": random}


def _world(trained: Trained) -> WorldModel:
    """Returns the run's model, an ensemble as in MBPO.

    Raises:
      ValueError: it is of another kind, whose state has other arrays.
    """
    config, spec = trained.config, trained.spec
    if isinstance(config.model, GaussianConfig):
        world = phases.with_ends(gaussian.build(config.model, spec), spec, config.termination_fn)
        if _shapes(jax.eval_shape(world.init, jax.random.key(0))) == _shapes(trained.state.model):
            return world
    raise ValueError(f"the run must have a model as MBPO has, got another of --algorithm={trained.run.algorithm}")


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    return {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree.leaves_with_path(tree)}


def _measure(trained: Trained, world: WorldModel, rows: Transition) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns every penalty [B] by name, and the error [B], of transitions."""

    @jax.jit
    def judge(model: Any, rows: Transition) -> tuple[dict[str, Array], Array]:
        belief = world.belief(model)
        mean, log_var = world.predict(belief, rows.obs, rows.action)
        _, target = forward(trained.spec).examples(rows)
        error = jnp.linalg.norm(jnp.mean(mean[imagination.ensemble(model).elites], axis=0) - target, axis=-1)
        return {name: penalty(mean, log_var) for name, penalty in PENALTIES.items()}, error

    found, error = jax.device_get(judge(trained.state.model, rows))
    return found, error


def compare(pairs: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """Returns rank correlations of a penalty with the error, by kind of rows and over all, and means in bins over all.

    Args:
      pairs: (penalty [B], error [B]) by kind of rows.
    """
    penalty, error = (np.concatenate(column) for column in zip(*pairs.values()))
    parts = np.array_split(np.argsort(penalty), NUM_BINS)
    return {
        "rank_correlation": {kind: _rank_correlation(*pair) for kind, pair in pairs.items()}
        | {"all": _rank_correlation(penalty, error)},
        "mean_penalty": {kind: float(np.mean(one)) for kind, (one, _) in pairs.items()},
        "mean_error": {kind: float(np.mean(one)) for kind, (_, one) in pairs.items()},
        "bins": [{"penalty": float(np.mean(penalty[part])), "error": float(np.mean(error[part]))} for part in parts],
        "share_above_error": float(np.mean(penalty >= error)),
    }


def _rank_correlation(penalty: np.ndarray, error: np.ndarray) -> float | None:
    """Returns Spearman's rank correlation; None if one of them does not vary."""
    if np.ptp(penalty) == 0 or np.ptp(error) == 0:
        return None
    return float(stats.spearmanr(penalty, error).statistic)


def present(numbers: dict[str, Any]) -> Finding:
    """Presents the numbers, as measured or as read back from their file, as a sentence and a figure."""
    correlations = {name: found["rank_correlation"]["all"] for name, found in numbers["penalties"].items()}
    listed = ", ".join(f"{name} {_shown(value)}" for name, value in correlations.items())
    sentence = (
        f"{numbers['algorithm']} on {numbers['env']}, step {numbers['step']:,}: rank correlation of penalties with the "
        f"model's true error, over rows of the data, of the policy and of random actions: {listed}."
    )
    return Finding(sentence, numbers, _figure(numbers))


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _figure(numbers: dict[str, Any]) -> Figure:
    """Draws the mean error against each penalty, in bins of equally many rows."""
    penalties = numbers["penalties"]
    figure = Figure(figsize=(4.0 * len(penalties), 3.8), layout="constrained")
    for axes, (name, found) in zip(figure.subplots(1, len(penalties), squeeze=False)[0], penalties.items()):
        bins = found["bins"]
        axes.plot([one["penalty"] for one in bins], [one["error"] for one in bins], marker="o", color="tab:blue")
        by_kind = ", ".join(f"{kind} {_shown(value)}" for kind, value in found["rank_correlation"].items())
        axes.set(title=f"{name}\n{by_kind}", xlabel="penalty", ylabel="true error of the model")
        axes.title.set_fontsize(9)
    figure.suptitle(f"{numbers['algorithm']} on {numbers['env']}: penalty and error; rank correlations above")
    return figure
