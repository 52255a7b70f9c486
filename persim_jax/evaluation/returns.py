"""What a policy earns in the true environment."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from persim_jax.models.true_env import true_dynamics
from persim_jax.rollout import Policy, unroll
from persim_jax.types import Environment, PyTree

PolicyFn = Callable[[PyTree, jax.Array, Any], Policy]
"""`(fitted, agent [], settings) -> Policy` of one agent, made inside the compiled program."""


@functools.partial(jax.jit, static_argnames=("env", "policy_of", "settings", "width"))
def evaluate_returns(
    key: jax.Array,
    env: Environment,
    env_params: PyTree,
    policy_of: PolicyFn,
    fitted: PyTree,
    settings: Any,
    agents: jax.Array,
    obs: jax.Array,
    numbers: jax.Array | None = None,
    width: int = 1,
) -> tuple[jax.Array, jax.Array]:
    """Returns and lengths of one episode per lane, in one compiled program.

    Lane after lane a lane stops computing when its episode ends, so ended lanes cost nothing: right
    on a CPU. On an accelerator many lanes side by side cost little more than one.

    Args:
      key: Consumed; lane i uses `fold_in(key, numbers[i])`.
      env: The true environment, static.
      env_params: Physics of all agents, leaves `[N, ...]`.
      policy_of: Static.
      fitted: What the policies are made from.
      settings: Static, hashable: the planner's config, or None.
      agents: `[L]` row of each lane's agent.
      obs: `[L, D]` initial observation of each lane.
      numbers: `[L]` int32, the episode that each lane is; 0 to L - 1 if not given.
      width: Lanes side by side, static; 1 is one after the other.

    Returns:
      Return and number of steps of each lane, `[L]` and `[L]` int32. Of an episode whose rewards
      leave the finite numbers the return is not finite, and the steps are those before it did.
    """
    model = true_dynamics(env)

    def lane(xs: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        index, agent, obs = xs
        policy = policy_of(fitted, agent, settings)
        bound = model.bind(env_params, agent, None)
        episode = unroll(
            jax.random.fold_in(key, index), model, bound, env, policy, obs,
            env.spec.max_steps, early_exit=width == 1,
        )  # fmt: skip
        finite = jnp.isfinite(episode.rewards)
        steps = episode.mask.sum(dtype=jnp.int32)
        before = jnp.argmin(finite).astype(jnp.int32)
        return episode.rewards.sum(), jnp.where(finite.all(), steps, before)

    numbers = jnp.arange(agents.shape[0]) if numbers is None else numbers
    batch_size = None if width == 1 else width
    return lax.map(lane, (numbers, agents, obs), batch_size=batch_size)
