import resource

import pytest
import tiny_runs

from mbpo_jax.driver import memory_limits

GB = 10**9
NONE_OF_VERSION_1 = 9223372036854771712  # what its files say where there is no limit


@pytest.fixture
def system(tmp_path, monkeypatch):
    """`system(membership, {file: text})` writes a tree of control groups; returns its limits."""
    monkeypatch.setattr(memory_limits, "_machine", lambda: 25 * GB)

    def limits(membership, groups):
        for name, text in groups.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        (tmp_path / "membership").write_text(membership)
        return tmp_path / "cgroup", tmp_path / "membership"

    return limits


@pytest.mark.parametrize(
    ("membership", "groups", "expected"),
    [
        ("0::/\n", {"memory.max": GB}, GB),  # a container that sees itself as the root
        ("0::/a/b\n", {"a/b/memory.max": 3 * GB, "a/memory.max": GB, "memory.max": "max"}, GB),
        ("0::/a/b\n", {"a/b/memory.max": GB, "a/memory.max": 3 * GB}, GB),
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "max"}, 25 * GB),
        ("0::/docker/1234\n", {"memory.max": GB}, GB),  # a path as seen from outside
        ("0::/../../job\n", {"job/memory.max": GB}, GB),
        ("5:cpu:/x\n4:memory:/a/b\n", {"memory/a/b/memory.limit_in_bytes": GB}, GB),
        ("4:cpu,memory:/a/b\n", {"memory/a/memory.limit_in_bytes": GB}, GB),
        ("4:memory:/docker/1\n", {"memory/memory.limit_in_bytes": GB}, GB),
        ("4:memory:/a\n", {"memory/a/memory.limit_in_bytes": NONE_OF_VERSION_1}, 25 * GB),
        ("4:memory:/a\n0::/b\n", {"memory/a/memory.limit_in_bytes": 2 * GB, "unified/b/memory.max": GB}, GB),
        ("4:cpu:/a\n", {"cpu/a/memory.limit_in_bytes": GB, "memory/a/memory.limit_in_bytes": GB}, 25 * GB),
        ("0::/a:b\n", {"a:b/memory.max": GB}, GB),
        ("nonsense\n", {"memory.max": "nonsense"}, 25 * GB),
        ("", {}, 25 * GB),
    ],
)
def test_the_smallest_of_all_groups_around_and_of_the_machine(system, membership, groups, expected):
    size, name = memory_limits.smallest(*system(membership, groups))
    assert size == expected
    assert name == ("the machine" if expected == 25 * GB else "its control group")


def test_without_control_groups_it_is_the_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(memory_limits, "_machine", lambda: 25 * GB)
    assert memory_limits.smallest(tmp_path, tmp_path / "none") == (25 * GB, "the machine")
    monkeypatch.setattr(memory_limits, "_machine", lambda: None)
    assert memory_limits.smallest(tmp_path, tmp_path / "none") is None


def test_the_limits_of_the_process_count(system, monkeypatch):
    limit_of = {resource.RLIMIT_AS: 2 * GB, resource.RLIMIT_DATA: resource.RLIM_INFINITY}
    monkeypatch.setattr(resource, "getrlimit", lambda number: (limit_of[number], resource.RLIM_INFINITY))
    assert memory_limits.smallest(*system("0::/\n", {"memory.max": 3 * GB})) == (2 * GB, "ulimit -v")


def test_a_buffer_that_does_not_fit_a_control_group_is_refused(system, monkeypatch, tmp_path):
    """It was compared with the machine's memory alone, and the process was killed later."""
    cgroups, membership = system("0::/job\n", {"job/memory.max": GB})
    smallest, limits = memory_limits.smallest, memory_limits.limits
    monkeypatch.setattr(memory_limits, "smallest", lambda: smallest(cgroups, membership))
    monkeypatch.setattr(memory_limits, "limits", lambda *given: limits(cgroups, membership))
    with pytest.raises(ValueError, match=r"they need 2\.7 GB, got 1\.0 GB \(the limit of its control group\)"):
        tiny_runs.train(tmp_path / "run", tiny_runs.SAC, replay_capacity=25_000_000)
    assert not (tmp_path / "run").exists()
