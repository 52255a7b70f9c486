"""What users ask simulators with: brought into the model's form, or refused with a reason."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from persim_jax.data.info import row_of
from persim_jax.data.lags import Recent, window_of
from persim_jax.models.base import ModelParams
from persim_jax.models.factor_network import FactorConfig
from persim_jax.models.inputs import join_inputs


def as_obs(config: FactorConfig, params: ModelParams, obs: Any) -> jax.Array:
    """An observation in the model's form and precision: `[0, 1]` is a state too.

    Args:
      config: Sizes of the model.
      params: The ensemble, for its precision.
      obs: `[obs_size]`; or, where there are lags, the last moments of the agent.

    Returns:
      `[obs_size]`.

    Raises:
      ValueError: There are too few moments, or an action among them is none.
    """
    dtype = params.normalizer.obs.mean.dtype
    if not isinstance(obs, Recent):
        return jnp.asarray(obs, dtype)
    values, actions = np.asarray(obs.obs, dtype), np.asarray(obs.actions)
    if config.lags == 1:
        return jnp.asarray(values[-1], dtype)
    check_actions(config, actions)
    inputs = as_inputs(config, params, (), obs.inputs, len(actions))
    if inputs is None and config.discrete:
        taken = np.eye(config.action_size)[actions]
    else:
        taken = np.asarray(join_inputs(config, jnp.asarray(actions), inputs))
    return jnp.asarray(window_of(values, taken, config.lags), dtype)


def as_inputs(
    config: FactorConfig, params: ModelParams, names: tuple[str, ...], inputs: Any, steps: int
) -> jax.Array | None:
    """Exogenous inputs `[steps, I]` in the model's precision; None for a model without.

    Args:
      config: Sizes of the model.
      params: The ensemble, for its precision.
      names: Of the inputs, for messages; may be empty.
      inputs: `[steps, I]`, or `[I]` where they stay the same; None for a model without.
      steps: How many are due.

    Raises:
      ValueError: They are missing, have another shape, are not finite, or the model takes none.
    """
    width = config.num_inputs
    named = f" ({', '.join(names)})" if names else ""
    if inputs is None:
        if width:
            raise ValueError(
                f"this model takes {width} inputs{named}: give them, ({steps}, {width})"
            )
        return None
    found = jnp.asarray(inputs, params.normalizer.obs.mean.dtype)
    if not width or found.shape not in ((width,), (steps, width)):
        due = (
            f"({steps}, {width}) is due, a row of inputs{named} for each step" if width else "none"
        )
        raise ValueError(f"inputs have shape {found.shape}: this model takes {due}")
    if not is_traced(inputs) and not np.isfinite(np.asarray(inputs, found.dtype)).all():
        raise ValueError("inputs hold a value that is not finite: give a number for each step")
    return jnp.broadcast_to(found, (steps, width))


def as_actions(config: FactorConfig, params: ModelParams, actions: Any) -> jax.Array:
    """Actions `[T]`, or `[T, A]` in the model's precision; see `check_actions`."""
    check_actions(config, actions)
    return jnp.asarray(actions, None if config.discrete else params.normalizer.obs.mean.dtype)


def is_traced(values: Any) -> bool:
    """Whether a number among some is hidden by `jit`, `vmap` or `grad`."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def find_row(
    agent_ids: Any, agent_id: Any, agent_names: tuple[str, ...]
) -> tuple[jax.Array, jax.Array | None]:
    """Where an agent stands, also where ids are known to a compiled program only.

    Args:
      agent_ids: `[N]`.
      agent_id: Its id or name; or an integer that is traced.
      agent_names: As in `info.row_of`.

    Returns:
      Its row `[]`, and None or, of a traced id, whether there is such an agent, `[]`.

    Raises:
      KeyError: No agent has this id.
    """
    if agent_names and isinstance(agent_id, str) and is_traced(agent_ids):
        agent_ids = np.arange(len(agent_names))  # a name needs no ids
    if not is_traced((agent_ids, agent_id)):
        return jnp.asarray(row_of(agent_ids, agent_id, agent_names)), None
    is_agent = jnp.asarray(agent_ids) == agent_id
    return jnp.argmax(is_agent), is_agent.any()


def refuse_traced(agent_id: Any, agent_ids: Any) -> None:
    """Refuses to look up a row by what has no value yet.

    Raises:
      TypeError: The id or the table of ids is traced.
    """
    if is_traced((agent_id, agent_ids)):
        raise TypeError(
            "ids of agents are looked up before a program is compiled, and this one is traced: "
            "look up rows outside of it (simulators.row_of) and trace over these, as in "
            "simulators.policy(row, planner) or simulators.model.bind(simulators.params, row, None)"
        )


def check_obs(config: FactorConfig, obs: jax.Array) -> None:
    """Refuses an observation that is not `[obs_size]`.

    Raises:
      ValueError: Its shape does not fit the model.
    """
    if obs.shape != (config.obs_size,):
        lagged = f", a window of {config.lags} lags: give the last moments as persim_jax.Recent"
        raise ValueError(
            f"obs has shape {obs.shape}: this model's is ({config.obs_size},)"
            f"{lagged if config.lags > 1 else ''}"
        )


def check_finite(name: str, values: Any) -> None:
    """Refuses values that are not finite; those that a trace hides are taken as they are.

    Raises:
      ValueError: Says where the first one stands.
    """
    if is_traced(values):
        return
    bad = np.argwhere(~np.isfinite(np.asarray(values)))
    if len(bad):
        value = np.asarray(values)[tuple(bad[0])]
        raise ValueError(f"{name} holds {value} at {tuple(bad[0].tolist())}: give a number")


def check_score(score: jax.Array) -> None:
    """Refuses a decision between plans none of which is worth a number; a trace hides its score.

    Raises:
      ValueError: The best plan's score is not finite.
    """
    if not is_traced(score) and not np.isfinite(np.asarray(score)):
        raise ValueError(
            f"the best of all plans is worth {float(score)}, so that any action would be as good: "
            "make the reward finite wherever the agent may go, or look for another start, from "
            "which predictions stay finite"
        )


def check(config: FactorConfig, obs: jax.Array, actions: jax.Array) -> None:
    """Refuses an observation `[obs_size]` or actions `[T]` or `[T, A]` of other shapes or values.

    Raises:
      ValueError: A shape does not fit, or an action does not exist.
    """
    check_obs(config, obs)
    check_actions(config, actions)


def check_actions(config: FactorConfig, actions: Any) -> None:
    """Refuses actions that are not `[T]` known integers, or `[T, A]` numbers.

    Values that a trace hides are taken as they are.

    Raises:
      ValueError: Says what is due.
    """
    found = jnp.asarray(actions)
    if not config.discrete:
        if found.ndim != 2 or found.shape[1] != config.action_size:
            raise ValueError(f"actions have shape {found.shape}: (T, {config.action_size}) is due")
        return
    if found.ndim != 1 or not jnp.issubdtype(found.dtype, jnp.integer):
        raise ValueError(
            f"actions are {found.dtype} of shape {found.shape}: discrete actions are integers of "
            "shape (T,)"
        )
    if found.size and not is_traced(actions):
        least, most = (int(f(np.asarray(actions))) for f in (np.min, np.max))
        if not 0 <= least <= most < config.action_size:
            raise ValueError(
                f"actions reach from {least} to {most}: they must be 0 to {config.action_size - 1}"
            )
