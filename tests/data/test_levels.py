"""Discrete actions numbered anew by their names, by hand."""

import dataclasses

import numpy as np
import pytest

from persim_jax.data.dataset import validate
from persim_jax.data.lags import with_lags
from persim_jax.data.levels import renumbered
from tests.data.segmented import make_segmented


def test_actions_keep_their_names_and_get_other_numbers():
    dataset = make_segmented(inputs=False)  # none, low, high
    found = renumbered(dataset, ("high", "huge", "low", "none"))
    validate(found)
    # bob takes 0, 1, 2, 0, 1; his sixth step is padding.
    np.testing.assert_array_equal(found.actions[1], [3, 2, 0, 3, 2, 0])
    assert (found.info.num_actions, found.info.action_size) == (4, 4)
    assert renumbered(dataset, ("none", "low", "high")) is dataset


def test_what_has_no_number_is_refused():
    dataset = make_segmented(inputs=False)
    with pytest.raises(ValueError, match="action 'high' is none of none, low"):
        renumbered(dataset, ("none", "low"))
    with pytest.raises(ValueError, match=r"first data\.levels\.renumbered.*then with_lags"):
        renumbered(with_lags(dataset, 2), ("low", "none", "high"))
    info = dataclasses.replace(dataset.info, action_names=("low", "none", "high"))
    again = renumbered(dataset.replace(info=info), ("none", "low", "high"))
    np.testing.assert_array_equal(again.actions[1], [1, 0, 2, 1, 0, 0])
