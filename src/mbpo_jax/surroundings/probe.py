"""Reports what jax sees, as one line of JSON: `python -m mbpo_jax.surroundings.probe [RUN_DIR]`.

Runs in a process of its own, because jax may raise, hang or end the process in unusual surroundings.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import jax

from mbpo_jax.driver import compile_cache
from mbpo_jax.driver.config import AUTO, StorageFailure
from mbpo_jax.driver.storage import checkpoint, run_json

SETTINGS = (
    *("jax_platforms", "jax_enable_x64", "jax_default_matmul_precision", "jax_numpy_rank_promotion"),
    *("jax_numpy_dtype_promotion", "jax_debug_nans", "jax_debug_infs", "jax_disable_jit", "jax_num_cpu_devices"),
    *("jax_default_prng_impl", "jax_threefry_partitionable", "jax_log_compiles"),
)


def main() -> int:
    """Prints the report; returns 0."""
    found: dict[str, Any] = {
        "devices": [f"{device.platform} {device.id} ({device.device_kind})" for device in jax.devices()],
        "backend": jax.default_backend(),
        "settings": {name: jax.config.values[name] for name in SETTINGS if name in jax.config.values},
        "cache": _cache(),
        "run": _run(Path(sys.argv[1])) if len(sys.argv) > 1 else None,
    }
    print(json.dumps(found, default=str))
    return 0


def _cache() -> dict[str, Any]:
    """Returns where compiled programs are kept, and how many there are."""
    problem = compile_cache.use(AUTO)
    folder = jax.config.values["jax_compilation_cache_dir"]
    sizes = [entry.stat().st_size for entry in os.scandir(folder) if entry.is_file()] if folder and not problem else []
    return {"problem": problem, "folder": folder, "files": len(sizes), "bytes": sum(sizes)}


def _run(run_dir: Path) -> dict[str, Any]:
    """Returns what a run directory holds, or why it cannot be read."""
    try:
        saved = run_json.read_config(run_dir)
        return {
            "algorithm": saved.run.algorithm,
            "env": saved.run.env,
            "seeds": saved.run.seeds,
            "checkpoints": checkpoint.steps(run_dir),
            "notices": run_json.check_same(saved, saved.run, saved.algorithm),
        }
    except (StorageFailure, OSError, ValueError) as error:
        return {"problem": " ".join(str(error).split())}


if __name__ == "__main__":
    sys.exit(main())
