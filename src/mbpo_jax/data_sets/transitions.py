"""Where episodes begin and end, and what came after each row: nothing is ever joined across an end.

* A terminal ends the MDP. A row that is marked both terminal and timed out is a terminal.
* The successor of a row is the one that is stored, else the next row's observation, if the episode continues there.
* The last row of an episode that ended at a time limit, or at the end of the file, has no successor if none is stored.
  It is left out: its value would be bootstrapped from an observation that nobody has. The episode's return counts it.
* The last row before a terminal needs none for its value, and is kept, with `next_obs` equal to `obs`. A model of the
  dynamics must leave it out (`data_set.has_successor`), and so loses the last transition of these episodes.
* A stored successor that is the first observation of the next episode, as in some conversions of D4RL's files, does not
  count as one.
* Where a stored successor is not the next row's observation, an episode ended, even if no mark says so.
"""

from typing import NamedTuple

import numpy as np

from mbpo_jax.data_sets.recorded import Recorded

MANY_JUMPS = 0.1  # share of rows


class Rows(NamedTuple):
    """The rows that remain, as in `DataSet`, but with actions as they were recorded."""

    obs: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    next_obs: np.ndarray
    terminal: np.ndarray
    truncated: np.ndarray
    first: np.ndarray
    left_out_reward: np.ndarray
    longest: int  # steps of the longest episode, before rows were left out
    notes: tuple[str, ...]


def build(recorded: Recorded) -> Rows:
    """Returns the transitions in what was recorded."""
    terminal = recorded.terminal
    ends = terminal | recorded.truncated
    notes = [_counted(int((terminal & recorded.truncated).sum()), "terminal and timed out: terminal")]
    if recorded.next_obs is None:
        known, next_obs = ~ends, np.concatenate([recorded.obs[1:], recorded.obs[-1:]])
        known[-1] = False
    else:
        known, next_obs = np.ones(len(ends), bool), recorded.next_obs
        continues = (next_obs[:-1] == recorded.obs[1:]).all(axis=1)
        jumps = ~continues & ~ends[:-1]
        ends[:-1] |= jumps
        notes.append(_jumps(int(jumps.sum()), len(ends)))
        if not recorded.exact_ends:
            known[:-1] = ~(ends[:-1] & continues)
            notes.append(_counted(int((~known).sum()), "stored with the next episode's first observation as successor"))
    ends[-1] = True
    first = np.concatenate([[recorded.begins], ends[:-1]])
    lone = terminal & ~known
    if lone.any():
        next_obs = np.where(lone[:, None], recorded.obs, next_obs)
        notes.append(_counted(int(lone.sum()), "terminal without successor, of use for the value only"))
    kept = known | terminal
    notes.append(_counted(int((~kept).sum()), "left out at a time limit or the end of the file, without successor"))
    after = np.flatnonzero(~kept & ~first)  # each ended its episode, so the row before it is kept
    left_out_reward = np.zeros(len(kept), np.float32)
    left_out_reward[after - 1] = recorded.reward[after]
    columns = [recorded.obs, recorded.action, recorded.reward, next_obs, terminal, first, left_out_reward]
    if not kept.all():
        columns = [values[kept] for values in columns]
    obs, action, reward, next_obs, terminal, first, left_out_reward = columns
    last = np.append(first[1:], True)[: len(first)]
    lengths = np.diff(np.flatnonzero(np.concatenate([[True], ends])))
    return Rows(
        obs,
        action,
        reward,
        next_obs,
        terminal.astype(np.float32),
        last & ~terminal,
        first,
        left_out_reward,
        int(lengths.max()),
        tuple(filter(None, notes)),
    )


def _counted(number: int, what: str) -> str:
    return f"{number:,} row{'s' * (number != 1)} {what}" if number else ""


def _jumps(number: int, num_rows: int) -> str:
    """Returns the note on rows that end an episode without a mark."""
    shuffled = " (are they in the order in which they were taken?)" if number > MANY_JUMPS * num_rows else ""
    return _counted(number, f"ended an episode without a mark{shuffled}")
