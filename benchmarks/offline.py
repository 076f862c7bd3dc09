"""Times MOPO's updates beside MBPO's, in turn in one process, with the same agent and batches: one JSON line.

    python benchmarks/offline.py [--seconds=20] [--rows=1000000]

Both draw batches with 5 % real rows, MBPO from a ring of its own, MOPO from a data set that all seeds share. MBPO's
call makes the updates of one environment step, MOPO's --updates_per_call.
"""

import argparse
import json

import jax

from mbpo_jax import backends, replay, terminations
from mbpo_jax.algorithms import mopo
from mbpo_jax.driver.phase_runner import PhaseRunner
from mbpo_jax.driver.seeds import SeedAxis
from mbpo_jax.launch import flags
from mbpo_jax.types import Spec
from phases import EXPERIMENTS, Case, full_buffer, update
from timing import Work, machine, measure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="Least measured time of each.")
    parser.add_argument("--rows", type=int, default=1_000_000, help="Real rows.")
    given = parser.parse_args()
    works = {"mbpo": update(Case(real_rows=given.rows)), "mopo": offline_update(given.rows)}
    for work in works.values():
        jax.block_until_ready(work.call())
    rates = dict(zip(works, (result["rate"] for result in measure(list(works.values()), given.seconds)), strict=True))
    print(json.dumps({"updates/s": rates, "ratio": round(rates["mopo"] / rates["mbpo"], 3)} | machine()))


def offline_update(num_rows: int) -> Work:
    """The updates of one call of MOPO on HalfCheetah, with the paper's settings and full buffers."""
    _, config = flags.parse([f"--flagfile={EXPERIMENTS / 'mopo_halfcheetah_mixed.flags'}", "--dataset=unused.npz"])
    spec, axis = Spec(17, 6, terminations.never), SeedAxis(1)
    algorithm = mopo.build(config, spec)
    roots = axis.keys((0,))
    (state,) = axis.split(axis.lift(algorithm.init)(roots))
    held = {"state": axis.join([state.replace(imagined=full_buffer(state.imagined, replay.capacity(state.imagined)))])}
    real = axis.share(full_buffer(replay.init(spec, num_rows), num_rows))
    names = [phase.name for phase in algorithm.phases]
    index = names.index("update_agent")
    options = backends.compiler_options("auto", names)
    runner = PhaseRunner(axis, index, algorithm.phases[index], options["update_agent"], shared_rows=True)

    def call() -> object:
        held["state"], metrics = runner.run(roots, 1, held["state"], real, [False], lambda: False)
        return metrics

    return Work(call, config.updates_per_call, "updates/s")


if __name__ == "__main__":
    main()
