"""Where episodes begin and end, and what came after each row: nothing is ever joined across an end.

* A terminal ends the MDP. A row that is marked both terminal and timed out is a terminal.
* The successor of a row is the one that is stored, else the next row's observation, if the episode continues there.
* The last row of an episode that ended at a time limit, or at the end of the file, has no successor if none is stored.
  It is left out: its value would be bootstrapped from an observation that nobody has. The episode's return counts it.
* The last row before a terminal needs none for its value, and is kept, with `next_obs` equal to `obs`. A model of the
  dynamics must leave it out (`DataSet.has_successor`), and so loses the last transition of these episodes.
* A stored successor that is the first observation of the next episode, as in some conversions of D4RL's files, does not
  count as one.
* Where a stored successor is not the next row's observation, an episode ended, even if no mark says so. Returns are not
  known where this is so in many rows.
* Where the stored successors are simply the next rows' observations, across ends too, they do not show time limits, and
  timeouts must be there.
"""

from typing import NamedTuple

import numpy as np

from mbpo_jax.data_sets.recorded import Recorded, Refused

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
    has_successor: np.ndarray
    left_out_reward: np.ndarray
    longest: int  # steps of the longest episode, before rows were left out
    notes: tuple[str, ...]


def build(recorded: Recorded) -> Rows:
    """Returns the transitions in what was recorded.

    Raises:
      Refused: nothing shows where time limits ended episodes.
    """
    terminal = recorded.terminal
    truncated = np.zeros_like(terminal) if recorded.truncated is None else recorded.truncated
    notes = [_counted(int((terminal & truncated).sum()), "terminal and timed out: terminal")]
    known, ends, num_jumps = _successors(recorded, terminal | truncated)
    if recorded.next_obs is not None:
        notes.append(_jumps(num_jumps, len(ends)))
        notes.append(_counted(int((~known).sum()), "stored with the next episode's first observation as successor"))
    stored = (
        recorded.next_obs if recorded.next_obs is not None else np.concatenate([recorded.obs[1:], recorded.obs[-1:]])
    )
    if recorded.still_ends:
        known &= ~(terminal & (stored == recorded.obs).all(axis=1))
    lone = terminal & ~known
    notes.append(_counted(int(lone.sum()), "terminal without successor, of use for the value only"))
    kept = known | terminal
    notes.append(_counted(int((~kept).sum()), "left out at a time limit or the end of the file, without successor"))
    first = np.concatenate([[recorded.begins], ends[:-1]])
    left_out = _left_out_rewards(recorded.reward, kept, first, unknown=num_jumps > MANY_JUMPS * len(ends))
    if recorded.incomplete is not None:
        left_out[recorded.incomplete] = np.nan
    columns = [
        recorded.obs,
        recorded.action,
        recorded.reward,
        np.where(lone[:, None], recorded.obs, stored) if lone.any() else stored,
        terminal,
        first,
        known,
        left_out,
    ]
    if not kept.all():
        columns = [values[kept] for values in columns]
    obs, action, reward, next_obs, terminal, first, known, left_out_reward = columns
    last = np.append(first[1:], True)[: len(first)]
    return Rows(
        obs,
        action,
        reward,
        next_obs,
        terminal.astype(np.float32),
        last & ~terminal,
        first,
        known,
        left_out_reward,
        int(np.diff(np.flatnonzero(np.concatenate([[True], ends]))).max()),  # the longest episode
        tuple(filter(None, notes)),
    )


def _successors(recorded: Recorded, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns which rows have a successor [N], which end an episode [N], and how many of these without a mark.

    Args:
      ends: [N], the rows that are marked; changed in place.
    """
    num_jumps = 0
    if recorded.next_obs is None:
        known = ~ends
        known[-1] = False
    else:
        known = np.ones(len(ends), bool)
        continues = (recorded.next_obs[:-1] == recorded.obs[1:]).all(axis=1)
        jumps = ~continues & ~ends[:-1]
        num_jumps = int(jumps.sum())
        ends[:-1] |= jumps
        if not recorded.exact_ends:
            known[:-1] = ~(ends[:-1] & continues)
            if recorded.truncated is None and num_jumps == 0 and not known.all():
                raise Refused(
                    "it must have timeouts, got none, and next_observations that are the next row's observation even "
                    "after a terminal: where a time limit ended an episode, the next row belongs to another; add "
                    "timeouts, all 0 if no episode ended that way"
                )
    ends[-1] = True
    return known, ends, num_jumps


def _left_out_rewards(reward: np.ndarray, kept: np.ndarray, first: np.ndarray, unknown: bool) -> np.ndarray:
    """Returns the reward [N] of the row after each one, where that row ended the episode and is left out; else 0.

    Args:
      unknown: whether the ends of episodes are in doubt, and with them all returns: nan.
    """
    if unknown:
        return np.full(len(kept), np.nan, np.float32)
    after = np.flatnonzero(~kept & ~first)  # each ended its episode, so the row before it is kept
    left_out = np.zeros(len(kept), np.float32)
    left_out[after - 1] = reward[after]
    return left_out


def _counted(number: int, what: str) -> str:
    return f"{number:,} row{'s' * (number != 1)} {what}" if number else ""


def _jumps(number: int, num_rows: int) -> str:
    """Returns the note on rows that end an episode without a mark."""
    shuffled = " (are they in the order in which they were taken?)" if number > MANY_JUMPS * num_rows else ""
    return _counted(number, f"ended an episode without a mark{shuffled}")
