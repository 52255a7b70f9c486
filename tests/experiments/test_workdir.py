"""The workdir: whose it is, what is done in it, how long that took."""

import copy
import json
import logging
import os
import time
from pathlib import Path

import pytest

from experiments import stamps
from experiments import workdir as workdir_module
from experiments.records import make_row
from experiments.sweeping.index import Index
from experiments.sweeping.plan import make_plan
from experiments.workdir import LOG, Workdir, differing_fields, locked, opened
from tests.experiments.jobs import tiny
from tests.experiments.sweep_jobs import counting_job


@pytest.fixture(autouse=True)
def closed_log():
    yield
    workdir_module._close_log()


def a_row(where: Workdir, method="persim", metric="rmse_mean", agent_id=3, value=0.5):
    return make_row(where.context, method=method, metric=metric, value=value, agent_id=agent_id)


def test_the_config_is_stored_as_it_is_and_left_alone(tmp_path):
    config = tiny(trial=2)
    before = copy.deepcopy(config)
    where = Workdir(tmp_path / "a" / "b", config)
    assert config == before
    stored = json.loads((where.path / "config.json").read_text("utf8"))
    assert stored == json.loads(json.dumps(before))
    assert (where.context.environment, where.context.trial) == ("mountain_car", 2)


def test_the_same_config_opens_it_again(tmp_path):
    Workdir(tmp_path, tiny())
    # Read back from JSON tuples are lists; that is no difference.
    assert Workdir(tmp_path, tiny()).config["model"]["state_features"] == [8]


def test_another_config_is_refused_by_the_fields_that_differ(tmp_path):
    Workdir(tmp_path, tiny())
    content = (tmp_path / "config.json").read_bytes()
    other = tiny(trial=1, model__rank=2, model__state_features=(8, 8))
    with pytest.raises(ValueError, match="made with another config") as caught:
        Workdir(tmp_path, other)
    told = str(caught.value).partition("Fields that differ: ")[2].partition(". Give another")[0]
    assert told == (
        "model.rank (was 3, now 2), model.state_features (was [8], now [8, 8]), "
        "trial (was 0, now 1)"
    )
    assert str(tmp_path) in str(caught.value)
    assert (tmp_path / "config.json").read_bytes() == content


def test_a_workdir_from_before_an_option_opens_unless_the_option_is_used(tmp_path, monkeypatch):
    new = tiny()
    old = new | {"planner": {k: v for k, v in new["planner"].items() if k != "horizon"}}
    digest = Workdir(tmp_path, old).context.config_digest
    with pytest.raises(ValueError, match=r"planner\.horizon \(was 'absent', now 4\)"):
        Workdir(tmp_path, new)
    monkeypatch.setattr(stamps, "LATER_FIELDS", {"planner.horizon": 4})
    assert Workdir(tmp_path, new).context.config_digest == digest
    with pytest.raises(ValueError, match=r"planner\.horizon \(was 'absent', now 6\)"):
        Workdir(tmp_path, tiny(planner__horizon=6))


def test_differing_fields_names_absent_ones_and_goes_down():
    old = {"a": 1, "b": {"c": 2, "d": {"e": 3}}, "gone": 4, "kind": 5}
    new = {"a": 1, "b": {"c": 2, "d": {"e": 30}}, "come": 6, "kind": {"now": "nested"}}
    assert differing_fields(old, new) == [
        "b.d.e (was 3, now 30)",
        "come (was 'absent', now 6)",
        "gone (was 4, now 'absent')",
        "kind (was 5, now {'now': 'nested'})",
    ]
    assert differing_fields(old, old) == []


def test_what_has_been_measured_is_known_by_method_metric_agent_and_config(tmp_path):
    where = Workdir(tmp_path, tiny())
    assert not where.has("persim", "rmse_mean", 3)
    where.add([a_row(where), a_row(where, metric="train_seconds", agent_id=None)])
    assert where.has("persim", "rmse_mean", 3)
    assert where.has("persim", "train_seconds")
    for other in (("true_env", "rmse_mean", 3), ("persim", "r2_mean", 3), ("persim", "rmse_mean")):
        assert not where.has(*other)
    # A row of another config that somebody copied here does not count, one of other code does.
    foreign = a_row(where, agent_id=4) | {"config_digest": "0" * 12}
    older = a_row(where, agent_id=5) | {"code_version": "abc"}
    where.add([foreign, older])
    assert not where.has("persim", "rmse_mean", 4)
    assert where.has("persim", "rmse_mean", 5)


def test_a_number_measured_again_replaces_the_old_one(tmp_path):
    where = Workdir(tmp_path, tiny())
    where.add([a_row(where, value=1.0), a_row(where, agent_id=4)])
    where.add([a_row(where, value=2.0)])
    assert [(row["agent_id"], row["value"]) for row in where.rows()] == [(4, 0.5), (3, 2.0)]


def test_rows_come_all_or_none(tmp_path):
    where = Workdir(tmp_path, tiny())
    where.add([a_row(where)])
    before = where.rows_path.read_bytes()
    with pytest.raises(ValueError, match="two new rows share the identity"):
        where.add([a_row(where, agent_id=4), a_row(where, agent_id=5), a_row(where, agent_id=5)])
    assert where.rows_path.read_bytes() == before


def timings(path: Path) -> dict[str, float]:
    return json.loads((path / "timings.json").read_text("utf8"))


def test_times_are_stored_when_a_stage_ends_well(tmp_path):
    where = Workdir(tmp_path, tiny())
    with where.timed("data"):
        time.sleep(0.05)
    with pytest.raises(RuntimeError), where.timed("fit"):
        raise RuntimeError
    assert timings(tmp_path).keys() == {"data"}
    assert 0.05 <= timings(tmp_path)["data"] < 5


