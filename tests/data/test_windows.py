"""Windows of steps against slices of the trajectories that they come from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax.data.windows import windows_of
from tests.data.test_dataset import LENGTHS, STEPS, make_dataset

HISTORY, FUTURE = 3, 2


def base_steps(mask):
    """Row and time of every base step, in order."""
    return [(row, t) for row in range(len(mask)) for t in range(mask.shape[1]) if mask[row, t]]


def neighbours(mask, row, t):
    """Times of the last steps before t and of the steps from t on, without a gap between."""
    first, last = t, t
    while first > 0 and mask[row, first - 1] and t - first < HISTORY:
        first -= 1
    while last + 1 < mask.shape[1] and mask[row, last + 1] and last - t < FUTURE - 1:
        last += 1
    return list(range(first, t)), list(range(t, last + 1))


def check(dataset, windows):
    """Every window holds what the trajectories hold next to its base step, and no more."""
    mask = np.asarray(dataset.mask)
    steps = base_steps(mask)
    assert windows.num_items == len(steps) == mask.sum()
    batch = jax.jit(lambda w, rows: w.take(rows))(windows, jnp.arange(len(steps)))
    for item, (row, t) in enumerate(steps):
        past, ahead = neighbours(mask, row, t)
        here = {"history": batch.history, "future": batch}
        for name, times, width in (("history", past, HISTORY), ("future", ahead, FUTURE)):
            part, count = here[name], len(times)
            # From the left, oldest first.
            np.testing.assert_array_equal(part.mask[item], np.arange(width) < count)
            np.testing.assert_array_equal(part.obs[item, :count], dataset.obs[row, times])
            np.testing.assert_array_equal(part.actions[item, :count], dataset.actions[row, times])
            following = dataset.obs[row, np.asarray(times, int) + 1]
            np.testing.assert_array_equal(part.next_obs[item, :count], following)


@pytest.mark.parametrize("discrete", [True, False])
def test_windows_are_slices_of_one_episode(discrete):
    dataset = make_dataset(discrete)
    windows = jax.tree.map(jnp.asarray, windows_of(dataset, HISTORY, FUTURE))
    check(dataset, windows)
    assert windows.num_items == sum(LENGTHS)


def test_windows_end_at_gaps():
    dataset = make_dataset(lengths=(STEPS, 3, STEPS, 2))
    mask = np.array(dataset.mask)
    mask[0, 2] = mask[2, 0] = mask[2, 3] = False
    dataset = dataset.replace(mask=mask)
    check(dataset, jax.tree.map(jnp.asarray, windows_of(dataset, HISTORY, FUTURE)))


def test_a_window_of_nothing_is_refused():
    with pytest.raises(ValueError, match="history_length -1 and future_length 2"):
        windows_of(make_dataset(), -1, 2)
    with pytest.raises(ValueError, match="future_length 0"):
        windows_of(make_dataset(), 3, 0)
