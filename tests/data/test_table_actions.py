"""What a table's actions are: names or numbers, of known agents and of newcomers."""

import numpy as np
import pytest

from persim_jax.data.from_table import MAX_LEVELS, from_table
from persim_jax.data.info import actions_of
from persim_jax.data.tables import Columns, DataError
from tests.data.clinic import GOOD, dataset_of, table_of


@pytest.mark.parametrize(
    ("action", "kind", "names", "first"),
    [
        (["1", "0", "2", "0"] * 2, "auto", ("0", "1", "2"), [1, 0, 2]),
        ([0.5, 1, 2, 0] * 2, "auto", ("action",), [[0.5], [1], [2]]),
        ([1, 5, 2, 0] * 2, "continuous", ("action",), [[1], [5], [2]]),
        ([1.5, 2.0, 2.0, 9.0] * 2, "discrete", ("1.5", "2"), [0, 1, 1]),
        (np.asarray([True, False, True, True] * 2), "auto", ("0", "1"), [1, 0, 1]),
        ([1000002, 1000001] * 4, "auto", ("1000001", "1000002"), [1, 0, 1]),
        ([0.1234567, 0.1234568] * 4, "discrete", ("0.1234567", "0.1234568"), [0, 1, 0]),
    ],
)
def test_what_counts_as_discrete(action, kind, names, first):
    data = from_table(table_of(action), Columns(), "toy", kind)
    assert data.info.action_names == names
    assert data.info.discrete is (names != ("action",))
    np.testing.assert_array_equal(data.actions[0], first)


def test_many_whole_numbers_are_continuous():
    rows = MAX_LEVELS + 3
    table = {
        "agent": np.zeros(rows, int), "time": np.arange(rows), "state": np.arange(rows) % 5,
        "action_dose": np.arange(rows), "action_rate": 1e6 * (np.arange(rows) % 2),
    }  # fmt: skip
    both = from_table(table, Columns(), "toy")
    assert both.info.action_names == ("action_dose", "action_rate")
    assert both.actions.shape == (1, rows - 1, 2)
    one = from_table(table, Columns(actions=("action_dose",)), "toy")
    assert not one.info.discrete
    few = {name: column[:-1] for name, column in table.items()}
    few = from_table(few, Columns(actions=("action_rate",)), "toy")
    assert few.info.action_names == ("0", "1000000")
    np.testing.assert_array_equal(actions_of(few.info, [1e6, "1000000", 0]), [1, 1, 0])


def test_codes_of_actions_stay_apart_however_long_they_are():
    codes = [1000001, 1000002, 1000003, 1000001] * 2
    data = from_table(table_of(codes), Columns(), "toy")
    assert data.info.action_names == ("1000001", "1000002", "1000003")
    np.testing.assert_array_equal(data.actions[0], [0, 1, 2])
    np.testing.assert_array_equal(actions_of(data.info, ["1000003", 1000001.0]), [2, 0])


def stray(cell, count=MAX_LEVELS + 3):
    """One agent's doses 0.25, 0.5, ..., with a cell of text in the third row."""
    doses = [f"{0.25 * i:g}" for i in range(1, count + 1)]
    doses[2] = cell
    rows = np.arange(count)
    return {
        "agent": np.zeros(count, int), "time": rows, "state": rows % 5, "action": np.asarray(doses),
    }  # fmt: skip


def test_a_stray_word_does_not_make_actions_of_numbers():
    for cell, said in (("off", "'off' is no number, but"), ("0,75", "'0,75'.*write 0.75")):
        with pytest.raises(DataError, match=f"agent 0, row 3, column 'action': {said}"):
            from_table(stray(cell), Columns(), "toy")
    # With decimal commas throughout nothing is left that is a number to Python.
    commas = stray("0.75")
    commas["action"] = np.char.replace(commas["action"], ".", ",")
    with pytest.raises(DataError, match=r"row 1, column 'action': '0,25'.*write 0\.25"):
        from_table(commas, Columns(), "toy")
    asked = from_table(stray("n/a"), Columns(), "toy", "discrete")
    assert "n/a" in asked.info.action_names
    few = from_table(stray("off", 6), Columns(), "toy")
    assert few.info.action_names == ("0.25", "0.5", "1", "1.25", "off")


def test_what_stands_for_a_missing_value_is_no_action():
    """However few the numbers, and also among words; unless one says that it is an action."""
    for cells in (["0", "1", "NA", "0"], ["up", "down", " n/a", "up"], ["0", "x", "nan", "0"]):
        with pytest.raises(DataError, match=r"row 3, column 'action': '(NA|n/a|nan)' stands for a"):
            from_table(table_of(cells * 2), Columns(), "toy")
    asked = from_table(table_of(["0", "1", "NA", "0"] * 2), Columns(), "toy", "discrete")
    assert asked.info.action_names == ("0", "1", "NA")
    named = from_table(table_of(["none", "up"] * 4), Columns(), "toy")
    assert named.info.action_names == ("none", "up")
    # A last row's action is not used.
    last = from_table(table_of(["0", "1", "0", "NA"] * 2), Columns(), "toy")
    assert last.info.action_names == ("0", "1")


def test_actions_of_users_are_told_from_those_never_seen():
    info = from_table(table_of(["1", "0", "2", "0"] * 2), Columns(), "toy").info
    np.testing.assert_array_equal(actions_of(info, ["2", 0, 1.0]), [2, 0, 1])
    with pytest.raises(ValueError, match=r"action 3 at step 1 was never seen.*are 0, 1, 2"):
        actions_of(info, [0, 3])
    info = from_table(table_of([1.5, 2, 0.1, 0] * 2), Columns(), "toy").info
    np.testing.assert_array_equal(actions_of(info, [1.0, 2.5]), [[1.0], [2.5]])
    with pytest.raises(ValueError, match="actions must be numbers, action"):
        actions_of(info, ["much"])


def test_a_newcomers_table_is_read_as_the_data_of_the_simulators(tmp_path):
    known = dataset_of(tmp_path, GOOD).info
    # Columns in another order, one action of two, nothing eaten, 1.2 from row to row.
    text = "agent,time,action,input_meal,state_y,state_x\njoe,0,up,0,10,1.5\njoe,1.2,up,0,11,2\n"
    text += "joe,2.4,,,12,3\n"
    with pytest.raises(DataError, match="column 'input_meal' is 0 in every row"):
        dataset_of(tmp_path, text)
    data = dataset_of(tmp_path, text, like=known)
    assert data.info.obs_names == ("state_x", "state_y")
    assert data.info.action_names == ("down", "up")
    assert data.info.time_step == 1.0
    np.testing.assert_array_equal(data.obs[0], np.float32([[1.5, 10], [2, 11], [3, 12]]))
    np.testing.assert_array_equal(data.actions, [[1, 1]])
    np.testing.assert_array_equal(data.inputs, np.zeros((1, 2, 1)))
    with pytest.raises(DataError, match=r"row 1, column 'action': no agent.* 'on'; they know down"):
        dataset_of(tmp_path, text.replace("up", "on"), like=known)


def test_newcomers_whose_actions_are_whole_numbers_stay_continuous(tmp_path):
    known = from_table(table_of([0.5, 1, 2, 0] * 2), Columns(), "toy").info
    data = from_table(table_of([1, 2, 1, 2] * 2), Columns(), "toy", like=known)
    assert not data.info.discrete
    np.testing.assert_array_equal(data.actions[0], [[1], [2], [1]])
