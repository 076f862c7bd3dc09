"""Measures how a model's errors compound when it continues from its own predictions.

References: Janner et al. 2019 (MBPO), section 6.2, Figures 4a and 4b.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mbpo_jax.driver.trained import Trained, load_trained
from mbpo_jax.rollouts import trajectories
from mbpo_jax.rollouts.trajectories import Trajectory
from mbpo_jax.studies import episodes, imagination
from mbpo_jax.studies.episodes import Episode
from mbpo_jax.studies.finding import Finding
from mbpo_jax.types import Array, Key, PyTree

MOST_DIMS_DRAWN = 4
BANDS = ((10, 90, 0.2), (25, 75, 0.3))  # percentiles of rollouts around their median, and the opacity of each band
PERCENTILES = (10, 25, 50, 75, 90)
DIGITS = 5  # significant digits that are kept of a plotted state


def study(
    run_dir: Path,
    seed: int | None = None,
    step: int | None = None,
    fan_steps: int = 450,
    fan_rows: int = 1000,
    num_steps: int = 50,
    num_starts: int = 500,
) -> Finding:
    """Feeds real action sequences to the model: one long one many times (the fan), and many short ones.

    Args:
      step: environment step of the checkpoint; the newest by default.
      fan_steps: length of the long sequence; shorter if its episode ends before.
      fan_rows: model rollouts of the long sequence; rounded up to a multiple of the number of elites.
      num_steps: length of the short sequences, at most half of the longest episode.
      num_starts: number of short sequences; rounded up to a multiple of the number of elites.
    Raises:
      StorageFailure, ValueError: see `load_trained` and `imagination.check`.
    """
    trained = load_trained(run_dir, seed, step)
    imagination.check(trained)
    env = episodes.open_environment(trained)
    choose = episodes.deterministic_policy(trained, env)
    played = [episodes.play(env, choose, number, env.max_episode_steps) for number in range(10)]
    longest = max(played, key=lambda episode: len(episode.reward))
    scale = scale_of(np.asarray(trained.replay.rows.obs[: int(trained.replay.size)]))
    fan = _fan(trained, _piece(longest, 0, fan_steps), fan_rows)
    num_steps = min(num_steps, max(1, len(longest.reward) // 2))
    errors, exploded = _errors(trained, played, num_steps, num_starts, scale)
    numbers = {
        "env": trained.run.env,
        "seed": trained.seed,
        "step": trained.step,
        "real_rows": int(trained.replay.size),
        "error": {
            "steps": list(range(1, num_steps + 1)),
            **{name: _floats(np.percentile(errors, q, axis=1)) for name, q in (("median", 50), ("p90", 90))},
            "exploded_share": exploded,
        },
        **_growth(np.median(errors, axis=1)),
        "fan": {
            "steps": len(fan["real"]) - 1,
            "rows": int(fan["rows"]),
            "exploded_share": fan["exploded"],
            "spread_over_real_range": _over(fan["spread"][-1], np.ptp(fan["real"], axis=0)),
            "drawn": _drawn(fan),
        },
    }
    return present(numbers)


def scale_of(obs: np.ndarray) -> np.ndarray:
    """Returns standard deviations [O] of states [N, O]; infinite for constant dimensions, where errors have no unit."""
    return np.where(np.ptp(obs, axis=0) > 0.0, obs.std(0, dtype=np.float64), np.inf)


def _fan(trained: Trained, episode: Episode, rows: int) -> dict[str, Any]:
    """Returns percentiles [5, T + 1, O] of model rollouts of one action sequence, and their spread [T + 1, O].

    The spread is the distance from the 10th to the 90th percentile. Percentiles stay readable while less than a tenth
    of the rollouts explode; means and standard deviations do not.
    """
    rows = imagination.whole_shares(trained, rows)
    starts, actions = np.repeat(episode.obs[:1], rows, 0), np.repeat(episode.action[:, None], rows, 1)
    imagined, exploded = _replayed(trained, starts, actions, jax.random.key(0))
    percentiles = np.percentile(imagined, PERCENTILES, axis=1)
    spread = percentiles[-1] - percentiles[0]
    return {"real": episode.obs, "percentiles": percentiles, "spread": spread, "rows": rows, "exploded": exploded}


def _drawn(fan: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns what the figure shows of the fan: the dimensions that vary most relative to the spread."""
    dims = np.argsort(-np.ptp(fan["real"], axis=0) / (fan["spread"].mean(0) + 1e-6))[:MOST_DIMS_DRAWN]
    return [
        {"dimension": dim, "environment": _rounded(fan["real"][:, dim])}
        | {f"p{q}": _rounded(values) for q, values in zip(PERCENTILES, fan["percentiles"][:, :, dim])}
        for dim in sorted(dims.tolist())
    ]


