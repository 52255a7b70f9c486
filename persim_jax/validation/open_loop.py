"""Open-loop predictions of any model over windows of held-out records."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from persim_jax import normalizer as normalizer_lib
from persim_jax.models.base import DynamicsModel
from persim_jax.simulators import PersonalizedSimulators
from persim_jax.types import PyTree
from persim_jax.validation.queries import Queries

CHUNK = 32
"""Windows that are rolled out side by side."""
FAR = 1e9
"""Standard deviations of a coordinate."""


class Forecast(NamedTuple):
    """Predictions of windows, on the host.

    Attributes:
      mean: `[Q, H, D]`, over members and guesses of factors.
      std: `[Q, H, D]`: spread of members and guesses, and residuals; zero for a model of neither.
    """

    mean: np.ndarray
    std: np.ndarray


def forecast(
    model: DynamicsModel, params: PyTree, queries: Queries, scale: np.ndarray, noise: Any = 0.0
) -> Forecast:
    """Rolls a model out over windows, each member from its own predictions.

    Args:
      model: Dynamics; `queries.agent` are its rows.
      params: Its params.
      queries: Q windows of H steps.
      scale: `[D]`, standard deviation of each coordinate in the training data, raw units.
      noise: `[D]` or a scalar, standard deviation of residuals of one step, raw units.

    Returns:
      Mean and standard deviation, raw units. What has left the finite numbers is `FAR` from where
      it started: it counts as wrong, where NaN would not count at all.
    """
    size = queries.truth.shape[-1]
    unit = normalizer_lib.binary_unit(np.asarray(scale, np.float64)[None])
    arguments = (jnp.asarray(x) for x in (queries.agent, queries.obs, queries.actions))
    mean, variance = _forecast(
        model, params, *arguments, jnp.asarray(unit, queries.obs.dtype), size=size
    )
    std = np.sqrt(unit**2 * np.asarray(variance, np.float64) + np.square(noise, dtype=np.float64))
    far, start = FAR * scale, np.asarray(queries.obs[:, None, :size], np.float64)
    return Forecast(_within(far, start, np.asarray(mean, np.float64)), _within(far, 0.0, std))


@functools.partial(jax.jit, static_argnames=("model", "size"))
def _forecast(
    model: DynamicsModel,
    params: PyTree,
    agents: jax.Array,
    obs: jax.Array,
    actions: jax.Array,
    unit: jax.Array,
    size: int,
) -> tuple[jax.Array, jax.Array]:
    """Mean `[Q, H, D]`, and variance in squares of `unit [D]`, so that it is a float32."""

    def one(args: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        agent, start, actions = args
        bound = model.bind(params, agent, None)
        encoded = model.encode_actions(bound, actions)

        def step(state: PyTree, xs: tuple[jax.Array, PyTree]) -> tuple[PyTree, Any]:
            t, action = xs
            state = model.step(jax.random.fold_in(jax.random.key(0), t), bound, state, action)
            members = model.observe(state)[:, :size]
            return state, (members.mean(axis=0), (members / unit[None]).var(axis=0))

        times = jnp.arange(actions.shape[0])
        moments: tuple[jax.Array, jax.Array]
        _, moments = lax.scan(step, model.start(bound, start), (times, encoded))
        return moments

    found: tuple[jax.Array, jax.Array] = lax.map(one, (agents, obs, actions), batch_size=CHUNK)
    return found


def _within(far: np.ndarray, center: np.ndarray | float, values: np.ndarray) -> np.ndarray:
    """Values `[Q, H, D]`, at most `far [D]` from the center; what is no number is that far."""
    away = values - center
    return np.where(np.abs(away) < far, values, center + np.where(away < 0, -far, far))


def one_step_noise(simulators: PersonalizedSimulators) -> np.ndarray:
    """Standard deviation of the residuals of one step, raw units, `[D]`."""
    scale = np.asarray(simulators.params.normalizer.delta.std, np.float64)
    return scale * np.sqrt(np.mean(np.square(np.asarray(simulators.noise, np.float64)), axis=0))


def forecast_simulators(
    simulators: PersonalizedSimulators, queries: Queries, scale: np.ndarray
) -> Forecast:
    """As `forecast`, of fitted or personalized simulators."""
    noise = one_step_noise(simulators)
    return forecast(simulators.model, simulators.params, queries, scale, noise)


def persistence(queries: Queries) -> Forecast:
    """Nothing changes: the rival that costs nothing."""
    size = queries.truth.shape[-1]
    mean = np.broadcast_to(queries.obs[:, None, :size], queries.truth.shape)
    return Forecast(mean, np.zeros_like(mean))
