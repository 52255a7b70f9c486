"""How far a predicted path may be from the truth, from what simulators know of themselves."""

from __future__ import annotations

from typing import Any

import numpy as np

from persim_jax.models.base import ModelParams


def predictive_std(params: ModelParams, noise: Any, members: Any) -> np.ndarray:
    """Standard deviation of a prediction at every step.

    The variance is that between members, which for newcomers also differ by what is not known of
    their factors, plus what no member explains of its training data. Of a coordinate whose
    difference is predicted, the latter adds up over steps, as if residuals were independent and
    passed on unchanged; of one that is predicted itself it stays,

        var_t = var over members + sigma^2 (t if carry else 1).

    That is a plain rule and no more: validation measures what it covers and rescales it.

    Args:
      params: Of the members, for the scale of targets.
      noise: `[M, D]`, scaled residuals of each member; None counts none.
      members: `[M, T, D]`, predicted paths.

    Returns:
      `[T, D]`.
    """
    members = np.asarray(members, np.float64)
    variance = members.var(axis=0, ddof=1 if len(members) > 1 else 0)
    if noise is None:
        return np.sqrt(variance)
    norm = params.normalizer
    scaled = np.asarray(noise, np.float64) * np.asarray(norm.delta.std, np.float64)
    steps = np.arange(1, members.shape[1] + 1)[:, None]
    growth = np.where(np.asarray(norm.carry) > 0, steps, 1)
    residual: np.ndarray = np.square(scaled).mean(axis=0)
    return np.sqrt(variance + residual * growth)
