"""Plain soft actor-critic: one update per environment step on real rows, no model.

References: Haarnoja et al. 2018b.
"""

import dataclasses

import jax
from flax import struct

from mbpo_jax import health, replay
from mbpo_jax.agents import sac
from mbpo_jax.options import check, option
from mbpo_jax.replay import Replay
from mbpo_jax.types import Algorithm, Array, Key, Metrics, Phase, Programs, PyTree, Spec


@dataclasses.dataclass(frozen=True)
class SacRunConfig:
    """Knobs of SAC as an algorithm of its own."""

    exploration_steps: int = option(5000, "Environment steps of uniformly random actions before learning.", minimum=1)
    replay_capacity: int = option(1_000_000, "Most real rows kept.", minimum=1)
    updates_per_step: int = option(1, "Agent updates per environment step.", minimum=1)
    batch_size: int = option(256, "Rows of an agent update.", minimum=1)
    agent: sac.SacConfig = sac.SacConfig()

    def __post_init__(self) -> None:
        check(self)


class SacRunState(struct.PyTreeNode, kw_only=True):
    """Everything that the phase reads, the real rows aside."""

    agent: sac.SacState


def build(config: SacRunConfig, spec: Spec) -> Algorithm:
    """SAC as an algorithm."""
    agent = sac.build(config.agent, spec)

    def init(key: Key) -> SacRunState:
        return SacRunState(agent=agent.init(key))

    def act(key: Key, actor: PyTree, carry: tuple[()], obs: Array, explore: bool) -> tuple[Array, tuple[()]]:
        return agent.act(key, actor, obs, explore), carry

    def update_agent(key: Key, state: SacRunState, real: Replay) -> tuple[SacRunState, Metrics]:
        key_batches, key_update = jax.random.split(key)
        batches = replay.sample(key_batches, real, (config.updates_per_step, config.batch_size))
        agent_state, metrics = agent.update(key_update, state.agent, batches)
        of_rows = health.first_trouble(("a real row",), health.magnitude(batches, keep=1)[:, None])
        return state.replace(agent=agent_state), health.precede(metrics, of_rows)

    return Algorithm(
        init=init,
        actor=lambda state: agent.actor(state.agent),
        begin_episode=lambda actor: (),
        act=act,
        phases=(Phase("update_agent", 1, config.exploration_steps, Programs((update_agent,))),),
        exploration_steps=config.exploration_steps,
        replay_capacity=config.replay_capacity,
    )
