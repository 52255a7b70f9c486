"""Do the learned agent factors know the covariates that nobody told them? numpy only."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def principal_components(
    factors: ArrayLike, num_components: int = 2
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Projects factors `[N, r]` on their leading principal components.

    Returns:
      Scores `[N, num_components]` (zero columns where the rank is smaller), each component turned
      so that its largest loading is positive, and the share of variance of each.
    """
    centred = _finite_matrix(factors)
    centred = centred - centred.mean(axis=0)
    left, singular, right = np.linalg.svd(centred, full_matrices=False)
    largest = right[np.arange(len(right)), np.abs(right).argmax(axis=1)]
    # The sign of a component is arbitrary: fixed here, so that figures do not flip between runs.
    scores = left * singular * np.where(largest < 0, -1.0, 1.0)
    total = float(np.sum(singular**2))
    shares = singular**2 / total if total > 0 else np.zeros_like(singular)
    width = max(0, num_components - scores.shape[1])
    padded = np.pad(scores, ((0, 0), (0, width)))
    return padded[:, :num_components], np.pad(shares, (0, width))[:num_components]


def first_component_correlation(factors: ArrayLike, covariates: ArrayLike) -> float:
    """Returns |r| between the first principal component of `[N, r]` and one covariate `[N]`.

    NaN where either does not vary.
    """
    matrix, covariate = _aligned(factors, covariates)
    scores, _ = principal_components(matrix, 1)
    if scores[:, 0].std() == 0 or covariate.std() == 0:
        return math.nan
    return abs(float(np.corrcoef(scores[:, 0], covariate)[0, 1]))


def linear_r2(factors: ArrayLike, covariates: ArrayLike) -> float:
    """Returns R^2 of the least-squares map from factors `[N, r]` to one covariate `[N]`.

    Where several covariates differ, the first component can follow only one direction; this says
    whether the covariate can be read off all factors together. NaN where it does not vary.
    """
    matrix, covariate = _aligned(factors, covariates)
    centred = covariate - covariate.mean()
    if not np.any(centred):
        return math.nan
    columns = matrix - matrix.mean(axis=0)
    weights, *_ = np.linalg.lstsq(columns, centred, rcond=None)
    residual = centred - columns @ weights
    return float(1.0 - np.sum(residual**2) / np.sum(centred**2))


def _aligned(
    factors: ArrayLike, covariates: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    matrix = _finite_matrix(factors)
    covariate = np.asarray(covariates, np.float64)
    if covariate.shape != matrix.shape[:1]:
        raise ValueError(
            f"covariates have shape {covariate.shape}, factors {matrix.shape}: give one number of "
            "one covariate per agent, in the order of the factors"
        )
    return matrix, covariate


def _finite_matrix(factors: ArrayLike) -> NDArray[np.float64]:
    matrix = np.asarray(factors, np.float64)
    if matrix.ndim != 2:
        raise ValueError(
            f"factors have shape {matrix.shape}; give those of one member, [agents, rank]"
        )
    if not np.isfinite(matrix).all():
        raise ValueError("factors hold values that are not finite: the member has not converged")
    return matrix
