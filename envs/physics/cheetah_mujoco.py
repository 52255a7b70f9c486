"""The half cheetah stepped by MuJoCo's own threaded rollout, for hosts without an accelerator.

Compiled code reaches it through `jax.pure_callback` on a whole batch at once. Each agent has an
`MjModel` of its own, cached by its covariates. It cannot be exported, and it runs on the CPU.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import jax
import numpy as np

from envs.physics.cheetah_model import (
    FRAME_SKIP,
    NUM_ACTIONS,
    NUM_POSITIONS,
    base_model,
    scaled_model,
)

_cached_model = functools.lru_cache(maxsize=4096)(scaled_model)


def step(
    position: jax.Array,
    velocity: jax.Array,
    action: jax.Array,
    mass_scale: jax.Array,
    damping_scale: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """One control step of one agent.

    Args:
      position: `[9]`, x first; m and rad.
      velocity: `[9]`, m/s and rad/s.
      action: `[6]` within [-1, 1].
      mass_scale: `[]`, multiplies every body's mass.
      damping_scale: `[]`, multiplies every joint's damping.

    Returns:
      Position `[9]` and velocity `[9]` after 0.05 s.
    """
    shape = jax.ShapeDtypeStruct((2 * NUM_POSITIONS,), position.dtype)
    state = jax.numpy.concatenate([position, velocity])
    covariates = jax.numpy.stack([mass_scale, damping_scale])
    after = jax.pure_callback(
        _step_batch, shape, state, action, covariates, vmap_method="expand_dims"
    )
    return after[:NUM_POSITIONS], after[NUM_POSITIONS:]


@functools.cache
def _pool(pid: int) -> tuple[Any, list[Any]]:
    """Threads of this process and a scratch `MjData` for each; a fork needs its own."""
    import mujoco
    from mujoco import rollout

    threads = len(os.sched_getaffinity(pid)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return rollout.Rollout(nthread=threads), [
        mujoco.MjData(base_model()) for _ in range(threads or 1)
    ]


def _step_batch(state: Any, action: Any, covariates: Any) -> np.ndarray:
    """Steps `[..., 18]` states; axes of size 1, which `expand_dims` leaves, are broadcast."""
    state, action, covariates = np.asarray(state), np.asarray(action), np.asarray(covariates)
    batch = np.broadcast_shapes(state.shape[:-1], action.shape[:-1], covariates.shape[:-1])
    count = int(np.prod(batch))
    initial = np.zeros((count, 1 + 2 * NUM_POSITIONS))  # time comes first
    initial[:, 1:] = np.broadcast_to(state, (*batch, 2 * NUM_POSITIONS)).reshape(count, -1)
    control = np.broadcast_to(action, (*batch, NUM_ACTIONS)).reshape(count, 1, -1)
    pool, scratch = _pool(os.getpid())
    states, _ = pool.rollout(
        _models(covariates, batch),
        scratch,
        initial,
        np.repeat(control.astype(np.float64), FRAME_SKIP, axis=1),
    )
    after = states[:, -1, 1:].reshape(*batch, 2 * NUM_POSITIONS)
    return after.astype(state.dtype)


def _models(covariates: np.ndarray, batch: tuple[int, ...]) -> list[Any]:
    """The model of each element of the batch; one lookup for each distinct row that came."""
    rows = covariates.reshape(-1, 2).tolist()
    models = np.empty(len(rows), object)
    for index, (mass, damping) in enumerate(rows):
        models[index] = _cached_model(mass, damping)
    models = models.reshape(covariates.shape[:-1])
    return list(np.broadcast_to(models, batch).reshape(-1))
