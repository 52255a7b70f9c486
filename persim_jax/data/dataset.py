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

from persim_jax.data.info import AgentId as AgentId
from persim_jax.data.info import Array as Array
from persim_jax.data.info import DatasetInfo as DatasetInfo
from persim_jax.data.info import row_of as row_of
from persim_jax.types import Transitions

MAX_ROUNDING = 0.1
"""Of what a state changes in a step, the share that may be lost where numbers are rounded."""


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
      covariates: `[N, C]`; no model sees them.
      info: Static facts.
      inputs: `[N, T, I]` exogenous inputs that act beside the action of a step; None without any.
    """

    obs: Array
    actions: Array
    rewards: Array
    terminated: Array
    mask: Array
    agent_ids: Array
    covariates: Array
    info: DatasetInfo = flax.struct.field(pytree_node=False)
    inputs: Array | None = None

    @property
    def num_agents(self) -> int:
        """Number of agents, N."""
        return len(self.agent_ids)

    @property
    def lengths(self) -> np.ndarray:
        """Number of steps that each agent took, `[N]`."""
        lengths: np.ndarray = np.asarray(self.mask).sum(axis=1)
        return lengths

    def row_of(self, agent_id: AgentId) -> int:
        """Returns the row of the agent with this id or name.

        Raises:
          KeyError: No agent has this id.
        """
        return row_of(self.agent_ids, agent_id, self.info.agent_names)

    def name_of(self, row: Any) -> AgentId:
        """Returns how users know the agent in a row: its name, or its id."""
        names = self.info.agent_names
        return names[int(row)] if names else int(np.asarray(self.agent_ids)[row])

    def take(self, rows: Any) -> OfflineDataset:
        """Returns the dataset of the agents in some rows `[K]`, in that order, on the host."""
        rows = np.asarray(rows)
        names = self.info.agent_names
        info = dataclasses.replace(
            self.info, agent_names=tuple(names[row] for row in rows.tolist()) if names else ()
        )
        some: OfflineDataset = jax.tree.map(lambda leaf: np.asarray(leaf)[rows], self)
        return some.replace(info=info)

    def for_agent(self, agent_id: AgentId) -> OfflineDataset:
        """Returns the dataset of one agent, `[1, ...]`, on the host: all an -A method may see.

        Raises:
          KeyError: No agent has this id.
        """
        return self.take([self.row_of(agent_id)])

    def encoded_actions(self) -> np.ndarray:
        """What models see as actions: `[N, T]`, `[N, T, A]`, or joined with the inputs.

        With inputs an action is the vector of `action_vectors`.
        """
        return np.asarray(self.actions) if self.inputs is None else self.action_vectors()

    def action_vectors(self) -> np.ndarray:
        """Actions as numbers: concat(one-hot or continuous action, inputs), `[N, T, E]`.

        E is action_size + I; in raw units, see `inputs.join_inputs`.
        """
        actions = np.asarray(self.actions)
        if self.info.discrete:
            actions = np.eye(self.info.action_size, dtype=np.asarray(self.obs).dtype)[actions]
        parts = [actions] if self.inputs is None else [actions, np.asarray(self.inputs)]
        return np.concatenate(parts, axis=-1)

    def transitions(self) -> Transitions:
        """Returns the B steps that were taken, flat, on the host: all that a -P method may see.

        They are ordered by row, then by time. `agent` holds rows of this dataset, not ids: in the
        dataset of one agent it is zero throughout. Actions are as in `encoded_actions`.
        """
        host: Any = jax.tree.map(np.asarray, self)
        rows, steps = host.mask.nonzero()
        return Transitions(
            agent=rows.astype(np.int32),
            obs=host.obs[rows, steps],
            actions=self.encoded_actions()[rows, steps],
            rewards=host.rewards[rows, steps],
            next_obs=host.obs[rows, steps + 1],
            terminated=host.terminated[rows, steps],
        )


def refuse_inputs(dataset: OfflineDataset, method: str) -> None:
    """Refuses data with exogenous inputs, which PerSim alone takes.

    Raises:
      ValueError: Names the inputs.
    """
    if dataset.inputs is not None:
        raise ValueError(
            f"the data have exogenous inputs ({', '.join(dataset.info.input_names)}), which "
            f"{method} does not take: use persim, or make a dataset without them"
        )


def validate(dataset: OfflineDataset) -> None:
    """Checks that a dataset keeps its word; the message says where it does not.

    Raises:
      ValueError: A shape or a kind of number is wrong, ids repeat, a value is not finite or is lost
        in single precision, a mask has holes, a trajectory is empty or goes on after its end, or an
        action does not exist.
    """
    _check_shapes(dataset)
    _check_kinds(dataset)
    ids, counts = np.unique(np.asarray(dataset.agent_ids), return_counts=True)
    if np.any(counts > 1):
        raise ValueError(
            f"agent id {ids[counts > 1][0]} occurs {np.max(counts)} times in agent_ids; ids must "
            "be unique, one trajectory each."
        )
    for name in ("obs", "actions", "inputs", "rewards", "covariates"):
        _check_finite(dataset, name)
    _check_rounding(dataset)
    _check_episodes(dataset)
    _check_actions(dataset)


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
    if info.input_names or dataset.inputs is not None:
        expected["inputs"] = (num_agents, steps, info.num_inputs)
    for name, shape in expected.items():
        actual = np.shape(getattr(dataset, name))
        if actual != shape:
            raise ValueError(
                f"{name} has shape {actual}, but {shape} follows from obs of shape {obs_shape} and "
                f"from info; bring {name} into that shape or correct info."
            )
    named = len(info.agent_names)
    if named and (named != num_agents or len(set(info.agent_names)) < named):
        raise ValueError(
            f"info has {named} agent_names, {len(set(info.agent_names))} of them different, for "
            f"{num_agents} agents; give each agent its own name, or none at all."
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
    } | ({} if dataset.inputs is None else {"inputs": np.floating})
    for name, kind in expected.items():
        dtype = np.asarray(getattr(dataset, name)).dtype
        if not np.issubdtype(dtype, kind):
            raise ValueError(f"{name} is of dtype {dtype}; convert it to {kind.__name__}.")
        if kind is np.floating and dtype.itemsize < 4:
            # A model would be scaled, and asked, in this precision.
            raise ValueError(f"{name} is of dtype {dtype}, too coarse to learn from: give float32.")


def _check_finite(dataset: OfflineDataset, name: str) -> None:
    """Raises at the first NaN or infinity; padding counts, since zero times NaN is NaN."""
    if getattr(dataset, name) is None:
        return
    values = np.asarray(getattr(dataset, name))
    with np.errstate(over="ignore"):
        # What float32, in which models compute, cannot hold is infinite there.
        bad = np.argwhere(~np.isfinite(values.astype(np.float32)))
    if len(bad) == 0:
        return
    row, *position = bad[0].tolist()
    where = f"agent {dataset.name_of(row)}"
    if name != "covariates":
        where += f" at step {position.pop(0)}"
    if position:
        info, column = dataset.info, position[0]
        names = {
            "obs": info.obs_names,
            "inputs": info.input_names,
            "covariates": info.covariate_names,
        }
        if info.action_names:
            names["actions"] = info.action_names
        where += f", {names[name][column] if name in names else f'column {column}'}"
    raise ValueError(
        f"{name} of {where} is {values[tuple(bad[0])]} ({len(bad)} such values in all); every "
        "value must be finite: mend the data or leave that trajectory out."
    )


def _check_rounding(dataset: OfflineDataset) -> None:
    """Raises where float32, in which models compute, rounds away what changes in a step.

    What already is in single precision cannot tell.
    """
    obs, mask = np.asarray(dataset.obs), np.asarray(dataset.mask)
    if obs.dtype == np.float32:
        return
    all_of_it, lost = np.square(moved_and_lost(obs[:, :-1][mask], obs[:, 1:][mask]))
    # What double precision itself rounds is no change.
    noise = np.square(1e-12 * np.abs(obs).max(axis=(0, 1)))
    wrong = np.flatnonzero((lost > MAX_ROUNDING**2 * all_of_it) & (all_of_it > noise))
    if len(wrong) > 0:
        index = wrong[0]
        raise ValueError(
            f"{dataset.info.obs_names[index]} lies around {obs[:, :-1][mask][:, index].mean():.6g} "
            f"and changes by {all_of_it[index] ** 0.5:.2g} in a step, of which rounding to single "
            f"precision takes {lost[index] ** 0.5:.2g}; subtract a constant, so that the numbers "
            "are as small as their changes let them be."
        )


def moved_and_lost(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """How far states `[B, D]` move to the next ones, and what of it float32 loses.

    Returns:
      Root mean squares over steps, `[2, D]`.
    """
    single = (values.astype(np.float32).astype(values.dtype) for values in (before, after))
    moved, stored = after - before, -np.subtract(*single)
    return np.sqrt(np.square(np.stack([moved, stored - moved])).mean(axis=1))


def _check_episodes(dataset: OfflineDataset) -> None:
    """Raises where a mask or a termination cannot be part of an episode."""
    mask, lengths = np.asarray(dataset.mask), dataset.lengths
    if np.any(lengths == 0):
        raise ValueError(
            f"agent {dataset.name_of(np.argmin(lengths))} has an empty trajectory: its mask has no "
            "step; leave this agent out."
        )
    rows, steps = np.nonzero(mask != (np.arange(mask.shape[1]) < lengths[:, None]))
    if len(rows) > 0 and not dataset.info.segmented:
        raise ValueError(
            f"the mask of agent {dataset.name_of(rows[0])} has a hole at step {steps[0]}; the "
            "steps taken come first, the padding after them. Where holes are gaps in time, set "
            "segmented in info."
        )
    # A segment ends where no step follows.
    last = mask & ~np.pad(mask, ((0, 0), (0, 1)))[:, 1:]
    rows, steps = np.nonzero(np.asarray(dataset.terminated) & ~last)
    if len(rows) > 0:
        row = rows[0]
        raise ValueError(
            f"agent {dataset.name_of(row)} has terminated at step {steps[0]}, which is not its "
            f"last step, {np.flatnonzero(last[row])[-1]}; cut the mask there or clear the flag."
        )


def _check_actions(dataset: OfflineDataset) -> None:
    """Raises where a discrete action does not exist."""
    if not dataset.info.discrete:
        return
    actions, num_actions = np.asarray(dataset.actions), dataset.info.num_actions
    rows, steps = np.nonzero((actions < 0) | (actions >= num_actions))
    if len(rows) > 0:
        raise ValueError(
            f"agent {dataset.name_of(rows[0])} takes action {actions[rows[0], steps[0]]} at step "
            f"{steps[0]}, but actions are 0 to {num_actions - 1}."
        )
