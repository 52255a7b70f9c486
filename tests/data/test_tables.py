"""Tables become datasets as counted by hand; what cannot be used is told with its place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persim_jax.data.from_table import from_table, load_table
from persim_jax.data.sources import load_source
from persim_jax.data.summary import digest
from persim_jax.data.tables import Columns, DataError, numbers, read_table
from tests.data.clinic import GOOD, dataset_of, table_of


def test_a_table_by_the_naming_rule(tmp_path):
    data = dataset_of(tmp_path, GOOD)
    info = data.info
    assert (info.environment, info.behavior, info.time_step) == ("clinic", "unknown", 1.0)
    assert info.obs_names == ("state_x", "state_y")
    assert (info.input_names, info.covariate_names) == (("input_meal",), ("covariate_weight",))
    assert (info.agent_names, info.action_names) == (("ann", "bob"), ("down", "up"))
    np.testing.assert_array_equal(data.agent_ids, [0, 1])
    np.testing.assert_array_equal(data.covariates, [[70], [80]])
    # ann has rows at 0, 1, 2, 9, 10: the third is followed by none.
    np.testing.assert_array_equal(data.mask, [[1, 1, 0, 1], [1, 1, 0, 0]])
    np.testing.assert_array_equal(data.obs[0, :, 0], np.float32([1.5, 1.75, 2, 7, 8]))
    np.testing.assert_array_equal(data.obs[1, :, 1], np.float32([20, 21, 22, 22, 22]))
    np.testing.assert_array_equal(data.actions[0, [0, 1, 3]], [1, 0, 0])
    np.testing.assert_array_equal(data.actions[1, :2], [0, 1])
    np.testing.assert_array_equal(data.inputs[:, :2, 0], [[0, 2], [3, 5]])
    np.testing.assert_array_equal(data.rewards[0, [0, 1, 3]], [1, 3, 7])


def test_columns_by_name_and_other_dialects(tmp_path):
    text = "\ufeff" + GOOD.replace(",", ";").replace("agent", "patient").replace("time", "hour")
    text = text.replace("\n", "\r\n")
    columns = Columns("patient", "hour", states=("state_y",), inputs=(), covariates=())
    data = dataset_of(tmp_path, text, columns)
    assert data.info.obs_names == ("state_y",)
    assert data.inputs is None
    assert data.covariates.shape == (2, 0)
    np.testing.assert_array_equal(data.obs[0, :, 0], [10, 11, 12, 13, 14])


class Series:
    """A column of a data frame whose rows were sorted: [i] is the row that was i before."""

    def __init__(self, values, labels):
        self.values, self.labels = values, list(labels)

    def __len__(self):
        return len(self.values)

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)

    def __getitem__(self, rows):
        return Series([self.values[self.labels.index(row)] for row in np.ravel(rows)], rows)


def test_columns_may_be_lists_or_those_of_a_data_frame(tmp_path):
    expected = dataset_of(tmp_path, GOOD)
    columns = read_table(tmp_path / "clinic.csv")
    as_objects = {
        name: [cell or None for cell in cells.tolist()] for name, cells in columns.items()
    }
    order = np.argsort(columns["agent"], kind="stable")
    frame = {name: Series(cells[order], order) for name, cells in columns.items()}
    for table in (as_objects, frame):
        found = from_table(table, Columns(), "clinic")
        assert found.info == expected.info
        assert digest(found) == digest(expected)
    with pytest.raises(DataError, match=r"column 'time' has shape \(7,\) and the first \(8,\): gi"):
        from_table(columns | {"time": list(range(7))}, Columns(), "clinic")


def test_parquet_is_the_same_as_csv(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import csv, parquet

    (tmp_path / "clinic.csv").write_text(GOOD)
    options = csv.ConvertOptions(strings_can_be_null=True)
    table = csv.read_csv(tmp_path / "clinic.csv", convert_options=options)
    assert table.schema.field("state_x").type == pyarrow.float64()
    parquet.write_table(table, tmp_path / "clinic.parquet")
    found = load_table(tmp_path / "clinic.parquet", Columns())
    expected = dataset_of(tmp_path, GOOD)
    assert found.info == expected.info
    for name in ("obs", "actions", "inputs", "rewards", "mask", "covariates"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    (tmp_path / "bad.parquet").write_text(GOOD)
    with pytest.raises(DataError, match=r"bad\.parquet is no Parquet table"):
        read_table(tmp_path / "bad.parquet")


def test_whole_numbers_are_ids_and_dates_are_seconds(tmp_path):
    text = "agent,time,state\n12,2024-12-31 23:50,1\n12,2025-01-01T00:00,2\n7,2025-01-01,5\n"
    text += "7,2025-01-01 00:10Z,6\n"
    data = dataset_of(tmp_path, text.replace("Z", ""))
    assert data.info.time_step == 600.0
    np.testing.assert_array_equal(data.agent_ids, [12, 7])
    assert data.info.agent_names == ()
    assert data.row_of("7") == 1
    # No action column: there is one action, which tells nothing.
    assert data.info.action_names == ("none",)
    assert dataset_of(tmp_path, text.replace("12,", "012,")).info.agent_names == ("012", "7")


def test_a_missing_date_is_told_where_it_is(tmp_path):
    text = "agent,time,state\na,2024-01-01,1\na,2024-01-02,2\nb,2024-01-01,4\nb,2024-01-02,5\n"
    for old, new in (("b,2024-01-01", "b,"), ("b,2024-01-01", "b,2024-1-1")):
        cell = new.partition(",")[2]
        with pytest.raises(DataError, match=f"agent b, row 3, column 'time': '{cell}' is no time"):
            dataset_of(tmp_path, text.replace(old, new))
    text = text.replace("2024-01-01", "01.01.2024").replace("2024-01-02", "02.01.2024")
    with pytest.raises(DataError, match=r"neither numbers nor dates.*'01\.01\.2024'"):
        dataset_of(tmp_path, text)


def test_what_single_precision_cannot_tell_apart_is_refused():
    # Floats of 32 bits near 1.7e9 are 128 apart.
    near = table_of([1, 2, 0, 1] * 2, state=1.7e9 + np.arange(8.0))
    with pytest.raises(DataError, match=r"1700000000 and 1700000007, where.* 1\.3e.02 apart: subt"):
        from_table(near, Columns(), "toy")
    with pytest.raises(DataError, match="column 'action' lies between"):
        from_table(table_of(1.7e9 + np.arange(8) / 2), Columns(), "toy")
    large = table_of([1, 2, 0, 1] * 2, state=np.where(np.arange(8) == 5, 1e39, np.arange(8)))
    with pytest.raises(DataError, match=r"agent b, row 6.* 1e\+39 is too large for single prec"):
        from_table(large, Columns(), "toy")


def test_what_columns_are_called_is_kept_and_does_not_change_the_data():
    table = table_of(["off", "on", "off", "on"] * 2)
    data = from_table(table, Columns(), "toy")
    assert (data.info.agent_column, data.info.action_column) == ("agent", "action")
    table["treatment"], table["who"] = table.pop("action"), table.pop("agent")
    other = from_table(table, Columns("who", actions=("treatment",)), "toy")
    assert (other.info.agent_column, other.info.action_column) == ("who", "treatment")
    assert digest(other) == digest(data)


# (what is replaced in GOOD, by what, what the message says)
BAD = {
    "missing": ("agent,time", "agent,tim", r"no column 'time' \(did you mean 'tim'\?\): it has"),
    "text": ("ann,1,1.75", "ann,1,high", r"agent ann, row 3, column 'state_x': 'high' is no num"),
    "empty": ("bob,1,3,21", "bob,1,,21", r"agent bob, row 7, column 'state_x': the cell is empty"),
    "nan": ("1.75,11", "1.75,nan", r"agent ann, row 3, column 'state_y': nan is not finite"),
    "infinity": ("5,80,4", "inf,80,4", r"agent bob, row 7, column 'input_meal': inf is not fin"),
    "action": ("ann,2,2,12,up", "ann,2,2,12,", ""),
    "no action": ("1.75,11,down", "1.75,11,", r"agent ann, row 3, column 'action': the cell is em"),
    "back": ("ann,2,2", "ann,0.5,2", r"agent ann, row 4, column 'time'.*is before.*sort each"),
    "twice": ("ann,2,2", "ann,1,2", r"agent ann, row 4, column 'time'.*is the same.*keep one"),
    "no time": ("ann,2,2", "ann,,2", r"agent ann, row 4, column 'time': '' is no time"),
    "close": ("bob,2,5", "bob,1.25,5", r"agent bob, row 8.*0.25 after the row above it, where 1 "),
    "one row": ("bob,2,5", "joe,2,5", r"1 agents have one row only \(joe\)"),
    "nobody": ("bob,1,3", ",1,3", r"row 7, column 'agent' is empty: say whose"),
    "changes": ("5,80,4", "5,81,4", r"agent bob, row 7, column 'covariate_weight': 81 after 80"),
    "ragged": ("bob,1,3,21", "bob,1,3,21,9", r"row 7 of .*clinic\.csv has 9 cells, but.* has 8"),
    "names": ("state_y", "state_x", r"two columns called 'state_x'"),
    "no state": ("state_x,state_y", "x,y", r"there is no state column.*--state_columns"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_told_with_its_place_and_a_remedy(tmp_path, name):
    old, new, message = BAD[name]
    assert GOOD.count(old) == 1
    text = GOOD.replace(old, new)
    if not message:  # an action before a gap is not used
        dataset_of(tmp_path, text)
        return
    with pytest.raises(DataError, match=message):
        dataset_of(tmp_path, text)
    assert (tmp_path / "clinic.csv").read_text() == text


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("state", 3, "column 'state' is 3 in every row"),
        ("action", 1, "column 'action' is 1 in every row.*action without another"),
        ("action", 0.5, "column 'action' is 0.5 in every row"),
        ("input_meal", 0, "column 'input_meal' is 0 in every row"),
        ("covariate_age", 30, "column 'covariate_age' is 30 in every row"),
    ],
)
def test_a_column_without_variation_is_refused(column, value, message):
    table = table_of([1, 2, 0, 1] * 2) | {column: np.full(8, value)}
    with pytest.raises(DataError, match=message):
        from_table(table, Columns(), "toy")


def test_a_state_whose_steps_single_precision_does_not_hold_is_refused():
    # Near 4 million float32 counts in quarters, near 1000 in 2^-14: metres north of the equator.
    steps = np.cumsum(np.tile([0.1, 0.2, 0.1, 0.3], 2)) + np.repeat([0, 1000], 4)
    table = table_of([1, 2, 0, 1] * 2) | {"state_north": 4e6 + steps}
    columns = Columns(states=("state_north",))
    with pytest.raises(DataError, match=r"'state_north' lies around 4\.0005e\+06 .* by 0\.2"):
        from_table(table, columns, "toy")
    found = from_table(table | {"state_north": 1000 + steps}, columns, "toy")
    np.testing.assert_allclose(np.diff(found.obs[0, :, 0]), [0.2, 0.1, 0.3], atol=2e-4)
    # One number for each agent, which float32 rounds but once, changes by nothing in a step.
    fixed = table | {"state_size": np.repeat([0.1, 0.7], 4), "state_north": steps}
    from_table(fixed, Columns(states=("state_size", "state_north")), "toy")


def test_numbers_that_are_missing_and_spans_of_time_are_what_they_are_in_text():
    # What Parquet makes of a column of whole numbers with an empty cell.
    table = table_of([1, 2, 0, 1] * 2) | {"agent": np.asarray([7.0] * 4 + [8.0] * 3 + [np.nan])}
    with pytest.raises(DataError, match="row 8, column 'agent' is empty"):
        from_table(table, Columns(), "toy")
    table["agent"][-1] = 8.0
    assert from_table(table, Columns(), "toy").agent_ids.tolist() == [7, 8]
    minutes = np.tile(np.arange(4), 2).astype("timedelta64[m]")
    assert from_table(table | {"time": minutes}, Columns(), "toy").info.time_step == 60.0
    values, wrong = numbers(np.asarray([1500, "NaT"], "timedelta64[ms]"))
    np.testing.assert_array_equal(values, [1.5, np.nan])
    assert not wrong.any()


def test_other_things_that_are_no_dataset(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_table(tmp_path / "absent.csv")
    for content, message in (
        (b"\xff\xfe\x00agent", "is no text in UTF-8 and so no CSV"),
        (b"", "is empty"),
        (b"agent,time,state\n", "holds no rows"),
        (b'agent,time\n"a,1\n', "is no CSV table"),
    ):
        (tmp_path / "odd.csv").write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_table(tmp_path / "odd.csv")
    (tmp_path / "LOUD.CSV").write_text(GOOD)
    assert load_source(str(tmp_path / "LOUD.CSV"), Columns()).num_agents == 2
    with pytest.raises(DataError, match="used as two things"):
        Columns(actions=("state",)).resolve(["agent", "time", "state"])
    with pytest.raises(DataError, match="action_kind is 'some'"):
        from_table(table_of([1, 2] * 4), Columns(), "toy", "some")
    with pytest.raises(DataError, match="2 action columns must be numbers, but 'action_b' holds"):
        from_table(
            table_of([1, 2] * 4, action_b=np.asarray(["x", "y"] * 4)),
            Columns(actions=("action", "action_b")),
            "toy",
        )
    with pytest.raises(DataError, match=r"agent a has no two rows.*within 1.5.*of 0\.1"):
        from_table(table_of([1, 2] * 4), Columns(), "toy", time_step=0.1)


@settings(max_examples=30)
@given(data=st.data())
def test_rows_of_agents_may_be_mixed_and_columns_in_any_order(data):
    table = table_of([1, 2, 0, 1] * 2, input_meal=np.arange(8.0))
    # Any interleaving of the two agents keeps the order of each one's rows.
    agents = data.draw(st.permutations(table["agent"].tolist()))
    places = {"a": iter(range(4)), "b": iter(range(4, 8))}
    order = [next(places[agent]) for agent in agents]
    names = data.draw(st.permutations(list(table)))
    mixed = from_table({name: table[name][order] for name in names}, Columns(), "toy")
    plain = from_table(table, Columns(), "toy")
    rows = [plain.row_of(name) for name in mixed.info.agent_names]
    for name in ("obs", "actions", "inputs", "mask"):
        np.testing.assert_array_equal(getattr(mixed, name), getattr(plain, name)[rows])
