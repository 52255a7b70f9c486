"""What a person reads: lines, time left, and at the end what failed and why."""

import io

import pytest
from rich.console import Console

from experiments.sweeping.index import DONE, FAILED
from experiments.sweeping.plan import FOLDER, make_plan
from experiments.sweeping.view import View, last_lines, plan_table, seconds_text
from experiments.sweeping.worker import OUTPUT, Outcome
from tests.experiments.sweep_jobs import counting_job, quiet, text_of

ONE, TWO, THREE = make_plan([counting_job(rank=r) for r in (1, 2, 4)], "smoke")
SECONDS = {ONE.key: 100.0, TWO.key: 50.0, THREE.key: 50.0}


def view_of(console=None, slots=1, factor=1.0):
    return View(console or quiet(), [ONE, TWO, THREE], 4, SECONDS, slots, factor)


def done(planned, seconds):
    return Outcome(planned.key, DONE, seconds)


def test_time_left_is_learnt_from_the_jobs_so_far():
    view = view_of(factor=3.0)
    assert view.seconds_left() == pytest.approx(600)
    view.started(ONE)
    # It took half of what was expected, so the others will.
    view.ended(ONE, done(ONE, 50.0))
    assert view.seconds_left() == pytest.approx(50)
    view.started(TWO)
    view.ended(TWO, done(TWO, 25.0))
    view.ended(THREE, done(THREE, 25.0))
    assert view.seconds_left() == 0
    assert view.summary() == "7 of 7 done, 0 running"


def test_more_workers_need_less_time_but_a_job_is_not_split():
    assert view_of(slots=2).seconds_left() == pytest.approx(100)
    assert view_of(slots=99).seconds_left() == pytest.approx(200 / 3)


def test_without_a_terminal_there_are_plain_lines():
    console = quiet()
    with view_of(console) as view:
        view.started(ONE)
        view.ended(ONE, done(ONE, 50.0))
        view.started(TWO)
        view.ended(TWO, Outcome(TWO.key, FAILED, 3.0, error="ValueError: no [bold]"))
    lines = text_of(console).splitlines()
    assert lines == [
        f"{ONE.name}: started, about 2 min",
        f"{ONE.name}: done in 50 s; 5 of 7 done, 0 running, about 50 s left",
        f"{TWO.name}: started, about 25 s",
        f"{TWO.name}: FAILED after 3 s: ValueError: no [bold]",
    ]


def test_on_a_terminal_jobs_are_seen_running():
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    with view_of(console) as view:
        view.started(ONE)
        console.print(view._render())
        view.ended(ONE, done(ONE, 50.0))
    text = text_of(console)
    assert "4 of 7 done, 1 running, about" in text
    assert ONE.name in text
    assert "of about 2 min" in text


def test_at_the_end_failed_jobs_show_the_last_lines_of_their_output(tmp_path):
    console = quiet()
    view = view_of(console)
    workdir = tmp_path / FOLDER / ONE.folder
    workdir.mkdir(parents=True)
    (workdir / OUTPUT).write_text("\n".join(f"line {n} [x]" for n in range(40)), "utf8")
    for planned in (ONE, TWO):
        view.ended(planned, Outcome(planned.key, FAILED, 1.0, error="OSError: full"))
    view.end(tmp_path)
    text = text_of(console)
    assert f"FAILED {ONE.name}" in text
    assert str(workdir) in text
    assert "  | line 39 [x]" in text
    assert "line 27 " not in text
    assert "2 failed: the same command with --retry_failed tries again" in text
    assert [planned for planned, _ in view.failed] == [ONE, TWO]


def test_at_the_end_the_time_stands_against_what_was_expected_at_the_start(tmp_path):
    console = quiet()
    view = view_of(console, factor=2.0)
    view.ended(ONE, done(ONE, 150.0))
    view.ended(TWO, done(TWO, 90.0))
    view.ended(THREE, Outcome(THREE.key, FAILED, 9.0, error="OSError: full"))
    view.end(tmp_path)
    # 240 of 2 (100 + 50); a failed job says nothing about cost.
    assert "\njobs took 4 min, 0.80 times what was expected\n" in text_of(console)


def test_output_that_is_missing_or_no_text_is_no_error(tmp_path):
    assert last_lines(tmp_path / "none") == []
    (tmp_path / "x").write_bytes(b"\xff\nok")
    assert last_lines(tmp_path / "x")[-1] == "ok"


@pytest.mark.parametrize(
    ("seconds", "text"), [(7.6, "8 s"), (99, "99 s"), (600, "10 min"), (9000, "2.5 h")]
)
def test_times_are_for_people(seconds, text):
    assert seconds_text(seconds) == text


def test_a_plan_lists_every_job_with_its_cost():
    console = quiet()
    console.print(plan_table([ONE], [TWO], [THREE], SECONDS, 2.0))
    lines = text_of(console).splitlines()
    assert len(lines) == 4
    assert lines[1].split("  ")[0] == ONE.name
    assert lines[1].endswith("3 min")
    assert "failed" in lines[2]
    assert "done" in lines[3]
