"""Stages that runs share: made once, found by the others, whole or not at all."""

import multiprocessing
import os
import shutil
import time
from pathlib import Path

import pytest

from experiments import store
from experiments.records import read_rows
from experiments.store import COMPLETE, Shared
from experiments.sweeping.plan import make_plan
from experiments.sweeping.worker import Order, perform
from experiments.workdir import Workdir, opened, waiting_for
from tests.experiments.jobs import tiny
from tests.experiments.sweep_jobs import COUNTING, counting_job, make_numbers

FIELDS = ("environment", "behavior", "trial")


@pytest.fixture
def notes(tmp_path, monkeypatch):
    path = tmp_path / "notes.txt"
    monkeypatch.setenv("SWEEP_TEST_NOTES", str(path))
    return lambda: [x for x in path.read_text("utf8").splitlines() if x.startswith("made")]


def made(tmp_path: Path, name: str, shared: Path | None = None, **changes) -> Workdir:
    with (
        store.using(tmp_path / "store" if shared is None else shared),
        opened(tmp_path / name, tiny(**changes)) as where,
    ):
        make_numbers(where)
    return where


def test_a_stage_is_made_once_and_found_by_configs_that_agree_in_what_it_depends_on(
    tmp_path, notes
):
    one = made(tmp_path, "one", model__rank=1)
    two = made(tmp_path, "two", model__rank=2)
    assert notes() == ["made random"]
    made(tmp_path, "three", behavior="pure")
    assert notes() == ["made random", "made pure"]
    files = [where.path / "numbers" / "numbers.json" for where in (one, two)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert files[0].stat().st_ino != files[1].stat().st_ino


def test_who_finds_a_stage_has_its_rows_too_under_its_own_digest(tmp_path, notes):
    one, two = (made(tmp_path, name, model__rank=r) for r, name in enumerate(("one", "two"), 1))
    (first,), (second,) = one.rows(), two.rows()
    assert first["config_digest"] == one.context.config_digest != second["config_digest"]
    assert second == first | {"config_digest": two.context.config_digest}


def test_without_a_store_nothing_is_shared(tmp_path, notes):
    for name in ("one", "two"):
        with opened(tmp_path / name, tiny()) as where:
            make_numbers(where)
    assert notes() == ["made random"] * 2
    assert not (tmp_path / "store").exists()


def test_a_stage_that_a_workdir_has_already_is_given_to_the_others(tmp_path, notes):
    with opened(tmp_path / "one", tiny(model__rank=1)) as where:
        make_numbers(where)
    made(tmp_path, "one", model__rank=1)
    made(tmp_path, "two", model__rank=2)
    assert notes() == ["made random"]


@pytest.mark.parametrize("lost", ["complete.json", "numbers/numbers.json"])
def test_what_was_cut_off_is_made_again(tmp_path, notes, lost):
    made(tmp_path, "one", model__rank=1)
    (entry,) = (tmp_path / "store" / "numbers").iterdir()
    if lost == COMPLETE:
        (entry / COMPLETE).unlink()
        expected = 2
    else:
        # Killed while it was copying: the mark is missing, and the last file.
        (tmp_path / "one" / lost).unlink()
        expected = 1
    two = made(tmp_path, "two", model__rank=2)
    made(tmp_path, "one", model__rank=1)
    assert len(notes()) == expected
    assert len(two.rows()) == 1
    assert len(read_rows(tmp_path / "one" / "rows.jsonl")) == 1


def test_an_entry_without_its_mark_is_made_afresh_whoever_began_it(tmp_path, notes):
    made(tmp_path, "one", model__rank=1)
    (entry,) = (tmp_path / "store" / "numbers").iterdir()
    # The disk was full when the mark was written.
    (entry / COMPLETE).unlink()
    for rank in (2, 3):
        (row,) = made(tmp_path, f"rank_{rank}", model__rank=rank).rows()
        assert row["metric"] == read_rows(entry / "rows.jsonl")[0]["metric"]
    assert len(read_rows(entry / "rows.jsonl")) == 1


def test_arrays_are_shared_and_other_files_are_copied(tmp_path):
    stage = Shared("data", FIELDS, {}, files=("curve.jsonl",))
    source = tmp_path / "a"
    (source / "data").mkdir(parents=True)
    for name in ("data/x.npz", "data/data.json", "curve.jsonl", "data/.x.tmp", "other.txt"):
        (source / name).write_text(name)
    assert [str(p) for p in stage.paths(source)] == ["curve.jsonl", "data/x.npz", "data/data.json"]
    store._copy(stage, source, tmp_path / "b")
    names = {str(p.relative_to(tmp_path / "b")) for p in (tmp_path / "b").rglob("*.*")}
    assert names == {"data/x.npz", "data/data.json", "curve.jsonl"}
    for name, same in (("data/x.npz", True), ("curve.jsonl", False)):
        inodes = {(tmp_path / place / name).stat().st_ino for place in "ab"}
        assert (len(inodes) == 1) == same


def test_a_digest_is_of_the_fields_and_of_no_other():
    stage = Shared("data", FIELDS, {})
    config = tiny()
    assert stage.digest(config) == stage.digest(tiny(model__rank=2, seed=5))
    for field in FIELDS:
        assert stage.digest(config | {field: "other"}) != stage.digest(config)


def in_a_process(order: Order, notes: str) -> None:
    os.environ |= {"SWEEP_TEST_NOTES": notes, "SWEEP_TEST_PACE": "0.3"}
    outcome = perform(order)
    assert outcome.state == "done", outcome


def test_two_that_ask_at_the_same_moment_make_it_once(tmp_path):
    """Two processes begin together; while one makes the stage the other waits for it."""
    plan = make_plan([counting_job(rank=r) for r in (1, 2)], "smoke")
    notes = tmp_path / "notes.txt"
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(
            target=in_a_process,
            args=(
                Order(p.key, COUNTING, dict(p.config), ("persim",), ("steps",),
                      str(tmp_path / p.folder), str(tmp_path / "store"), ("python",)),
                str(notes),
            ),
        )
        for p in plan
    ]  # fmt: skip
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    lines = notes.read_text("utf8").splitlines()
    assert lines.count("made random") == 1
    assert sum(line.startswith("began") for line in lines) == 2
    assert [len(read_rows(tmp_path / p.folder / "rows.jsonl")) for p in plan] == [7, 7]


def test_waiting_for_a_folder_ends_when_it_is_free_or_time_is_up(tmp_path):
    with waiting_for(tmp_path):
        start = time.monotonic()
        with (
            pytest.raises(ValueError, match="another process works in"),
            waiting_for(tmp_path, 0.2),
        ):
            pass
        assert time.monotonic() - start >= 0.2
    with waiting_for(tmp_path, 0.0) as path:
        assert path == tmp_path
    shutil.rmtree(tmp_path)
