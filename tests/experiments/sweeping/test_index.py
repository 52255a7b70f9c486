"""The index: the last line of a job counts, and no kill makes it unreadable."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.sweeping.index import DONE, FAILED, NAME, PENDING, RUNNING, Index
from experiments.sweeping.plan import make_plan
from tests.experiments.sweep_jobs import counting_job

ONE, TWO = make_plan([counting_job(), counting_job(rank=2)], "smoke")


def test_the_last_state_counts_and_is_found_again(tmp_path):
    index = Index(tmp_path)
    assert index.state(ONE.key) == PENDING
    index.announce([ONE, TWO], {ONE.key: 3.0, TWO.key: 4.0})
    index.add(ONE, RUNNING, estimate=3.0)
    index.add(ONE, DONE, seconds=2.5, rows=7, code_version="abc")
    again = Index(tmp_path)
    assert (again.state(ONE.key), again.state(TWO.key)) == (DONE, PENDING)
    entry = again.entries[ONE.key]
    assert (entry.seconds, entry.rows, entry.code_version) == (2.5, 7, "abc")
    assert (entry.folder, entry.name) == (ONE.folder, ONE.name)
    assert again.entries[TWO.key].estimate == 4.0


def test_what_is_known_is_not_announced_again(tmp_path):
    index = Index(tmp_path)
    index.add(ONE, FAILED, error="no")
    before = (tmp_path / NAME).read_bytes()
    index.announce([ONE], {ONE.key: 1.0})
    assert (tmp_path / NAME).read_bytes() == before
    assert Index(tmp_path).entries[ONE.key].error == "no"


@given(st.data())
def test_a_line_that_was_cut_short_takes_nothing_with_it(tmp_path_factory, data):
    folder: Path = tmp_path_factory.mktemp("index")
    index = Index(folder)
    index.add(ONE, DONE, rows=1)
    before = (folder / NAME).stat().st_size
    index.add(TWO, DONE, rows=2)
    whole = (folder / NAME).read_bytes()
    # Short of the closing brace and the end of the line.
    cut = data.draw(st.integers(before, len(whole) - 2))
    (folder / NAME).write_bytes(whole[:cut])
    again = Index(folder)
    assert again.entries.keys() == {ONE.key}
    again.add(TWO, FAILED, error="x")
    last = Index(folder)
    assert (last.state(ONE.key), last.state(TWO.key)) == (DONE, FAILED)


@pytest.mark.parametrize("line", ['{"job": 1}', '{"a": }', "{1}"])
def test_a_line_that_is_no_entry_is_told(tmp_path, line):
    Index(tmp_path).add(ONE, DONE)
    with (tmp_path / NAME).open("a") as file:
        file.write(f"{line}\n")
    with pytest.warns(UserWarning, match=rf"{NAME}, line 3, is left out"):
        assert Index(tmp_path).state(ONE.key) == DONE


def test_a_full_disk_is_an_error_that_does_not_lose_the_state(tmp_path):
    index = Index(tmp_path)
    index.path = tmp_path / "absent" / NAME
    with pytest.raises(OSError, match="absent"):
        index.add(ONE, DONE)
    assert index.state(ONE.key) == DONE


def test_lines_are_json_that_others_can_read(tmp_path):
    Index(tmp_path).add(ONE, DONE, seconds=1.0)
    lines = [x for x in (tmp_path / NAME).read_text("utf8").split("\n") if x]
    assert {"job", "name", "folder", "state", "seconds", "at"} <= json.loads(lines[0]).keys()