def _errors(
    trained: Trained, played: list[Episode], num_steps: int, num_starts: int, scale: np.ndarray
) -> tuple[np.ndarray, float]:
    """Returns distances [num_steps, starts] between imagined and real states in units of `scale`; exploded share."""
    obs, action = windows(trained, played, num_steps, num_starts)
    imagined, exploded = _replayed(trained, obs[0], action, jax.random.key(1))
    return distances(imagined[1:], obs[1:], scale), exploded


def windows(trained: Trained, played: list[Episode], num_steps: int, num_starts: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts pieces of `num_steps` from random places of episodes: states [T + 1, starts, O], actions [T, starts, A]."""
    random = np.random.default_rng(trained.seed)
    usable = [episode for episode in played if len(episode.reward) >= num_steps]
    which = random.integers(len(usable), size=imagination.whole_shares(trained, num_starts))
    starts = [int(random.integers(len(usable[i].reward) - num_steps + 1)) for i in which]
    pieces = [_piece(usable[i], start, num_steps) for i, start in zip(which, starts)]
    return np.stack([piece.obs for piece in pieces], 1), np.stack([piece.action for piece in pieces], 1)


def distances(imagined: np.ndarray, real: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Returns distances [...] between states [..., O] in units of `scale` [O].

    A distance is the root of the mean square over the dimensions whose scale is finite; 0 if there is none.
    """
    squares = np.square((imagined - real) / scale)
    return np.sqrt(np.sum(squares, axis=-1) / max(1, np.isfinite(scale).sum()))


def _piece(episode: Episode, start: int, num_steps: int) -> Episode:
    """Cuts a piece of at most `num_steps` from an episode."""
    end = start + num_steps
    return Episode(episode.obs[start : end + 1], episode.action[start:end], episode.reward[start:end], False)


def _replayed(trained: Trained, starts: np.ndarray, actions: np.ndarray, key: Key) -> tuple[np.ndarray, float]:
    """Returns states [T + 1, B, O] that the model imagines for actions [T, B, A], past terminals; exploded share."""

    @jax.jit
    def replayed(state: PyTree, starts: Array, actions: Array) -> Trajectory:
        assert trained.algorithm.dynamics is not None  # by `imagination.check`
        dynamics = trained.algorithm.dynamics(state)

        def choose(key: Key, number: Array, obs: Array) -> tuple[Array, tuple[()]]:
            return actions[number], ()

        return trajectories.unroll(key, dynamics, choose, starts, len(actions), past_end=True)

    imagined = replayed(trained.state, jnp.asarray(starts), jnp.asarray(actions))
    return np.asarray(imagined.obs, np.float64), float(np.mean(imagined.exploded))


def _growth(median: np.ndarray) -> dict[str, float | None]:
    """Returns the first and last error, and p in error ~ steps^p by least squares on logarithms; 1: errors add up."""
    steps = np.arange(1, len(median) + 1)
    exponent = float(np.polyfit(np.log(steps), np.log(median + 1e-12), 1)[0]) if len(median) > 1 else None
    return {"error_first": float(median[0]), "error_last": float(median[-1]), "exponent": exponent}


def _over(values: np.ndarray, ranges: np.ndarray) -> list[float | None]:
    """Divides values by ranges; None where a range is zero."""
    return [float(value / width) if width > 0.0 else None for value, width in zip(values, ranges)]


def _floats(values: np.ndarray) -> list[float]:
    return [float(value) for value in values]


def _rounded(values: np.ndarray) -> list[float]:
    """Rounds to DIGITS significant digits, which is finer than a pixel and keeps the file small."""
    return [float(f"{value:.{DIGITS}g}") for value in values]


def present(numbers: dict[str, Any]) -> Finding:
    """Presents the numbers, as measured or as read back from their file, as a sentence and a figure."""
    return Finding(_sentence(numbers), numbers, _figure(numbers))


def _sentence(numbers: dict[str, Any]) -> str:
    steps, exponent = numbers["error"]["steps"][-1], numbers["exponent"]
    power = "" if exponent is None else f", as steps to the power {exponent:.2f}"
    shares = {"short rollouts": numbers["error"]["exploded_share"], "the fan": numbers["fan"]["exploded_share"]}
    exploded = " and ".join(f"{share:.0%} of {name}" for name, share in shares.items() if share)
    explosion = f" In the model {exploded} exploded." if exploded else ""
    return (
        f"{numbers['env']} after {numbers['step']:,} steps: the median error grows from {numbers['error_first']:.3f} "
        f"at 1 step to {numbers['error_last']:.3f} at {steps}, in standard deviations of the real states{power}."
        f"{explosion}"
    )


def _figure(numbers: dict[str, Any]) -> Figure:
    """Draws the error against steps, and the fan of model rollouts as percentiles."""
    drawn = numbers["fan"]["drawn"]
    figure = Figure(figsize=(11.0, 2.0 + 1.5 * len(drawn)), layout="constrained")
    left, right = figure.subfigures(1, 2, squeeze=False)[0]
    _draw_errors(left.subplots(), numbers["error"])
    panels = np.atleast_1d(right.subplots(len(drawn), 1, sharex=True))
    for axes, dimension in zip(panels, drawn, strict=True):
        _draw_fan(axes, dimension)
    exploded = f"{numbers['fan']['exploded_share']:.0%} of the rollouts exploded"
    panels[0].set_title(exploded, loc="left", fontsize="medium")
    right.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", fontsize="small", ncols=4)
    panels[-1].set_xlabel("environment steps")
    right.suptitle(f"one action sequence, {numbers['fan']['rows']:,} rollouts in the model")
    figure.suptitle(f"{numbers['env']}, {numbers['step']:,} environment steps")
    return figure


def _draw_errors(axes: Axes, error: dict[str, Any]) -> None:
    axes.plot(error["steps"], error["median"], label="median over starts")
    axes.fill_between(error["steps"], error["median"], error["p90"], alpha=0.2, linewidth=0.0, label="up to 90 %")
    axes.set(xscale="log", yscale="log", xlabel="steps in the model", ylabel="error / standard deviation")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()


def _draw_fan(axes: Axes, dimension: dict[str, Any]) -> None:
    """Draws one dimension of the state; values beyond the panel, which may be astronomical, are clipped to its edge."""
    real = np.asarray(dimension["environment"])
    steps = np.arange(len(real))
    beyond = np.ptp(real) + 1e-3
    low, high = real.min() - beyond, real.max() + beyond

    def clipped(percentile: int) -> np.ndarray:
        return np.clip(dimension[f"p{percentile}"], low, high)

    axes.plot(steps, real, color="black", linewidth=1.0, label="environment")
    axes.plot(steps, clipped(50), color="tab:blue", linewidth=1.0, label="model, median")
    for lower, upper, alpha in BANDS:
        label = f"{lower} to {upper} %"
        ends = clipped(lower), clipped(upper)
        axes.fill_between(steps, *ends, color="tab:blue", alpha=alpha, linewidth=0.0, label=label)
    axes.set_ylim(low, high)
    axes.set_ylabel(f"obs {dimension['dimension']}")
