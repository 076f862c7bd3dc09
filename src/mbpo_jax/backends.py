"""Everything that differs between kinds of device, and nothing else. The choices for "cpu" were made by measurement.

The numbers behind them are in BUILD_NOTES.md. The choices for "gpu" and "tpu" follow from how these devices work and
were not measured: no device was at hand.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax


class Backend(NamedTuple):
    """Choices for one kind of device, each with the flag that overrides it."""

    seed_lifting: str  # --seed_lifting
    block_rows: int  # imagined or held-out rows processed together; for rollouts --rollout_block_rows
    compiler_options: str  # for XLA, as phase:name=value,...; --compiler_options


BACKENDS = {
    # Blocks that fit in a core's cache. In the fit, Eigen's batched products beat those of XLA's new library.
    "cpu": Backend(
        seed_lifting="each",
        block_rows=1000,
        compiler_options="fit_model:xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_REDUCE",
    ),
    # Few, large kernels: one block per elite, seeds batched.
    "gpu": Backend(seed_lifting="vmap", block_rows=20_000, compiler_options=""),
    "tpu": Backend(seed_lifting="vmap", block_rows=20_000, compiler_options=""),
}


def choices() -> Backend:
    """Returns the choices for the default device of this process."""
    return BACKENDS.get(jax.default_backend(), BACKENDS["gpu"])


def deterministic_options() -> dict[str, str]:
    """Returns the XLA options that give the same bits in every run; devices other than GPUs do so anyway."""
    return {"xla_gpu_deterministic_ops": "true"} if jax.default_backend() == "gpu" else {}


def compiler_options(text: str, phases: Sequence[str]) -> dict[str, dict[str, str]]:
    """Returns the XLA options that --compiler_options asks for, by phase.

    Options of "auto" that this XLA does not know are left out.

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
    """Returns why XLA rejects an option; None if it takes it."""
    try:
        jax.jit(lambda x: x + 1, compiler_options={name: value}).lower(1.0).compile()
    except Exception as error:  # XLA may raise anything
        return (str(error).splitlines() or [type(error).__name__])[0]
    return None
