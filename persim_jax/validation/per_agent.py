"""One model for each agent, from its own record alone: the rival that pools nothing.

Ridge regression of what changes in a step on a polynomial of state and action. Degree and penalty
are chosen for each agent by leaving out one step after the other, which is closed-form, so that an
agent with little data gets a stiff model and an agent with much a supple one.
"""

from __future__ import annotations

import functools
from typing import NamedTuple, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from persim_jax import normalizer as normalizer_lib
from persim_jax.data.dataset import OfflineDataset
from persim_jax.models.base import DynamicsModel, History
from persim_jax.normalizer import Normalizer
from persim_jax.precision import exact

PENALTIES = (1e-4, 1e-2, 1.0, 100.0)
MAX_FEATURES = 80
"""Products are left out where there would be more features than this."""


class RidgeConfig(NamedTuple):
    """Static sizes.

    Attributes:
      size: D, numbers that are predicted.
      lags: L.
      num_actions: Where actions are integers; 0 where they are vectors.
      degree: 1 or 2.
    """

    size: int
    lags: int
    num_actions: int
    degree: int


class RidgeParams(NamedTuple):
    """A fitted model of each of N agents.

    Attributes:
      coefficients: `[N, F, D]`, of scaled features for raw differences.
      obs: Scaling of the state, of all agents, `[D * L]`.
      actions: Of vector actions, `[E]`; of no use where they are integers.
      low: `[D]`, where a prediction stops: it stays within the data and once more their range.
      high: `[D]`.
    """

    coefficients: jax.Array
    obs: Normalizer
    actions: Normalizer
    low: jax.Array
    high: jax.Array


class Scaling(NamedTuple):
    """What all agents' models share; the fields are those of `RidgeParams`."""

    obs: Normalizer
    actions: Normalizer
    low: jax.Array
    high: jax.Array


def scaling_of(train: OfflineDataset) -> Scaling:
    """Units and ranges of the training data, so that no agent's penalty depends on units."""
    data, size = train.transitions(), len(train.info.target_names)
    obs = normalizer_lib.fit(jnp.asarray(data.obs))
    vectors = np.asarray(data.actions, np.float32).reshape(len(data.obs), -1)
    both = np.concatenate([data.obs[:, :size], data.next_obs[:, :size]])
    low, high = both.min(axis=0), both.max(axis=0)
    width = high - low
    return Scaling(
        obs, normalizer_lib.fit(jnp.asarray(vectors)), jnp.asarray(low - width),
        jnp.asarray(high + width),
    )  # fmt: skip


def fit_each(
    evidence: History, scaling: Scaling, config: RidgeConfig
) -> tuple[RidgeConfig, RidgeParams]:
    """Fits every agent to its own transitions.

    Args:
      evidence: Leaves `[N, T, ...]`; steps that are masked do not count.
      scaling: Of the training data.
      config: Sizes; the degree is the highest that is tried.

    Returns:
      Config and params for `ridge_model`.
    """
    most = _largest(config, evidence)
    unit = normalizer_lib.binary_unit(np.asarray(scaling.high - scaling.low)[None])
    coefficients = _fit_each(evidence, scaling, jnp.asarray(unit), most)
    return most, RidgeParams(coefficients, *scaling)


@functools.cache
def ridge_model(config: RidgeConfig) -> DynamicsModel:
    """The agents' own models as a `DynamicsModel` of one member."""

    def step(key: jax.Array, bound: RidgeParams, obs: jax.Array, action: jax.Array) -> jax.Array:
        del key
        newest = obs[0, : config.size]
        moved = features(config, bound.obs, bound.actions, obs[0], action) @ bound.coefficients
        newest = jnp.clip(newest + moved, bound.low, bound.high)
        if config.lags == 1:
            return newest[None]
        taken = jax.nn.one_hot(action, config.num_actions) if config.num_actions else action
        # A window is values and then the actions between them, each newest first.
        values, actions = jnp.split(obs[0], [config.size * config.lags])
        older = values[: -config.size], taken, actions[: actions.shape[0] - taken.shape[0]]
        return jnp.concatenate([newest, *older])[None]

    return DynamicsModel(
        num_members=1,
        init=_untrained,
        fit_normalizer=_untrained,
        loss=_untrained,
        bind=lambda params, agent, history: params._replace(
            coefficients=params.coefficients[agent]
        ),
        encode_actions=lambda bound, actions: actions,
        start=lambda bound, obs: obs[None],
        step=exact(step),
        observe=lambda state: state,
    )