def test_a_stage_that_goes_on_adds_to_its_time_and_one_done_anew_does_not(tmp_path):
    where = Workdir(tmp_path, tiny())
    (tmp_path / "timings.json").write_text('{"planning": 100.0, "report": 100.0}')
    with where.timed("planning", goes_on=True):
        time.sleep(0.02)
    with where.timed("report"):
        pass
    found = timings(tmp_path)
    assert 100.02 <= found["planning"] < 105
    assert found["report"] < 5


def test_a_lap_outlives_a_kill(tmp_path):
    where = Workdir(tmp_path, tiny())
    with pytest.raises(RuntimeError), where.timed("planning") as watch:  # noqa: PT012
        watch.before = 7.0
        watch.lap()
        raise RuntimeError
    assert 7.0 <= timings(tmp_path)["planning"] < 12


def test_the_log_goes_to_its_file_and_to_no_terminal(tmp_path, capfd):
    # As absl does it: a handler on the root that takes everything.
    root, handler = logging.getLogger(), logging.StreamHandler()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        LOG.error("before there is a workdir")
        Workdir(tmp_path / "one", tiny())
        LOG.info("first")
        Workdir(tmp_path / "two", tiny())
        LOG.info("second")
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    assert capfd.readouterr() == ("", "")
    one, two = ((tmp_path / name / "log.txt").read_text("utf8") for name in ("one", "two"))
    assert "INFO first" in one
    assert "second" not in one
    assert "INFO second" in two


def test_a_workdir_belongs_to_one_process_at_a_time(tmp_path):
    message = "another process works in .*: wait for it, or give another --workdir"
    with (
        opened(tmp_path, tiny()),
        pytest.raises(ValueError, match=message),
        opened(tmp_path, tiny()),
    ):
        pass
    with opened(tmp_path, tiny()) as where:
        assert where.path == tmp_path


def test_opening_removes_files_that_a_kill_left_half_written(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / ".rows.jsonl.12ab12ab12ab12ab.tmp").write_bytes(b"{")
    (tmp_path / "figures" / ".curves.png.12ab12ab12ab12ab.tmp").write_bytes(b"")
    (tmp_path / "mine.tmp").write_bytes(b"kept")
    with opened(tmp_path, tiny()):
        left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.tmp")}
        assert left == {"mine.tmp"}


def test_what_went_wrong_stands_in_the_log_with_its_traceback(tmp_path):
    with pytest.raises(ValueError, match="of no use"), opened(tmp_path, tiny()):
        raise ValueError("of no use")
    text = (tmp_path / "log.txt").read_text("utf8")
    assert "ERROR ValueError" in text
    assert "Traceback" in text
    assert "ValueError: of no use" in text


def test_a_file_is_no_workdir(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    with pytest.raises(ValueError, match=r"notes\.txt is a file"), opened(path, tiny()):
        pass
    assert path.read_text() == "mine"


@pytest.mark.parametrize("name", ["config.json", "environment.json"])
@pytest.mark.parametrize("content", ["{", "", "[1]"])
def test_a_damaged_file_is_named(tmp_path, name, content):
    Workdir(tmp_path, tiny())
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=name):
        Workdir(tmp_path, tiny())


def test_the_environment_is_told_and_rewritten_only_when_it_changed(tmp_path):
    where = Workdir(tmp_path, tiny())
    path = tmp_path / "environment.json"
    stamp = json.loads(path.read_text("utf8"))
    assert {"python", "jax", "numpy", "device", "command", "code_version"} <= stamp.keys()
    assert where.other_code is None
    os.utime(path, ns=(1, 1))
    Workdir(tmp_path, tiny())
    assert path.stat().st_mtime_ns == 1
    path.write_text(json.dumps(stamp | {"code_version": "abc"}))
    assert Workdir(tmp_path, tiny()).other_code == "abc"
    assert json.loads(path.read_text("utf8")) == stamp
    assert Workdir(tmp_path, tiny()).other_code is None


@pytest.mark.parametrize(
    "newer", ["rows.jsonl", "metrics.jsonl", "environment.json", "arrays/factors.npz"]
)
def test_a_report_is_current_while_nothing_that_it_shows_is_newer(tmp_path, newer):
    where = Workdir(tmp_path, tiny())
    assert not where.report_is_current()
    (tmp_path / "arrays").mkdir()
    for name in ("rows.jsonl", "metrics.jsonl", "arrays/factors.npz", "report.html"):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, ns=(10**18, 10**18))
    for name in ("config.json", "environment.json"):
        os.utime(tmp_path / name, ns=(10**18, 10**18))
    assert where.report_is_current()
    os.utime(tmp_path / newer, ns=(10**18 + 1, 10**18 + 1))
    assert not where.report_is_current()


def test_only_own_leftovers_are_removed(tmp_path):
    name = ".rows.jsonl.0123456789abcdef.tmp"
    with locked(tmp_path / "run"):  # in this folder another process works
        (tmp_path / "run" / name).write_text("being written")
        (tmp_path / "dataset").mkdir()
        for own in (tmp_path / name, tmp_path / "dataset" / name, tmp_path / ".editor.tmp"):
            own.write_text("")
        with locked(tmp_path):
            pass
        left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.tmp")}
        assert left == {f"run/{name}", ".editor.tmp"}


def test_the_folder_of_a_sweep_is_no_workdir(tmp_path):
    Index(tmp_path).announce([], {}, make_plan([counting_job()], "smoke"))
    before = sorted(tmp_path.iterdir())
    said = pytest.raises(ValueError, match="is the folder of a sweep, whose runs lie in jobs/")
    with said, opened(tmp_path, tiny()):
        pass
    assert sorted(tmp_path.iterdir()) == before
