"""What users ask simulators with: brought into the model's form, or refused with a reason."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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
    inputs = jnp.asarray(inputs, params.normalizer.obs.mean.dtype)
    if not width or inputs.shape not in ((width,), (steps, width)):
        due = (
            f"({steps}, {width}) is due, a row of inputs{named} for each step" if width else "none"
        )
        raise ValueError(f"inputs have shape {inputs.shape}: this model takes {due}")
    if not bool(jnp.isfinite(inputs).all()):
        raise ValueError("inputs hold a value that is not finite: give a number for each step")
    return jnp.broadcast_to(inputs, (steps, width))


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
    if isinstance(values, jax.core.Tracer):
        return
    bad = np.argwhere(~np.isfinite(np.asarray(values)))
    if len(bad):
        value = np.asarray(values)[tuple(bad[0])]
        raise ValueError(f"{name} holds {value} at {tuple(bad[0].tolist())}: give a number")


def check(config: FactorConfig, obs: jax.Array, actions: jax.Array) -> None:
    """Refuses an observation `[obs_size]` or actions `[T]` or `[T, A]` of other shapes or values.

    Raises:
      ValueError: A shape does not fit, or an action does not exist.
    """
    check_obs(config, obs)
    check_actions(config, actions)


def check_actions(config: FactorConfig, actions: Any) -> None:
    """Refuses actions that are not `[T]` known integers, or `[T, A]` numbers.

    Raises:
      ValueError: Says what is due.
    """
    if config.discrete:
        if actions.ndim != 1 or not jnp.issubdtype(actions.dtype, jnp.integer):
            raise ValueError(
                f"actions are {actions.dtype} of shape {actions.shape}: discrete actions are "
                "integers of shape (T,)"
            )
        if actions.size and not 0 <= int(actions.min()) <= int(actions.max()) < config.action_size:
            raise ValueError(
                f"actions reach from {int(actions.min())} to {int(actions.max())}: they must be "
                f"0 to {config.action_size - 1}"
            )
    elif actions.ndim != 2 or actions.shape[1] != config.action_size:
        raise ValueError(f"actions have shape {actions.shape}: (T, {config.action_size}) is due")
