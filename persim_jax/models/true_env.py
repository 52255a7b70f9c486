"""A true environment as a `DynamicsModel` of one member."""

from __future__ import annotations

import functools
from typing import NamedTuple, NoReturn

import jax

from persim_jax.models.base import DynamicsModel, History
from persim_jax.types import Environment, PyTree


class _State(NamedTuple):
    env_state: PyTree
    obs: jax.Array


def _nothing_to_train(*args: object) -> NoReturn:
    raise TypeError("a true environment has no weights: it cannot be initialised or trained.")


@functools.cache
def true_dynamics(env: Environment) -> DynamicsModel:
    """Wraps an environment so that planners and rollouts see it as a model of one member.

    The model's params are the agents' physics, `env.params` mapped over `[N, C]` covariates; a
    bound model is one row of them. Observations determine states in every environment of this
    project, so `start` is `state_from_obs`.

    Args:
      env: A hashable record of pure functions.

    Returns:
      A model with M = 1; the same record for the same environment.
    """

    def bind(params: PyTree, agent: jax.Array, history: History | None) -> PyTree:
        del history
        return jax.tree.map(lambda leaf: leaf[agent], params)

    def encode_actions(bound: PyTree, actions: jax.Array) -> jax.Array:
        del bound
        return actions

    def start(bound: PyTree, obs: jax.Array) -> _State:
        return _State(env.state_from_obs(obs, bound), obs)

    def step(key: jax.Array, bound: PyTree, state: _State, action: jax.Array) -> _State:
        env_state = env.step(key, state.env_state, action, bound)
        return _State(env_state, env.observe(env_state, bound))

    def observe(state: _State) -> jax.Array:
        return state.obs[None]

    return DynamicsModel(
        num_members=1,
        init=_nothing_to_train,
        fit_normalizer=_nothing_to_train,
        loss=_nothing_to_train,
        bind=bind,
        encode_actions=encode_actions,
        start=start,
        step=step,
        observe=observe,
    )
