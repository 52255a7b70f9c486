"""How far queries lie from the data: a simulator that extrapolates should be seen to.

The distance of a state and action to the nearest of the training data, each coordinate scaled by
its standard deviation. A query is outside if it is farther than 99 % of training data are from the
nearest others.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from persim_jax import normalizer as normalizer_lib
from persim_jax.data.dataset import OfflineDataset
from persim_jax.precision import exact
from persim_jax.validation.queries import Queries

NUM_REFERENCES = 4096
NUM_PROBES = 2048
INSIDE = 0.99
PER_WINDOW = 10
"""Steps of a window that are looked at, evenly spaced."""


class Support(NamedTuple):
    """The training data as a cloud of points.

    Attributes:
      references: `[R, S]`, scaled states and actions.
      mean: `[S]`, with which points are scaled.
      std: `[S]`.
      radius: Distance beyond which a query is outside.
    """

    references: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    radius: float


def support_of(train: OfflineDataset) -> Support:
    """Makes the cloud from evenly spaced transitions; others of them set its radius."""
    data = train.transitions()
    obs, actions = np.asarray(data.obs), np.asarray(data.actions)
    points = as_points(obs, actions, train.info.num_actions)
    # From the first agent's to the last's: no agent is left out because there are many.
    count = min(len(points), NUM_REFERENCES + NUM_PROBES)
    chosen = points[np.linspace(0, len(points) - 1, count).round().astype(int)]
    unit = normalizer_lib.binary_unit(chosen)
    mean, std = unit * (chosen / unit).mean(axis=0), unit * (chosen / unit).std(axis=0)
    std = np.where(normalizer_lib.is_constant(chosen, std), np.ones_like(std), std)
    scaled = (chosen - mean) / std
    # Every third is a probe.
    probe = np.arange(len(scaled)) % 3 == 0
    references, probes = scaled[~probe], scaled[probe]
    if not len(references):
        references = scaled
    distances = np.asarray(_nearest(jnp.asarray(references), jnp.asarray(probes)))
    return Support(references, mean, std, float(np.quantile(distances, INSIDE)))


def outside(support: Support, queries: Queries, num_actions: int) -> np.ndarray:
    """Share of each window's steps that lie outside the data, `[Q]`."""
    steps = np.unique(np.linspace(0, queries.horizon - 1, PER_WINDOW).round().astype(int))
    points = as_points(queries.states[:, steps], queries.actions[:, steps], num_actions)
    scaled = ((points - support.mean) / support.std).reshape(-1, points.shape[-1])
    distances = np.asarray(_nearest(jnp.asarray(support.references), jnp.asarray(scaled)))
    far = (distances > support.radius).reshape(len(points), -1)
    there = queries.mask[:, steps]
    share: np.ndarray = (far & there).sum(axis=1) / there.sum(axis=1)
    return share


def as_points(obs: np.ndarray, actions: np.ndarray, num_actions: int) -> np.ndarray:
    """States and actions side by side, `[..., S]`; an integer action is one-hot."""
    if actions.ndim < obs.ndim:
        actions = np.eye(num_actions, dtype=obs.dtype)[actions]
    return np.concatenate([obs, actions], axis=-1).astype(np.float32)


@functools.partial(jax.jit, static_argnames=("chunk",))
@exact
def _nearest(references: jax.Array, points: jax.Array, chunk: int = 256) -> jax.Array:
    """Distance of each point `[B, S]` to the nearest reference `[R, S]`, `[B]`."""
    norms = jnp.sum(jnp.square(references), axis=1)

    def one(point: jax.Array) -> jax.Array:
        squared = norms - 2 * references @ point + jnp.sum(jnp.square(point))
        return jnp.sqrt(jnp.maximum(squared.min(), 0.0))

    found: jax.Array = lax.map(one, points, batch_size=chunk)
    return found
