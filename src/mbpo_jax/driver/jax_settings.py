"""Settings of jax itself, from variables (JAX_..., XLA_FLAGS) or the calling program: honoured, or refused by name.

Settings that only forbid what our programs do are suspended while they run (`neutral`). Settings that our programs
cannot support are refused (`check`), as are those for which XLA would end the process (`check_xla_flags`). Settings
that change numbers are stored with a run (`storage.run_json.SETTINGS`). All others are honoured.
"""

import contextlib
import functools
import importlib.util
import mmap
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import jax
from jax.extend import backend

XLA_FLAGS = "XLA_FLAGS"
REFUSED = {
    "jax_enable_x64": "everything here is computed in 32 bits",
    "jax_disable_jit": "uncompiled programs would take days",
}
"""Settings that must be off, and why."""
PLATFORMS = ("jax_platforms", "jax_platform_name")


def prepare() -> None:
    """Refuses settings that cannot be supported, and starts jax's devices.

    Raises:
      ValueError: names the setting, its value, and what is allowed.
    """
    check_xla_flags()
    check()
    start_devices()


def check(where: str = "") -> None:
    """Refuses settings that our programs cannot support.

    Args:
      where: who may have changed them last; the end of the message.
    Raises:
      ValueError: names the setting and its variable.
    """
    for name, reason in REFUSED.items():
        if getattr(jax.config, name):
            raise ValueError(f"{name.upper()} must be off ({reason}), got {getattr(jax.config, name)!r}{where}")


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """Prepares jax for a command that does not train, and keeps its settings neutral while it computes.

    Raises:
      ValueError: as `prepare`.
    """
    prepare()
    with neutral():
        yield


@contextlib.contextmanager
def neutral() -> Iterator[None]:
    """Allows what jax can be set to forbid: mixing ranks and dtypes, moving arrays between devices, reusing keys."""
    with (
        jax.numpy_rank_promotion("allow"),
        jax.numpy_dtype_promotion("standard"),
        jax.transfer_guard("allow"),
        jax.debug_key_reuse(False),
    ):
        yield


def start_devices() -> None:
    """Starts jax's devices.

    Raises:
      ValueError: jax finds no device, or the chosen platform is not available; names the variable, and the platforms
        that are.
    """
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        chosen = next((name for name in PLATFORMS if jax.config.values[name]), None)
        reason = " ".join(str(error).split())
        if chosen is None:
            raise ValueError(f"jax must find a device, but it found none: {reason}") from error
        value, here = jax.config.values[chosen], ", ".join(_platforms_here())
        because = f" ({reason})" if reason else ""
        raise ValueError(
            f"{chosen.upper()} must name platforms that are available: {here}; got {value!r}{because}"
        ) from error


def _platforms_here() -> list[str]:
    """Returns the platforms that jax would choose by itself; leaves jax as it was before it started any of them."""
    before = {name: jax.config.values[name] for name in PLATFORMS}
    backend.clear_backends()
    try:
        for name in PLATFORMS:
            jax.config.update(name, "")
        return sorted({device.platform for device in jax.devices()})
    except (RuntimeError, AssertionError):
        return ["none"]
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        backend.clear_backends()


def check_xla_flags() -> None:
    """Refuses names in XLA_FLAGS that XLA does not know: it would end the process before we could report anything.

    Raises:
      ValueError: names the flag; or the file that cannot be read.
    """
    text = os.environ.get(XLA_FLAGS, "").strip()
    if text and not text.startswith("-"):  # XLA takes it for the name of a file
        try:
            text = Path(text).read_text()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ValueError(
                f"{XLA_FLAGS} must be flags, each starting with --, or a file of them, got {text!r} ({reason})"
            ) from error
    try:
        names = [word.partition("=")[0].lstrip("-") for word in shlex.split(text) if word.startswith("-")]
    except ValueError as error:
        raise ValueError(f"{XLA_FLAGS} must have matching quotes, got {text!r}") from error
    unknown = [name for name in names if not _is_known(name)]
    if unknown:
        raise ValueError(f"{XLA_FLAGS} must be flags of the installed XLA, got --{', --'.join(unknown)}")


@functools.cache
def _is_known(name: str) -> bool:
    """Returns whether one of XLA's libraries contains the name of a flag; True if no such library is found."""
    libraries = _libraries()
    return not libraries or any(_contains(path, name.encode()) for path in libraries)


@functools.cache
def _libraries() -> tuple[Path, ...]:
    """Returns the libraries that may contain XLA: jaxlib's, and those of plug-ins for accelerators."""
    found: list[Path] = []
    for package, patterns in (("jaxlib", ("libjax_common*", "xla_extension*")), ("jax_plugins", ("*/*.so",))):
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
            for pattern in patterns:
                found += sorted(Path(folder).glob(pattern))
    return tuple(found)


def _contains(path: Path, text: bytes) -> bool:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(text) >= 0
