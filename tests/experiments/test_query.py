"""The launcher `query`: files in, files out, verdicts, and what it says of bad questions."""

import csv
import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from experiments import cli, questions
from experiments.query import query
from experiments.stamps import ROOT
from tests.test_simulators import make
from tests.users import recent, untrained

TABLE = "time,x,y,action_dose,meal\n0,7,-1,none,1\n0.5,100,-4,low,3\n1,99.5,-3.8,,\n"


@pytest.fixture
def workdir(tmp_path):
    untrained().save(tmp_path / "run" / "simulators")
    return tmp_path / "run"


@pytest.fixture
def history(tmp_path):
    """The last two of its rows, with action 1 and input 3 between them, are where to start."""
    (tmp_path / "rows.csv").write_text(TABLE)
    return str(tmp_path / "rows.csv")


def start():
    return recent(untrained(), [[100, -4], [99.5, -3.8]])


@pytest.fixture
def doses(tmp_path):
    path = tmp_path / "doses.csv"
    path.write_text("time,meal,action_dose\n0,3,low\n1,4,none\n2,5.5,high\n")
    return path


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_an_answer_is_the_librarys_with_names_and_intervals(workdir, doses, tmp_path, history):
    out = tmp_path / "answer.csv"
    answer, notes = query(workdir, "bob", doses, out, history, (0.8,))
    expected = untrained().query("bob", [1, 0, 2], start(), [[3], [4], [5.5]], (0.8,))
    np.testing.assert_array_equal(answer.mean, expected.mean)
    rows = read(out)
    assert list(rows[0]) == [
        "step", "action", "meal", "x", "x_std", "x_lower_80", "x_upper_80", "y", "y_std",
        "y_lower_80", "y_upper_80", "outside_data", "beyond_trust",
    ]  # fmt: skip
    assert [row["action"] for row in rows] == ["low", "none", "high"]
    assert [row["step"] for row in rows] == ["1", "2", "3"]
    for name, values in (("x", expected.mean[:, 0]), ("y_upper_80", expected.upper[0, :, 1])):
        np.testing.assert_allclose([float(row[name]) for row in rows], values, rtol=1e-6)
    assert {(row["outside_data"], row["beyond_trust"]) for row in rows} == {("0", "0")}
    (note,) = notes
    assert note.startswith("nobody has checked these simulators: python -m experiments.validate")
    assert f"{out.name}.tmp" not in {p.name for p in tmp_path.iterdir()}


def test_without_a_state_it_starts_where_the_agent_was_last_seen(workdir, doses, tmp_path):
    answer, _ = query(workdir, "bob", doses, tmp_path / "out.csv")
    last = untrained().query("bob", [1, 0, 2], None, [[3], [4], [5.5]]).mean
    np.testing.assert_array_equal(answer.mean, last)


def test_without_lags_a_state_is_numbers_or_the_last_row_of_a_table(history):
    simulators = untrained(inputs=False, lags=1)
    np.testing.assert_allclose(questions.read_state("99.5,-3.8", simulators), [99.5, -3.8])
    np.testing.assert_allclose(questions.read_state(history, simulators), [99.5, -3.8])
    assert questions.read_state(None, simulators) is None
    with pytest.raises(ValueError, match="--state has 3 numbers: a state is x, y"):
        questions.read_state("1,2,3", simulators)


@pytest.mark.parametrize(
    ("verdict", "note", "beyond"),
    [
        ({"verdict": "trust", "steps": 3}, None, "000"),
        ({"verdict": "trust", "steps": 1}, "could test the simulator of agent bob for 1", "011"),
        ({"verdict": "trust_up_to", "steps": 2}, "trusts the simulator of agent bob for 2", "001"),
        ({"verdict": "do_not_trust", "steps": 0}, "validation.html says why", "111"),
        (None, "does not speak of agent bob", "000"),
    ],
)
def test_the_verdict_is_told_and_steps_beyond_it_are_marked(
    workdir, doses, history, tmp_path, verdict, note, beyond
):
    agents = {"bob": verdict} if verdict else {"ann": {"verdict": "trust", "steps": 9}}
    (workdir / "verdict.json").write_text(json.dumps({"agents": agents}))
    _, notes = query(workdir, "bob", doses, tmp_path / "out.csv", history)
    assert [note in found for found in notes] == ([True] if note else [])
    assert "".join(row["beyond_trust"] for row in read(tmp_path / "out.csv")) == beyond


