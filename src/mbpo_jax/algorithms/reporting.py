"""What a phase reports at its beginning besides its own metrics: measured on real rows, with a key of its own."""

from collections.abc import Callable

import jax

from mbpo_jax import replay
from mbpo_jax.algorithms import phases
from mbpo_jax.replay import Replay
from mbpo_jax.rollouts import penalties
from mbpo_jax.types import Agent, Key, Metrics, Programs, PyTree, Report, TerminationFn, WorldModel

ROWS = 1000  # drawn from the real ones; one that a rule gets wrong by rounding is no more than is allowed
STREAM = 0x6D657472  # of the phase's key, so that nothing else is drawn differently


def also(programs: Programs, measure: Callable[[Key, PyTree, Replay], Metrics]) -> Programs:
    """Makes the first program of a phase report what (key, state, real) -> metrics returns of the state before it."""
    first, *others = programs.functions

    def program(key: Key, state: PyTree, real: Replay) -> tuple[PyTree, Report]:
        measured = measure(jax.random.fold_in(key, STREAM), state, real)
        state, report = first(key, state, real)
        return state, report.replace(metrics=report.metrics | measured)

    return Programs((program, *others), programs.due)


def with_rule(programs: Programs, rule: Callable[[PyTree], TerminationFn]) -> Programs:
    """Compares the rule of ends, (state) -> rule, with the environment's own verdict, where no rollout does so.

    A wrong `--termination_fn` is in every target and every plan; the user is warned of what is reported here.
    """
    return also(programs, lambda key, state, real: phases.start_metrics(rule(state), replay.sample(key, real, (ROWS,))))


def with_penalty(programs: Programs, penalty: str, world: WorldModel, agent: Agent) -> Programs:
    """Measures the penalty of what the agent does in states of the data, and of what was done there.

    Requires the fields `model` and `agent`.
    """
    if penalty == penalties.NO_PENALTY:
        return programs

    def measure(key: Key, state: PyTree, real: Replay) -> Metrics:
        key_rows, key_action = jax.random.split(key)
        rows = replay.sample(key_rows, real, (ROWS,))
        action = phases.exploring(agent, state.agent)(key_action, rows.obs)
        return penalties.compare(penalty, world, world.belief(state.model), rows, action)

    return also(programs, measure)
