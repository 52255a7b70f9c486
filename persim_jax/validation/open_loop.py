"""Open-loop predictions of any model over windows of held-out records."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from persim_jax.models.base import DynamicsModel
from persim_jax.simulators import PersonalizedSimulators
from persim_jax.types import PyTree
from persim_jax.validation.queries import Queries

CHUNK = 32
"""Windows that are rolled out side by side."""
FAR = 1e9


class Forecast(NamedTuple):
    """Predictions of windows, on the host.

    Attributes:
      mean: `[Q, H, D]`, over members and guesses of factors.
      std: `[Q, H, D]`: spread of members and guesses, and residuals; zero for a model of neither.
    """

    mean: np.ndarray
    std: np.ndarray


def forecast(model: DynamicsModel, params: PyTree, queries: Queries, noise: Any = 0.0) -> Forecast:
    """Rolls a model out over windows, each member from its own predictions.

    Args:
      model: Dynamics; `queries.agent` are its rows.
      params: Its params.
      queries: Q windows of H steps.
      noise: `[D]` or a scalar, standard deviation of residuals of one step, raw units.

    Returns:
      Mean and standard deviation. What has left the finite numbers is `FAR` away: it counts as
      wrong, where NaN would not count at all.
    """
    size = queries.truth.shape[-1]
    arguments = (jnp.asarray(x) for x in (queries.agent, queries.obs, queries.actions))
    mean, variance = _forecast(model, params, *arguments, size=size)
    std = np.sqrt(np.asarray(variance, np.float64) + np.square(np.asarray(noise, np.float64)))
    return Forecast(_finite(np.asarray(mean, np.float64)), _finite(std))


@functools.partial(jax.jit, static_argnames=("model", "size"))
def _forecast(
    model: DynamicsModel,
    params: PyTree,
    agents: jax.Array,
    obs: jax.Array,
    actions: jax.Array,
    size: int,
) -> tuple[jax.Array, jax.Array]:
    def one(args: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        agent, start, actions = args
        bound = model.bind(params, agent, None)
        encoded = model.encode_actions(bound, actions)

        def step(state: PyTree, xs: tuple[jax.Array, PyTree]) -> tuple[PyTree, Any]:
            t, action = xs
            state = model.step(jax.random.fold_in(jax.random.key(0), t), bound, state, action)
            members = model.observe(state)[:, :size]
            return state, (members.mean(axis=0), members.var(axis=0))

        times = jnp.arange(actions.shape[0])
        moments: tuple[jax.Array, jax.Array]
        _, moments = lax.scan(step, model.start(bound, start), (times, encoded))
        return moments

    found: tuple[jax.Array, jax.Array] = lax.map(one, (agents, obs, actions), batch_size=CHUNK)
    return found


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.abs(values) < FAR, values, np.where(values < 0, -FAR, FAR))


def one_step_noise(simulators: PersonalizedSimulators) -> np.ndarray:
    """Standard deviation of the residuals of one step, raw units, `[D]`."""
    scale = np.asarray(simulators.params.normalizer.delta.std, np.float64)
    return scale * np.sqrt(np.mean(np.square(np.asarray(simulators.noise, np.float64)), axis=0))


def forecast_simulators(simulators: PersonalizedSimulators, queries: Queries) -> Forecast:
    """As `forecast`, of fitted or personalized simulators."""
    noise = one_step_noise(simulators)
    return forecast(simulators.model, simulators.params, queries, noise)


def persistence(queries: Queries) -> Forecast:
    """Nothing changes: the rival that costs nothing."""
    size = queries.truth.shape[-1]
    mean = np.broadcast_to(queries.obs[:, None, :size], queries.truth.shape)
    return Forecast(mean, np.zeros_like(mean))
