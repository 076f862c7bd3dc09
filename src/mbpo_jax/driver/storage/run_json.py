"""The JSON files of a run directory: `config.json`, written at the start, and `summary.json`, at the end.

Files are written under temporary names and renamed, so that none is ever left half written.
"""

import importlib.metadata
import json
import platform
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import jax

from mbpo_jax import options
from mbpo_jax.algorithms import REGISTRY
from mbpo_jax.driver.config import RESUMABLE_CHANGES, RunConfig, StorageFailure
from mbpo_jax.driver.storage import files

CONFIG, SUMMARY = files.CONFIG, files.SUMMARY
MOST_CONFIG_BYTES = 2**20  # a larger file is not a config
UNREMARKABLE = frozenset({"run_dir", "quiet"})  # changes of these need no notice
SETTINGS = ("jax_default_prng_impl", "jax_threefry_partitionable", "jax_default_matmul_precision")
"""Settings of jax that a run's numbers depend on; kept with the versions."""


class SavedConfig(NamedTuple):
    """Every resolved knob of a run, what computed it, and the spaces of its environment."""

    run: RunConfig
    algorithm: Any
    versions: dict[str, str] | None = None  # of the software; None: not known
    task: dict[str, Any] | None = None  # as `interaction.task` made it; None: not known, from an older version


def write_json(path: Path, value: Any) -> None:
    """Writes JSON, whole or not at all."""
    files.write_whole(path, lambda file: file.write((json.dumps(value, indent=2) + "\n").encode()))


def write_config(run_dir: Path, run: RunConfig, algorithm: Any, task: dict[str, Any] | None = None) -> None:
    """Writes every resolved knob, the versions of what computes, the commit if known, and the device.

    Args:
      task: sizes, action bounds and time limit, see `interaction.task`; left out where no environment was opened.
    """
    value = {
        "run": options.nested(run),
        "algorithm": options.nested(algorithm),
        "versions": versions(),
        "commit": commit(),
        "device": {
            "backend": jax.default_backend(),
            "kinds": sorted({d.device_kind for d in jax.local_devices()}),
        },
    }
    write_json(run_dir / CONFIG, value | ({} if task is None else {"task": task}))


def read_config(run_dir: Path) -> SavedConfig:
    """Reads the knobs of a run back.

    Raises:
      StorageFailure: there is no run there, or its config does not fit this version.
    """
    path = run_dir / CONFIG
    try:
        value = json.loads(files.read_text(path, MOST_CONFIG_BYTES))
        run = _from_json(RunConfig(), value["run"])
        algorithm = _from_json(REGISTRY[run.algorithm].default_config(), value["algorithm"])
        versions, task = (dict(value[name]) if name in value else None for name in ("versions", "task"))
        return SavedConfig(run, algorithm, versions, task)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StorageFailure(f"cannot read {path}: {type(error).__name__}: {error}") from error


def check_same(saved: SavedConfig, run: RunConfig, algorithm: Any) -> list[str]:
    """Refuses to resume with knobs that would make it a different run.

    Returns:
      A notice for each of the other differences.
    Raises:
      ValueError: lists each difference, with old and new value.
    """
    old, new = _knobs(saved.run, saved.algorithm), _knobs(run, algorithm)
    differ = options.differences(old, new)
    refused = [text for path, text in differ.items() if path not in RESUMABLE_CHANGES]
    if refused:
        raise ValueError(
            f"run_dir {run.directory!r} holds another run: {'; '.join(refused)}. Give the old values to "
            "resume it, or another --run_dir to start a new one"
        )
    notices = [text for path, text in differ.items() if path not in UNREMARKABLE]
    changed = changed_versions(saved)
    if changed:
        notices.append(f"{'; '.join(changed)}: from here on the numbers may differ from those of one run")
    return notices


def changed_versions(saved: SavedConfig) -> list[str]:
    """Returns which software, or settings of jax, computed a run and are others now."""
    if saved.versions is None:
        return []
    now = versions()
    known = [name for name in now if name in saved.versions or name not in SETTINGS]  # older runs have none
    changed = {name: f"{name} was {saved.versions.get(name)}, is {now[name]}" for name in known}
    return [text for name, text in changed.items() if saved.versions.get(name) != now[name]]


def identity(run: RunConfig, algorithm: Any) -> dict[str, Any]:
    """Returns JSON that says which run this is: every knob that may not change, by full path."""
    return _lasting(_knobs(run, algorithm))


def default_identity(run: RunConfig, algorithm: Any) -> dict[str, Any]:
    """Returns values for the knobs of `identity` that an older version did not have.

    These are their defaults, or what `option(before=...)` says, in the sections that `algorithm` has; and where a
    section was not yet a choice, the one that the algorithm has by default.
    """
    default = REGISTRY[run.algorithm].default_config()
    same_sections = options.replace(default, options.choices(algorithm))
    before = options.values_before(RunConfig()) | options.values_before(same_sections)
    return _lasting(_knobs(RunConfig(), same_sections) | before | options.choices(default))


def _knobs(run: RunConfig, algorithm: Any) -> dict[str, Any]:
    return options.values(run) | options.values(algorithm)


def _lasting(knobs: dict[str, Any]) -> dict[str, Any]:
    kept = {path: value for path, value in knobs.items() if path not in RESUMABLE_CHANGES}
    plain: dict[str, Any] = json.loads(json.dumps(kept))
    return plain


def _from_json(default: Any, value: dict[str, Any]) -> Any:
    """Returns the config that was written; knobs that an older version lacked are as in `default`, or `before`."""
    known = {path: tuple(item) if isinstance(item, list) else item for path, item in options.flat(value).items()}
    with_sections = options.replace(default, {name: known[name] for name in options.choices(default) if name in known})
    return options.replace(with_sections, options.values_before(with_sections) | known)


def versions() -> dict[str, str]:
    """Returns the versions of the software that computes, and the settings of jax that numbers depend on."""
    packages = (
        "mbpo-jax",
        "jax",
        "jaxlib",
        "flax",
        "optax",
        "orbax-checkpoint",
        "gymnasium",
        "mujoco",
        "numpy",
    )
    found = {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}
    return found | {name: str(getattr(jax.config, name)) for name in SETTINGS}


def commit() -> str | None:
    """Returns the commit of the checkout that this package runs from; None when it was installed without one."""
    root = Path(__file__).parents[4]
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
