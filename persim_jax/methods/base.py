"""The record that a method is, a row of the paper's tables, and what methods check alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from persim_jax.data.dataset import DatasetInfo, OfflineDataset
from persim_jax.models.base import DynamicsModel
from persim_jax.rollout import Policy
from persim_jax.types import Environment, PyTree, Spec


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
        Of an agent without a policy of its own a KeyError, but not inside a compiled program, where
        the row is not known: there it is the first agent's.
      model: `(fitted) -> (model, params)`, or None for a method without a model to test.
    """

    name: str
    plans: bool
    fit: Callable[[jax.Array, OfflineDataset, Environment, PyTree, Any, Monitor], PyTree]
    policy: Callable[[PyTree, jax.Array, Any], Policy]
    model: Callable[[PyTree], tuple[DynamicsModel, PyTree]] | None


def check_agents(agents: Sequence[int], num_agents: int, method: str) -> None:
    """Refuses rows that no agent stands in; one below 0 would mean all agents.

    Raises:
      ValueError: There are none, or one is not a row.
    """
    if not agents:
        raise ValueError(f"{method} has no agents to learn for: give their rows")
    wrong = [row for row in agents if not 0 <= row < num_agents]
    if wrong:
        raise ValueError(
            f"{method} is to learn for the agents in rows {wrong}: this dataset has rows 0 to "
            f"{num_agents - 1}, of which dataset.row_of(agent_id) is an agent's"
        )


def check_task(spec: Spec, info: DatasetInfo) -> None:
    """Refuses data of another task, on which networks of the wrong sizes would fail or diverge.

    Raises:
      ValueError: An observation or an action has another size; says which.
    """
    sizes = {
        "coordinates of an observation": (spec.obs_size, info.obs_size),
        "discrete actions": (spec.num_actions, info.num_actions),
        "numbers in an encoded action": (spec.action_size, info.action_size),
    }
    for what, (expected, found) in sizes.items():
        if expected != found:
            raise ValueError(
                f"{what}: {spec.name} has {expected}, the data have {found}: give the task that "
                "the data are of"
            )


def lane_of(agents: jax.Array, agent: jax.Array | int) -> jax.Array:
    """Which of the policies of some agents `[L]`, of whom -1 is any agent, is that of one.

    Raises:
      KeyError: The agent has no policy. Inside a compiled program the first is returned instead.
    """
    mine = (agents == agent) | (agents < 0)
    if not isinstance(mine, jax.core.Tracer) and not bool(mine.any()):
        raise KeyError(
            f"the agent in row {int(agent)} has no policy: rows {np.asarray(agents).tolist()} have "
            "one, fit with this row among `agents`"
        )
    return jnp.argmax(mine)
