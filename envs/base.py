"""The record that an environment is: pure functions, with the physics as an argument.

Nothing here resets by itself and nothing here knows a time limit: `terminated` is part of the
physics, truncation after `spec.max_steps` belongs to whoever unrolls an episode.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

EnvParams = Any
"""Physics of one agent as a pytree of scalars, covariates merged in."""
EnvState = Any
"""State inside an environment as a pytree."""


@dataclasses.dataclass(frozen=True)
class EnvSpec:
    """Static facts of an environment; hashable, so that it may be a static argument of `jit`.

    Attributes:
      name: Name in `envs.ENV_NAMES` and in result rows.
      obs_names: Name of each observation coordinate, length D.
      covariate_names: Physical constants that differ by agent, length C, in this order wherever
        covariates are an array `[C]`.
      num_actions: Number of discrete actions; 0 when actions are continuous.
      action_low: Lower bounds of a continuous action, length A; empty when actions are discrete.
      action_high: Upper bounds, as `action_low`.
      max_steps: Steps after which an episode is truncated.
      dt: Seconds between two observations.
      backend: What steps the physics, where there is a choice; else empty.
    """

    name: str
    obs_names: tuple[str, ...]
    covariate_names: tuple[str, ...]
    num_actions: int
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    max_steps: int
    dt: float
    backend: str = ""

    @property
    def obs_size(self) -> int:
        """Number of observation coordinates, D."""
        return len(self.obs_names)

    @property
    def discrete(self) -> bool:
        """Whether an action is one of `num_actions` integers."""
        return self.num_actions > 0

    @property
    def action_size(self) -> int:
        """Width of an encoded action: one-hot when discrete, A when continuous."""
        return self.num_actions if self.discrete else len(self.action_low)


def as_covariates(values: Any) -> jax.Array:
    """Covariates as floats: of whole numbers all other constants would be made whole, too."""
    covariates = jnp.asarray(values)
    if jnp.issubdtype(covariates.dtype, jnp.floating):
        return covariates
    return covariates.astype(jnp.result_type(float))


class Env(NamedTuple):
    """An environment as a record of pure, unbatched functions; batches come from `vmap`.

    A discrete action is an int32 scalar `[]`, a continuous one a float array `[A]`.

    Attributes:
      spec: Static facts.
      params: `(covariates [C]) -> params`; every other constant at its default.
      reset: `(key, params) -> env_state`; the key is consumed.
      step: `(key, env_state, action, params) -> env_state`; the key is consumed.
      observe: `(env_state, params) -> obs [D]`.
      state_from_obs: `(obs [D], params) -> env_state`, the inverse of `observe`.
      reward: `(obs [D], action, next_obs [D]) -> []`.
      terminated: `(obs [D]) -> bool []`.
      planning_bonus: `(obs [H, D]) -> []`, what a planner may add to the return of a plan, before
        the weight that the config gives it; zero where the reward needs no help.
    """

    spec: EnvSpec
    params: Callable[[jax.Array], EnvParams]
    reset: Callable[[jax.Array, EnvParams], EnvState]
    step: Callable[[jax.Array, EnvState, jax.Array, EnvParams], EnvState]
    observe: Callable[[EnvState, EnvParams], jax.Array]
    state_from_obs: Callable[[jax.Array, EnvParams], EnvState]
    reward: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    terminated: Callable[[jax.Array], jax.Array]
    planning_bonus: Callable[[jax.Array], jax.Array]
