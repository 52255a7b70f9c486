"""Workers: job after job in one process, on cores of their own, and gone with their sweep."""

import os
import signal
import subprocess
import sys
import time

import pytest

from experiments.records import read_rows
from experiments.stamps import ROOT
from experiments.sweep import make_order
from experiments.sweeping.devices import Share
from experiments.sweeping.index import DONE, FAILED
from experiments.sweeping.local import LocalExecutor
from experiments.sweeping.plan import make_plan
from experiments.sweeping.worker import OUTPUT, perform
from tests.experiments.sweep_jobs import STEPS, TROUBLE, counting_job

TROUBLES = {
    "error": "ValueError: of no use",
    "full": "OSError: [Errno 28] No space left on device",
}


def planned_jobs(*ranks: int, behavior: str = "random"):
    return make_plan([counting_job(behavior, rank=r) for r in ranks], "smoke")


def collect(executor, count):
    ended, end = [], time.monotonic() + 300
    while len(ended) < count and time.monotonic() < end:
        ended += executor.wait(1.0)
    assert len(ended) == count
    return ended


def test_a_job_done_here_leaves_rows_output_and_its_command(tmp_path):
    (planned,) = planned_jobs(2)
    order = make_order(planned, tmp_path)
    before = list(sys.orig_argv)
    try:
        outcome = perform(order)
    finally:
        sys.orig_argv = before
    assert (outcome.state, outcome.rows, outcome.error) == (DONE, STEPS + 1, None)
    where = tmp_path / "jobs" / planned.folder
    assert len(read_rows(where / "rows.jsonl")) == STEPS + 1
    assert (where / OUTPUT).read_text("utf8") == "counted\n"
    # What a reader would type, not what started the worker.
    assert f"python -m counting --workdir={where}" in (where / "environment.json").read_text()
    # Nothing of it is left in this process.
    print("seen")


@pytest.mark.parametrize(("trouble", "error"), TROUBLES.items())
def test_whatever_goes_wrong_is_the_outcome(tmp_path, monkeypatch, trouble, error):
    monkeypatch.setenv(TROUBLE, trouble)
    monkeypatch.setattr(sys, "orig_argv", list(sys.orig_argv))
    (planned,) = planned_jobs(1, behavior="pure")
    outcome = perform(make_order(planned, tmp_path))
    assert outcome.state == FAILED
    assert outcome.error == error
    text = (tmp_path / "jobs" / planned.folder / OUTPUT).read_text("utf8")
    assert "Traceback" in text
    assert text.rstrip().endswith(error)
    monkeypatch.delenv(TROUBLE)
    assert perform(make_order(planned, tmp_path)).state == DONE


def test_a_folder_that_cannot_be_made_is_the_outcome_too(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", list(sys.orig_argv))
    (planned,) = planned_jobs(1)
    (tmp_path / "jobs").write_text("a file where a folder should be")
    outcome = perform(make_order(planned, tmp_path))
    assert outcome.state == FAILED
    assert "NotADirectoryError" in str(outcome.error)


@pytest.mark.slow
def test_workers_do_many_jobs_survive_a_crash_and_end_with_the_executor(tmp_path, monkeypatch):
    notes = tmp_path / "notes.txt"
    monkeypatch.setenv("SWEEP_TEST_NOTES", str(notes))
    monkeypatch.setenv(TROUBLE, "crash")
    core = min(os.sched_getaffinity(0))
    executor = LocalExecutor([Share((core,))])
    good, (bad,) = planned_jobs(1, 2, 3), planned_jobs(1, behavior="pure")
    outcomes = []
    try:
        for planned in (good[0], good[1], bad, good[2]):
            executor.submit(make_order(planned, tmp_path))
            with pytest.raises(RuntimeError, match="all 1 workers have a job"):
                executor.submit(make_order(planned, tmp_path))
            outcomes += collect(executor, 1)
    finally:
        executor.close()
    assert [o.state for o in outcomes] == [DONE, DONE, FAILED, DONE]
    assert [o.key for o in outcomes] == [p.key for p in (good[0], good[1], bad, good[2])]
    assert outcomes[2].error == "its worker was killed by signal 9"
    pids = [line.split()[-1] for line in notes.read_text().splitlines() if "began" in line]
    assert pids[0] == pids[1] == pids[2] != pids[3]
    # The second job found what the first had imported.
    assert outcomes[1].seconds < outcomes[0].seconds
    for pid in set(pids):
        assert not is_alive(int(pid))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


PARENT = """
import sys, time
from experiments.sweep import make_order
from experiments.sweeping.devices import Share
from experiments.sweeping.local import LocalExecutor
from experiments.sweeping.plan import make_plan
from pathlib import Path
from tests.experiments.sweep_jobs import counting_job
(planned,) = make_plan([counting_job()], "smoke")
executor = LocalExecutor([Share((int(sys.argv[2]),))])
executor.submit(make_order(planned, Path(sys.argv[1])))
time.sleep(600)
"""


@pytest.mark.slow
def test_a_worker_does_not_outlive_its_sweep(tmp_path):
    notes, core = tmp_path / "notes.txt", min(os.sched_getaffinity(0))
    environment = os.environ | {
        "SWEEP_TEST_NOTES": str(notes), "SWEEP_TEST_PACE": "60", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), str(core)], cwd=ROOT, env=environment
    )
    try:
        end = time.monotonic() + 300
        while not notes.exists() and time.monotonic() < end:
            time.sleep(0.05)
        worker = int(notes.read_text().split()[-1])
        # On the core that it was given, and no other.
        assert os.sched_getaffinity(worker) == {core}
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    end = time.monotonic() + 60
    while is_alive(worker) and time.monotonic() < end:
        time.sleep(0.05)
    assert not is_alive(worker)
