"""Deep deterministic policy gradients (DDPG): TD3's update with one critic, no noise on targets, and no delay.

This is what Fujimoto et al. 2018 call "our DDPG" (sfujim/TD3@6a9f761, OurDDPG.py). Lillicrap et al. 2015 differ:
exploration noise is an Ornstein-Uhlenbeck process (theta 0.15, sigma 0.2), the critic has weight decay (1e-2) and a
step size of 1e-3, the actor one of 1e-4, the target update rate is 0.001, batches have 64 rows, and layers have 400 and
300 units with the action entering at the second, batch normalisation where observations are low-dimensional, and final
weights of 3e-3.

References: Lillicrap et al. 2015, "Continuous control with deep reinforcement learning", Algorithm 1.
"""

import dataclasses

from mbpo_jax.agents import td3
from mbpo_jax.options import option
from mbpo_jax.types import Agent, Spec


@dataclasses.dataclass(frozen=True)
class DdpgConfig(td3.DeterministicConfig):
    """Knobs of DDPG."""

    num_critics: int = option(1, "Number of critics; targets use the smallest of their values.", minimum=1, maximum=100)


def build(config: DdpgConfig, spec: Spec) -> Agent:
    """Builds DDPG for the observations of a task and its actions, in [-1, 1]."""
    knobs = dataclasses.asdict(config)
    return td3.build(td3.Td3Config(**knobs, target_noise_std=0.0, target_noise_clip=0.0, actor_every_updates=1), spec)
