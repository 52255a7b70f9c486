"""Transitions as a regression on factors takes them."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from persim_jax.arguments import check_actions
from persim_jax.data.dataset import OfflineDataset
from persim_jax.data.info import DatasetInfo
from persim_jax.data.levels import renumbered
from persim_jax.models.base import History
from persim_jax.models.factor_network import FactorConfig
from persim_jax.types import Transitions


def as_trained(data: OfflineDataset, known: DatasetInfo | None) -> OfflineDataset:
    """Newcomers' data with coordinates and actions as the training data have them, by their names.

    Args:
      data: Of newcomers.
      known: Facts of the training data; None of simulators of older versions, which know no names.

    Raises:
      ValueError: Lags are others, states, inputs or continuous actions are others or in another
        order, or a discrete action is none of the training data's.
    """
    if known is None:
        return data
    info = data.info
    if info.lags != known.lags:
        raise ValueError(
            f"lags of the newcomers are {info.lags}, those of the training data {known.lags}: give "
            f"persim_jax.with_lags(dataset, {known.lags}) of a dataset without lags"
        )
    named = bool(info.action_names and known.action_names)
    if named and info.discrete and known.discrete:
        data = renumbered(data, known.action_names)
        named = False
    pairs = {
        "states": (info.obs_names, known.obs_names),
        "inputs": (info.input_names, known.input_names),
    } | ({"actions": (info.action_names, known.action_names)} if named else {})
    for what, (own, due) in pairs.items():
        if own != due:
            raise ValueError(
                f"{what} of the newcomers are {', '.join(own) or 'none'}, those of the training "
                f"data {', '.join(due) or 'none'}: give the same ones in the same order, and name "
                "them alike in info; a table is read so with like=simulators.info"
            )
    return data


def evidence_of(data: OfflineDataset | Transitions) -> History:
    """Transitions as a regression takes them: leaves `[N, T, ...]`, or `[1, B, ...]` of one agent.

    Raises:
      ValueError: Flat transitions are of several agents.
    """
    if isinstance(data, OfflineDataset):
        obs = jnp.asarray(data.obs)
        actions, mask = jnp.asarray(data.encoded_actions()), jnp.asarray(data.mask)
        return History(obs[:, :-1], actions, obs[:, 1:], mask)
    found = np.unique(np.asarray(data.agent))
    if len(found) > 1:
        raise ValueError(
            f"the transitions are of {len(found)} agents, {first_few(found)}: give those of one, "
            "or an OfflineDataset of several newcomers"
        )
    obs, actions, next_obs = (
        jnp.asarray(leaf)[None] for leaf in (data.obs, data.actions, data.next_obs)
    )
    return History(obs, actions, next_obs, jnp.ones(obs.shape[:2], bool))


def check_evidence(config: FactorConfig, evidence: History) -> None:
    """Refuses transitions that do not fit the model.

    Raises:
      ValueError: A shape does not fit, a value is not finite or an action does not exist.
    """
    leading, integers = evidence.mask.shape, config.tabular_actions
    several = leading[0] > 1
    wanted: dict[str, tuple[int, ...]] = {
        "obs": (*leading, config.obs_size),
        "next_obs": (*leading, config.obs_size),
        "actions": leading if integers else (*leading, config.action_input_size),
    }
    for name, shape in wanted.items():
        found = getattr(evidence, name)
        if found.shape != shape:
            raise ValueError(
                f"{name} of the transitions has shape {found.shape[1:]}: {shape[1:]} is due"
            )
        bad = np.argwhere(~np.isfinite(np.asarray(found)))
        if len(bad):
            whose = f" of the newcomer in row {bad[0, 0]}" if several else ""
            raise ValueError(f"{name} of transition {bad[0, 1]}{whose} is not finite: leave it out")
    if integers:
        check_actions(config, evidence.actions.reshape(-1))


def first_few(values: Any) -> str:
    """The first few of some values, for a message."""
    flat = np.asarray(values).reshape(-1).tolist()
    return ", ".join(map(str, flat[:5])) + (", ..." if len(flat) > 5 else "")
