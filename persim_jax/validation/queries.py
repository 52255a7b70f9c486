"""Windows of a record: where a prediction starts, its actions, and what came of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from persim_jax.data.dataset import OfflineDataset
from persim_jax.validation.config import CannotJudgeError, ValidationConfig


class Queries(NamedTuple):
    """Q windows of H steps, on the host.

    Attributes:
      agent: `[Q]` row of the agent in the dataset that they are cut from.
      obs: `[Q, D * L]`, where each starts.
      actions: `[Q, H, ...]`, inputs joined.
      states: `[Q, H, D * L]`, true observations from which each action was taken.
      truth: `[Q, H, D]`, newest values after each action.
      mask: `[Q, H]` bool; false after the end of the record, or a gap.
    """

    agent: np.ndarray
    obs: np.ndarray
    actions: np.ndarray
    states: np.ndarray
    truth: np.ndarray
    mask: np.ndarray

    @property
    def horizon(self) -> int:
        """H, the longest window."""
        return self.mask.shape[1]


def windows(dataset: OfflineDataset, starts: np.ndarray, config: ValidationConfig) -> Queries:
    """Cuts windows out of what each agent did from some time on.

    Args:
      dataset: Of N agents.
      starts: `[N]` rows of time; what lies before is known to the predictor.
      config: Horizon and the number of windows; windows are H steps apart and cross no gap.

    Raises:
      CannotJudgeError: No agent has a step from there on.
    """
    mask = np.asarray(dataset.mask)
    found = [
        (row, first, length)
        for row in range(len(mask))
        for first, length in _spans(mask[row], int(starts[row]), config.horizon)[
            : config.max_windows
        ]
    ]
    if not found:
        raise CannotJudgeError(
            "no agent has a step that could be predicted: records are too short for the steps that "
            "are held out and those that personalize; bring longer ones"
        )
    agent, first, length = np.asarray(found).T
    steps = np.arange(length.max())
    inside = steps < length[:, None]
    # Past a window's end its last step is repeated, and masked.
    times = first[:, None] + np.minimum(steps, length[:, None] - 1)
    rows, obs = agent[:, None], np.asarray(dataset.obs)
    size = len(dataset.info.target_names)
    return Queries(
        agent=agent,
        obs=obs[agent, first],
        actions=dataset.encoded_actions()[rows, times],
        states=obs[rows, times],
        truth=obs[rows, times + 1][..., :size],
        mask=inside,
    )


def _spans(mask: np.ndarray, start: int, horizon: int) -> list[tuple[int, int]]:
    """(first step, number of steps) of windows of one agent's steps `[T]` from `start` on."""
    spans, t = [], start
    while t < len(mask):
        if not mask[t]:
            t += 1
            continue
        gap = np.flatnonzero(~mask[t : t + horizon])
        length = int(gap[0]) if len(gap) else min(horizon, len(mask) - t)
        spans.append((t, length))
        t += length
    # The longest first: one that a gap cuts short tells less.
    return sorted(spans, key=lambda span: -span[1])


def after_first(mask: np.ndarray, count: int) -> np.ndarray:
    """Row of time that follows the first `count` steps of each agent `[N, T]`, `[N]`."""
    taken = mask.cumsum(axis=1)
    return np.where(taken[:, -1] <= count, mask.shape[1], (taken <= count).argmin(axis=1))


def only(queries: Queries, chosen: np.ndarray) -> Queries:
    """The windows at some places `[K]`."""
    some: Any = jax.tree.map(lambda leaf: leaf[chosen], queries)
    return some
