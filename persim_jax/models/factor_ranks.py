"""Members of different ranks in one ensemble, so that ranks are compared by one compiled program.

A factor whose agent and action parts are zero contributes nothing and has no gradient: of
u_l v_l w_l, the derivatives v_l w_l, u_l w_l and u_l v_l all hold one of the two zeros. Trained
without weight decay it stays as it is.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def limit_ranks(weights: Any, ranks: tuple[int, ...]) -> Any:
    """Members that use their first factors only.

    Args:
      weights: Of an ensemble of M members and R factors, leaves `[M, ...]`.
      ranks: How many factors each member keeps, M of them.

    Returns:
      The weights with all further factors switched off for good.

    Raises:
      ValueError: A rank is larger than R, or there is not one for each member.
    """
    members, size = weights["agent_bias"].shape
    if len(ranks) != members or max(ranks) > size:
        raise ValueError(
            f"ranks are {ranks}: one for each of {members} members is due, at most {size}"
        )
    kept = jnp.arange(size)[None] < jnp.asarray(ranks)[:, None]  # [M, R]

    def keep(leaf: jax.Array) -> jax.Array:
        shape = (members, *(1,) * (leaf.ndim - 2), size)
        return jnp.where(kept.reshape(shape), leaf, jnp.zeros_like(leaf))

    last = max(weights["action_encoder"], key=lambda name: int(name.rpartition("_")[2]))
    encoder = {**weights["action_encoder"]}
    encoder[last] = {name: keep(leaf) for name, leaf in encoder[last].items()}
    return {
        **weights,
        "agent_encoder": {"embedding": keep(weights["agent_encoder"]["embedding"])},
        "agent_bias": keep(weights["agent_bias"]),
        "action_encoder": encoder,
    }
