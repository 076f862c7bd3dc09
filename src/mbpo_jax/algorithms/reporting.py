"""Extra metrics that a phase reports when it starts, measured on real rows with a key of their own."""

from collections.abc import Callable

import jax

from mbpo_jax import replay
from mbpo_jax.algorithms import phases
from mbpo_jax.replay import Replay
from mbpo_jax.rollouts import penalties
from mbpo_jax.types import Agent, Key, Metrics, Programs, PyTree, Report, TerminationFn, WorldModel

ROWS = 1000  # real rows drawn; a single one that a rule gets wrong by rounding is within the tolerance
STREAM = 0x6D657472  # folded into the phase's key, so that no other draws change


def also(programs: Programs, measure: Callable[[Key, PyTree, Replay], Metrics]) -> Programs:
    """Makes the first program of a phase also report (key, state, real) -> metrics of the state before it."""
    first, *others = programs.functions

    def program(key: Key, state: PyTree, real: Replay) -> tuple[PyTree, Report]:
        measured = measure(jax.random.fold_in(key, STREAM), state, real)
        state, report = first(key, state, real)
        return state, report.replace(metrics=report.metrics | measured)

    return Programs((program, *others), programs.due)


def with_rule(programs: Programs, rule: Callable[[PyTree], TerminationFn]) -> Programs:
    """Compares the termination function, (state) -> rule, with the real terminals, for phases without a rollout.

    A wrong `--termination_fn` affects every target and every plan; the user is warned based on what is reported here.
    """
    return also(programs, lambda key, state, real: phases.start_metrics(rule(state), replay.sample(key, real, (ROWS,))))


def with_penalty(programs: Programs, penalty: str, world: WorldModel, agent: Agent) -> Programs:
    """Measures the penalty of the agent's actions in states of the data, and that of the recorded actions.

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
