"""Proofs of what docs/reliability.md promises, with numbers; minutes to an hour each, so not for pytest.

`python tests/slow/prove.py kills --count=50 --seed=1`; exit status 0: the promise holds, 1: it is broken. Faults come
from outside: signals, limits of the file system, files that are changed. Everything lies in a temporary directory.
"""

import argparse
import sys

import damage
import disk
import flag_fuzz
import interruptions
import leaks
import not_finite
import surroundings

COUNTED = {
    "kills": (interruptions.kills, 50),
    "stops": (interruptions.stops, 20),
    "bitflips": (damage.bitflips, 200),
    "files": (damage.files, None),
    "disk_full": (disk.disk_full, 30),
    "nan": (not_finite.nan, None),
    "flags": (flag_fuzz.flags, 1000),
    "memory": (leaks.memory, None),
    "surroundings": (surroundings.surroundings, None),
}


def main():
    """Proves one promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    for name, (prove, count) in COUNTED.items():
        command = commands.add_parser(name, help=prove.__doc__)
        command.set_defaults(prove=prove)
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--count", type=int, default=count)
        if name in ("kills", "stops"):
            command.add_argument("--num_steps", type=int, default=2500, help="Length of a run: 20 to 30 s alone.")
        if name == "surroundings":
            command.add_argument("--num_steps", type=int, default=120, help="Length of a run.")
        if name == "stops":
            command.add_argument("--limit_s", type=float, default=10.0, help="Longest time until the end.")
        if name == "memory":
            command.add_argument("--minutes", type=float, default=30.0)
            command.add_argument("--every_s", type=float, default=5.0, help="Seconds between samples.")
    options = parser.parse_args()
    return options.prove(options)


if __name__ == "__main__":
    sys.exit(main())
