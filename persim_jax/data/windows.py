"""Steps with what came before and after them: what a model that reads histories is trained on."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from persim_jax.data.dataset import OfflineDataset
from persim_jax.models.base import History


class WindowBatch(NamedTuple):
    """Some base steps; the leading axes `[K]` are theirs, more may stand before it.

    Attributes:
      history: The steps right before each, oldest first, from the left; leaves `[K, H, ...]`.
      obs: `[K, F, D]`, true states from the base step on; past the end anything.
      actions: `[K, F]` int32 or `[K, F, A]`.
      next_obs: `[K, F, D]`.
      mask: `[K, F]` bool; true for the steps that were taken. The first always was.
    """

    history: History
    obs: jax.Array
    actions: jax.Array
    next_obs: jax.Array
    mask: jax.Array


# flax's record because the lengths are static.
class Windows(flax.struct.PyTreeNode):
    """The B steps of a dataset, flat, and how many more stand next to each.

    A batch's windows are gathered from the flat steps, so that nothing is stored twenty times.

    Attributes:
      obs: `[B, D]`, ordered by agent, then by time.
      actions: `[B]` int32 or `[B, A]`.
      next_obs: `[B, D]`.
      before: `[B]` int32, steps of the same episode before each.
      after: `[B]` int32, steps of the same episode from each on, itself included.
      history_length: H, static.
      future_length: F, static.
    """

    obs: Any
    actions: Any
    next_obs: Any
    before: Any
    after: Any
    history_length: int = flax.struct.field(pytree_node=False)
    future_length: int = flax.struct.field(pytree_node=False)

    @property
    def num_items(self) -> int:
        """B, the number of base steps."""
        return int(self.obs.shape[0])

    def take(self, rows: jax.Array) -> WindowBatch:
        """The windows of the base steps in some rows `[K]`."""
        size, slots = self.num_items, jnp.arange(self.history_length)[None]
        count = jnp.minimum(self.before[rows], self.history_length)[:, None]
        past = jnp.clip(rows[:, None] - count + slots, 0, size - 1)
        steps = jnp.arange(self.future_length)[None]
        ahead = jnp.clip(rows[:, None] + steps, 0, size - 1)
        history = History(
            self.obs[past], self.actions[past], self.next_obs[past], mask=slots < count
        )
        mask = steps < self.after[rows][:, None]
        return WindowBatch(
            history, self.obs[ahead], self.actions[ahead], self.next_obs[ahead], mask
        )


def windows_of(dataset: OfflineDataset, history_length: int, future_length: int) -> Windows:
    """The windows of all steps of a dataset, on the host.

    A window ends where an episode does, and at a gap of a segmented dataset.

    Args:
      dataset: Of any number of agents.
      history_length: H, steps before a base step at most.
      future_length: F, steps from a base step on at most.

    Raises:
      ValueError: A length is too small to make a window.
    """
    if history_length < 0 or future_length < 1:
        raise ValueError(
            f"history_length {history_length} and future_length {future_length}: give at least 0 "
            "and 1"
        )
    mask = np.asarray(dataset.mask)
    before = np.zeros(mask.shape, np.int32)
    after = mask.astype(np.int32)
    for t in range(1, mask.shape[1]):
        before[:, t] = np.where(mask[:, t] & mask[:, t - 1], before[:, t - 1] + 1, 0)
        after[:, -t - 1] = np.where(mask[:, -t - 1], after[:, -t] + 1, 0)
    flat = dataset.transitions()
    return Windows(
        flat.obs, flat.actions, flat.next_obs, before[mask], after[mask],
        history_length=history_length, future_length=future_length,
    )  # fmt: skip
