"""A window of the past as the state, for agents that show only a part of theirs.

The last few values of what is seen, together with what was done in between, stand for what is
hidden: a linear system whose state can be observed at all is determined by as many of both as it
has hidden dimensions (ARX models; Ljung, System Identification, 1999, section 4.2). Values alone do
not do: of a meal that is not yet digested they show nothing.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from persim_jax.data.dataset import OfflineDataset
from persim_jax.data.info import DatasetInfo


class Recent(NamedTuple):
    """The last moments of an agent, in order of time: where a simulator with lags starts.

    Attributes:
      obs: `[R, D]`, the last one is now; R is at least the lags.
      actions: `[R - 1]` or `[R - 1, A]`, each from its row to the next.
      inputs: `[R - 1, I]`, where there are any.
    """

    obs: np.ndarray
    actions: np.ndarray
    inputs: np.ndarray | None = None


def window_names(info: DatasetInfo, lags: int) -> tuple[str, ...]:
    """Names of a window, newest first: x, y, x[-1], y[-1], ..., then actions u[-1], ..."""
    labels = info.action_names or tuple(f"action_{i}" for i in range(info.action_size))
    if info.discrete:
        labels = tuple(f"action={label}" for label in labels)
    past = range(1, lags)
    values = (f"{name}[-{lag}]" for lag in past for name in info.obs_names)
    actions = (f"{name}[-{lag}]" for lag in past for name in (*labels, *info.input_names))
    return (*info.obs_names, *values, *actions)


def with_lags(dataset: OfflineDataset, lags: int) -> OfflineDataset:
    """Returns the dataset whose observation is a window of the last L observations and actions.

    obs'[t] = (obs[t], ..., obs[t - L + 1], a[t - 1], ..., a[t - L + 1]), of shape
    `[N, T + 1, D L + E (L - 1)]`, with a the E numbers of `action_vectors`, inputs included. A
    window crosses neither a gap nor the beginning: steps whose window would are masked, so that an
    agent loses the first L - 1 steps of every run.

    Args:
      dataset: Without lags.
      lags: L; 1 returns the dataset itself.

    Raises:
      ValueError: The dataset has lags already, L is not positive, or an agent has no run of L + 1
        rows.
    """
    if dataset.info.lags != 1:
        raise ValueError(f"this dataset has {dataset.info.lags} lags already: lag the original")
    if lags < 1:
        raise ValueError(f"lags is {lags}: an observation is at least the newest, 1")
    if lags == 1:
        return dataset
    obs, mask = np.asarray(dataset.obs), np.asarray(dataset.mask)
    before = runs_before(mask)
    whole = mask & (before[:, :-1] >= lags - 1)
    short = np.flatnonzero(~whole.any(axis=1))
    if len(short) > 0:
        row = short[0]
        raise ValueError(
            f"agent {dataset.name_of(row)} has no run of {lags + 1} rows without a gap, which "
            f"{lags} lags need: its longest has {before[row].max() + 1}. Ask for fewer lags or "
            "leave this agent out."
        )
    # Rows before the first repeat it; no step that is left sees them.
    rows = np.arange(obs.shape[1])[:, None] - np.arange(lags)
    values = obs[:, np.maximum(rows, 0)].reshape(*obs.shape[:2], -1)
    taken = dataset.action_vectors()[:, np.maximum(rows[:, 1:], 0)].reshape(*obs.shape[:2], -1)
    info = dataclasses.replace(
        dataset.info,
        obs_names=window_names(dataset.info, lags),
        lags=lags,
        segmented=True,
    )
    return dataset.replace(
        obs=np.concatenate([values, taken], axis=-1).astype(obs.dtype),
        mask=whole,
        terminated=np.asarray(dataset.terminated) & whole,
        info=info,
    )


def runs_before(mask: np.ndarray) -> np.ndarray:
    """How many steps without a gap lead to each row, `[N, T] -> [N, T + 1]`."""
    before = np.zeros((len(mask), mask.shape[1] + 1), int)
    for step in range(mask.shape[1]):
        before[:, step + 1] = np.where(mask[:, step], before[:, step] + 1, 0)
    return before


def window_of(values: np.ndarray, actions: np.ndarray, lags: int) -> np.ndarray:
    """One window from rows in order of time, as `with_lags` makes it: of the last L.

    Args:
      values: `[R, D]` with R >= L.
      actions: `[R - 1, E]`, as `action_vectors`.
      lags: L.

    Returns:
      `[D L + E (L - 1)]`.

    Raises:
      ValueError: There are fewer rows than lags, or not one action less than rows.
    """
    if values.ndim != 2 or len(values) < lags or len(actions) != len(values) - 1:
        raise ValueError(
            f"the last moments have {len(values)} observations of shape {values.shape[1:]} and "
            f"{len(actions)} actions between them: {lags} lags need at least {lags} observations "
            "and one action less than there are observations"
        )
    newest_first = values[::-1][:lags], actions[::-1][: lags - 1]
    return np.concatenate([part.reshape(-1) for part in newest_first])
