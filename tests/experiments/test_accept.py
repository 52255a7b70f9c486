import pathlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.records import IDENTITY, Row, append_rows, changing_rows, read_rows
from experiments.reporting.accept import accept_rows, file_of, prune, settle
from tests.experiments.synthetic import returns, row

OLD, BETWEEN, NEW = (digit * 10 for digit in "abc")


def at(made: Row, hour: int) -> Row:
    return made | {"measured_at": f"2026-01-01T{hour:02}:00:00+00:00"}


def run(hour: int, version: str, agents: int = 5, **fields: object) -> list[Row]:
    """A job's rows: the value says when it was measured."""
    rows = [
        returns([float(hour), hour + 2.0], agent, code_version=version, **fields)
        for agent in range(agents)
    ]
    return [at(made, hour) for made in rows]


def values(rows: list[Row]) -> list[float]:
    return [made["value"] for made in rows]


def test_the_latest_complete_run_counts_not_the_best(tmp_path: pathlib.Path) -> None:
    accept_rows(run(9, OLD), tmp_path)
    found = accept_rows(run(3 + 7, NEW) + run(8, BETWEEN), tmp_path)
    assert values(read_rows(tmp_path)) == [11.0] * 5
    assert (found.num_taken, found.num_pruned) == (5, 5)
    assert [path.name for path in found.files] == ["random.jsonl"]
    assert len(found.notes) == 1
    assert f"5 rows of code {BETWEEN} are older than those kept" in found.notes[0]


def test_an_older_run_is_not_taken_over_a_newer_one(tmp_path: pathlib.Path) -> None:
    accept_rows(run(9, NEW), tmp_path)
    found = accept_rows(run(2, OLD), tmp_path)
    assert values(read_rows(tmp_path)) == [10.0] * 5
    assert (found.num_taken, found.files) == (0, ())
    assert "PerSim, returns, MountainCar, Random, trial 0" in found.notes[0]


def test_an_incomplete_run_is_not_taken_over_a_complete_one(tmp_path: pathlib.Path) -> None:
    accept_rows(run(1, OLD), tmp_path)
    found = accept_rows(run(9, NEW, agents=3), tmp_path)
    assert values(read_rows(tmp_path)) == [2.0] * 5
    assert found.num_taken == 0
    assert found.notes == (
        f"not taken, PerSim, returns, MountainCar, Random, trial 0: 3 rows of code {NEW} lack "
        "agents 3, 4, which kept rows have",
    )


def test_a_complete_run_replaces_an_incomplete_one(tmp_path: pathlib.Path) -> None:
    accept_rows(run(9, OLD, agents=2), tmp_path)
    # Earlier, but whole: two agents' numbers of another code version are none of a job's five.
    found = accept_rows(run(3, NEW), tmp_path)
    assert values(read_rows(tmp_path)) == [4.0] * 5
    assert found.notes == ()


def test_two_halves_of_one_code_version_make_a_whole(tmp_path: pathlib.Path) -> None:
    accept_rows(run(1, OLD), tmp_path)
    rows = run(9, NEW)
    # Taken together they are complete, whichever workdirs they came from.
    assert accept_rows(rows[:2] + rows[2:], tmp_path).num_taken == 5
    assert accept_rows([at(rows[0], 11)], tmp_path).num_taken == 1


def test_another_config_does_not_hide_agents_of_a_kept_one(tmp_path: pathlib.Path) -> None:
    accept_rows(run(1, OLD), tmp_path)
    found = accept_rows(run(9, NEW, agents=3, model={"rank": 4}), tmp_path)
    assert found.num_taken == 0
    assert "lack agents 3, 4" in found.notes[0]
    # All five stand beside the kept ones: another digest is another identity.
    assert accept_rows(run(9, NEW, model={"rank": 4}), tmp_path).num_taken == 5
    assert len(read_rows(tmp_path)) == 10


