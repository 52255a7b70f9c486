"""What is remembered of data: by hand on a small dataset with gaps, names and inputs."""

import numpy as np
import pytest

from persim_jax.data import support as module
from persim_jax.data.lags import with_lags
from persim_jax.data.support import outside, remarks, support_of
from tests.data.segmented import make_segmented


def test_ends_and_ranges_by_hand():
    support = support_of(make_segmented())
    # Agents have 7, 6 and 7 rows; x is 100 i + t and y is -t.
    np.testing.assert_array_equal(support.first_obs, [[0, 0], [100, 0], [200, 0]])
    np.testing.assert_array_equal(support.last_obs, [[6, -6], [105, -5], [206, -6]])
    np.testing.assert_array_equal(support.obs_range, [[0, -6], [206, 0]])
    # ann: t = 0, 1, 2 | 4, 5; bob: 0 to 4; cy: 0 | 2 | 4, 5. Actions are t mod 3.
    np.testing.assert_array_equal(support.action_counts, [1 + 2 + 1, 2 + 2 + 1, 2 + 1 + 2])
    assert support.action_range.shape == (2, 0)
    # The largest x with a step from it is cy's at t = 5.
    np.testing.assert_allclose(support.input_range, [[0.0], [20.5]])
    assert int(support.longest) == 5


def test_continuous_actions_and_lags():
    support = support_of(with_lags(make_segmented(discrete=False, inputs=False), 2))
    np.testing.assert_allclose(support.action_range, [[1 / 7, 1001], [5 / 7, 1005]])
    assert support.action_counts.shape == (0,)
    assert support.input_range.shape == (2, 0)
    # With two lags each run loses its first step: ann's first window ends at t = 1.
    np.testing.assert_allclose(support.first_obs[0], [1, -1, 0, 0, 0, 1000])
    np.testing.assert_allclose(support.last_obs[1], [105, -5, 104, -4, 4 / 7, 1004])


def test_rows_that_no_step_touches_do_not_widen_the_range():
    dataset = make_segmented()
    obs = np.asarray(dataset.obs).copy()
    obs[1, 6] = 1e6  # bob has six rows, so this is padding
    support = support_of(dataset.replace(obs=obs))
    np.testing.assert_array_equal(support.obs_range, [[0, -6], [206, 0]])


def test_what_is_stored_is_what_is_read_and_nothing_is_read_from_nothing():
    support = support_of(make_segmented())
    again = module.from_arrays(module.to_arrays(support) | {"other": np.zeros(2)})
    for name in ("first_obs", "last_obs", "obs_range", "action_counts", "input_range"):
        np.testing.assert_array_equal(getattr(again, name), getattr(support, name))
    assert module.to_arrays(None) == {}
    assert module.from_arrays({"support_first_obs": np.zeros(2)}) is None
    strangers = module.of_strangers(support, 5)
    assert strangers.last_obs.shape == (5, 2)
    assert np.isnan(strangers.last_obs).all()
    assert module.of_strangers(None, 5) is None


def test_rounding_is_not_outside():
    limits = np.float32([[0.0, -1.0], [0.3, 1.0]])
    values = np.float64([[0.3, 1.0], [np.float32(0.1) * 3, -1.0], [0.31, 0.0], [0.1, -1.1]])
    np.testing.assert_array_equal(outside(values, limits).any(axis=1), [0, 0, 1, 1])
    beyond = outside(np.float32([[np.nan, 0.0], [0.1, np.inf], [-np.inf, np.nan]]), limits)
    np.testing.assert_array_equal(beyond, [[1, 0], [0, 1], [1, 1]])


def test_an_action_never_seen_is_counted_and_named():
    support = support_of(make_segmented())
    support = support.replace(action_counts=np.int32([5, 0, 3, 0]))
    (note,) = remarks(support, [0, 1, 3, 3, 2], None, ("none", "low", "high", "huge"))
    assert note.startswith("3 of 5 actions (low, huge) were never taken in the data")
    (note,) = remarks(support, [1], None)
    assert note.startswith("1 of 1 actions (1) were never taken")
    assert remarks(support, [0, 2], None) == ()


def test_actions_and_inputs_out_of_range_are_counted_with_the_range():
    support = support_of(make_segmented(discrete=False))
    actions = np.float32([[0.5, 1003], [2.0, 1003], [0.5, 0], [3.0, 0]])
    notes = remarks(support, actions, np.float32([[3], [3], [-1], [3]]), ("dose", "rate"))
    assert len(notes) == 2
    assert notes[0].startswith("3 of 4 actions are outside the range of the data (dose from 0 to")
    assert "rate from 1000 to 1005" in notes[0]
    assert notes[1].startswith("1 of 4 inputs are outside the range of the data (column 0 from 0")


@pytest.mark.parametrize("discrete", [True, False])
def test_the_data_themselves_call_for_no_remark(discrete):
    dataset = make_segmented(discrete)
    mask = dataset.mask
    taken, inputs = np.asarray(dataset.actions)[mask], np.asarray(dataset.inputs)[mask]
    assert remarks(support_of(dataset), taken, inputs) == ()
