import json
import pathlib
import warnings

import pytest

from experiments.records import Row, append_rows
from experiments.reporting.coverage import coverage
from experiments.reporting.workdir import Workdir, read_workdir
from tests.experiments import synthetic
from tests.experiments.synthetic import returns, row


def half_finished(path: pathlib.Path, methods: str = "persim,true_env,bcq_p") -> Workdir:
    """A run that was cut off: errors of three agents of five, returns of one."""
    stamp = synthetic.STAMP | {"command": f"python -m experiments.run --methods={methods}"}
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(synthetic.config()))
    (path / "environment.json").write_text(json.dumps(stamp))
    # Of these agents the paper prints the errors and returns of 0.0001 and 0.0025.
    rows = [row("rmse_mean", 0.01, agent) for agent in (0, 1, 3)]
    append_rows(path / "rows.jsonl", [*rows, returns([-60.0, -61.0], 0)])
    return read_workdir(path)


def test_a_half_finished_run_lacks_exactly_these_cells(tmp_path: pathlib.Path) -> None:
    found = coverage(half_finished(tmp_path))
    assert len(found.gaps) == 1
    gap = found.gaps[0]
    assert gap.title == "MountainCar, Random"
    assert gap.trials == (0,)
    assert gap.cells == (
        "True env + MPC: Table 2 (all 3 agents)",
        "PerSim: Table 1 (gravity 0.0035), Table 2 (gravity 0.0025; gravity 0.0035)",
        "BCQ-P: Table 2 (all 3 agents), Table 3 (all 5 agents)",
    )
    # Table 3's agents hold those of Table 2: 3 + 1 + 2 + 5.
    assert gap.num_cells == 11
    assert gap.command == (
        "python -m experiments.run --config=configs/mountain_car.py --config.behavior=random "
        "--config.trial=0 --methods=true_env,persim,bcq_p --workdir=runs/mountain_car_random_0"
    )
    # Wanted: Table 1 three, Table 2 nine, Table 3 five.
    assert (found.done, found.wanted) == (3, 17)
    assert "3 of 17 cells" in found.sentence
    assert found.absent[1, "mountain_car", "persim"] == 1


def test_a_finished_run_lacks_nothing(tmp_path: pathlib.Path) -> None:
    found = coverage(read_workdir(synthetic.write_workdir(tmp_path)))
    assert found.gaps == ()
    assert found.done == found.wanted == 9


def test_kept_results_are_asked_for_all_of_the_paper(tmp_path: pathlib.Path) -> None:
    append_rows(tmp_path / "mountain_car" / "random.jsonl", [row("rmse_mean", 0.01)])
    workdir = read_workdir(tmp_path)
    assert (workdir.kept, workdir.title) == (True, "Kept results")
    found = coverage(workdir)
    # 530 cells in the paper's tables, five trials; the test of the CSV counts them otherwise.
    assert found.wanted == 5 * 530
    assert found.done == 1
    assert found.table.lines[0].cells[0].pieces[0][0] == "1 of 36"
    # Trials that lack the same share a command.
    later = [gap for gap in found.gaps if gap.trials == (1, 2, 3, 4)]
    assert later
    assert later[0].command.startswith("for trial in 1 2 3 4; do python -m experiments.run")
    assert found.gaps[0].trials[0] == 0


def test_smoke_rows_are_not_kept_results(tmp_path: pathlib.Path) -> None:
    smoke = row("rmse_mean", 0.01, variant="smoke")
    append_rows(tmp_path / "mountain_car" / "random.jsonl", [smoke])
    assert coverage(read_workdir(tmp_path)).done == 0


def entry(name: str, folder: str, state: str) -> str:
    return json.dumps({"job": folder + name, "name": name, "folder": folder, "state": state})


def sweep(path: pathlib.Path, rows: list[Row]) -> Workdir:
    """A sweep of two jobs planned, one of them begun."""
    job = path / "jobs" / "aaaa"
    job.mkdir(parents=True)
    (job / "config.json").write_text(json.dumps(synthetic.config()))
    append_rows(job / "rows.jsonl", rows)
    shared = path / "store" / "dataset"
    shared.mkdir(parents=True)
    (shared / "config.json").write_text("{}")
    lines = [
        entry("mountain_car, random, trial 0: prediction of persim", "aaaa", "pending"),
        entry("mountain_car, random, trial 0: prediction of persim", "aaaa", "done"),
        entry(
            "mountain_car, random, trial 0, model.rank=7: prediction of persim", "bbbb", "pending"
        ),
        '{"job": "cut off',
    ]
    (path / "index.jsonl").write_text("\n".join(lines))
    return read_workdir(path)


def test_a_sweep_is_asked_for_what_its_index_plans(tmp_path: pathlib.Path) -> None:
    workdir = sweep(tmp_path, [row("rmse_mean", 0.01, agent) for agent in range(5)])
    assert workdir.jobs == ("jobs/aaaa",)
    assert [run.state for run in workdir.runs] == ["done", "pending"]
    assert workdir.runs[1].overrides == {"model.rank": 7}
    found = coverage(workdir)
    # Errors only, as the jobs measure nothing else; those of rank 7 are cells of their own.
    assert (found.done, found.wanted) == (3, 6)
    assert found.jobs == "1 done, 1 pending"
    assert len(found.gaps) == 1
    assert found.gaps[0].title == "MountainCar, Random, model.rank 7"
    assert "--config.model.rank=7 " in found.gaps[0].command
    # The launcher's own flag for errors alone; in the folder in which the sweep looks for it.
    assert found.gaps[0].command.endswith(f" --planning=false --workdir={tmp_path}/jobs/bbbb")
    # Bars count the paper's settings.
    assert found.absent == {(1, "mountain_car", "persim"): 0}


def test_a_sweep_that_has_not_begun_is_all_missing(tmp_path: pathlib.Path) -> None:
    line = entry("cart_pole, pure, trial 1: returns of persim, true_env", "cccc", "pending")
    (tmp_path / "index.jsonl").write_text(line)
    found = coverage(read_workdir(tmp_path))
    assert (found.done, found.wanted) == (0, 6)
    assert found.gaps[0].cells == (
        "True env + MPC: Table 2 (all 3 agents)",
        "PerSim: Table 2 (all 3 agents)",
    )


@pytest.mark.parametrize("method", ["concat_mlp", "pooled_mlp", "per_agent_mlp"])
def test_ablations_are_asked_for_where_persim_is(tmp_path: pathlib.Path, method: str) -> None:
    found = coverage(half_finished(tmp_path, methods=method))
    name = {"concat_mlp": "Concatenating", "pooled_mlp": "Pooled", "per_agent_mlp": "Per-agent"}
    assert found.gaps[0].cells == (
        f"{name[method]} MLP: Table 1 (all 3 agents), Table 2 (all 3 agents)",
    )


def test_lines_that_are_no_rows_are_said_and_the_rest_is_used(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = synthetic.write_workdir(tmp_path)

    def read(file: pathlib.Path) -> list[Row]:
        warnings.warn(f"{file.name}, line 7, is not a result row", UserWarning, stacklevel=2)
        return [row("rmse_mean", 0.01)]

    monkeypatch.setattr("experiments.reporting.kept.read_rows", read)
    with pytest.warns(UserWarning, match="line 7"):
        found = read_workdir(path)
    assert found.missing == ("rows.jsonl, line 7, is not a result row",)
    assert len(found.rows) == 1