def features(
    config: RidgeConfig, obs_scale: Normalizer, action_scale: Normalizer, obs: jax.Array,
    action: jax.Array,
) -> jax.Array:  # fmt: skip
    """1, state s, action a, and with degree two their products s x a and s x s: `[F]`."""
    s = normalizer_lib.apply(obs_scale, obs)
    if config.num_actions:
        a = jax.nn.one_hot(action, config.num_actions)[1:]
    else:
        a = normalizer_lib.apply(action_scale, action)
    first = jnp.concatenate([jnp.ones(1), s, a])
    if config.degree == 1:
        return first
    upper = np.triu_indices(s.shape[0])
    squares = jnp.outer(s, s)[upper]
    return jnp.concatenate([first, jnp.outer(s, a).reshape(-1), squares])


def _largest(config: RidgeConfig, evidence: History) -> RidgeConfig:
    states = evidence.obs.shape[-1]
    acts = config.num_actions - 1 if config.num_actions else evidence.actions.shape[-1]
    total = 1 + states + acts + states * acts + states * (states + 1) // 2
    return config._replace(degree=config.degree if total <= MAX_FEATURES else 1)


@functools.partial(jax.jit, static_argnames=("config",))
@exact
def _fit_each(
    evidence: History, scaling: Scaling, unit: jax.Array, config: RidgeConfig
) -> jax.Array:
    """Coefficients `[N, F, D]`; `unit [D]` is one in which squares of differences are float32."""

    def one(own: History) -> jax.Array:
        make = functools.partial(features, config, scaling.obs, scaling.actions)
        weight = own.mask.astype(own.obs.dtype)[:, None]
        inputs = jax.vmap(make)(own.obs, own.actions) * weight
        moved = (own.next_obs - own.obs)[:, : config.size] / unit[None] * weight
        linear = 1 + own.obs.shape[-1] + _num_action_features(config, own)
        fits = []
        for degree in range(1, config.degree + 1):
            used = jnp.arange(inputs.shape[1]) < (linear if degree == 1 else inputs.shape[1])
            for penalty in PENALTIES:
                fits.append(_ridge(jnp.where(used[None], inputs, 0.0), moved, penalty))
        errors, coefficients = (jnp.stack(parts) for parts in zip(*fits, strict=True))
        best = jnp.argmin(errors, axis=0)  # [D], each coordinate its own
        return jnp.take_along_axis(coefficients, best[None, None, :], axis=0)[0] * unit[None]

    found: jax.Array = lax.map(one, evidence, batch_size=16)
    return found


def _ridge(inputs: jax.Array, target: jax.Array, penalty: float) -> tuple[jax.Array, jax.Array]:
    """Leave-one-out error `[D]` and coefficients `[F, D]` from `[T, F]` and `[T, D]`."""
    size = inputs.shape[1]
    # The constant is all but free.
    ridge = jnp.where(jnp.arange(size) == 0, 1e-6, penalty)
    inverse = jnp.linalg.inv(inputs.T @ inputs + jnp.diag(ridge))
    coefficients = inverse @ (inputs.T @ target)
    leverage = jnp.sum((inputs @ inverse) * inputs, axis=1)
    left_out = (target - inputs @ coefficients) / jnp.maximum(1 - leverage, 1e-2)[:, None]
    return jnp.sum(jnp.square(left_out), axis=0), coefficients


def _num_action_features(config: RidgeConfig, own: History) -> int:
    return config.num_actions - 1 if config.num_actions else own.actions.shape[-1]


def _untrained(*args: object) -> NoReturn:
    raise TypeError("the agents' own models are fitted by fit_each")
