"""Measures how far an actor's gradient through a wrong model and critic is from the true one, over steps in the model.

The setting is a linear system with quadratic costs. There the critic is known exactly, and the true gradient is found
by Monte Carlo: rewards of long real rollouts take the place of the critic.

References: Clavera et al. 2020 (MAAC), whose Lemma 4.1 bounds this error by the sum of a term that grows with the
model's error and the number of steps, and a term that grows with the critic's error and falls with the steps.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from mbpo_jax.rollouts import pathwise
from mbpo_jax.studies.finding import Finding
from mbpo_jax.types import Agent, Array, Critic, Dynamics, Key, Transition

KEPT, MOVED = 0.9, 0.5  # s' = KEPT s + MOVED a + noise
NOISE_STD, POLICY_STD = 0.1, 0.1
ACTION_COST = 0.1  # reward -(s^2 + ACTION_COST a^2)
GAIN = 0.4  # the policy: a = -GAIN s + noise; the gradient is with respect to GAIN
DISCOUNT = 0.95
REAL_STEPS = 100  # of the rollouts that take the critic's place
NUM_ROWS = 4000  # start states; all gradients use the same ones, and the same noise
SIGNS = (1.0, -1.0)


def study(num_steps: int = 12, model_error: float = 0.05, critic_error: float = 0.5) -> Finding:
    """Measures the relative error of the gradient for 1 to `num_steps` steps in the model, averaged over error signs.

    Args:
      model_error: added to both coefficients of the dynamics in the model.
      critic_error: share by which the critic overestimates later costs.
    """
    cases = {
        "wrong model, exact critic": (model_error, 0.0),
        "exact model, wrong critic": (0.0, critic_error),
        "both wrong": (model_error, critic_error),
    }
    steps = list(range(1, num_steps + 1))
    true = [gradient(number, True, 0.0, 0.0) for number in steps]

    def error(number: int, truth: Array, model_offset: float, critic_share: float) -> float:
        wrong = [gradient(number, False, a * model_offset, b * critic_share) for a in SIGNS for b in SIGNS]
        return float(np.mean(np.abs(np.asarray(wrong) / truth - 1.0)))

    errors = {
        name: [error(number, truth, *wrong) for number, truth in zip(steps, true, strict=True)]
        for name, wrong in cases.items()
    }
    return present({"model_error": model_error, "critic_error": critic_error, "steps": steps, "errors": errors})


@functools.partial(jax.jit, static_argnums=(0, 1))
def gradient(num_steps: int, is_real: bool, model_error: float, critic_error: float) -> Array:
    """Returns the derivative [] of the start states' value with respect to the gain, through `num_steps` model steps.

    Args:
      is_real: whether real rewards, of the policy with GAIN, take the place of the critic.
      model_error, critic_error: see `study`.
    """
    key_start, key_path = jax.random.split(jax.random.key(0))
    start = jax.random.normal(key_start, (NUM_ROWS, 1))
    rows = Transition(obs=start, action=start, reward=start[:, 0], next_obs=start, terminal=start[:, 0])
    q = functools.partial(real_q, key_path) if is_real else functools.partial(exact_q, 1.0 + critic_error)
    agent = Agent(None, None, None, None, critic=Critic(q, q, None), draw=draw)  # type: ignore[arg-type]
    dynamics = linear(KEPT + model_error, MOVED + model_error)

    def value(gain: Array) -> Array:
        return -pathwise.actor_loss(dynamics, agent, num_steps, DISCOUNT, key_path, gain, None, rows)[0]

    return jax.grad(value)(GAIN)


def linear(kept: Array | float, moved: Array | float) -> Dynamics:
    """Returns the system with these coefficients, which never terminates."""

    def step(key: Key, group: Array, obs: Array, action: Array) -> tuple[Array, Array, Array]:
        next_obs = kept * obs + moved * action + NOISE_STD * jax.random.normal(key, obs.shape)
        return next_obs, cost(obs, action), jnp.zeros(len(obs), bool)

    return Dynamics(step)


def cost(obs: Array, action: Array) -> Array:
    """Returns the reward [B]."""
    return -jnp.square(obs[:, 0]) - ACTION_COST * jnp.square(action[:, 0])


def draw(key: Key, state: None, gain: Array, obs: Array) -> tuple[Array, Array, Array]:
    """Returns actions of the policy with a gain; the value contains no entropy."""
    nothing = jnp.zeros(len(obs))
    return -gain * obs + POLICY_STD * jax.random.normal(key, obs.shape), nothing, nothing


def exact_q(share: Array | float, state: None, obs: Array, action: Array) -> Array:
    """Returns the policy's action values [1, B] up to a constant, with later costs multiplied by `share`."""
    later = (1.0 + ACTION_COST * GAIN**2) / (1.0 - DISCOUNT * (KEPT - MOVED * GAIN) ** 2)  # cost of s is later * s^2
    next_mean = KEPT * obs[:, 0] + MOVED * action[:, 0]
    return (cost(obs, action) - share * DISCOUNT * later * jnp.square(next_mean))[None]


def real_q(key: Key, state: None, obs: Array, action: Array) -> Array:
    """Returns discounted returns [1, B] of real rollouts that begin with these actions and then follow the policy."""
    step = linear(KEPT, MOVED).step_fn

    def move(carry: tuple[Array, Array], number: Array) -> tuple[tuple[Array, Array], Array]:
        obs, action = carry
        key_move, key_action = jax.random.split(jax.random.fold_in(key, number))
        next_obs, reward, _ = step(key_move, jnp.zeros((), jnp.int32), obs, action)
        return (next_obs, draw(key_action, None, jnp.asarray(GAIN), next_obs)[0]), DISCOUNT**number * reward

    _, rewards = jax.lax.scan(move, (obs, action), jnp.arange(REAL_STEPS))
    return jnp.sum(rewards, axis=0)[None]


def present(numbers: dict[str, Any]) -> Finding:
    """Presents the numbers, as measured or as read back from their file, as a sentence and a figure."""
    steps, errors = numbers["steps"], numbers["errors"]
    parts = [
        f"{name} {values[0]:.2g} with 1 step, {values[-1]:.2g} with {steps[-1]}" for name, values in errors.items()
    ]
    best = steps[int(np.argmin(errors["both wrong"]))]
    sentence = f"Relative error of the actor's gradient: {'; '.join(parts)}. With both wrong, {best} steps are best."
    return Finding(sentence, numbers, _figure(numbers))


def _figure(numbers: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(5.6, 4.0), layout="constrained")
    axes = figure.subplots()
    for name, values in numbers["errors"].items():
        axes.plot(numbers["steps"], values, marker="o", markersize=3, label=name)
    axes.set(
        yscale="log",
        xlabel="steps in the model",
        ylabel="relative error of the actor's gradient",
        title=f"linear system: coefficients off by {numbers['model_error']:g}, later costs by "
        f"{numbers['critic_error']:.0%}",
    )
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    return figure
