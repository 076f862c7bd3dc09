"""Compares the numbers of this checkout with those of another one, to the last bit.

`python tests/slow/same_numbers.py OLD_CHECKOUT [ROW ...]` trains every row of the registry for some steps in both (one
seed and three, under both seed liftings), each with the sources of its own. It compares lines of metrics, policies and
the arrays of the last checkpoint. Arrays are matched by content, since their names may have changed; those that have no
equal are named. The exit status is 1 if there is a difference.
"""

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parents[2]
MOST_NAMES = 12  # that are printed
VOLATILE = ("seconds/", "compilations")
LEARNING = {
    "env": "InvertedPendulum-v5", "max_episode_steps": 5, "num_steps": 160, "log_every_steps": 20,
    "eval_every_steps": 80, "eval_episodes": 2, "checkpoint_every_steps": 160, "quiet": "true", "exploration_steps": 60,
    "updates_per_step": 3, "batch_size": 16, "hidden_units": 8, "num_hidden_layers": 1,
}  # fmt: skip
WITH_MODEL = {
    "min_replay_rows": 60, "replay_capacity": 100, "fit_every_steps": 50, "epoch_steps": 50, "rollout_batch": 64,
    "rollout_length_schedule": "0,2,1,3", "real_fraction": 0.25, "num_members": 3, "num_elites": 2,
    "model_hidden_units": 8, "model_weight_decays": "5e-5,1e-4", "model_batch_size": 16, "fit_slice_minibatches": 2,
    "fit_patience_epochs": 1, "fit_max_gradient_steps": 0, "retain_epochs": 1,
}  # fmt: skip
SINCE = {"fit_epoch_minibatches": 1}
"""Flags that do what checkouts that do not know them did."""
ROWS = {
    "mbpo": WITH_MODEL,
    "mbpo_ddpg": WITH_MODEL,
    "mbpo_td3": WITH_MODEL,
    "sac": {"replay_capacity": 1000},
    "ddpg": {"replay_capacity": 1000},
    "td3": {"replay_capacity": 1000},
}
ARRAYS = """
import sys, json, hashlib
from pathlib import Path
import flax.traverse_util, numpy as np
from mbpo_jax.driver.storage import checkpoint
saved = checkpoint.load(Path(sys.argv[1]))
flat = flax.traverse_util.flatten_dict(saved.arrays, sep="/")
digest = lambda x: hashlib.sha256(str((x.dtype, x.shape)).encode() + np.ascontiguousarray(x).tobytes()).hexdigest()
print(json.dumps({name: digest(np.asarray(array)) for name, array in flat.items()}))
"""


def run(checkout, *arguments):
    """Runs Python with the sources of a checkout; returns what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(Path(checkout) / "src")}
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{checkout}: {' '.join(arguments)[:300]}\n{done.stderr[-3000:]}")
    return done.stdout


def lines(run_dir):
    text = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith(VOLATILE)} for line in text]


def policies(run_dir):
    found = {}
    for path in sorted((run_dir / "policies").glob("*.npz")):
        with np.load(path) as archive:
            for name in archive.files:
                found[f"{path.name}/{name}"] = hashlib.sha256(archive[name].tobytes()).hexdigest()
    return found


def differences(old, new, old_dir, new_dir):
    """Yields a line for each kind of difference between two runs."""
    for i, (a, b) in enumerate(zip(lines(old_dir), lines(new_dir), strict=True)):
        names = [name for name in sorted(a) if a[name] != b.get(name)]  # new metrics are no difference
        if names:
            pairs = ", ".join(f"{name} {a.get(name)} -> {b.get(name)}" for name in names[:4])
            yield f"line {i} (step {a['step']}, seed {a['seed']}): {len(names)} metrics differ: {pairs}"
            break
    a, b = policies(old_dir), policies(new_dir)
    if a != b:
        yield f"policies differ: {[name for name in a.keys() | b.keys() if a.get(name) != b.get(name)][:5]}"
    a, b = (json.loads(run(checkout, "-c", ARRAYS, str(path))) for checkout, path in ((old, old_dir), (new, new_dir)))
    gone = [name for name, digest in a.items() if digest not in b.values()]
    came = [name for name, digest in b.items() if digest not in a.values()]
    if gone or came:
        yield f"{len(gone)} old arrays without an equal: {', '.join(gone[:MOST_NAMES])}"
        yield f"{len(came)} new arrays without an equal: {', '.join(came[:MOST_NAMES])}"


def flags_of(checkout, row, scratch, **changes):
    sources = "".join(path.read_text() for path in (Path(checkout) / "src").rglob("*.py"))
    known = {name: value for name, value in SINCE.items() if name in sources and ROWS[row] is WITH_MODEL}
    knobs = known | LEARNING | ROWS[row] | {"algorithm": row, "compile_cache": scratch / "cache"} | changes
    return [f"--{name}={value}" for name, value in knobs.items()]


def side_by_side(old, row, scratch, **changes):
    """Trains a row in both checkouts; returns what differs."""
    name = "-".join([row, *changes.values()])
    dirs = [scratch / f"{name}-{which}" for which in ("old", "new")]
    for checkout, path in zip((old, HERE), dirs):
        run(checkout, "-m", "mbpo_jax.main", *flags_of(checkout, row, scratch, **changes, run_dir=path))
    return list(differences(old, HERE, *dirs))


def resumed(old, row, scratch):
    """Trains half of a row in the old checkout and the rest of it in both; returns what differs."""
    half, rest = scratch / f"{row}-half", scratch / f"{row}-rest"
    run(old, "-m", "mbpo_jax.main", *flags_of(old, row, scratch, seeds="4", num_steps=110, run_dir=half))
    shutil.copytree(half, rest)
    for checkout, path in ((old, half), (HERE, rest)):
        run(checkout, "-m", "mbpo_jax.main", *flags_of(checkout, row, scratch, seeds="4", run_dir=path))
    return list(differences(old, HERE, half, rest))


def main(argv):
    old, rows, differ = Path(argv[0]).resolve(), argv[1:] or list(ROWS), False
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for row in rows:
            comparisons = {
                f"seeds {seeds}, {lifting}": functools.partial(
                    side_by_side, old, row, scratch, seeds=seeds, seed_lifting=lifting
                )
                for seeds in ("4", "4,5,6")
                for lifting in ("each", "vmap")
            } | {"begun by the old one, resumed": functools.partial(resumed, old, row, scratch)}
            for name, compare in comparisons.items():
                found = compare()
                print("\n  ".join([f"{row}, {name}: {'DIFFERENT' if found else 'equal'}", *found]), flush=True)
                differ = differ or bool(found)
    return int(differ)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
