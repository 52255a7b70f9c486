"""A rollout as one file of StableHLO, which runs without this package.

    from jax import export
    import numpy as np

    rollout = export.deserialize(open("agents.stablehlo", "rb").read()).call
    mean, members = rollout(np.int32([7]), obs, actions)  # batches of any size

It needs nothing but jax and flatbuffers, with which jax reads such files, on a CPU, an NVIDIA GPU
or a TPU.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export, lax

from persim_jax.files import write_atomically
from persim_jax.models.base import ModelParams
from persim_jax.models.factor import FactorConfig, factor_model
from persim_jax.models.factor_network import newest
from persim_jax.models.inputs import join_inputs

PLATFORMS = ("cpu", "cuda", "tpu")


def export_rollout(
    path: str | os.PathLike[str],
    config: FactorConfig,
    params: ModelParams,
    agent_ids: Any,
    num_steps: int | None = None,
) -> None:
    """Writes the open-loop rollout of some agents to a file, their weights inside.

    The exported function takes `(agent_ids [B] int32, obs [B, D], actions [B, T] int32 or
    [B, T, A])`, and `inputs [B, T, I]` where the model has any, of any B. It returns the mean over
    members `[B, T, D]` and all of them `[B, M, T, D]`, NaN for an id that is not in the file.

    Args:
      path: The file; replaced if it is there.
      config: Sizes of the model.
      params: Its ensemble.
      agent_ids: `[N]` int, in the order of the model's rows.
      num_steps: T; None leaves it open, as B is.

    Raises:
      ValueError: `num_steps` is not positive, or an id is no int32.
      ModuleNotFoundError: flatbuffers is not installed.
    """
    if num_steps is not None and num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}: a rollout has at least 1, or None for any")
    ids = np.asarray(agent_ids)
    if not np.array_equal(ids, ids.astype(np.int32)):
        raise ValueError(
            f"agent ids reach from {ids.min()} to {ids.max()}: a file addresses agents by numbers "
            "of 32 bits; number them, simulators.replace(agent_ids=np.arange(num_agents))"
        )
    batch, time = export.symbolic_shape("b, t")
    steps = time if num_steps is None else num_steps
    dtype = params.normalizer.obs.mean.dtype
    action_shape = () if config.discrete else (config.action_size,)
    shapes = [
        jax.ShapeDtypeStruct((batch,), jnp.int32),
        jax.ShapeDtypeStruct((batch, config.obs_size), dtype),
        jax.ShapeDtypeStruct(
            (batch, steps, *action_shape), jnp.int32 if config.discrete else dtype
        ),
    ]
    if config.num_inputs:
        shapes.append(jax.ShapeDtypeStruct((batch, steps, config.num_inputs), dtype))
    function = _rollout_of(config, params, ids.astype(np.int32))
    exported = export.export(jax.jit(jax.vmap(function)), platforms=PLATFORMS)(*shapes)
    try:
        data = exported.serialize()
    except ImportError as error:
        raise ModuleNotFoundError(
            "jax writes and reads such files with flatbuffers: pip install flatbuffers, or "
            "persim_jax[export]"
        ) from error
    write_atomically(Path(path), bytes(data))


def _rollout_of(config: FactorConfig, params: ModelParams, agent_ids: np.ndarray) -> Any:
    """`(agent_id, obs, actions[, inputs]) -> (mean [T, D], members [M, T, D])`, weights inside."""
    model, ids = factor_model(config), jnp.asarray(agent_ids)

    def rollout(
        agent_id: jax.Array, obs: jax.Array, actions: jax.Array, inputs: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        is_agent = ids == agent_id
        bound = model.bind(params, jnp.argmax(is_agent), None)
        encoded = model.encode_actions(bound, join_inputs(config, actions, inputs))

        def step(state: Any, action: Any) -> tuple[Any, jax.Array]:
            state = model.step(jax.random.key(0), bound, state, action)
            return state, newest(config, model.observe(state))

        _, path = lax.scan(step, model.start(bound, obs), encoded)
        members = jnp.where(is_agent.any(), path.swapaxes(0, 1), jnp.nan)
        return members.mean(axis=0), members

    return rollout
