"""A whole sweep: what it runs, what it leaves alone, what it says, and what it refuses."""

import importlib
import itertools
import subprocess
import sys
import types

import pytest

from experiments.records import read_rows
from experiments.stamps import ROOT, code_version
from experiments.sweep import announce, prepare, run_jobs
from experiments.sweeping import ray_cluster
from experiments.sweeping.index import DONE, FAILED, Index
from experiments.sweeping.plan import make_plan, make_request
from tests.experiments.jobs import environment, untimed
from tests.experiments.sweep_jobs import (
    STEPS,
    TROUBLE,
    HereExecutor,
    counting,
    quiet,
    rows_of_sweep,
    text_of,
)


@pytest.fixture(autouse=True)
def same_command(monkeypatch):
    """Jobs of these tests run in this process, and change what it was started as."""
    monkeypatch.setattr(sys, "orig_argv", list(sys.orig_argv))


def plan_of(trials=1, keep=None):
    jobs = counting(make_request("smoke", (), tuple(range(trials))))
    return make_plan(itertools.islice(jobs, keep), "smoke")


def sweep(plan, folder, retry=False, results=None):
    """Runs what is left; returns whether all is well, the executor and what was said."""
    folder.mkdir(exist_ok=True)
    executor, console = HereExecutor(), quiet()
    prepared = prepare(plan, folder, results or folder / "results", retry)
    announce(prepared, console, executor.slots)
    good = run_jobs(prepared, executor, console)
    return good, executor, text_of(console)


def test_a_sweep_runs_each_job_once_and_never_again(tmp_path, monkeypatch):
    notes = tmp_path / "notes.txt"
    monkeypatch.setenv("SWEEP_TEST_NOTES", str(notes))
    plan = plan_of()
    good, executor, text = sweep(plan, tmp_path)
    assert good
    assert sorted(order.key for order in executor.orders) == sorted(p.key for p in plan)
    assert "8 jobs to do, 0 done" in text
    assert "8 of 8 done, 0 running" in text
    rows = rows_of_sweep(tmp_path)
    assert len(rows) == 8 * (STEPS + 1)
    # Two jobs for each kind of data, which is made once.
    made = [line for line in notes.read_text().splitlines() if line.startswith("made")]
    assert len(made) == len(set(made)) == 4
    good, executor, text = sweep(plan, tmp_path)
    assert good
    assert executor.orders == []
    assert "0 jobs to do, 8 done" in text
    assert rows_of_sweep(tmp_path) == rows
    entries = Index(tmp_path).entries
    assert {(e.state, e.rows, e.code_version) for e in entries.values()} == {
        (DONE, STEPS + 1, code_version())
    }


def test_what_lies_in_results_is_not_run_in_a_new_workdir(tmp_path):
    plan = plan_of()
    sweep(plan, tmp_path / "first")
    # The rows of the first five jobs were accepted.
    (tmp_path / "results").mkdir()
    for number, planned in enumerate(plan[:5]):
        source = tmp_path / "first" / "jobs" / planned.folder / "rows.jsonl"
        source.rename(tmp_path / "results" / f"{number}.jsonl")
    _, executor, _ = sweep(plan, tmp_path / "second", results=tmp_path / "results")
    assert {order.key for order in executor.orders} == {p.key for p in plan[5:]}
    new = read_rows(tmp_path / "second" / "jobs")
    both = untimed(new + read_rows(tmp_path / "results"))
    assert len(both) == 8 * (STEPS + 1)


def test_the_next_trials_come_after_the_first(tmp_path):
    _, executor, _ = sweep(plan_of(trials=2), tmp_path)
    trials = [order.config["trial"] for order in executor.orders]
    assert trials == [0] * 8 + [1] * 8


@pytest.mark.parametrize("trouble", ["error", "full"])
def test_a_job_that_fails_stops_no_other_and_is_tried_again_when_asked(
    tmp_path, monkeypatch, trouble
):
    plan = plan_of()
    monkeypatch.setenv(TROUBLE, trouble)
    good, _, text = sweep(plan, tmp_path)
    assert not good
    assert "6 of 8 done, 0 running, 2 failed" in text
    error = "of no use" if trouble == "error" else "No space left on device"
    assert f"  | {'ValueError' if trouble == 'error' else 'OSError'}: " in text
    assert text.count(error) >= 2
    bad = [p for p in plan if p.config["behavior"] == "pure"]
    assert {Index(tmp_path).state(p.key) for p in bad} == {FAILED}
    # The disk has room again; nobody asked for another try.
    monkeypatch.delenv(TROUBLE)
    good, executor, text = sweep(plan, tmp_path)
    assert not good
    assert executor.orders == []
    assert "2 failed before (--retry_failed tries them again)" in text
    good, executor, _ = sweep(plan, tmp_path, retry=True)
    assert good
    assert {order.key for order in executor.orders} == {p.key for p in bad}
    assert len(rows_of_sweep(tmp_path)) == 8 * (STEPS + 1)


def test_an_index_that_cannot_be_written_does_not_stop_the_jobs(tmp_path):
    plan = plan_of(keep=2)
    folder = tmp_path / "sweep"
    folder.mkdir()
    (folder / "index.jsonl").symlink_to("/dev/full")
    good, _, text = sweep_without_reading_the_index(plan, folder)
    assert good
    assert "the index cannot be written ([Errno 28] No space left on device)" in text
    assert len(rows_of_sweep(folder)) == 2 * (STEPS + 1)
    (folder / "index.jsonl").unlink()
    _, executor, _ = sweep(plan, folder)
    # Their folders count: each job finds its own rows.
    assert len(executor.orders) == 2
    assert len(rows_of_sweep(folder)) == 2 * (STEPS + 1)


