"""How much memory this process may use, as limited by the machine, control groups (containers, SLURM) and ulimit."""

import os
import resource
from pathlib import Path, PurePosixPath

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
UNLIMITED = 2**60  # bytes; cgroup version 1 gives a number beyond this where there is no limit


def limits(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> dict[str, int]:
    """Returns the limits in bytes, keyed by what sets them; what sets none is left out."""
    found = {"the machine": _machine(), "its control group": _control_group(cgroups, membership)}
    for name, number in (("ulimit -v", resource.RLIMIT_AS), ("ulimit -d", resource.RLIMIT_DATA)):
        limit = resource.getrlimit(number)[0]
        found[name] = None if limit == resource.RLIM_INFINITY else limit
    return {name: size for name, size in found.items() if size is not None}


def smallest(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> tuple[int, str] | None:
    """Returns the smallest limit in bytes, and what sets it; None where the system says nothing."""
    return min(((size, name) for name, size in limits(cgroups, membership).items()), default=None)


def _machine() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _control_group(cgroups: Path, membership: Path) -> int | None:
    """Returns the smallest limit of the groups that this process is in, and of all groups above them.

    In a container, a group's path may be the one seen from outside, for which there is no folder here. Those of its
    ancestors that do exist count; the topmost is the container's own.
    """
    try:
        lines = membership.read_text().splitlines()
    except (OSError, ValueError):
        return None
    found = []
    for line in lines:
        _, controllers, group = [*line.split(":", 2), "-", ""][:3]
        if controllers == "":  # version 2, alone or beside version 1
            found += _all_around(cgroups, group, "memory.max")
            found += _all_around(cgroups / "unified", group, "memory.max")
        elif "memory" in controllers.split(","):
            found += _all_around(cgroups / "memory", group, "memory.limit_in_bytes")
    return min(found, default=None)


def _all_around(root: Path, group: str, name: str) -> list[int]:
    """Returns the limits in a group's folder under `root`, and in the folders above it."""
    parts = [part for part in PurePosixPath(group).parts if part not in ("/", "..")]
    found = []
    for depth in range(len(parts) + 1):
        try:
            text = root.joinpath(*parts[:depth], name).read_text().strip()
        except (OSError, ValueError):
            continue
        if text.isdecimal() and int(text) < UNLIMITED:  # else "max"
            found.append(int(text))
    return found
