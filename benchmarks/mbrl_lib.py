"""Times MBPO's fit, rollout and agent update, and PETS's search, beside mbrl-lib's, in turn in one process.

    python benchmarks/mbrl_lib.py [--seconds=20] [--phases=model_fit,model_rollout,sac_update,plan]

One JSON line per phase. MBPO's sizes are those of HalfCheetah: 7 networks of 4 x 200, batches of 256 rows, SAC with
2 x 256 units, 25,000 real rows and 100,000 imagined ones. `plan` is one action of experiments/pets_cartpole.flags: 5
iterations of CEM, 400 candidates, 20 particles of 25 steps, 5 networks of 3 x 500. `ratio_to_theirs` is the median over
rounds of our rate over theirs in the same round. Unless `plan` is alone, the last line is the work of 1,000 environment
steps (15,000 gradient steps, 400,000 rows, 40,000 updates) at these rates.

mbrl-lib is no dependency. Its release pins versions that no longer install, so it wants an environment of its own:

    pip install mbrl==0.2.0 torch && pip install "hydra-core>=1.3" "omegaconf>=2.3" && pip install -e .

What differs: mbrl-lib keeps rows in NumPy and casts each batch; in the update its rows are all real, 5 % of ours are;
its fit judges held-out rows once more, before the first epoch; ours watches for numbers that are not finite. In the
search, its networks see the angle itself, and do not predict the reward, which is known: 5 inputs and 4 outputs, not 6
and 5.
"""

import argparse
import importlib.metadata
import json
import os
import statistics
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

import peers
import phases
from mbpo_jax.driver.seeds import use_cores
from mbpo_jax.launch import flags

ROWS, BATCH, HIDDEN_UNITS = 25_000, 256, 256
FIT_EPOCHS, STEPS_OF_EPOCH = 2, 79  # gradient steps on batches of 256 of the 20,000 rows that are not held out
STARTS = 100_000
UPDATES = 40
WORK_OF_1000_STEPS = {"model_fit": 15_000, "model_rollout": 400_000, "sac_update": 40_000}
PETS = "pets_cartpole"


class Pair(NamedTuple):
    """The same work of both, made ready."""

    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    units: float
    unit: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="Least measured time of each, per phase.")
    parser.add_argument(
        "--phases", default=",".join((*WORK_OF_1000_STEPS, phases.PLAN)), help="Which, separated by commas."
    )
    given = parser.parse_args()
    load_before = round(os.getloadavg()[0], 2)
    use_cores(1)
    seconds: dict[str, list[float]] = {}
    chosen = given.phases.split(",")
    theirs = MbrlLib() if set(chosen) & set(WORK_OF_1000_STEPS) else None
    for phase in chosen:
        pair = search() if phase == phases.PLAN else prepare(phase, theirs)
        times = peers.measure([contender(pair.ours), contender(pair.theirs)], given.seconds)
        rates = [[pair.units / t for t in spent] for spent in times]
        ratios = statistics.quantiles([t / own for own, t in zip(*times)], n=4)
        per_unit = [statistics.median(spent) / pair.units for spent in times]
        seconds[phase] = [WORK_OF_1000_STEPS.get(phase, 0) * each for each in per_unit]
        report = {
            "phase": phase,
            "unit": pair.unit,
            "ours": round(statistics.median(rates[0]), 1),
            "theirs": round(statistics.median(rates[1]), 1),
            "ratio_to_theirs": round(ratios[1], 2),
            "ratio_quartiles": [round(ratios[0], 2), round(ratios[2], 2)],
            "rounds": len(times[0]),
        }
        print(json.dumps(report), flush=True)
    ours, others = (sum(each) for each in zip(*seconds.values()))
    versions = {"mbpo_jax": importlib.metadata.version("mbpo-jax"), "mbrl": importlib.metadata.version("mbrl")}
    epoch = {"1000_steps_ours_s": round(ours), "1000_steps_theirs_s": round(others)}
    epoch = epoch | {"ratio": round(others / ours, 2)} if ours else {}
    print(json.dumps(epoch | versions | peers.machine() | {"load_before": load_before}), flush=True)


def contender(call: Callable[[], Any]) -> peers.Contender:
    return peers.Contender("", "", call)


def prepare(phase: str, theirs: "MbrlLib") -> Pair:
    """The two works of a phase."""
    case = phases.Case(real_rows=ROWS, model_rows=STARTS)
    if phase == "model_fit":
        steps = FIT_EPOCHS * STEPS_OF_EPOCH
        _, _, call = phases.phase_of(
            "fit_model", case, fit_max_gradient_steps=steps, fit_patience_epochs=steps, fit_improvement=0.0
        )
        return Pair(call, theirs.fit, steps, "gradient_steps/s")
    if phase == "model_rollout":
        _, _, call = phases.phase_of("roll_out", case, rollout_batch=STARTS)
        return Pair(call, theirs.roll_out, STARTS, "rows/s")
    _, _, call = phases.phase_of("update_agent", case, updates_per_step=UPDATES)
    return Pair(call, theirs.update, UPDATES, "updates/s")


