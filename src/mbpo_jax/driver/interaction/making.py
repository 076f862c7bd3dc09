"""Makes a Gymnasium environment from an id, or says what is wrong with the id or its wrappers."""

import difflib
import warnings
from typing import Any

import gymnasium

import mbpo_jax.environments  # noqa: F401  (registers the project's own ids)
from mbpo_jax.driver.interaction import rendering
from mbpo_jax.driver.interaction.spaces import Unfit

STATISTICS = frozenset({"obs_rms", "ret_rms", "return_rms", "reward_rms"})
"""Names under which wrappers of Gymnasium and of similar libraries keep a running mean and variance."""
RENDER_MODE = "rgb_array"


def make(env_id: str, max_episode_steps: int, renders: bool = False) -> gymnasium.Env:
    """Makes an environment with a time limit; 0 means its own.

    Args:
      renders: whether it must be able to render images.

    Raises:
      Unfit: there is no such environment, it has no time limit, or training and evaluation would see different values.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # "a newer version exists": v4 is chosen on purpose
            warnings.filterwarnings("ignore", ".*Using the latest versioned environment", UserWarning)
            env = _make(env_id, max_episode_steps)
            if renders:  # checked first: some that cannot render do not accept the argument
                _check_renders(env_id, env)
                env.close()
                env = _make(env_id, max_episode_steps, render_mode=RENDER_MODE)
    except Unfit:
        raise
    except Exception as error:
        raise _unfit(env_id, error) from error
    if env.spec is None or env.spec.max_episode_steps is None:
        raise Unfit(f"max_episode_steps must be given, 1 or more: env {env_id!r} has no time limit of its own, got 0")
    _check_wrappers(env_id, env)
    return env


def _unfit(env_id: str, error: Exception) -> Exception:
    """Returns what is wrong with the user's choice; the error itself if it is the environment's own."""
    if (no_backend := rendering.problem()) is not None:
        return Unfit(no_backend)
    if isinstance(error, gymnasium.error.Error | ImportError | ValueError):
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        unknown = isinstance(error, gymnasium.error.UnregisteredEnv | gymnasium.error.DeprecatedEnv)
        known = _like(env_id) if unknown else []
        close = f"; there are {', '.join(known)}" if known else ""
        return Unfit(f"env must be an installed Gymnasium id, got {env_id!r} ({first_line}{close})")
    if isinstance(error, TypeError) and "must inherit from the gymnasium.Env class" in str(error):
        actual = str(error).partition("actual class: ")[2].partition(". See")[0]
        return Unfit(f"env must be one gymnasium.Env, not a batch or another library's, got {env_id!r} ({actual})")
    return error


def _make(env_id: str, max_episode_steps: int, **knobs: Any) -> gymnasium.Env:
    return gymnasium.make(env_id, max_episode_steps=max_episode_steps or None, disable_env_checker=True, **knobs)


def _check_renders(env_id: str, env: gymnasium.Env) -> None:
    modes = list(env.metadata.get("render_modes") or [])
    if RENDER_MODE not in modes:
        raise Unfit(f"env must have the render mode {RENDER_MODE!r} to be filmed, got {env_id!r} with {modes}")


def _like(env_id: str) -> list[str]:
    """Returns the ids of that name, or else of the most similar names, except those that Gymnasium always refuses."""
    wanted = env_id.rpartition(":")[2]
    name = wanted.rpartition("-v")[0] or wanted
    ids: dict[str, list[str]] = {}
    for known, spec in gymnasium.registry.items():
        if not getattr(spec.entry_point, "__name__", "").startswith("_raise"):
            ids.setdefault(known.rpartition("-v")[0] or known, []).append(known)
    names = [name] if name in ids else difflib.get_close_matches(name, ids, n=2)
    return [known for one in names for known in ids[one]]


def _check_wrappers(env_id: str, env: gymnasium.Env) -> None:
    """Refuses running statistics: training and evaluation would each have their own, saved nowhere."""
    layer: gymnasium.Env | None = env
    while layer is not None:
        if _has_statistics(layer) and getattr(layer, "update_running_mean", True):
            raise Unfit(
                f"env must not keep running statistics, got {env_id!r} with {type(layer).__name__}: training and "
                "evaluation would each have their own, and a checkpoint none. Leave it out, scale by constants "
                "(gymnasium.wrappers.TransformObservation, TransformReward), or load its statistics and set its "
                "update_running_mean to False"
            )
        layer = layer.env if isinstance(layer, gymnasium.Wrapper) else None


def _has_statistics(layer: gymnasium.Env) -> bool:
    own = vars(layer)
    return not STATISTICS.isdisjoint(own) or any("RunningMeanStd" in type(value).__name__ for value in own.values())
