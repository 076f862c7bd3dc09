import compiled
import jax
import numpy as np
import pytest

from mbpo_jax import agents, health
from mbpo_jax.agents.ddpg import DdpgConfig
from mbpo_jax.agents.sac import SacConfig
from mbpo_jax.agents.td3 import Td3Config
from mbpo_jax.algorithms import model_free
from mbpo_jax.types import Spec, Transition

SPEC = Spec(obs_dim=2, action_dim=1)
KNOBS = {"exploration_steps": 70, "replay_capacity": 100, "updates_per_step": 3, "batch_size": 8}
SMALL = {"hidden_units": 8, "num_hidden_layers": 1}
CONFIGS = {
    "sac": model_free.ModelFreeConfig(**KNOBS, agent=SacConfig(**SMALL)),
    "ddpg": model_free.ModelFreeConfig(**KNOBS, agent=DdpgConfig(**SMALL)),
    "td3": model_free.ModelFreeConfig(**KNOBS, agent=Td3Config(**SMALL)),
}
ROWS = Transition(
    obs=np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32),
    action=np.random.default_rng(1).uniform(-1, 1, (40, 1)).astype(np.float32),
    reward=np.arange(40, dtype=np.float32),
    next_obs=np.random.default_rng(2).normal(size=(40, 2)).astype(np.float32),
    terminal=np.zeros(40, np.float32),
)


@pytest.mark.parametrize("name", CONFIGS)
def test_an_agent_learns_on_real_rows_at_every_step_after_exploration(name):
    config = CONFIGS[name]
    algorithm, agent, key = model_free.build(config, SPEC), agents.build(config.agent, SPEC), jax.random.key(5)
    (phase,) = algorithm.phases
    assert (phase.name, phase.every, phase.first) == ("update_agent", 1, 70)
    assert (algorithm.exploration_steps, algorithm.replay_capacity) == (70, 100)
    state, real = jax.jit(algorithm.init)(jax.random.key(0)), compiled.filled(SPEC, 100, ROWS)
    update = jax.jit(phase.programs.functions[0])
    after, report = update(key, state, real)
    key_batches, key_update = jax.random.split(key)
    batches = compiled.sample(key_batches, real, (3, 8))
    wanted, wanted_report = jax.jit(agent.update)(key_update, state.agent, batches)
    for a, b in zip(jax.tree.leaves(after.agent), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert report.metrics.keys() == wanted_report.metrics.keys()
    assert health.describe(compiled.first_fault(report.watched)) is None
    # and a row that is not finite is named, where it is drawn first
    late = int(batches.reward[1, 0])
    first = int(np.argmax((np.asarray(batches.reward) == late).any(1))) + 1
    rows = real.rows.replace(obs=real.rows.obs.at[late].set(np.nan))
    _, report = update(key, state, real.replace(rows=rows))
    assert health.describe(compiled.first_fault(report.watched)) == f"a real row is not finite (nan) at update {first}"
