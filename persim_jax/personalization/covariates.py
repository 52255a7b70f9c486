"""From an agent's covariates to its factors: the paper's Appendix F.5.

Ridge regression of the training agents' factors on polynomials of their covariates. What it says of
an agent without any data is a Gaussian, the prior of what the agent's transitions then say.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from persim_jax import normalizer as normalizer_lib
from persim_jax.normalizer import Normalizer
from persim_jax.personalization.posterior import FactorPrior
from persim_jax.personalization.prior import shrunk
from persim_jax.precision import exact

DEGREES = (1, 2, 3)
PENALTIES = (1e-4, 1e-2, 1.0, 100.0)


class CovariateRegression(NamedTuple):
    """A fitted regression; all members share its inputs.

    Attributes:
      scaling: Of the covariates, `[C]`.
      powers: `[F, C]`, exponents of the F monomials; the first is constant.
      coefficients: `[M, F, r]`.
      inverse: `[F, F]`, (X^T X + penalty)^-1.
      residual: `[M, r, r]`, covariance of the factors given the covariates.
    """

    scaling: Normalizer
    powers: jax.Array
    coefficients: jax.Array
    inverse: jax.Array
    residual: jax.Array


def fit_covariates(covariates: Any, factors: jax.Array) -> CovariateRegression:
    """Chooses degree and penalty by leave-one-out error, which is closed-form, and fits.

    Args:
      covariates: `[N, C]` of the training agents.
      factors: `[M, N, r]`.

    Returns:
      The regression.

    Raises:
      ValueError: There are no covariates, a value is not finite, or there are too few agents.
    """
    given = _checked(np.asarray(covariates, np.float64))
    scaling = normalizer_lib.fit(jnp.asarray(given, factors.dtype))
    scaled = (given - np.asarray(scaling.mean)) / np.asarray(scaling.std)
    targets = np.asarray(factors, np.float64)
    best: _Ridge | None = None
    for degree in DEGREES:
        powers = _powers(given.shape[1], degree)
        if len(powers) >= len(given):
            break
        inputs = np.prod(scaled[:, None] ** powers, axis=-1)
        for penalty in PENALTIES:
            # The constant is not penalised.
            found = _ridge(inputs, targets, penalty * np.diag(powers.sum(axis=1) > 0))
            if best is None or found.error < best.error:
                best = found._replace(powers=powers)
    assert best is not None  # `_checked` leaves room for degree one
    spread, share = jnp.asarray(best.spread, factors.dtype), targets.shape[-1] / len(given)
    residual = jax.vmap(lambda c, u: shrunk(c, share, u))(spread, factors.mean(axis=1))
    return CovariateRegression(
        scaling=scaling,
        powers=jnp.asarray(best.powers, factors.dtype),
        coefficients=jnp.asarray(best.coefficients, factors.dtype),
        inverse=jnp.asarray(best.inverse, factors.dtype),
        residual=residual,
    )


@exact
def covariate_prior(regression: CovariateRegression, covariates: jax.Array) -> FactorPrior:
    """What covariates `[C]` say of an agent's factors: leaves `[M, r]` and `[M, r, r]`."""
    scaled = normalizer_lib.apply(regression.scaling, covariates)
    row = _monomials(scaled, regression.powers)
    means = jnp.einsum("f,mfr->mr", row, regression.coefficients)
    wider = 1 + row @ regression.inverse @ row
    return FactorPrior(means, jnp.linalg.cholesky(wider * regression.residual))


class _Ridge(NamedTuple):
    """One fit.

    Attributes:
      error: Of leaving out one agent after the other, mean square, each factor scaled alike.
      coefficients: `[M, F, r]`.
      inverse: (X^T X + penalty)^-1, `[F, F]`.
      spread: `[M, r, r]`, covariance of left-out residuals: those of agents that were fitted are
        smaller than a newcomer's will be.
      powers: `[F, C]`.
    """

    error: float
    coefficients: np.ndarray
    inverse: np.ndarray
    spread: np.ndarray
    powers: np.ndarray


def _ridge(inputs: np.ndarray, factors: np.ndarray, penalty: np.ndarray) -> _Ridge:
    """Regression of factors `[M, N, r]` on inputs `[N, F]`, in closed form."""
    inverse = np.linalg.inv(inputs.T @ inputs + penalty)
    coefficients = inverse @ inputs.T @ factors
    leverage = np.einsum("nf,fg,ng->n", inputs, inverse, inputs)
    residuals = factors - inputs @ coefficients
    left_out = residuals / np.maximum(1 - leverage, 1e-3)[:, None]
    # Members scale their factors as they like: each coordinate of each counts alike.
    scale = np.maximum(factors.std(axis=1, keepdims=True), 1e-12)
    error = float(np.mean(np.square(left_out / scale)))
    spread = left_out.swapaxes(1, 2) @ left_out / len(inputs)
    return _Ridge(error, coefficients, inverse, spread, np.zeros((0, 0)))


def _checked(covariates: np.ndarray) -> np.ndarray:
    if covariates.ndim != 2 or not covariates.shape[1]:
        raise ValueError(
            "the training agents have no covariates: fit to a dataset that names some, or "
            "personalize from transitions"
        )
    bad = np.argwhere(~np.isfinite(covariates))
    if len(bad):
        row, column = bad[0].tolist()
        raise ValueError(
            f"covariate {column} of the training agent in row {row} is {covariates[row, column]}: "
            "a regression needs finite ones of every agent"
        )
    least = covariates.shape[1] + 2
    if len(covariates) < least:
        raise ValueError(
            f"{len(covariates)} training agents do not tell what {covariates.shape[1]} covariates "
            f"do: at least {least} are needed"
        )
    return covariates


def _powers(num_covariates: int, degree: int) -> np.ndarray:
    """Exponents of all monomials up to a degree, the constant first, `[F, C]`."""
    # Not all of (degree + 1)^C exponents: of twenty covariates these are billions.
    factors = itertools.combinations_with_replacement(range(num_covariates + 1), degree)
    every = ([chosen.count(c) for c in range(num_covariates)] for chosen in factors)
    return np.asarray(sorted(every, key=lambda powers: (sum(powers), powers)))


def _monomials(scaled: jax.Array, powers: jax.Array) -> jax.Array:
    """`[C], [F, C] -> [F]`."""
    return jnp.prod(scaled[None] ** powers, axis=-1)
