"""Measures how much less errors compound in rollouts that go half the way backward and half forward.

References: Lai et al. 2020 (BMPO), whose figure of compounding errors also uses real action sequences.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from mbpo_jax.driver.trained import Trained, load_trained
from mbpo_jax.rollouts import trajectories
from mbpo_jax.rollouts.trajectories import Trajectory
from mbpo_jax.studies import compounding, episodes, imagination
from mbpo_jax.studies.finding import Finding
from mbpo_jax.types import Array, Dynamics, PyTree

WAYS = ("forward", "bidirectional")


def study(
    run_dir: Path, seed: int | None = None, step: int | None = None, num_steps: int = 30, num_starts: int = 500
) -> Finding:
    """Feeds real action sequences to both models of a run: forward in full, and half backward and half forward.

    Args:
      step: environment step of the checkpoint; the newest by default.
      num_steps: length of the longest sequences, rounded down to an even number; at most half of the longest episode.
      num_starts: number of sequences; rounded up to a multiple of the number of elites.
    Raises:
      StorageFailure, ValueError: see `load_trained` and `imagination.check`; or the run has no backward model.
    """
    trained = load_trained(run_dir, seed, step)
    imagination.check(trained)
    if trained.algorithm.backward_dynamics is None:
        raise ValueError(f"the run must have a backward model (--algorithm=bmpo), got {trained.run.algorithm}")
    imagination.check_fitted(trained, trained.state.backward_model)
    env = episodes.open_environment(trained)
    choose = episodes.deterministic_policy(trained, env)
    played = [episodes.play(env, choose, number, env.max_episode_steps) for number in range(10)]
    longest = max(len(episode.reward) for episode in played)
    half = max(1, min(num_steps, longest // 2) // 2)
    if longest < 2 * half:
        raise ValueError(f"an episode must have at least 2 steps, got {longest}")
    scale = compounding.scale_of(np.asarray(trained.replay.rows.obs[: int(trained.replay.size)]))
    obs, action = compounding.windows(trained, played, 2 * half, num_starts)
    errors, exploded = compare(trained, obs, action, scale)
    numbers = {
        "env": trained.run.env,
        "seed": trained.seed,
        "step": trained.step,
        "real_rows": int(trained.replay.size),
        "steps": list(range(2, 2 * half + 1, 2)),
        "exploded_share": exploded,
    }
    for way in WAYS:
        numbers[way] = {
            name: [float(value) for value in np.percentile(errors[way], q, axis=1)]
            for name, q in (("median", 50), ("p90", 90))
        }
    return present(numbers)


def compare(
    trained: Trained, obs: np.ndarray, action: np.ndarray, scale: np.ndarray
) -> tuple[dict[str, np.ndarray], float]:
    """Returns the mean errors [h, starts] of paths of 2, 4, ... 2 h steps, by way, and the share that exploded.

    A path of 2 n steps begins at state 0 and goes forward, or at state h and goes n steps backward and n forward.

    Args:
      obs, action: [2 h + 1, starts, O], [2 h, starts, A], real sequences.
      scale: see `compounding.distances`.
    """
    half = len(action) // 2
    assert trained.algorithm.dynamics is not None and trained.algorithm.backward_dynamics is not None
    ahead, back = trained.algorithm.dynamics, trained.algorithm.backward_dynamics
    whole, lost = _replayed(ahead, trained.state, obs[0], action, 0)
    later, lost_later = _replayed(ahead, trained.state, obs[half], action[half:], 1)
    before, lost_before = _replayed(back, trained.state, obs[half], action[:half][::-1], 2)
    error_whole = compounding.distances(whole[1:], obs[1:], scale)
    error_later = compounding.distances(later[1:], obs[half + 1 :], scale)
    error_before = compounding.distances(before[1:], obs[:half][::-1], scale)
    errors = {
        "forward": mean_so_far(error_whole)[1::2],
        "bidirectional": 0.5 * (mean_so_far(error_later) + mean_so_far(error_before)),
    }
    return errors, float(np.mean(lost | lost_later | lost_before))


def mean_so_far(errors: np.ndarray) -> np.ndarray:
    """Returns the running mean [T, B] of errors [T, B], over each step and those before it."""
    return np.cumsum(errors, axis=0) / np.arange(1, len(errors) + 1)[:, None]


def _replayed(
    dynamics: Callable[[PyTree], Dynamics], state: PyTree, starts: np.ndarray, actions: np.ndarray, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns states [T + 1, B, O] that a model imagines for actions [T, B, A], past terminals; which [B] exploded."""

    @jax.jit
    def replayed(state: PyTree, starts: Array, actions: Array) -> Trajectory:
        def choose(key: Array, step: Array, obs: Array) -> tuple[Array, tuple[()]]:
            return actions[step], ()

        return trajectories.unroll(jax.random.key(number), dynamics(state), choose, starts, len(actions), past_end=True)

    imagined = replayed(state, jnp.asarray(starts), jnp.asarray(actions))
    return np.asarray(imagined.obs, np.float64), np.asarray(imagined.exploded)


def present(numbers: dict[str, Any]) -> Finding:
    """Presents the numbers, as measured or as read back from their file, as a sentence and a figure."""
    last = {way: numbers[way]["median"][-1] for way in WAYS}
    sentence = (
        f"{numbers['env']} after {numbers['step']:,} steps: over {numbers['steps'][-1]} steps, the median of the mean "
        f"error is {last['forward']:.3f} ahead and {last['bidirectional']:.3f} in both directions, in standard "
        "deviations of the real states."
    )
    if numbers["exploded_share"]:
        sentence += f" Of the rollouts {numbers['exploded_share']:.0%} exploded."
    return Finding(sentence, numbers, _figure(numbers))


def _figure(numbers: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    axes = figure.subplots()
    for way, colour in zip(WAYS, ("tab:blue", "tab:orange"), strict=True):
        axes.plot(numbers["steps"], numbers[way]["median"], color=colour, label=f"{way}, median over starts")
        band = numbers[way]["median"], numbers[way]["p90"]
        axes.fill_between(numbers["steps"], *band, color=colour, alpha=0.2, linewidth=0.0, label="up to 90 %")
    axes.set(xlabel="steps in the model, both directions together", ylabel="mean error / standard deviation")
    axes.set(yscale="log", title=f"{numbers['env']}, {numbers['step']:,} environment steps")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="small")
    return figure