@pytest.mark.parametrize("complete_first", [True, False])
def test_of_two_new_configs_the_later_does_not_hide_agents_of_the_other(
    complete_first: bool,
) -> None:
    complete, lacking = run(2, OLD, agents=3), run(3, NEW, agents=1, model={"rank": 4})
    rows = complete + lacking if complete_first else lacking + complete
    kept, notes = settle([], rows)
    assert values(kept) == [3.0] * 3
    assert len(notes) == 1
    assert f"1 row of code {NEW} lack agents 1, 2, which kept rows have" in notes[0]
    # The complete one measured later is the one that tables show: nothing is lost.
    kept, notes = settle([], run(4, OLD, agents=3) + lacking)
    assert (len(kept), notes) == (4, [])


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.sets(st.integers(0, 3), min_size=1)),
        max_size=5,
        unique_by=lambda made: made[0],
    ),
    st.integers(0, 5),
    st.randoms(),
)
def test_accepting_at_once_is_accepting_one_run_after_the_other(
    made: list[tuple[int, set[int]]], num_kept: int, random: Any
) -> None:
    runs = [
        [
            at(row("rmse_mean", float(hour), agent, trial=trial, model={"rank": hour}), hour)
            for agent in agents
            for trial in (0, 1)
        ]
        for hour, agents in made
    ]
    kept = [made for one in runs[:num_kept] for made in one]
    before = list(kept)
    for one in sorted(runs[num_kept:], key=lambda rows: rows[0]["measured_at"]):
        kept, _ = settle(kept, one)
    rows = [made for one in runs[num_kept:] for made in one]
    random.shuffle(rows)
    together, _ = settle(before, rows)
    assert {id(made) for made in together} == {id(made) for made in kept}


def test_errors_alone_do_not_need_returns(tmp_path: pathlib.Path) -> None:
    accept_rows(run(1, OLD), tmp_path)
    errors = [at(row("rmse_mean", 0.1, agent, code_version=NEW), 9) for agent in range(5)]
    assert accept_rows(errors, tmp_path).num_taken == 5
    assert len(read_rows(tmp_path)) == 10


def test_rows_go_to_the_files_of_their_kind() -> None:
    unseen = row("rmse_newcomers_behavior_5_transitions_and_covariates", 0.1)
    policy = returns([1.0, 2.0], method="dqn", scope="own_agent")
    assert str(file_of(unseen)) == "unseen/mountain_car.jsonl"
    assert str(file_of(policy)) == "policies/mountain_car.jsonl"
    assert str(file_of(returns([1.0, 2.0], method="true_env"))) == "mountain_car/any.jsonl"
    other = returns([1.0, 2.0]) | {"overrides": {"model.rank": 2}}
    assert str(file_of(other)) == "mountain_car/random-studies.jsonl"


def test_pruning_leaves_one_row_of_each_identity(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "mountain_car" / "random.jsonl"
    extra = at(row("error_growth_per_step", 1.1, code_version=OLD), 1)
    append_rows(path, [*run(1, OLD), extra, *run(9, NEW), *run(5, BETWEEN, agents=4)])
    assert prune(tmp_path) == 9
    found = read_rows(tmp_path)
    # What the new version did not measure stays, and says by whom it was measured.
    assert values(found) == [1.1, *[10.0] * 5]
    assert prune(tmp_path) == 0


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 2), st.sampled_from("abc"), st.integers(0, 9)),
        max_size=12,
    )
)
def test_there_is_one_row_per_identity_and_none_is_lost(made: list[tuple[int, ...]]) -> None:
    rows = [
        at(row("rmse_mean", float(hour), agent, trial=trial, code_version=version), hour)
        for agent, trial, version, hour in made
    ]
    kept, _ = settle([], rows)

    def names(found: list[Row]) -> list[tuple[object, ...]]:
        return [tuple(r[name] for name in IDENTITY) for r in found]

    assert len(set(names(kept))) == len(kept)
    assert set(names(kept)) == set(names(rows))
    assert settle(kept)[0] == kept


def test_a_change_that_fails_leaves_the_file(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "rows.jsonl"
    append_rows(path, run(1, OLD))
    before = path.read_bytes()
    with pytest.raises(ValueError, match="lacks environment"), changing_rows(path) as rows:
        rows[:] = [{"value": 1.0}]
    with pytest.raises(IndexError), changing_rows(path) as rows:
        del rows[0], rows[99]
    assert path.read_bytes() == before
