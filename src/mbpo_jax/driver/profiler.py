"""Traces some environment steps (`--profile`) once everything has compiled."""

from pathlib import Path

import jax


class Profiler:
    """Traces `num_steps` environment steps into `<run_dir>/profile`."""

    def __init__(self, run_dir: Path, num_steps: int) -> None:
        self.directory = run_dir / "profile"
        self._left, self._tracing = num_steps, False

    def before_step(self, warm: bool) -> str | None:
        """Begins the trace at the first `warm` step, ends it `num_steps` later; returns a note for the user then."""
        if self._left == 0:
            return self.close()
        if warm and not self._tracing:
            self._tracing = True
            jax.profiler.start_trace(self.directory)
        self._left -= self._tracing
        return None

    def close(self) -> str | None:
        """Ends and writes a running trace; returns a note for the user, also where none began that was asked for."""
        if not self._tracing:
            missed, self._left = self._left > 0, 0
            return "profile: nothing was traced, as the run stopped before every phase had run" if missed else None
        self._tracing, self._left = False, 0
        jax.profiler.stop_trace()
        return f"profile: open the *.trace.json.gz below {self.directory} at https://ui.perfetto.dev, or in xprof"
