"""Prints what each program of an algorithm copies of its buffers, for one seed and for four under `vmap`.

    python tests/slow/buffer_copies.py [ALGORITHM ...]

One line for a program: bytes that it updates in place, bytes that it needs besides, and the whole buffers that its
compiled text copies or selects. tests/driver/test_phase_runner.py asserts the same of MBPO with TD3.
"""

import os
import re
import sys

os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")  # decides nothing about copies

import jax
import numpy as np

from mbpo_jax import options, replay
from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.driver.phase_runner import PhaseRunner
from mbpo_jax.driver.seeds import SeedAxis

LARGE = {"retain_epochs": 1000, "retain_rounds": 1000, "replay_capacity": 60_000}
"""Changes to the tiny configs, so that a buffer is larger than all else."""
MANY_ROWS = 30_000
ROWS = ("mbpo", "mbpo_td3", "bmpo", "mopo", "mve", "steve", "maac", "svg", "sac_svg", "double_horizon")


def programs(name: str, num_seeds: int):
    """Yields (phase, its program's number, what it compiles to, sizes of the large arrays)."""
    entry, axis = REGISTRY[name], SeedAxis(num_seeds, "vmap")
    config = entry.tiny_config()
    config = options.replace(config, {knob: value for knob, value in LARGE.items() if hasattr(config, knob)})
    algorithm = entry.build(config, entry.spec)
    roots = axis.keys(range(num_seeds))
    state = jax.eval_shape(axis.lift(algorithm.init), roots)
    capacity = algorithm.replay_capacity or LARGE["replay_capacity"]
    real = jax.eval_shape(axis.lift(lambda key: replay.init(entry.spec, capacity, episodes=True)), roots)
    sizes = {size for leaf in jax.tree.leaves((state, real)) for size in leaf.shape if size >= MANY_ROWS}
    for i, phase in enumerate(algorithm.phases):
        runner = PhaseRunner(axis, i, phase)
        if axis.batched:
            lowered = [program.lower(roots, 1, state, real, np.ones(num_seeds, bool)) for program in runner._active]
        else:
            lowered = [program.lower(roots[0], 1, state[0], real[0]) for program in runner._one]
        for number, program in enumerate(lowered):
            yield phase.name, number, program.compile({"xla_cpu_use_fusion_emitters": True}), sizes


def main() -> None:
    for name in sys.argv[1:] or ROWS:
        for num_seeds in (1, 4):
            for phase, number, compiled, sizes in programs(name, num_seeds):
                memory, shape = compiled.memory_analysis(), "|".join(map(str, sorted(sizes)))
                copied = re.findall(rf"= (\w+\[(?:4,)?(?:{shape})[\d,]*\])\S* (copy|select)\(", compiled.as_text())
                print(
                    f"{name} {num_seeds} seeds {phase} {number}: {memory.alias_size_in_bytes:,} bytes in place, "
                    f"{memory.temp_size_in_bytes:,} besides; {copied or 'no buffer copied'}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
