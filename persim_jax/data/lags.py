"""Past observations as part of the state, for agents that show only a part of theirs.

By Takens' and the observability argument of linear systems alike, the last few values of what is
seen stand for what is hidden: a slope for a velocity, a curvature for a force.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from persim_jax.data.dataset import OfflineDataset


def lag_names(names: tuple[str, ...], lags: int) -> tuple[str, ...]:
    """Names of a lagged observation, newest first: x, y, x[-1], y[-1], ..."""
    past = (f"{name}[-{lag}]" for lag in range(1, lags) for name in names)
    return (*names, *past)


def with_lags(dataset: OfflineDataset, lags: int) -> OfflineDataset:
    """Returns the dataset whose observation is the last L observations, newest first.

    obs'[t] = (obs[t], obs[t - 1], ..., obs[t - L + 1]), `[N, T + 1, D * L]`. A window crosses
    neither a gap nor the beginning: steps whose window would are masked, so that an agent loses the
    first L - 1 steps of every run.

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
    # How many steps without a gap lead to each row, [N, T + 1].
    before = np.zeros(obs.shape[:2], int)
    for step in range(mask.shape[1]):
        before[:, step + 1] = np.where(mask[:, step], before[:, step] + 1, 0)
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
    rows = np.maximum(np.arange(obs.shape[1])[:, None] - np.arange(lags), 0)
    windows = obs[:, rows].reshape(*obs.shape[:2], -1)
    info = dataclasses.replace(
        dataset.info,
        obs_names=lag_names(dataset.info.obs_names, lags),
        lags=lags,
        segmented=True,
    )
    terminated = np.asarray(dataset.terminated) & whole
    return dataset.replace(obs=windows, mask=whole, terminated=terminated, info=info)


def history_of(obs: np.ndarray, lags: int) -> np.ndarray:
    """One lagged observation `[L * D]` from rows in order of time `[R, D]`, R >= L: the last L.

    Raises:
      ValueError: There are fewer rows than lags.
    """
    obs = np.asarray(obs)
    if obs.ndim != 2 or len(obs) < lags:
        raise ValueError(
            f"rows have shape {obs.shape}: {lags} lags need as many rows, (rows, coordinates)"
        )
    return obs[-lags:][::-1].reshape(-1)
