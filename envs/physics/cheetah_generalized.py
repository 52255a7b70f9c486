"""The half cheetah stepped by Brax's generalized pipeline.

It is MuJoCo to rounding as long as nothing touches anything; its contacts are others.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from envs.physics import brax_system
from envs.physics.brax_system import load
from envs.physics.cheetah_model import FRAME_SKIP

__all__ = ["load", "step"]

# Of its contact solver, as in Brax's own half cheetah. The hundred iterations of the model are
# meant for MuJoCo's solver; here they would cost twenty times as much.
SOLVER_ITERATIONS = 4
SOLVER_LINE_SEARCH = 50


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
    system = brax_system.arrays(load())
    from brax.generalized import pipeline

    # Brax computes in JAX's own precision, whatever it is given.
    wide = functools.partial(jnp.asarray, dtype=system.dof.damping.dtype)
    with brax_system.lenient():
        # System.body_mass and System.dof_damping belong to the MJX pipeline.
        system = system.tree_replace(
            {
                "link.inertia.mass": system.link.inertia.mass * wide(mass_scale),
                "dof.damping": system.dof.damping * wide(damping_scale),
                "solver_iterations": SOLVER_ITERATIONS,
                "solver_maxls": SOLVER_LINE_SEARCH,
                # The exact inverse, with which damping is implicit, as in MuJoCo.
                "matrix_inv_iterations": 0,
            }
        )

        def substep(carry: Any, _: None) -> tuple[Any, None]:
            # What a step computes for the next one is left out by the compiler.
            state = pipeline.step(system, pipeline.init(system, *carry), wide(action))
            return (state.q, state.qd), None

        carry = (wide(position), wide(velocity))
        (q, qd), _ = jax.lax.scan(substep, carry, length=FRAME_SKIP)
    return q.astype(position.dtype), qd.astype(velocity.dtype)
