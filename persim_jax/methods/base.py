"""The record that a method is: a row of the paper's tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from persim_jax.data.dataset import OfflineDataset
from persim_jax.models.base import DynamicsModel
from persim_jax.rollout import Policy
from persim_jax.types import Environment, PyTree


class Monitor(NamedTuple):
    """What watches a fit, so that a method knows nothing of files.

    Attributes:
      restore: `(state) -> state`: where training goes on from; the argument if from the start.
        The state is the method's own: a `TrainState` of models, an `OfflineState` of learners.
      on_epoch: `(state, losses) -> None`, after each epoch or chunk, with the loss of each member
        `[M]` or learner `[L]`.
    """

    restore: Callable[[Any], Any] = lambda state: state
    on_epoch: Callable[[Any, jax.Array], None] = lambda state, losses: None


class Method(NamedTuple):
    """A way from offline data to a policy for each agent.

    `fitted` is a pytree whose static parts are hashable, so that the other functions may run
    inside a compiled program.

    Attributes:
      name: As in rows.
      plans: Whether its policies plan at every step, which decides how many episodes are run.
      fit: `(key, dataset, env, env_params, config, monitor) -> fitted`; the key is consumed. Only
        a baseline that is allowed the truth reads `env_params`; the others know of `env` its
        task, that is reward, termination and sizes.
      policy: `(fitted, agent [], planner) -> Policy` of the agent in that row; `planner` is static.
      model: `(fitted) -> (model, params)`, or None for a method without a model to test.
    """

    name: str
    plans: bool
    fit: Callable[[jax.Array, OfflineDataset, Environment, PyTree, Any, Monitor], PyTree]
    policy: Callable[[PyTree, jax.Array, Any], Policy]
    model: Callable[[PyTree], tuple[DynamicsModel, PyTree]] | None
