"""Offline data of many agents: one trajectory each, with ids and covariates.

The rows of a dataset are agents. An agent is addressed by its id, which is stored; its row is
where it happens to stand in this dataset.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.struct
import jax
import numpy as np

from persim_jax.types import Transitions

Array = np.ndarray | jax.Array


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """Static facts of a dataset; hashable.

    Attributes:
      environment: Name of the environment, or of the system that the data come from.
      behavior: What chose the actions: pure, random, pure_eps20, pure_eps40, or the user's word.
      obs_names: Name of each observation coordinate, length D.
      covariate_names: Names of the constants that differ by agent, length C; may be empty.
      num_actions: Number of discrete actions; 0 when actions are continuous.
      action_size: Width of an encoded action: `num_actions` when discrete, A when continuous.
    """

    environment: str
    behavior: str
    obs_names: tuple[str, ...]
    covariate_names: tuple[str, ...]
    num_actions: int
    action_size: int

    @property
    def obs_size(self) -> int:
        """Number of observation coordinates, D."""
        return len(self.obs_names)

    @property
    def discrete(self) -> bool:
        """Whether an action is one of `num_actions` integers."""
        return self.num_actions > 0


def row_of(agent_ids: Array, agent_id: int) -> int:
    """Returns where `agent_id` stands in a table of ids `[N]`.

    Raises:
      KeyError: No agent has this id.
    """
    rows = np.flatnonzero(np.asarray(agent_ids) == agent_id)
    if rows.size == 0:
        raise KeyError(
            f"no agent has the id {agent_id}: the {len(agent_ids)} ids are in `agent_ids`, and "
            "rows are not ids"
        )
    return int(rows[0])


# A record of flax because `info` is static: under jit it must not be a leaf.
class OfflineDataset(flax.struct.PyTreeNode):
    """One trajectory of each of N agents, padded to T steps as `Trajectory` is.

    Attributes:
      obs: `[N, T + 1, D]`; rows past the end repeat the last.
      actions: `[N, T]` int32 when discrete, `[N, T, A]` when continuous.
      rewards: `[N, T]`; zero past the end.
      terminated: `[N, T]` bool; true at the step, if any, that ended the episode. A time limit is
        no termination.
      mask: `[N, T]` bool; true for the steps that were taken.
      agent_ids: `[N]` int, unique.
      covariates: `[N, C]`.
      info: Static facts.
    """

    obs: Array
    actions: Array
    rewards: Array
    terminated: Array
    mask: Array
    agent_ids: Array
    covariates: Array
    info: DatasetInfo = flax.struct.field(pytree_node=False)

    @property
    def num_agents(self) -> int:
        """Number of agents, N."""
        return len(self.agent_ids)

    @property
    def lengths(self) -> np.ndarray:
        """Number of steps that each agent took, `[N]`."""
        lengths: np.ndarray = np.asarray(self.mask).sum(axis=1)
        return lengths

    def row_of(self, agent_id: int) -> int:
        """Returns the row of the agent with this id.

        Raises:
          KeyError: No agent has this id.
        """
        return row_of(self.agent_ids, agent_id)

    def for_agent(self, agent_id: int) -> OfflineDataset:
        """Returns the dataset of one agent, `[1, ...]`, on the host: all an -A method may see.

        Raises:
          KeyError: No agent has this id.
        """
        row = self.row_of(agent_id)
        one: OfflineDataset = jax.tree.map(lambda leaf: np.asarray(leaf)[row : row + 1], self)
        return one

    def transitions(self) -> Transitions:
        """Returns the B steps that were taken, flat, on the host: all that a -P method may see.

        They are ordered by row, then by time. `agent` holds rows of this dataset, not ids: in the
        dataset of one agent it is zero throughout.
        """
        host: Any = jax.tree.map(np.asarray, self)
        rows, steps = host.mask.nonzero()
        return Transitions(
            agent=rows.astype(np.int32),
            obs=host.obs[rows, steps],
            actions=host.actions[rows, steps],
            rewards=host.rewards[rows, steps],
            next_obs=host.obs[rows, steps + 1],
            terminated=host.terminated[rows, steps],
        )


def validate(dataset: OfflineDataset) -> None:
    """Checks that a dataset keeps its word; the message says where it does not.

    Raises:
      ValueError: A shape or a kind of number is wrong, ids repeat, a value is not finite, a mask
        has holes, a trajectory is empty or goes on after its end, or an action does not exist.
    """
    _check_shapes(dataset)
    _check_kinds(dataset)
    ids, counts = np.unique(np.asarray(dataset.agent_ids), return_counts=True)
    if np.any(counts > 1):
        raise ValueError(
            f"agent id {ids[counts > 1][0]} occurs {np.max(counts)} times in agent_ids; ids must "
            "be unique, one trajectory each."
        )
    for name in ("obs", "actions", "rewards", "covariates"):
        _check_finite(dataset, name)
    _check_episodes(dataset)


def _check_shapes(dataset: OfflineDataset) -> None:
    """Raises where a field does not have the shape that `obs`, `agent_ids` and `info` imply."""
    info, obs_shape = dataset.info, np.shape(dataset.obs)
    if len(obs_shape) != 3:
        raise ValueError(f"obs has shape {obs_shape}; it must be [agents, steps + 1, coordinates].")
    num_agents, steps = obs_shape[0], obs_shape[1] - 1
    action_shape = () if info.discrete else (info.action_size,)
    expected = {
        "obs": (num_agents, steps + 1, info.obs_size),
        "actions": (num_agents, steps, *action_shape),
        "rewards": (num_agents, steps),
        "terminated": (num_agents, steps),
        "mask": (num_agents, steps),
        "agent_ids": (num_agents,),
        "covariates": (num_agents, len(info.covariate_names)),
    }
    for name, shape in expected.items():
        actual = np.shape(getattr(dataset, name))
        if actual != shape:
            raise ValueError(
                f"{name} has shape {actual}, but {shape} follows from obs of shape {obs_shape} and "
                f"from info; bring {name} into that shape or correct info."
            )


def _check_kinds(dataset: OfflineDataset) -> None:
    """Raises where a field holds another kind of number than it should."""
    expected = {
        "obs": np.floating,
        "actions": np.integer if dataset.info.discrete else np.floating,
        "rewards": np.floating,
        "terminated": np.bool_,
        "mask": np.bool_,
        "agent_ids": np.integer,
        "covariates": np.floating,
    }
    for name, kind in expected.items():
        dtype = np.asarray(getattr(dataset, name)).dtype
        if not np.issubdtype(dtype, kind):
            raise ValueError(f"{name} is of dtype {dtype}; convert it to {kind.__name__}.")


def _check_finite(dataset: OfflineDataset, name: str) -> None:
    """Raises at the first NaN or infinity; padding counts, since zero times NaN is NaN."""
    values = np.asarray(getattr(dataset, name))
    bad = np.argwhere(~np.isfinite(values))
    if len(bad) == 0:
        return
    row, *position = bad[0].tolist()
    where = f"agent {np.asarray(dataset.agent_ids)[row]}"
    if name != "covariates":
        where += f" at step {position.pop(0)}"
    if position:
        names = {"obs": dataset.info.obs_names, "covariates": dataset.info.covariate_names}
        column = position[0]
        where += f", {names[name][column] if name in names else f'column {column}'}"
    raise ValueError(
        f"{name} of {where} is {values[tuple(bad[0])]} ({len(bad)} such values in all); every "
        "value must be finite: mend the data or leave that trajectory out."
    )


def _check_episodes(dataset: OfflineDataset) -> None:
    """Raises where a mask, a termination or an action cannot be part of an episode."""
    ids, mask = np.asarray(dataset.agent_ids), np.asarray(dataset.mask)
    lengths = dataset.lengths
    if np.any(lengths == 0):
        raise ValueError(
            f"agent {ids[lengths == 0][0]} has an empty trajectory: its mask has no step; leave "
            "this agent out."
        )
    rows, steps = np.nonzero(mask != (np.arange(mask.shape[1]) < lengths[:, None]))
    if len(rows) > 0:
        raise ValueError(
            f"the mask of agent {ids[rows[0]]} has a hole at step {steps[0]}; the steps taken come "
            "first, the padding after them."
        )
    last = np.arange(mask.shape[1]) == lengths[:, None] - 1
    rows, steps = np.nonzero(np.asarray(dataset.terminated) & ~last)
    if len(rows) > 0:
        raise ValueError(
            f"agent {ids[rows[0]]} has terminated at step {steps[0]}, which is not its last step, "
            f"{lengths[rows[0]] - 1}; cut the mask there or clear the flag."
        )
    if dataset.info.discrete:
        actions, num_actions = np.asarray(dataset.actions), dataset.info.num_actions
        rows, steps = np.nonzero((actions < 0) | (actions >= num_actions))
        if len(rows) > 0:
            raise ValueError(
                f"agent {ids[rows[0]]} takes action {actions[rows[0], steps[0]]} at step "
                f"{steps[0]}, but actions are 0 to {num_actions - 1}."
            )
