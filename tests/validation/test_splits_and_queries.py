"""What is held out is held out, and windows are the steps that they say they are."""

import jax
import numpy as np
import pytest

from persim_jax.data.dataset import validate
from persim_jax.validation import queries as queries_lib
from persim_jax.validation.config import CannotJudgeError, TrustConfig, ValidationConfig
from persim_jax.validation.splits import split, tail_starts
from tests.validation.records import dataset_of, line_data

CONFIG = ValidationConfig(agent_share=0.25, horizon=6, transitions=5, max_windows=3)


def test_tails_and_agents_are_held_out_and_nothing_is_lost():
    data = line_data(np.ones(20), steps=10)
    parts = split(jax.random.key(0), data, CONFIG)
    validate(parts.train)
    ids = [set(np.asarray(part.agent_ids).tolist()) for part in (parts.known, parts.unseen)]
    assert len(ids[1]) == 5
    assert ids[0] | ids[1] == set(range(10, 30))
    assert not ids[0] & ids[1]
    np.testing.assert_array_equal(parts.train.agent_ids, parts.known.agent_ids)
    # Ten steps: eight to train on, two to be judged by.
    np.testing.assert_array_equal(parts.tails, np.full(15, 8))
    np.testing.assert_array_equal(parts.train.lengths, np.full(15, 8))
    again = split(jax.random.key(0), data, CONFIG)
    np.testing.assert_array_equal(again.unseen.agent_ids, parts.unseen.agent_ids)
    other = split(jax.random.key(1), data, CONFIG)
    assert np.any(other.unseen.agent_ids != parts.unseen.agent_ids)


def test_tails_count_steps_that_were_taken_and_skip_gaps():
    mask = np.array([[1] * 10, [1, 1, 0, 1, 1, 1, 0, 0, 0, 0], [1] + [0] * 9], bool)
    # 8 of 10; 4 of 5, the fifth of which stands at row 5; the only one there is stays.
    np.testing.assert_array_equal(tail_starts(mask, 0.2), [8, 5, 10])


def test_names_stay_with_their_agents():
    names = [f"p{i}" for i in range(20)]
    parts = split(jax.random.key(0), line_data(np.arange(20), names=names), CONFIG)
    for part in (parts.known, parts.unseen):
        assert [part.name_of(r) for r in range(part.num_agents)] == [
            f"p{i - 10}" for i in np.asarray(part.agent_ids).tolist()
        ]


def test_windows_are_the_steps_after_their_start():
    data = line_data([1.0, 2.0], steps=16, seed=3)
    found = queries_lib.windows(data, np.array([4, 15]), CONFIG)
    np.testing.assert_array_equal(found.agent, [0, 0, 1])
    np.testing.assert_array_equal(found.mask.sum(axis=1), [6, 6, 1])
    np.testing.assert_array_equal(found.obs, [data.obs[0, 4], data.obs[0, 10], data.obs[1, 15]])
    np.testing.assert_array_equal(found.truth[1], data.obs[0, 11:17])
    np.testing.assert_array_equal(found.states[1], data.obs[0, 10:16])
    np.testing.assert_array_equal(found.actions[1], data.actions[0, 10:16])
    np.testing.assert_array_equal(found.truth[2, 0], data.obs[1, 16])
    # A longer horizon takes fewer, longer windows.
    longer = queries_lib.windows(data, np.array([4, 15]), ValidationConfig(horizon=50))
    np.testing.assert_array_equal(longer.mask.sum(axis=1), [12, 1])


def test_no_window_crosses_a_gap_and_the_longest_come_first():
    data = line_data([1.0], steps=16)
    mask = np.ones((1, 16), bool)
    mask[0, [2, 5]] = False
    found = queries_lib.windows(data.replace(mask=mask), np.array([1]), CONFIG)
    np.testing.assert_array_equal(found.mask.sum(axis=1), [6, 4, 2])
    np.testing.assert_array_equal(found.obs, data.obs[0, [6, 12, 3]])


def test_what_comes_after_the_first_k_steps():
    mask = np.array([[1, 1, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]], bool)
    np.testing.assert_array_equal(queries_lib.after_first(mask, 3), [4, 6, 6])
    np.testing.assert_array_equal(queries_lib.after_first(mask, 1), [1, 1, 6])


def test_too_little_to_judge_is_said():
    key = jax.random.key(0)
    with pytest.raises(CannotJudgeError, match=r"there are 11 agents: .* at least 12"):
        split(key, line_data(np.ones(11)), CONFIG)
    with pytest.raises(CannotJudgeError, match=r"there is 1 agent: .* at least 12"):
        split(key, line_data(np.ones(1)), CONFIG)
    with pytest.raises(CannotJudgeError, match=r"leaves 1 to train on.* lower agent_share"):
        split(key, line_data(np.ones(20)), ValidationConfig(agent_share=0.95))
    single = dataset_of(np.zeros((12, 2, 2), np.float32), np.zeros((12, 1), np.int32))
    with pytest.raises(CannotJudgeError, match="every agent has one step"):
        split(key, single, CONFIG)
    data = line_data(np.ones(3), steps=5)
    with pytest.raises(CannotJudgeError, match="no agent has a step that could be predicted"):
        queries_lib.windows(data, np.full(3, 5), CONFIG)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tail_share": 0.0}, r"tail_share is 0\.0: it must be between 0 and 1"),
        ({"agent_share": 1.0}, r"agent_share is 1\.0"),
        ({"transitions": 0}, "transitions is 0: it must be at least 1"),
        ({"horizon": 0}, "horizon is 0"),
        ({"horizon": 2.5}, r"horizon is 2\.5: it must be at least 1, and a whole number"),
        ({"max_windows": True}, "max_windows is True: .* a whole number"),
        # The step before the first is the last.
        ({"steps": (1, 0)}, "one of steps is 0: it must be at least 1"),
        ({"steps": ()}, "steps are empty"),
        ({"levels": ()}, r"levels are \(\): give some between 0 and 1"),
        ({"levels": (0.5, 1.0)}, r"levels are \(0\.5, 1\.0\)"),
    ],
)
def test_a_config_without_sense_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ValidationConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        # No error is below what is no number: nobody would be trusted, and nobody would know why.
        ({"max_error": np.nan}, "max_error is nan: it must be above 0"),
        ({"max_error": 0.0}, r"max_error is 0\.0"),
        ({"negligible": np.nan}, "negligible is nan: it must be at least 0"),
        ({"min_steps": 0}, "min_steps is 0: it must be at least 1"),
        ({"max_outside": 50.0}, r"max_outside is 50\.0: it must lie in \[0, 1\]"),
        ({"min_coverage": -0.1}, r"min_coverage is -0\.1"),
    ],
)
def test_thresholds_without_sense_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        TrustConfig(**fields)
