"""Discrete actions by their names: two datasets may number the same ones differently."""

from __future__ import annotations

import dataclasses

import numpy as np

from persim_jax.data.dataset import OfflineDataset


def renumbered(dataset: OfflineDataset, names: tuple[str, ...]) -> OfflineDataset:
    """The same data, their discrete actions numbered as in `names`.

    A table numbers the actions that occur in it. That of a few agents need not hold all that there
    are, and what it calls 1 may be another action than what the training data call 1.

    Args:
      dataset: Whose discrete actions have names.
      names: Of all discrete actions, in the order of their numbers.

    Returns:
      The dataset itself where its actions are numbered so already.

    Raises:
      ValueError: An action is not among the names, or is part of a window of the past.
    """
    info = dataset.info
    if info.action_names == names:
        return dataset
    unknown = [name for name in info.action_names if name not in names]
    if unknown:
        raise ValueError(
            f"action {unknown[0]!r} is none of {', '.join(names)}: name it as the training data do "
            "in info.action_names, or leave out the steps that take it"
        )
    if info.lags > 1:
        raise ValueError(
            f"actions are numbered {', '.join(info.action_names)} here and {', '.join(names)} in "
            "the training data, and stand in the windows of observations, too: first "
            "data.levels.renumbered(dataset, simulators.info.action_names), then with_lags"
        )
    numbers = np.asarray([names.index(name) for name in info.action_names], np.int32)
    actions = np.where(dataset.mask, numbers[np.asarray(dataset.actions)], np.int32(0))
    return dataset.replace(
        actions=actions,
        info=dataclasses.replace(
            info, action_names=names, num_actions=len(names), action_size=len(names)
        ),
    )
