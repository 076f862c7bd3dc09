"""PETS: at each step, a planner searches a learned ensemble for actions with a high return, and takes the first.

References: Chua et al. 2018, "Deep Reinforcement Learning in a Handful of Trials using Probabilistic Dynamics Models";
official code kchua/handful-of-trials. Differences: docs/planning.md.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import struct

from mbpo_jax import planners
from mbpo_jax.algorithms import particle_propagation, phases, reporting
from mbpo_jax.models import deterministic, gaussian, gp, world
from mbpo_jax.models.encoding import Encoding, forward
from mbpo_jax.models.gp_state import GpConfig
from mbpo_jax.models.observations import encode_observations
from mbpo_jax.models.state import GaussianConfig
from mbpo_jax.options import check, chosen_section, option, values
from mbpo_jax.planners.cem import CemConfig
from mbpo_jax.planners.planner import Planner
from mbpo_jax.rollouts import particles
from mbpo_jax.types import Algorithm, Array, Key, Phase, PyTree, Spec, WorldModel

MEMBERS = {"gaussian": gaussian.member, "deterministic": deterministic.member}
GP = "gp"
NO_NUMBERS = "none"


@dataclasses.dataclass(frozen=True)
class PetsConfig:
    """Knobs of PETS. The defaults are for tasks without tuned settings; the paper's are in experiments/."""

    exploration_steps: int = option(200, "Environment steps of uniformly random actions before planning.", minimum=1)
    replay_capacity: int = option(100_000, "Maximum number of real rows kept; new rows replace the oldest.", minimum=1)
    fit_every_steps: int = option(200, "Environment steps between model fits.", minimum=1)
    horizon: int = option(25, "Steps planned ahead.", minimum=1)
    num_particles: int = option(20, "Imagined trajectories of each candidate.", minimum=1)
    member: str = option(
        "gaussian",
        "Kind of networks in the ensemble; or gp, one Gaussian process for each target.",
        choices=(*MEMBERS, GP),
    )
    propagation: str = option(
        particle_propagation.TSINF,
        "How particles move: by one member each, new at each step (ts1) or always the same (tsinf); by the mean of all "
        "members (expectation; one particle is enough); by a draw from the moments of all members (ds), or of all "
        "particles of a candidate (mm).",
        choices=particle_propagation.KINDS,
    )
    angles: str = option(
        NO_NUMBERS,
        "Observations that are angles, as indices from 0, separated by commas: the model sees their sine and cosine.",
    )
    absolute_targets: str = option(
        NO_NUMBERS,
        "Observations, in the same form, that the model predicts directly, not as a change, and does not see: for "
        "example a speed computed from two positions.",
    )
    termination_fn: str = option("auto", phases.TERMINATION_HELP)
    reward_fn: str = option("learned", phases.REWARD_HELP)
    planner: planners.PlannerConfig = chosen_section(CemConfig(), "Search for the actions.", planners.CONFIG_CLASSES)
    model: GaussianConfig = GaussianConfig(
        num_members=5, num_elites=5, model_weight_decays=(1e-4, 2.5e-4, 2.5e-4, 5e-4)
    )

    gp: GpConfig = GpConfig()

    def __post_init__(self) -> None:
        check(self)
        observation_numbers(self)
        check_member(self)
        if self.model.num_elites != self.model.num_members:
            raise ValueError(
                f"model.num_elites must be num_members ({self.model.num_members}), because every member plans, got "
                f"{self.model.num_elites}"
            )
        if self.propagation in particle_propagation.SAMPLED and self.num_particles % self.model.num_members:
            raise ValueError(
                f"num_particles must be a multiple of num_members ({self.model.num_members}) with propagation="
                f"{self.propagation}, got {self.num_particles}"
            )


TINY = {
    "exploration_steps": 40, "replay_capacity": 400, "fit_every_steps": 10, "horizon": 2, "num_particles": 4,
    "planner.num_candidates": 6, "planner.elite_candidates": 2, "planner.iterations": 2,
    "model.num_members": 2, "model.num_elites": 2, "model.model_hidden_units": 8,
    "model.model_weight_decays": (5e-5, 1e-4), "model.fit_epoch_minibatches": 1,
}  # fmt: skip
"""Changes to the defaults, by full path, with which tests run every phase within seconds."""


class PetsState(struct.PyTreeNode, kw_only=True):
    """Everything the phases read, apart from the real rows."""

    model: PyTree  # an EnsembleState or a GpState, or a ModelWithEnds around one


class Plan(struct.PyTreeNode, kw_only=True):
    """What is carried from step to step of an episode."""

    planner: PyTree  # what the next search starts from
    draws: Array  # [2], uint32: data of the key for planning without exploration
    step: Array  # [], int32, of the episode


