"""Says whether batched QR factorisations of the installed jaxlib still wait for each other forever on two CPU cores.

`python tests/slow/batched_factorizations.py` prints how many calls returned. Once all of them do, `one_at_a_time` in
`mbpo_jax/factorizations.py` can go. It hangs with jaxlib 0.10.2, whose threads all wait in `ParallelBatchMap`.
"""

import subprocess
import sys

import jaxlib

NUM_CALLS = 2000
TIMEOUT_S = 120
SCRIPT = f"""
import jax, jax.numpy as jnp
@jax.jit
def many(key):
    return [jnp.linalg.qr(jax.random.normal(one, (5, 64, 64)))[0] for one in jax.random.split(key, 8)]
for seed in range({NUM_CALLS}):
    print(seed, flush=True)
    jax.block_until_ready(many(jax.random.key(seed)))
print("all", flush=True)
"""


def main() -> None:
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True)
    try:
        printed, _ = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        printed, _ = process.communicate()
    last = printed.split()[-1]
    what = f"all {NUM_CALLS} calls returned" if last == "all" else f"call {int(last) + 1} of {NUM_CALLS} did not return"
    print(f"jaxlib {jaxlib.__version__}: {what} within {TIMEOUT_S} s")


if __name__ == "__main__":
    main()
