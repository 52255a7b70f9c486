"""What is believed of the factors of an agent that was not in the training data.

A Gaussian prior and linear observations with Gaussian noise,

    u ~ N(m, L L^T),    y_t = Phi_t u + e_t,    e_t ~ N(0, diag(noise^2)),

have a Gaussian posterior (Bishop, Pattern Recognition and Machine Learning, 2006, Section 3.3). It
is held as in the square-root information filter (Bierman, Factorization Methods for Discrete
Sequential Estimation, 1977, Chapter V): u = m + L z, and R, the triangular root of the information
of z, with R z = b at the mean. Its updates are QR decompositions, whose condition number is the
root of that of the normal equations: noise-free data have residuals of 1e-4 of the prior's width,
and a ratio of 1e8 of informations does not fit in float32.

All functions are of one agent and one member; `vmap` lifts them.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from persim_jax.precision import exact


class FactorPrior(NamedTuple):
    """N(mean, root root^T): the factors of an agent before its first transition.

    Attributes:
      mean: `[r]`.
      root: `[r, r]`, lower triangular.
    """

    mean: jax.Array
    root: jax.Array


class FactorPosterior(NamedTuple):
    """The factors of an agent after some transitions; see the head of this file.

    Attributes:
      prior: What was believed before.
      root: R `[r, r]`, upper triangular with a positive diagonal; I without data.
      shift: b `[r]`; zero without data.
    """

    prior: FactorPrior
    root: jax.Array
    shift: jax.Array


def start(prior: FactorPrior) -> FactorPosterior:
    """The posterior without data, which is the prior."""
    return FactorPosterior(prior, _identity(prior.mean), jnp.zeros_like(prior.mean))


@exact
def condition(
    posterior: FactorPosterior,
    basis: jax.Array,
    target: jax.Array,
    noise: jax.Array,
    mask: jax.Array,
    forgetting: jax.Array,
) -> FactorPosterior:
    """Takes T transitions into account; the same one by one, and all at once.

    With a forgetting factor below one each transition first lets what is known fall back towards
    the prior, Lambda <- forgetting * Lambda + (1 - forgetting) * Lambda_prior (Kulhavy and Zarrop,
    On a general concept of forgetting, 1993), so that an agent that drifts is followed and an agent
    that is not seen is not forgotten beyond the prior.

    Args:
      posterior: What is believed so far.
      basis: Phi `[T, D, r]`, oldest first.
      target: y `[T, D]`, scaled as the basis is.
      noise: `[D]`, standard deviation of the residuals.
      mask: `[T]` bool; false where there was no transition.
      forgetting: `[]` in (0, 1]; 1 forgets nothing, and then order does not matter.

    Returns:
      The new posterior.
    """
    prior, rank = posterior.prior, posterior.root.shape[-1]
    seen = mask.astype(basis.dtype)
    # A transition is discounted once for each one that comes after it.
    later = seen[::-1].cumsum()[::-1] - seen
    weight = (seen * forgetting ** (later / 2))[:, None] / noise[None]  # [T, D]
    rows = (basis @ prior.root) * weight[..., None]
    errors = (target - basis @ prior.mean) * weight
    kept = forgetting ** seen.sum()
    stacked = jnp.concatenate(
        [
            jnp.sqrt(kept) * _beside(posterior.root, posterior.shift),
            jnp.sqrt(1 - kept) * _beside(_identity(prior.mean), jnp.zeros_like(prior.mean)),
            _beside(rows.reshape(-1, rank), errors.reshape(-1)),
        ]
    )
    triangle = jnp.linalg.qr(stacked, mode="r")[:rank]
    # A root is unique only up to the signs of its rows.
    triangle = triangle * jnp.where(jnp.diagonal(triangle) < 0, -1.0, 1.0)[:, None]
    return posterior._replace(root=triangle[:, :rank], shift=triangle[:, rank])


def _beside(matrix: jax.Array, column: jax.Array) -> jax.Array:
    """`[K, r], [K] -> [K, r + 1]`."""
    return jnp.concatenate([matrix, column[:, None]], axis=1)


def _identity(vector: jax.Array) -> jax.Array:
    """The identity in the size and precision of a vector `[r]`."""
    return jnp.eye(vector.shape[-1], dtype=vector.dtype)


@exact
def mean(posterior: FactorPosterior) -> jax.Array:
    """The expected factors, `[r]`."""
    z = solve_triangular(posterior.root, posterior.shift)
    return posterior.prior.mean + posterior.prior.root @ z


@exact
def covariance_root(posterior: FactorPosterior) -> jax.Array:
    """S `[r, r]` with S S^T the covariance of the factors."""
    inverse = solve_triangular(posterior.root, _identity(posterior.shift))
    return posterior.prior.root @ inverse


@exact
def covariance(posterior: FactorPosterior) -> jax.Array:
    """Covariance of the factors, `[r, r]`."""
    root = covariance_root(posterior)
    return root @ root.T


@exact
def sample(key: jax.Array, posterior: FactorPosterior, count: int) -> jax.Array:
    """Guesses of the factors whose mean is the posterior's.

    They come in pairs, mean + S q sqrt(r) and mean - S q sqrt(r), for the orthonormal directions q
    of a random rotation. With r pairs their covariance is the posterior's, too, as in cubature
    filters (Arasaratnam and Haykin, Cubature Kalman filters, 2009); with fewer it is so on average.

    Args:
      key: Consumed.
      posterior: Of one agent and member.
      count: P, static. An odd one has the mean itself first, and wider pairs.

    Returns:
      `[P, r]`.
    """
    center, rank = mean(posterior), posterior.shift.shape[-1]
    pairs = count // 2
    if not pairs:
        return jnp.broadcast_to(center, (count, rank))
    blocks = -(-pairs // rank)
    rotations, _ = jnp.linalg.qr(jax.random.normal(key, (blocks, rank, rank), center.dtype))
    directions = rotations.swapaxes(1, 2).reshape(-1, rank)[:pairs]
    steps = jnp.sqrt(rank * count / (2 * pairs)) * directions @ covariance_root(posterior).T
    first = jnp.zeros((count % 2, rank), center.dtype)
    return center[None] + jnp.concatenate([first, steps, -steps])


@exact
def predict(
    posterior: FactorPosterior, basis: jax.Array, noise: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """One step ahead: E[y] = Phi mean(u) and Cov[y] = Phi Cov[u] Phi^T + diag(noise^2).

    Args:
      posterior: What is believed.
      basis: Phi `[D, r]`.
      noise: `[D]`.

    Returns:
      Mean `[D]` and covariance `[D, D]` of the scaled target.
    """
    root = basis @ covariance_root(posterior)
    return basis @ mean(posterior), root @ root.T + jnp.diag(jnp.square(noise))