class MbrlLib:
    """Ensemble, buffers and SAC of mbrl-lib at the sizes above, its buffer filled with real steps."""

    def __init__(self) -> None:
        import gymnasium
        import torch
        from mbrl import models, util
        from mbrl.env import termination_fns
        from mbrl.planning.sac_wrapper import SACAgent
        from mbrl.third_party.pytorch_sac_pranz24.sac import SAC

        env = gymnasium.make(peers.ENV)
        (obs_dim,), (action_dim,) = env.observation_space.shape, env.action_space.shape
        rows = peers.random_steps()
        self.real = filled(util.ReplayBuffer, rows, ROWS)
        self.imagined = filled(util.ReplayBuffer, rows, STARTS)
        network = models.GaussianMLP(
            obs_dim + action_dim,
            obs_dim + 1,
            "cpu",
            num_layers=4,
            ensemble_size=7,
            hid_size=200,
            propagation_method="random_model",
            activation_fn_cfg={"_target_": "torch.nn.SiLU"},
        )
        self.model = models.OneDTransitionRewardModel(
            network, target_is_delta=True, normalize=True, normalize_double_precision=True, num_elites=5
        )
        self.trainer = models.ModelTrainer(self.model, optim_lr=1e-3, weight_decay=1e-5)
        generator = torch.Generator("cpu")
        self.model_env = models.ModelEnv(env, self.model, termination_fns.no_termination, generator=generator)
        knobs = SimpleNamespace(
            gamma=0.99,
            tau=0.005,
            alpha=0.2,
            policy="Gaussian",
            target_update_interval=1,
            automatic_entropy_tuning=True,
            target_entropy=-action_dim / 2,
            hidden_size=HIDDEN_UNITS,
            device="cpu",
            lr=3e-4,
        )
        self.sac = SAC(obs_dim, env.action_space, knobs)
        self.agent, self.updates = SACAgent(self.sac), 0

    def fit(self) -> None:
        """A fit of so many epochs, with scales of inputs and held-out rows as its own MBPO has them."""
        from mbrl.util.common import get_basic_buffer_iterators

        self.model.update_normalizer(self.real.get_all())
        train, held_out = get_basic_buffer_iterators(self.real, BATCH, 0.2, ensemble_size=7)
        self.trainer.train(train, held_out, num_epochs=FIT_EPOCHS, silent=True)

    def roll_out(self) -> None:
        """A rollout of one step from so many starts into the buffer."""
        from mbrl.algorithms.mbpo import rollout_model_and_populate_sac_buffer

        rollout_model_and_populate_sac_buffer(
            self.model_env, self.imagined, self.agent, self.imagined, True, rollout_horizon=1, batch_size=STARTS
        )

    def update(self) -> None:
        """So many updates."""
        for _ in range(UPDATES):
            self.sac.update_parameters(self.imagined, BATCH, self.updates, reverse_mask=True)
            self.updates += 1


def search() -> Pair:
    """One action of PETS, from the hanging pole."""
    import gymnasium
    import torch
    from mbrl import models
    from mbrl.env import termination_fns
    from mbrl.planning import CEMOptimizer

    from mbpo_jax import environments

    work = phases.prepare(phases.PLAN, phases.Case(PETS))
    _, config = flags.parse([f"--flagfile={phases.EXPERIMENTS / PETS}.flags"])
    environments.register_all()
    env = gymnasium.make("mbpo_jax/PetsCartpole-v0")
    network = models.GaussianMLP(
        env.observation_space.shape[0] + 1,
        env.observation_space.shape[0],
        "cpu",
        num_layers=len(config.model.model_weight_decays) - 1,
        ensemble_size=config.model.num_members,
        hid_size=config.model.model_hidden_units,
        propagation_method="fixed_model",
        activation_fn_cfg={"_target_": "torch.nn.SiLU"},
    )
    model = models.OneDTransitionRewardModel(network, target_is_delta=True, normalize=True, learned_rewards=False)
    model_env = models.ModelEnv(env, model, termination_fns.no_termination, reward_fn, torch.Generator("cpu"))
    planner, bound = config.planner, np.ones((config.horizon, 1))
    optimizer = CEMOptimizer(
        planner.iterations,
        planner.elite_candidates / planner.num_candidates,
        planner.num_candidates,
        -bound,
        bound,
        planner.smoothing,
        torch.device("cpu"),
        return_mean_elites=True,
    )
    obs, start = np.zeros(4, np.float32), torch.zeros(config.horizon, 1)

    def score(candidates: Any) -> Any:
        return model_env.evaluate_action_sequences(candidates, obs, config.num_particles)

    return Pair(work.call, lambda: optimizer.optimize(score, start), work.units, work.unit)


def reward_fn(action: Any, next_obs: Any) -> Any:
    """PETS's reward of its cart-pole, as mbrl-lib asks for it: [B, A], [B, O] to [B, 1]."""
    import torch

    aside, below = next_obs[:, 0] - 0.6 * torch.sin(next_obs[:, 1]), -0.6 * torch.cos(next_obs[:, 1]) - 0.6
    near = torch.exp(-(aside**2 + below**2) / 0.6**2)
    return (near - 0.01 * torch.sum((3.0 * action) ** 2, -1))[:, None]


def filled(buffer_class: Any, rows: Any, num_rows: int) -> Any:
    """A buffer of theirs with the rows again and again."""
    obs, action = np.asarray(rows.obs), np.asarray(rows.action)
    buffer = buffer_class(num_rows, obs.shape[1:], action.shape[1:], rng=np.random.default_rng(0))
    never = np.zeros(len(obs), bool)
    for _ in range(-(-num_rows // len(obs))):
        buffer.add_batch(obs, action, np.asarray(rows.next_obs), np.asarray(rows.reward), never, never)
    return buffer


if __name__ == "__main__":
    main()