def sweep_without_reading_the_index(plan, folder):
    """As `sweep`; /dev/full, which stands for the index, has no end when it is read."""
    executor, console = HereExecutor(), quiet()
    link = folder / "index.jsonl"
    target = link.readlink()
    link.unlink()
    prepared = prepare(plan, folder, folder / "results")
    link.symlink_to(target)
    return run_jobs(prepared, executor, console), executor, text_of(console)


def test_rows_of_other_code_are_kept_apart_and_said(tmp_path, monkeypatch):
    plan = plan_of(keep=2)
    sweep(plan, tmp_path)
    path = tmp_path / "jobs" / plan[0].folder / "rows.jsonl"
    text = path.read_text("utf8").replace(code_version(), "0ldc0de")
    # One of them is lost: the job goes on with other code.
    path.write_text("\n".join(text.splitlines()[:-1]) + "\n", "utf8")
    _, executor, said = sweep(plan, tmp_path)
    assert [order.key for order in executor.orders] == [plan[0].key]
    assert f"rows of {plan[0].name} are gone: what is missing is measured again" in said
    versions = [row["code_version"] for row in read_rows(path)]
    assert sorted(versions) == sorted(["0ldc0de"] * STEPS + [code_version()])
    # All of it by other code: said, and left alone.
    index = Index(tmp_path)
    index.add(plan[1], DONE, rows=STEPS + 1, code_version="0ldc0de")
    _, executor, said = sweep(plan, tmp_path)
    assert executor.orders == []
    assert "have numbers of other code versions (0ldc0de; this is" in said


def test_a_corrupt_line_is_named_and_its_number_measured_again(tmp_path):
    plan = plan_of(keep=2)
    sweep(plan, tmp_path)
    before = rows_of_sweep(tmp_path)
    path = tmp_path / "jobs" / plan[1].folder / "rows.jsonl"
    lines = path.read_text("utf8").splitlines()
    lines[3] = lines[3][:50]
    path.write_text("\n".join(lines) + "\n", "utf8")
    with pytest.warns(UserWarning, match="is not a result row"):
        _, executor, said = sweep(plan, tmp_path)
    assert [order.key for order in executor.orders] == [plan[1].key]
    assert f"{path}, line 4, is not a result row" in said
    with pytest.warns(UserWarning, match="is not a result row"):
        assert rows_of_sweep(tmp_path) == before


def test_preparing_writes_nothing(tmp_path):
    prepared = prepare(plan_of(), tmp_path / "new", tmp_path / "results")
    assert not (tmp_path / "new").exists()
    assert len(prepared.todo.jobs) == len(prepared.seconds) == 8
    assert all(seconds > 0 for seconds in prepared.seconds.values())


def test_a_sweep_has_a_folder_of_its_own(tmp_path):
    # A report of both would show rows of the one as those of the other.
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="is the workdir of a run: give the sweep a folder of its"):
        prepare(plan_of(), tmp_path, tmp_path / "results")


def launch(*flags, **changes):
    words = [sys.executable, "-m", "experiments.sweep", *flags]
    return subprocess.run(
        words, cwd=ROOT, env=environment(**changes), capture_output=True, text=True, timeout=600,
        check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_a_dry_run_lists_jobs_and_costs_and_leaves_no_folder(tmp_path):
    where = tmp_path / "sweep"
    flags = [f"--workdir={where}", "--variant=smoke", "--dry_run", "--override=model.rank=2"]
    done = launch("--sweep=configs/sweeps.py:table_1", *flags)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sum("to do" in line and "prediction of persim" in line for line in lines) == 8
    assert sum("model.rank=2" in line for line in lines) == 8
    each = [int(line.split()[-2]) for line in lines if "to do" in line and line.endswith(" s")]
    assert len(each) == 8
    assert f"8 jobs to do, 0 done; {round(sum(each) / 60)} min of work" in done.stdout
    assert not where.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sweep=configs/sweeps.py:table_4"], "has no sweep 'table_4'"),
        (
            ["--sweep=tests/experiments/sweep_jobs.py:twins", "--override=model.ranks=2"],
            "has no field model.ranks; config.model has action_features",
        ),
        (["--sweep=tests/experiments/sweep_jobs.py:twins"], "the same digest"),
        (["--sweep=configs/sweeps.py:table_1", "--environments="], "yields no job for"),
        (
            ["--sweep=tests/experiments/sweep_jobs.py:counting", "--ray_address=auto"],
            "--ray_address=auto is of a Ray cluster",
        ),
        (
            ["--sweep=tests/experiments/sweep_jobs.py:counting", "--workers=100"],
            "jobs would share devices",
        ),
    ],
)
def test_what_is_wrong_with_a_command_is_told_in_a_line(tmp_path, flags, message):
    done = launch(*flags, f"--workdir={tmp_path / 'sweep'}", "--variant=smoke")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (tmp_path / "sweep" / "jobs").exists()


def test_ray_missing_is_told_with_the_extra_that_has_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"not installed: pip install '\.\[cluster\]', or use "):
        importlib.reload(ray_cluster).RayExecutor()


@pytest.mark.parametrize(
    ("address", "message"),
    [(None, "Ray does not start here: timed out"), ("a:1", "no Ray cluster at a:1: timed out")],
)
def test_ray_that_does_not_start_is_told(monkeypatch, address, message):
    def init(**kwargs):
        raise Exception("timed out")  # as Ray does it, of no narrower class

    monkeypatch.setitem(sys.modules, "ray", types.SimpleNamespace(init=init))
    with pytest.raises(ValueError, match=message):
        ray_cluster.RayExecutor(address)
