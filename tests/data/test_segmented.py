"""Gaps, names, inputs and lags: which rows become transitions, counted by hand."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persim_jax.data.dataset import validate
from persim_jax.data.lags import window_names, window_of, with_lags
from persim_jax.data.storage import load_dataset, save_dataset
from tests.data.segmented import RUNS, make_segmented


def steps_by_hand(lags):
    """(agent, row) of every step whose L rows and successor lie in one run."""
    found = []
    for agent, runs in enumerate(RUNS.values()):
        start = 0
        for length in runs:
            found += [(agent, start + t) for t in range(lags - 1, length - 1)]
            start += length
    return found


@pytest.mark.parametrize("discrete", [True, False])
def test_a_dataset_with_gaps_is_valid_and_holes_elsewhere_are_refused(discrete):
    dataset = make_segmented(discrete)
    validate(dataset)
    np.testing.assert_array_equal(dataset.lengths, [5, 5, 4])
    without = dataset.replace(info=dataclasses.replace(dataset.info, segmented=False))
    with pytest.raises(ValueError, match="the mask of agent ann has a hole at step 3"):
        validate(without)


def test_no_transition_crosses_a_gap_or_an_agent():
    flat = make_segmented().transitions()
    found = [(a, int(x) - 100 * a) for a, x in zip(flat.agent, flat.obs[:, 0], strict=True)]
    assert found == steps_by_hand(1)
    np.testing.assert_array_equal(flat.next_obs, flat.obs + np.float32([1, -1]))


@pytest.mark.parametrize("lags", [2, 3])
def test_lagged_windows_cross_neither_a_gap_nor_an_agent(lags):
    dataset = make_segmented()
    lagged = with_lags(dataset.take([0, 1]) if lags == 3 else dataset, lags)
    validate(lagged)
    assert lagged.info.target_names == ("x", "y")
    flat = lagged.transitions()
    wanted = [(a, t) for a, t in steps_by_hand(lags) if lags < 3 or a < 2]
    found = [(a, int(x) - 100 * a) for a, x in zip(flat.agent, flat.obs[:, 0], strict=True)]
    assert found == wanted
    for (agent, t), obs, after in zip(wanted, flat.obs, flat.next_obs, strict=True):
        values = [[100 * agent + t - lag, -(t - lag)] for lag in range(lags)]
        past = [[*np.eye(3)[(t - k) % 3], (100 * agent + t - k) / 10] for k in range(1, lags)]
        np.testing.assert_array_equal(obs, np.float32([*np.ravel(values), *np.ravel(past)]))
        np.testing.assert_array_equal(after[2 : 2 * lags], obs[: 2 * lags - 2])
        now = np.float32([*np.eye(3)[t % 3], (100 * agent + t) / 10])
        np.testing.assert_array_equal(after[2 * lags :], [*now, *obs[2 * lags : -4]])


def test_lags_have_names_and_too_many_are_refused_with_the_agent():
    dataset = make_segmented()
    named = [f"{name}[-1]" for name in ("action=none", "action=low", "action=high", "meal")]
    assert window_names(dataset.info, 2) == ("x", "y", "x[-1]", "y[-1]", *named)
    continuous = window_names(make_segmented(discrete=False).info, 3)
    assert continuous[6:] == (
        "dose[-1]",
        "rate[-1]",
        "meal[-1]",
        "dose[-2]",
        "rate[-2]",
        "meal[-2]",
    )
    assert with_lags(dataset, 1) is dataset
    with pytest.raises(ValueError, match=r"agent cy has no run of 4 rows.*its longest has 3"):
        with_lags(dataset, 3)
    with pytest.raises(ValueError, match="2 lags already"):
        with_lags(with_lags(dataset, 2), 2)
    with pytest.raises(ValueError, match="lags is 0"):
        with_lags(dataset, 0)


@given(rows=st.integers(1, 6), lags=st.integers(1, 6))
def test_the_last_moments_make_the_row_of_the_lagged_dataset(rows, lags):
    dataset = make_segmented().take([1])
    values, actions = dataset.obs[0, :rows], dataset.action_vectors()[0, : rows - 1]
    if rows < lags:
        with pytest.raises(ValueError, match=f"{lags} lags need at least {lags} observations"):
            window_of(values, actions, lags)
    elif lags < 6:
        window = window_of(values, actions, lags)
        np.testing.assert_array_equal(window, with_lags(dataset, lags).obs[0, rows - 1])
        with pytest.raises(ValueError, match="one action less"):
            window_of(values, actions[:0], lags + 1)


def test_inputs_are_joined_to_the_actions_in_raw_units():
    flat = make_segmented().transitions()
    step = flat.obs[:, 0] - 100 * flat.agent
    assert flat.actions.dtype == np.float32
    np.testing.assert_array_equal(flat.actions[:, :3], np.eye(3)[(step % 3).astype(int)])
    np.testing.assert_array_equal(flat.actions[:, 3], flat.obs[:, 0] / np.float32(10))
    flat = make_segmented(discrete=False).transitions()
    np.testing.assert_array_equal(flat.actions[:, 1], 1000 + step)
    np.testing.assert_array_equal(flat.actions[:, 2], flat.obs[:, 0] / np.float32(10))
    assert make_segmented(inputs=False).transitions().actions.dtype == np.int32


def test_agents_are_found_by_name_and_by_id_and_near_names_are_suggested():
    dataset = make_segmented()
    assert [dataset.row_of(name) for name in ("ann", "bob", "cy", 2)] == [0, 1, 2, 2]
    with pytest.raises(KeyError, match=r"no agent has the id bop: the 3 ids.*such as bob,"):
        dataset.row_of("bop")
    one = dataset.for_agent("bob")
    assert one.info.agent_names == ("bob",)
    assert one.row_of("bob") == 0
    validate(one)
    assert dataset.take([2, 0]).info.agent_names == ("cy", "ann")
    unnamed = dataset.replace(info=dataclasses.replace(dataset.info, agent_names=()))
    assert unnamed.row_of("2") == 2  # as a command line gives it
    with pytest.raises(KeyError, match="the id 22"):
        unnamed.row_of("22")


@pytest.mark.parametrize("discrete", [True, False])
def test_all_of_it_is_saved(tmp_path, discrete):
    dataset = make_segmented(discrete)
    save_dataset(tmp_path / "own", dataset, {})
    loaded = load_dataset(tmp_path / "own")
    assert loaded.info == dataset.info
    for name in ("obs", "actions", "inputs", "mask"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(dataset, name))


def broken(**changes):
    dataset = make_segmented()
    return dataset.replace(info=dataclasses.replace(dataset.info, **changes))


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (broken(agent_names=("ann", "ann", "cy")), "3 agent_names, 2 of them different"),
        (broken(agent_names=("ann",)), "1 agent_names"),
        (broken(input_names=("meal", "sport")), r"inputs has shape \(3, 6, 1\), but \(3, 6, 2\)"),
        (broken(input_names=()), "inputs has shape"),
        (make_segmented().replace(inputs=None), r"inputs has shape \(\)"),
        (
            make_segmented().replace(inputs=np.full((3, 6, 1), np.nan, np.float32)),
            "inputs of agent ann at step 0, meal is nan",
        ),
        (
            make_segmented().replace(terminated=np.eye(3, 6, k=0, dtype=bool)),
            "agent ann has terminated at step 0.*last step, 5",
        ),
    ],
)
def test_what_contradicts_itself_is_refused(dataset, message):
    with pytest.raises(ValueError, match=message):
        validate(dataset)


def test_an_episode_may_end_before_each_gap():
    ends = np.zeros((3, 6), bool)
    ends[0, 2] = ends[2, 0] = True
    validate(make_segmented().replace(terminated=ends))