def renamed(simulators, **columns):
    return simulators.replace(info=dataclasses.replace(simulators.info, **columns))


def test_actions_stand_in_the_column_that_the_data_had_for_them(tmp_path, history, doses):
    simulators = renamed(untrained(), action_column="treatment")
    simulators.save(tmp_path / "run" / "simulators")
    table = doses.read_text().replace("action_dose", "treatment,action_note")
    table = table.replace("low", "low,a").replace("none", "none,b").replace("high", "high,c")
    (tmp_path / "own.csv").write_text(table)
    answer, _ = query(tmp_path / "run", "bob", tmp_path / "own.csv", tmp_path / "a.csv", history)
    expected = untrained().query("bob", [1, 0, 2], start(), [[3], [4], [5.5]])
    np.testing.assert_array_equal(answer.mean, expected.mean)
    # What comes out can be asked again.
    assert [row["treatment"] for row in read(tmp_path / "a.csv")] == ["low", "none", "high"]
    again, _ = query(tmp_path / "run", "bob", tmp_path / "a.csv", tmp_path / "b.csv", history)
    np.testing.assert_array_equal(again.mean, answer.mean)


def test_levels_of_numbers_may_be_written_as_floats(tmp_path):
    make().save(tmp_path / "run" / "simulators")
    (tmp_path / "a.csv").write_text("action\n2.0\n0.0\n")
    answer, _ = query(tmp_path / "run", "7", tmp_path / "a.csv", tmp_path / "o.csv", "0.3,-0.2")
    np.testing.assert_array_equal(answer.mean, make().rollout(7, [0.3, -0.2], [2, 0]).mean)


@pytest.mark.parametrize("column", ["agent", "patient"])
def test_where_to_start_is_read_from_the_agents_own_rows(tmp_path, doses, column):
    simulators = renamed(untrained(), agent_column=column)
    simulators.save(tmp_path / "run" / "simulators")
    head, *rows = TABLE.splitlines()
    # cy's rows stand between and after bob's.
    rows = [f"bob,{rows[0]}", "cy,0,50,1,none,9", f"bob,{rows[1]}", f"bob,{rows[2]}", "cy,1,51,2,,"]
    (tmp_path / "all.csv").write_text("\n".join([f"{column},{head}", *rows]) + "\n")
    state = str(tmp_path / "all.csv")
    answer, _ = query(tmp_path / "run", "bob", doses, tmp_path / "out.csv", state)
    expected = untrained().query("bob", [1, 0, 2], start(), [[3], [4], [5.5]])
    np.testing.assert_array_equal(answer.mean, expected.mean)
    with pytest.raises(ValueError, match=f"has no row of agent ann in its column '{column}'"):
        query(tmp_path / "run", "ann", doses, tmp_path / "other.csv", state)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ((1, 0, 2), "of the state, row 2, column 'time': the time 0 is before the row above it"),
        ((0, 1, 1), "the time 1 is the same as in the row above it"),
        ((0, 1, 4), "the last 2 rows of .* are 3 apart, but the data have a row every 1: give"),
        ((0, 5, 6), None),  # a gap before the last moments
        (("2024-12-31 23:59", "2024-12-31 23:58", "2025-01-01"), "is before the row above it"),
    ],
)
def test_a_history_is_the_last_moments_in_order_of_time(tmp_path, times, message):
    simulators = renamed(untrained(), time_step=1.0)
    head, *rows = TABLE.splitlines()
    lines = [f"{t},{row.partition(',')[2]}" for t, row in zip(times, rows, strict=True)]
    path = tmp_path / "rows.csv"
    path.write_text("\n".join([head, *lines]) + "\n")
    if message is None:
        questions.read_state(str(path), simulators)
        return
    with pytest.raises(ValueError, match=message):
        questions.read_state(str(path), simulators)


def test_continuous_actions_stand_in_columns_of_their_names(tmp_path):
    untrained(discrete=False).save(tmp_path / "run" / "simulators")
    path, out = tmp_path / "doses.csv", tmp_path / "out.csv"
    path.write_text("rate,dose,meal\n1003,0.5,4\n1004,9,4\n")
    _, notes = query(tmp_path / "run", "cy", path, out)
    assert [(row["dose"], row["rate"]) for row in read(out)] == [("0.5", "1003"), ("9", "1004")]
    assert any("1 of 2 actions are outside the range of the data (dose from" in n for n in notes)


