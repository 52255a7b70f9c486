"""The half cheetah stepped by Brax's MJX pipeline, for accelerators.

In double precision it is MuJoCo to rounding; in single precision contacts amplify rounding.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs.physics import brax_system
from envs.physics.brax_system import load
from envs.physics.cheetah_model import FRAME_SKIP

__all__ = ["load", "step"]


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
    start = brax_system.arrays(_start())
    system = brax_system.arrays(load())
    from brax.mjx import pipeline

    # MJX computes in JAX's own precision, whatever it is given.
    wide = functools.partial(jnp.asarray, dtype=start.qpos.dtype)
    with brax_system.lenient():
        # System.link.inertia.mass and System.dof.damping belong to Brax's own pipelines.
        system = system.replace(
            body_mass=system.body_mass * wide(mass_scale),
            dof_damping=system.dof_damping * wide(damping_scale),
        )

        def substep(carry: Any, _: None) -> tuple[Any, None]:
            qpos, qvel, warmstart = carry
            state = start.replace(qpos=qpos, qvel=qvel, qacc_warmstart=warmstart)
            # Each step begins with its own forward pass, so none is needed before the first.
            state = pipeline.step(system, state, wide(action))
            return (state.qpos, state.qvel, state.qacc_warmstart), None

        carry = (wide(position), wide(velocity), start.qacc_warmstart)
        (qpos, qvel, _), _ = jax.lax.scan(substep, carry, length=FRAME_SKIP)
    return qpos.astype(position.dtype), qvel.astype(velocity.dtype)


@functools.cache
def _start() -> Any:
    """A state of Brax's MJX pipeline from which nothing has been computed, with NumPy leaves."""
    system = load()
    from brax.mjx import base
    from mujoco import mjx

    with brax_system.lenient(), jax.ensure_compile_time_eval(), jax.enable_x64(True):
        data = mjx.make_data(system)
        state = base.State(q=data.qpos, qd=data.qvel, x=None, xd=None, contact=None, **vars(data))
    return jax.tree.map(np.asarray, state)
