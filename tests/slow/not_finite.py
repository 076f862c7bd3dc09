"""Numbers that are not finite, planted in seven places of a run: what is named, and how soon."""

import json
import os
import re
import shutil
from pathlib import Path

import children
import numpy as np
from children import tiny_runs

from mbpo_jax.driver.storage.checkpoint import Checkpoints

DIVERGED, ENVIRONMENT = 4, 5
BEFORE_UPDATE, BEFORE_FIT = 100, 109  # steps: the next one updates the agent; and begins with a fit
WHERE = re.compile(r"(?:environment step|finite at step|at step) (\d+)")
NAN = np.float32("nan")


def actor_weight(state, replay):
    state["agent"]["actor"]["params"]["_Mlp_0"]["Dense_0"]["kernel"][0, 0] = NAN


def critic_weight(state, replay):
    state["agent"]["critics"]["params"]["_Mlp_0"]["Dense_0"]["kernel"][1, 0, 0] = NAN


def adam_moment(state, replay):
    """What a gradient that was not finite leaves behind."""
    state["agent"]["actor"]["opt_state"]["0"]["mu"]["_Mlp_0"]["Dense_0"]["bias"][0] = NAN


def member_weight(state, replay):
    state["model"]["members"]["params"]["layer_0"]["kernel"][1, 0, 0] = NAN


def real_row(state, replay):
    replay["rows"]["next_obs"][7, 1] = NAN


def imagined_rows(state, replay):
    """Half of them, so that the next batch has some."""
    state["imagined"]["rows"]["reward"][::2] = NAN


# place: what plants it, step of the checkpoint, what must be named
PLACES = {
    "a weight of the actor": (actor_weight, BEFORE_UPDATE, "action|actor"),
    "a weight of critic 1": (critic_weight, BEFORE_UPDATE, "critic"),
    "a moment of Adam of the actor": (adam_moment, BEFORE_UPDATE, "actor"),
    "a weight of member 1": (member_weight, BEFORE_FIT, "member 1"),
    "a real row": (real_row, BEFORE_FIT, "real row"),
    "imagined rows": (imagined_rows, BEFORE_UPDATE, "imagined row"),
}
WORLDS = {
    "an observation of the environment": ("odd_worlds:odd/NanObs-v0", "observation .*nan", 2),
    "a reward of the environment": ("odd_worlds:odd/NanReward-v0", "reward nan", 4),
}


def nan(options):
    """Each is named at the next step, none is saved, and what was saved before is whole."""
    driver = Path(__file__).parents[1] / "driver"  # where odd_worlds are
    os.environ["PYTHONPATH"] = os.pathsep.join([str(driver), os.environ.get("PYTHONPATH", "")])
    with children.workshop() as folder:
        runs = {}
        for step in (BEFORE_UPDATE, BEFORE_FIT):
            runs[step] = folder / f"until_{step}"
            children.finish_well(children.words(runs[step], folder / "cache", seeds=1, num_steps=step))
        results = [_planted(folder, runs, name, *place) for name, place in PLACES.items()]
        results += [_observed(folder, name, *world) for name, world in WORLDS.items()]
    return children.verdict(all(results), f"{sum(results)} of {len(results)} places were named at the next step")


def _planted(folder, runs, name, plant, step, named):
    run_dir = folder / "planted"
    shutil.rmtree(run_dir, ignore_errors=True)
    shutil.copytree(runs[step], run_dir)
    checkpoints = Checkpoints(run_dir, 100, _identity(run_dir))
    saved = checkpoints.restore_latest()
    plant(saved.arrays["1"]["state"], saved.arrays["1"]["replay"])
    checkpoints.save(step, saved.arrays, saved.record)
    process = children.finish(children.words(run_dir, folder / "cache", seeds=1, checkpoint_every_steps=1))
    left = {path.name for path in (run_dir / "checkpoints").iterdir()}
    return _judge(name, process, DIVERGED, named, step + 1) and f"{step + 1}" not in left


def _observed(folder, name, env, named, step):
    """`step` is that of the second episode, in which the fault comes; episodes have five."""
    run_dir = folder / "observed"
    shutil.rmtree(run_dir, ignore_errors=True)
    knobs = {"env": env, "max_episode_steps": 0, "env_nonfinite_episodes": 0, "checkpoint_every_steps": 1}
    process = children.finish(children.words(run_dir, folder / "cache", tiny_runs.SAC, seeds=1, **knobs))
    saved = tiny_runs.saved(run_dir)
    rows = saved.arrays["1"]["replay"]["rows"]
    finite = all(np.isfinite(leaf).all() for leaf in rows.values())
    return _judge(name, process, ENVIRONMENT, named, step) and finite and saved.record["step"] == 5 + step - 1


def _judge(name, process, status, named, step):
    text = process.stderr.strip().splitlines()[-1]
    steps = [int(number) for number in WHERE.findall(text)]
    good = process.returncode == status and re.search(named, text) is not None and steps[:1] == [step]
    good = good and "Traceback" not in process.stderr
    print(f"{name}: exit {process.returncode}, {'' if good else 'NOT AS PROMISED '}{text}", flush=True)
    return good


def _identity(run_dir):
    newest = max((path for path in (run_dir / "checkpoints").iterdir()), key=lambda path: float(path.name))
    return json.loads((newest / "manifest.json").read_text())["content"]["identity"]
