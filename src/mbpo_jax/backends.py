"""What is done differently on each kind of device, and nothing else. Every choice is made here, by measurement.

The numbers behind the choices for "cpu" are in BUILD_NOTES.md. "gpu" and "tpu" follow from how these devices work and
were not measured: no device was at hand.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax


class Backend(NamedTuple):
    """Choices for one kind of device. The flag that overrides each is given."""

    seed_lifting: str  # --seed_lifting
    block_rows: int  # imagined or held-out rows worked on together; for rollouts --rollout_block_rows
    compiler_options: str  # for XLA, as phase:name=value,...; --compiler_options


BACKENDS = {
    # Blocks that fit a core's cache. In the fit, Eigen's batched products beat those of XLA's new library.
    "cpu": Backend(
        seed_lifting="each",
        block_rows=1000,
        compiler_options="fit_model:xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_REDUCE",
    ),
    # Few and large kernels: one block an elite, seeds batched.
    "gpu": Backend(seed_lifting="vmap", block_rows=20_000, compiler_options=""),
    "tpu": Backend(seed_lifting="vmap", block_rows=20_000, compiler_options=""),
}


def choices() -> Backend:
    """Returns the choices for the default device of this process."""
    return BACKENDS.get(jax.default_backend(), BACKENDS["gpu"])


def deterministic_options() -> dict[str, str]:
    """Returns the XLA options that give the same bits in every run; other kinds than GPUs give them anyway."""
    return {"xla_gpu_deterministic_ops": "true"} if jax.default_backend() == "gpu" else {}


def compiler_options(text: str, phases: Sequence[str]) -> dict[str, dict[str, str]]:
    """Returns the XLA options of each of `phases` that --compiler_options asks for.

    Those of "auto" that this XLA does not know are left out.
    Raises:
      ValueError: the text cannot be read, a phase does not exist, or XLA does not know an option or its value.
    """
    chosen: dict[str, dict[str, str]] = {phase: {} for phase in phases}
    automatic = text == "auto"
    wanted = {"auto": choices().compiler_options, "none": ""}.get(text, text)
    for item in wanted.split(","):
        phase, colon, setting = item.strip().partition(":")
        name, equals, value = setting.partition("=")
        if not item.strip() or (automatic and phase not in chosen):
            continue
        if not (colon and equals and phase in chosen):
            raise ValueError(
                f"compiler_options must be auto, none or phase:name=value,... with phases {', '.join(phases)}, got "
                f"{item.strip()!r}"
            )
        problem = _problem(name, value)
        if problem is None:
            chosen[phase][name] = value
        elif not automatic:
            raise ValueError(f"compiler_options: XLA does not take {name}={value} ({problem})")
    return chosen


@functools.cache
def _problem(name: str, value: str) -> str | None:
    """Returns why XLA does not take an option; None if it does."""
    try:
        jax.jit(lambda x: x + 1, compiler_options={name: value}).lower(1.0).compile()
    except Exception as error:  # XLA raises what it likes
        return (str(error).splitlines() or [type(error).__name__])[0]
    return None
