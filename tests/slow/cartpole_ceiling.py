"""Plays PETS's cart-pole with a planner and the simulator in place of a model: about what a perfect model would return.

`python tests/slow/cartpole_ceiling.py [EPISODES [PLANNER]]` prints the return of each episode; PLANNER is cem, as in
the paper, or icem. An episode takes some minutes.
"""

import sys

import jax
import mujoco
import numpy as np
from mujoco import rollout

from mbpo_jax import rewards
from mbpo_jax.environments import pets_cartpole
from mbpo_jax.planners import cem, icem
from mbpo_jax.planners.cem import CemConfig
from mbpo_jax.planners.icem import IcemConfig
from mbpo_jax.planners.planner import Planner
from mbpo_jax.types import Array, Key

HORIZON = 25
TIME_LIMIT = 200
PLANNERS = {
    "cem": cem.build(CemConfig(), HORIZON, action_dim=1),  # the paper's
    "icem": icem.build(IcemConfig(num_candidates=400, elite_candidates=20, iterations=5), HORIZON, action_dim=1),
}
SIMULATOR = mujoco.MjModel.from_xml_string(pets_cartpole.MODEL)


def main() -> None:
    num_episodes, name = (sys.argv[1:] + ["3", "cem"][len(sys.argv) - 1 :])[:2]
    for episode in range(int(num_episodes)):
        print(f"episode {episode}: {play(PLANNERS[name], episode):.1f}", flush=True)


def play(planner: Planner, episode: int) -> float:
    """Returns the return of an episode."""
    env = pets_cartpole.PetsCartpole()
    obs, _ = env.reset(seed=episode)
    carry, total = planner.init(), 0.0
    search = jax.jit(lambda key, carry, obs: planner.plan(key, carry, lambda _, actions: score(obs, actions)))
    for number in range(TIME_LIMIT):
        key: Key = jax.random.fold_in(jax.random.key(episode), number)
        actions, carry = search(key, carry, obs)
        obs, reward, *_ = env.step(pets_cartpole.MAX_CONTROL * np.asarray(actions[0]))
        total += reward
    return total


def score(obs: Array, actions: Array) -> Array:
    """Returns the sums of rewards [N] of action sequences [N, H, 1] from obs [4], the whole state of the simulator."""
    shape = jax.ShapeDtypeStruct((*actions.shape[:2], obs.size), obs.dtype)
    next_obs = jax.pure_callback(simulate, shape, obs, actions)
    return jax.numpy.sum(rewards.pets_cartpole(obs, actions, next_obs), axis=1)


def simulate(obs: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """Returns the observations [N, H, 4] that follow from actions [N, H, 1]."""
    data = mujoco.MjData(SIMULATOR)
    start = np.zeros((len(actions), mujoco.mj_stateSize(SIMULATOR, mujoco.mjtState.mjSTATE_FULLPHYSICS)))
    start[:, 1:5] = obs  # after the time
    control = np.repeat(pets_cartpole.MAX_CONTROL * np.asarray(actions), pets_cartpole.FRAME_SKIP, axis=1)
    states, _ = rollout.rollout(SIMULATOR, data, start, control)
    return np.asarray(states[:, pets_cartpole.FRAME_SKIP - 1 :: pets_cartpole.FRAME_SKIP, 1:5], obs.dtype)


if __name__ == "__main__":
    main()