def test_simulators_without_names_take_numbers(tmp_path):
    make().save(tmp_path / "run" / "simulators")
    (tmp_path / "a.csv").write_text("action\n2\n0\n")
    answer, _ = query(tmp_path / "run", "7", tmp_path / "a.csv", tmp_path / "o.csv", "0.3,-0.2")
    np.testing.assert_array_equal(answer.mean, make().rollout(7, [0.3, -0.2], [2, 0]).mean)
    assert list(read(tmp_path / "o.csv")[0])[:3] == ["step", "action", "obs_0"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("meal\n3\n", "0 columns whose name begins with action"),
        ("action_a,action_b,meal\nlow,low,3\n", "2 columns whose name begins with action"),
        ("action,dinner\nlow,3\n", "no column 'meal': the inputs .* and the file has action, di"),
        ("action,meal\nlow,3\nhuge,3\n", "row 2 .* no agent ever took the action 'huge'; .* none,"),
        ("action,meal\nlow,3\nlow,\n", "row 2 .*, column 'meal': '' is no finite number"),
        ("action,meal\nlow,inf\n", "row 1 .*'inf' is no finite number"),
        ("action,meal\n", "holds no rows"),
        ("action,meal\nlow\n", "row 1 of .* has 1 cells"),
    ],
)
def test_tables_of_actions_that_do_not_fit_are_refused(workdir, tmp_path, table, message, history):
    (tmp_path / "doses.csv").write_text(table)
    with pytest.raises(ValueError, match=message):
        query(workdir, "bob", tmp_path / "doses.csv", tmp_path / "out.csv", history)
    assert not (tmp_path / "out.csv").exists()
    assert (tmp_path / "doses.csv").read_text() == table


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"agent": "bop"}, KeyError, "no agent has the id bop.*such as bob"),
        (
            {"state": "1,2"},
            ValueError,
            "--state is 1,2: these simulators look at the last 2 moments",
        ),
        ({"state": "rows.csv"}, FileNotFoundError, "there is no file rows.csv"),
        ({"actions": "doses.txt"}, FileNotFoundError, "there is no file doses.txt"),
        ({"workdir": "elsewhere"}, FileNotFoundError, "no simulators in elsewhere: fit some first"),
    ],
)
def test_questions_that_do_not_fit_are_refused(
    workdir, doses, tmp_path, change, error, message, history
):
    arguments = {"workdir": workdir, "agent": "bob", "actions": doses, "out": tmp_path / "out.csv"}
    with pytest.raises(error, match=message):
        query(**arguments | {"state": history} | change)
    assert not (tmp_path / "out.csv").exists()


def test_an_answer_that_exists_is_not_replaced(workdir, doses, tmp_path, history):
    out = tmp_path / "out.csv"
    out.write_text("dear")
    with pytest.raises(ValueError, match="exists already: give another --out"):
        query(workdir, "bob", doses, out, history)
    assert out.read_text() == "dear"


def test_a_table_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def full(path, data):
        raise OSError("no space left")

    monkeypatch.setattr(cli, "write_atomically", full)
    with pytest.raises(OSError, match="no space"):
        cli.write_csv(tmp_path / "a.csv", ["x"], [[1.0]])
    assert list(tmp_path.iterdir()) == []


def test_a_history_that_does_not_fit_is_refused(workdir, doses, tmp_path):
    for table, message in {
        "x,y,action,meal\n1,2,low,3\n": "1 observations .* 2 lags need at least 2",
        "x,y,meal\n1,2,3\n1,2,3\n": "0 columns whose name begins with action",
        "x,action,meal\n1,low,3\n1,low,3\n": "no column 'y': the states of",
    }.items():
        (tmp_path / "rows.csv").write_text(table)
        with pytest.raises(ValueError, match=message):
            query(workdir, "bob", doses, tmp_path / "out.csv", str(tmp_path / "rows.csv"))


@pytest.mark.slow
def test_the_command_warns_and_errs_in_single_lines(workdir, doses, tmp_path, history):
    def launch(*flags):
        command = [sys.executable, "-m", "experiments.query", f"--workdir={workdir}", *flags]
        return subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)

    out = f"--out={tmp_path / 'out.csv'}"
    done = launch("--agent=bob", f"--actions={doses}", f"--state={history}", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("wrote 3 steps of agent bob")
    assert [line.partition(":")[0] for line in done.stderr.splitlines()] == ["warning"]
    assert len(read(tmp_path / "out.csv")) == 3
    done = launch("--agent=bop", f"--actions={doses}", f"--out={tmp_path / 'other.csv'}")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: no agent has the id bop")
