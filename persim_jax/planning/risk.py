"""What a plan is worth when the members of an ensemble disagree about its return."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

RISKS = ("mean", "worst", "cvar")


def over_members(returns: jax.Array, risk: str, level: float) -> jax.Array:
    """One number from the returns of M members.

    "mean" is the paper's; "worst" is the least of them; "cvar" is the conditional value at risk
    (Rockafellar and Uryasev, Journal of Risk 2, 2000), the mean of the worst share `level` of
    members. Always worst <= cvar <= mean, with equality at a level of at most 1/M and of 1.

    Args:
      returns: `[M]`; one that is not a number makes the result not a number.
      risk: Static, one of `RISKS`.
      level: Static, above 0 and at most 1; used by "cvar" only.

    Returns:
      `[]`.
    """
    if risk == "mean":
        return returns.mean()
    if risk == "worst":
        return returns.min()
    weights = jnp.asarray(tail_weights(returns.shape[0], level), returns.dtype)
    return jnp.sum(weights * jnp.sort(returns))


def tail_weights(num_members: int, level: float) -> np.ndarray:
    """Weights `[M]` of returns in ascending order whose sum is the mean of the worst share.

    Of `level * M` members the whole ones count fully and the next one for what is left over:
    w_i = clip(level * M - i, 0, 1) / (level * M) for i = 0, ..., M - 1.
    """
    share = level * num_members
    return np.clip(share - np.arange(num_members), 0.0, 1.0) / share
