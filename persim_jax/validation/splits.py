"""What training may see, and what it is judged by."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

from persim_jax.data.dataset import OfflineDataset
from persim_jax.validation.config import CannotJudgeError, ValidationConfig
from persim_jax.validation.verdicts import counted

MIN_HELD_OUT = 4
"""Held-out agents below which there is no calibration on other agents."""
MIN_AGENTS = 3 * MIN_HELD_OUT


class Split(NamedTuple):
    """A dataset in parts.

    Attributes:
      train: Known agents without their tails: all that training sees.
      known: The same agents, whole.
      tails: `[N]` row of time at which each known agent's tail begins.
      unseen: Agents that training does not see.
    """

    train: OfflineDataset
    known: OfflineDataset
    tails: np.ndarray
    unseen: OfflineDataset


def split(key: jax.Array, dataset: OfflineDataset, config: ValidationConfig) -> Split:
    """Holds out the last part of every trajectory and whole agents, at random.

    Args:
      key: Consumed; which agents are held out.
      dataset: Of N agents.
      config: Shares.

    Raises:
      CannotJudgeError: There are too few agents, or no trajectory is long enough to be cut.
    """
    count = dataset.num_agents
    if count < MIN_AGENTS:
        raise CannotJudgeError(
            f"there {'is' if count == 1 else 'are'} {counted(count, 'agent')}: holding some out "
            f"takes at least {MIN_AGENTS}; bring more"
        )
    held = max(round(config.agent_share * count), MIN_HELD_OUT)
    if count - held < MIN_HELD_OUT:
        raise CannotJudgeError(
            f"holding out {config.agent_share:g} of {count} agents leaves {count - held} to train "
            f"on: at least {MIN_HELD_OUT} are needed; lower agent_share"
        )
    order = np.asarray(jax.random.permutation(key, count))
    unseen, known = np.sort(order[:held]), dataset.take(np.sort(order[held:]))
    mask = np.asarray(known.mask)
    if mask.sum(axis=1).max() < 2:
        raise CannotJudgeError(
            "every agent has one step: none is left to predict; bring longer ones"
        )
    tails = tail_starts(mask, config.tail_share)
    seen = mask & (np.arange(mask.shape[1]) < tails[:, None])
    train = known.replace(mask=seen, terminated=np.asarray(known.terminated) & seen)
    return Split(train, known, tails, dataset.take(unseen))


def tail_starts(mask: np.ndarray, share: float) -> np.ndarray:
    """Row of time from which the last share of each agent's steps `[N, T]` lies, `[N]`.

    At least one step is left before it.
    """
    taken = mask.cumsum(axis=1)
    kept = np.maximum(np.floor((1 - share) * taken[:, -1]), 1)
    return (taken <= kept[:, None]).argmin(axis=1) + (taken[:, -1] <= kept) * mask.shape[1]
