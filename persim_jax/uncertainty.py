"""How far a predicted path may be from the truth, from what simulators know of themselves."""

from __future__ import annotations

from typing import Any

import numpy as np

from persim_jax.models.base import ModelParams


def predictive_std(params: ModelParams, noise: Any, members: Any) -> np.ndarray:
    """Standard deviation of a prediction at every step, as validation calibrates it.

    The variance is that of the members, which for newcomers also differ by what is not known of
    their factors, plus the mean square of what members do not explain of one step in their training
    data. That errors of steps add up is left to the rescaling that validation finds,

        var_t = var over members + sigma^2.

    Args:
      params: Of the members, for the scale of targets.
      noise: `[M, D]`, scaled residuals of each member; None counts none.
      members: `[M, T, D]`, predicted paths.

    Returns:
      `[T, D]`.
    """
    variance = np.asarray(members, np.float64).var(axis=0)
    if noise is not None:
        scale = np.asarray(params.normalizer.delta.std, np.float64)
        variance = variance + np.square(np.asarray(noise, np.float64) * scale).mean(axis=0)
    return np.sqrt(variance)