def check_member(config: PetsConfig) -> None:
    """Checks that the kind of model goes with the other knobs.

    Raises:
      ValueError: knobs of the other kind of model were changed; or `propagation` is ts1 or tsinf, which need the
        members of an ensemble, with member=gp.
    """
    unread = "model" if config.member == GP else "gp"
    default = values(getattr(PetsConfig, unread))
    for name, value in values(getattr(config, unread)).items():
        if value != default[name]:
            raise ValueError(f"{unread}.{name} is not read with member={config.member}; leave it out, got {value!r}")
    if config.member == GP and config.propagation in particle_propagation.SAMPLED:
        raise ValueError(
            f"propagation must be one of {', '.join(particle_propagation.JOINT)} with member={GP}, which has no "
            f"members that move particles, got {config.propagation!r}"
        )


def observation_numbers(config: PetsConfig) -> dict[str, tuple[int, ...]]:
    """Returns the indices of angles and of observations predicted absolutely, by the names of their knobs.

    Raises:
      ValueError: a knob does not hold distinct indices, or both hold the same one.
    """
    numbers = {name: _numbers(name, getattr(config, name)) for name in ("angles", "absolute_targets")}
    both = set(numbers["angles"]) & set(numbers["absolute_targets"])
    if both:
        raise ValueError(
            f"absolute_targets must not be angles, got absolute_targets={config.absolute_targets} with "
            f"angles={config.angles}"
        )
    return numbers


def _numbers(name: str, text: str) -> tuple[int, ...]:
    numbers = [] if text == NO_NUMBERS else text.split(",")
    if not all(number.strip().isdecimal() for number in numbers) or len(set(map(int, numbers))) < len(numbers):
        raise ValueError(f"{name} must be none, or distinct whole numbers from 0 on, separated by commas, got {text!r}")
    return tuple(map(int, numbers))


def build(config: PetsConfig, spec: Spec) -> Algorithm:
    """Builds PETS with the config's planner.

    Raises:
      ValueError: the spec has no termination function, and none is to be learnt; or plans are longer than episodes; or
        an index in `angles` or `absolute_targets` is out of range.
    """
    if spec.max_episode_steps is not None and config.horizon > spec.max_episode_steps:
        raise ValueError(
            f"horizon must be at most the steps of an episode ({spec.max_episode_steps}), got {config.horizon}"
        )
    encoding = encoding_of(config, spec)
    model = phases.with_ends(_world(config, encoding), spec, config.termination_fn)
    planner = planners.build(config.planner, config.horizon, spec.action_dim)
    fit = phases.fit_model(model)
    if model.ends is None:  # a learnt one reports its own precision and recall
        fit = reporting.with_rule(fit, lambda state: phases.known_rule(spec))
    dynamics = functools.partial(
        particle_propagation.dynamics, config.propagation, model, encoding, spec, config.num_particles
    )

    def act(key: Key, belief: PyTree, carry: Plan, obs: Array, explore: bool) -> tuple[Array, Plan]:
        if not explore:  # the plan does not depend on the key that is passed in
            key = jax.random.fold_in(jax.random.wrap_key_data(carry.draws), carry.step)
        reassign = config.propagation == particle_propagation.TS1
        score = functools.partial(particles.score, dynamics(belief), obs, config.num_particles, reassign)
        actions, plan = planner.plan(key, carry.planner, score)
        return actions[0], carry.replace(planner=plan, step=carry.step + 1)

    return Algorithm(
        init=lambda key: PetsState(model=model.init(key)),
        actor=lambda state: model.belief(state.model),
        begin_episode=functools.partial(begin_episode, planner),
        act=act,
        phases=(Phase("fit_model", config.fit_every_steps, config.exploration_steps, fit),),
        exploration_steps=config.exploration_steps,
        replay_capacity=config.replay_capacity,
        dynamics=lambda state: phases.learned_dynamics(model, model.belief(state.model), spec),
        acts_on_device=True,
    )


def _world(config: PetsConfig, encoding: Encoding) -> WorldModel:
    if config.member == GP:
        return gp.build(config.gp, encoding)
    return world.build(config.model, MEMBERS[config.member](config.model, encoding), encoding)


def encoding_of(config: PetsConfig, spec: Spec) -> Encoding:
    """Returns the encoding of the model's inputs and targets.

    Raises:
      ValueError: an index is out of range.
    """
    numbers = observation_numbers(config)
    for name, those in numbers.items():
        if max(those, default=0) >= spec.obs_dim:
            raise ValueError(
                f"{name} must be indices of observations, 0 to {spec.obs_dim - 1}, got {getattr(config, name)!r}"
            )
    encoding, angles, absolute = forward(spec), numbers["angles"], numbers["absolute_targets"]
    return encode_observations(encoding, angles, absolute) if angles or absolute else encoding


def begin_episode(planner: Planner, key: Key, belief: PyTree) -> Plan:
    """Returns the plan with which an episode starts."""
    return Plan(planner=planner.init(), draws=jax.random.key_data(key), step=jnp.zeros((), jnp.int32))
