"""The half cheetah stepped by MuJoCo's own threaded rollout, for hosts without an accelerator.

Compiled code reaches it through `jax.pure_callback`, many agents at once, each with an `MjModel` of
its own that is cached by its covariates. It cannot be exported, and it runs on the CPU.

A simulation that diverges, or starts from what is not a number, comes back as NaN.
"""

from __future__ import annotations

import functools
import math
import os
import threading
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs.physics.cheetah_model import (
    FRAME_SKIP,
    NUM_ACTIONS,
    NUM_POSITIONS,
    base_model,
    quiet,
    scaled_model,
)

_NUM_STATES = 2 * NUM_POSITIONS
# A row is what one agent's step needs: positions, velocities, actions, the two scales.
_ROW = _NUM_STATES + NUM_ACTIONS + 2
# JAX copies the arguments of a callback, from 100 KiB upwards on a thread of the pool that may be
# waiting for this very callback: with few cores it then waits for ever.
_MAX_BYTES = 96 * 1024

_cached_model = functools.lru_cache(maxsize=4096)(scaled_model)


def load() -> None:
    """Loads the model.

    Raises:
      ModuleNotFoundError: MuJoCo is not installed.
    """
    base_model()


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
    scales = jnp.stack([mass_scale, damping_scale])
    after = _advance(jnp.concatenate([position, velocity, action, scales])[None])[0]
    return after[:NUM_POSITIONS], after[NUM_POSITIONS:]


@jax.custom_batching.custom_vmap
def _advance(rows: jax.Array) -> jax.Array:
    """Steps `rows [B, 26]` to states `[B, 18]`, in calls of equal size that are small enough."""
    num_rows = rows.shape[0]
    num_calls = math.ceil(rows.nbytes / _MAX_BYTES)
    if num_calls <= 1:
        return _call(rows)
    size = math.ceil(num_rows / num_calls)
    rows = jnp.pad(rows, ((0, num_calls * size - num_rows), (0, 0)), mode="edge")
    states = jax.lax.map(_call, rows.reshape(num_calls, size, _ROW))
    return states.reshape(-1, _NUM_STATES)[:num_rows]


@_advance.def_vmap
def _advance_batch(
    axis_size: int, in_batched: list[bool], rows: jax.Array
) -> tuple[jax.Array, bool]:
    """However many times the step is mapped over, its rows are one batch."""
    del in_batched
    states = _advance(rows.reshape(-1, _ROW))
    return states.reshape(axis_size, rows.shape[1], _NUM_STATES), True


def _call(rows: jax.Array) -> jax.Array:
    # Whether JAX knows 64 bits is a setting of each thread. The callback runs on another one,
    # where a float64 may be refused: what is handed over are words of 32 bits.
    bits = jax.lax.bitcast_convert_type(rows, jnp.uint32)
    shape = jax.ShapeDtypeStruct((rows.shape[0], _NUM_STATES, *bits.shape[2:]), bits.dtype)
    return jax.lax.bitcast_convert_type(jax.pure_callback(_callback, shape, bits), rows.dtype)


def _callback(bits: Any) -> np.ndarray:
    """`_simulate` on words `[B, 26]` of float32 or `[B, 26, 2]` of float64."""
    bits = np.ascontiguousarray(bits)
    dtype = np.float32 if bits.ndim == 2 else np.float64
    states = _simulate(bits.reshape(len(bits), math.prod(bits.shape[1:])).view(dtype))
    return states.view(np.uint32).reshape(len(bits), _NUM_STATES, *bits.shape[2:])


class _Pool(NamedTuple):
    """Threads with a scratch `MjData` for each; the lock, as programs may run side by side."""

    rollout: Any
    scratch: list[Any]
    lock: threading.Lock


@functools.cache
def _pool(pid: int) -> _Pool:
    """The threads of this process: those of a parent do not survive a fork."""
    import mujoco
    from mujoco import rollout

    cores = len(os.sched_getaffinity(pid)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = cores or 1
    scratch = [mujoco.MjData(base_model()) for _ in range(threads)]
    return _Pool(rollout.Rollout(nthread=threads), scratch, threading.Lock())


def _simulate(rows: np.ndarray) -> np.ndarray:
    """Steps `rows [B, 26]` to states `[B, 18]` on the host, in double precision."""
    wide = rows.astype(np.float64)
    count = len(wide)
    models = [_cached_model(mass, damping) for mass, damping in wide[:, -2:].tolist()]
    initial = np.zeros((count, 1 + _NUM_STATES))  # time comes first
    initial[:, 1:] = wide[:, :_NUM_STATES]
    control = np.repeat(wide[:, None, _NUM_STATES:-2], FRAME_SKIP, axis=1)
    states = np.empty((count, FRAME_SKIP, 1 + _NUM_STATES))
    pool = _pool(os.getpid())
    with pool.lock, quiet():
        # The checks that are skipped look at each model four times.
        pool.rollout.rollout(
            models,
            pool.scratch,
            initial,
            control,
            nstep=FRAME_SKIP,
            state=states,
            skip_checks=True,
        )
    after = states[:, -1]
    # MuJoCo puts a simulation that has gone wrong back to its start, time included, and the
    # rollout goes no further: only a whole step has its whole time.
    whole = np.isclose(after[:, :1], FRAME_SKIP * base_model().opt.timestep)
    return np.where(whole, after[:, 1:], np.nan).astype(rows.dtype)
