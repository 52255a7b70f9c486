import json
import pathlib

import numpy as np
import pytest

from experiments.baseline_settings import method_digest
from experiments.figures.studies import line_look, plot_curves, plot_improvement
from experiments.records import Row, append_rows
from experiments.reporting import build
from experiments.reporting.commands import command_of, run_command, with_commands
from experiments.reporting.content import make_content
from experiments.reporting.costs import conditions_table, cost_table
from experiments.reporting.newcomers import newcomers_curves, newcomers_tables
from experiments.reporting.overrides import is_study, overrides_of, shipped_config, shipped_value
from experiments.reporting.overview import overview_table
from experiments.reporting.studies import behavior_curves, knob_curves, study_tables
from experiments.reporting.workdir import read_workdir
from tests.experiments import synthetic
from tests.experiments.synthetic import returns, row


def varied(name: str, value: object, *rows: Row) -> list[Row]:
    return [made | {"overrides": {name: value}} for made in rows]


def scarce(number: int, *agents: int) -> list[Row]:
    rows = [returns([-1000.0 / number, -1000.0 / number - 2.0], agent) for agent in agents]
    return varied("agents.num_agents", number, *rows)


def test_a_curve_has_the_agents_that_all_of_its_points_have() -> None:
    shipped = [returns([-1.0, -3.0], agent) for agent in (0, 1)]
    rows = [*scarce(25, 0, 1, 2), *scarce(100, 0, 1), *shipped]
    (curve,) = knob_curves(rows, "agents.num_agents")
    # The shipped config has 500 agents; agent 2 is not at every point.
    assert [point.x for point in curve.points] == [25, 100, 500]
    assert [point.value for point in curve.points] == pytest.approx([-41.0, -11.0, -2.0])
    assert curve.num_agents == 2
    assert all(point.low <= point.value <= point.high for point in curve.points)


def test_rows_of_a_study_are_in_no_other_table() -> None:
    rows = scarce(25, 0)
    assert build.table_2(rows, "mountain_car").lines == ()
    assert cost_table(varied("model.rank", 1, row("train_seconds", 2.0))).lines == ()
    # Two settings at once are on no curve; other settings than a study's do not count.
    both = [made | {"overrides": {"model.rank": 1, "agents.num_agents": 25}} for made in rows]
    assert knob_curves([*both, returns([-1.0, -1.0])], "model.rank") == []
    assert not is_study(row("rmse_mean", 0.1) | {"overrides": {"train.num_epochs": 3}})


def run_with_rank(path: pathlib.Path, rank: int) -> None:
    path.mkdir()
    config = synthetic.config(model={"rank": rank})
    (path / "config.json").write_text(json.dumps(config), encoding="utf8")
    made = [row(m, 0.001 * rank, model={"rank": rank}) for m in ("rmse_mean", "r2_median")]
    append_rows(path / "rows.jsonl", made)


def test_what_no_run_of_a_folder_varies_is_no_study(tmp_path: pathlib.Path) -> None:
    for rank in (2, 7):
        run_with_rank(tmp_path / f"rank_{rank}", rank)
    alone = make_content(read_workdir(tmp_path / "rank_7"))
    table = alone.section("tables").tables[0]
    assert table.lines[0].cells[0].pieces[0][0] == "0.0070"
    assert table.lines[0].command.count("--config.model.rank=7 ") == 1
    assert "Settings: model.rank=7." in table.notes
    assert [(count.table, count.better) for count in alone.counts if count.better] == [(1, 1)]
    assert alone.coverage.done == 1
    # Beside another rank it is a point of a study.
    both = make_content(read_workdir(tmp_path))
    assert both.section("tables").tables[0].lines == ()
    assert [cell.pieces[0][0] for cell in both.section("studies").tables[0].lines[0].cells] == [
        "0.0020",
        "0.0070",
    ]


def test_a_run_within_a_runs_folder_keeps_its_own_settings(tmp_path: pathlib.Path) -> None:
    run_with_rank(tmp_path / "run", 2)
    run_with_rank(tmp_path / "run" / "inner", 7)
    found = {r["overrides"]["model.rank"] for r in read_workdir(tmp_path / "run").rows}
    assert found == {2, 7}


def test_tables_of_a_run_lack_only_what_it_was_asked_for(tmp_path: pathlib.Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(synthetic.config()), encoding="utf8")
    command = "python -m experiments.run --config=configs/mountain_car.py --methods=bcq_p,cql_p"
    (tmp_path / "environment.json").write_text(json.dumps({"command": command}), encoding="utf8")
    append_rows(tmp_path / "rows.jsonl", [returns([-90.0, -95.0], a, "bcq_p") for a in range(5)])
    tables = make_content(read_workdir(tmp_path)).section("tables").tables
    assert [table.name for table in tables if table.name in ("table_1", "table_2")] == ["table_2"]
    assert [line.method for line in tables[0].lines] == ["bcq_p", "cql_p"]
    assert tables[0].missing == ("CQL-P, Random, all agents",)


def test_study_tables_have_commands_for_every_value() -> None:
    rows = [*varied("model.rank", 1, row("rmse_mean", 0.5)), row("rmse_mean", 0.1)]
    tables = study_tables(rows)
    assert list(tables) == ["model.rank"]
    line = tables["model.rank"].lines[0]
    assert [cell.pieces[0][0] for cell in line.cells] == ["0.500", "0.100"]
    commands = line.command.split("\n")
    assert len(commands) == 2
    assert sum("--config.model.rank=1 " in command for command in commands) == 1


def test_kinds_of_data_are_ordered_from_random_to_pure(tmp_path: pathlib.Path) -> None:
    rows = [
        row("rmse_mean", value, behavior=behavior)
        for behavior, value in (("pure", 0.4), ("random", 0.1), ("pure_eps20", 0.3))
    ]
    (curve,) = behavior_curves(rows)
    assert [(point.x, point.value) for point in curve.points] == [(0, 0.1), (2, 0.3), (3, 0.4)]
    figure = plot_curves([curve], tmp_path / "a.png", "data", ("R", "E4", "E2", "P"))
    axes = figure.axes[0]
    assert axes.get_title() == "MountainCar"
    assert axes.lines[0].get_ydata().tolist() == [0.1, 0.3, 0.4]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["R", "E4", "E2", "P"]
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_probabilities_are_drawn_with_their_intervals(tmp_path: pathlib.Path) -> None:
    rows = [returns([-100.0, -110.0], agent) for agent in range(3)]
    rows += [returns([-200.0, -210.0], agent, "bcq_p") for agent in range(3)]
    rows += [returns([-90.0, -120.0], agent, "cql_p") for agent in range(3)]
    figure = plot_improvement(overview_table(rows, "return_mean"), tmp_path / "b.png")
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [float(dot.get_xdata()[0]) for dot in dots] == [1.0, 0.5]
    names = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert names == ["MountainCar · BCQ-P", "MountainCar · CQL-P"]
    with pytest.raises(ValueError, match="no method to compare with"):
        plot_improvement(overview_table([], "return_mean"), tmp_path / "c.png")
    with pytest.raises(ValueError, match="no curve to draw"):
        plot_curves([], tmp_path / "c.png", "data")


def test_a_line_breaks_where_a_run_diverged(tmp_path: pathlib.Path) -> None:
    ranks = [
        made | {"measured_at": f"2026-01-0{rank}"}
        for rank, value in ((1, 0.001), (2, float("inf")), (4, 0.1))
        for made in varied("model.rank", rank, row("rmse_mean", value, model={"rank": rank}))
    ]
    figure = plot_curves(knob_curves(ranks, "model.rank"), tmp_path / "a.png", "rank")
    (axes,) = figure.axes
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [0.001, np.nan, 0.1])
    assert axes.get_yscale() == "log"


def newcomer(count: int, value: float, told: str = "", policy: str = "behavior") -> Row:
    metric = f"rmse_newcomers_{policy}_{count}_transitions{told}"
    return row(metric, value, agent_values=[value] * 10) | {"agent_id": None, "covariates": {}}


def test_newcomers_by_what_they_have_shown() -> None:
    rows = [newcomer(10, 0.2), newcomer(0, 0.9), newcomer(0, 0.3, "_and_covariates")]
    rows += [row("rmse_known_agents_behavior", 0.1) | {"agent_id": None, "covariates": {}}]
    rows += [newcomer(10, 0.7, policy="test_policy")]
    (table,) = newcomers_tables(rows)
    assert [column.name for column in table.columns] == ["0", "10", "Known agents"]
    shown = [[cell.pieces[0][0] for cell in line.cells] for line in table.lines]
    assert shown == [["0.900", "0.200", "0.100"], ["0.300", "–", "0.100"], ["–", "0.700", "–"]]
    assert table.lines[0].command.startswith("python -m experiments.unseen --config=")
    curves = newcomers_curves(rows)
    assert [[(p.x, p.value) for p in curve.points] for curve in curves] == [
        [(0, 0.3)],
        [(0, 0.9), (10, 0.2)],
    ]


def test_overrides_are_what_differs_from_the_shipped_config() -> None:
    shipped = shipped_config("cart_pole", "default")
    assert shipped is not None
    assert overrides_of(shipped) == {}
    changed = shipped | {"trial": 3, "behavior": "pure", "model": shipped["model"] | {"rank": 9}}
    assert overrides_of(changed) == {"model.rank": 9}
    assert shipped_value("cart_pole", "default", "model.rank") == shipped["model"]["rank"]
    assert overrides_of({"environment": "no_such", "variant": "default"}) == {}
    assert overrides_of({}) == {}


def test_the_command_says_which_code_and_whether_todays_config_is_meant() -> None:
    shipped = shipped_config("mountain_car", "default")
    assert shipped is not None
    digest = method_digest(shipped | {"behavior": "pure"}, "persim")
    made = [
        row("rmse_mean", 0.1, agent, behavior="pure", trial=trial) | {"config_digest": digest}
        for agent in range(2)
        for trial in (0, 2)
    ]
    assert command_of(made) == (
        "for trial in 0 2; do python -m experiments.run --config=configs/mountain_car.py "
        "--config.behavior=pure --config.trial=$trial --methods=persim "
        "--workdir=runs/mountain_car_pure_$trial; done  # code abc123def0"
    )
    other = command_of([row("rmse_mean", 0.1)])
    assert other.endswith("# code abc123def0; today's config has another digest")
    # True env has no data; its digest knows with which run it was measured.
    truth = returns([1.0, 2.0], method="true_env") | {"config_digest": digest}
    assert "--config.behavior=pure " in command_of([truth])
    assert command_of([]) == ""


def test_values_in_commands_are_for_a_shell() -> None:
    command = run_command(
        "cart_pole", "random", ["bcq_a", "persim"], variant="paper", seed=4,
        overrides={"model.state_features": [64], "model.rank": 2},
    )  # fmt: skip
    assert command == (
        "python -m experiments.run --config=configs/cart_pole.py:paper --config.behavior=random "
        "--config.seed=4 '--config.model.state_features=(64,)' --config.model.rank=2 "
        "--config.trial=0 --methods=persim,bcq_a --workdir=runs/cart_pole_random_paper_0658c04b_0"
    )


def test_a_folder_belongs_to_one_config() -> None:
    """Two settings must not share one: the launcher refuses the second."""

    def folder(seed: int = 0, **overrides: object) -> str:
        named = {name.replace("__", "."): value for name, value in overrides.items()}
        command = run_command("cart_pole", "random", ["persim"], seed=seed, overrides=named)
        return command.partition("--workdir=runs/")[2]

    assert folder() == "cart_pole_random_0"
    assert folder(seed=1, model__rank=2) == "cart_pole_random_seed_1_model.rank_2_0"
    folders = [
        folder(train__learning_rate=0.001),
        folder(train__learning_rate=0.003),
        folder(train__learning_rate=0.003, seed=1),
        folder(model__learning_rate=0.003),
        folder(model__state_features=[64]),
        folder(model__state_features=[64, 64]),
        folder(),
    ]
    assert len(set(folders)) == len(folders)
    assert all(name.replace(".", "").replace("_", "").isalnum() for name in folders)


def test_lines_of_tables_know_their_commands() -> None:
    rows = [row("rmse_mean", 0.1), row("rmse_mean", 0.1, behavior="pure")]
    table = with_commands(build.table_1(rows, "mountain_car"), rows)
    behaviors = [line.command.partition("behavior=")[2].split()[0] for line in table.lines]
    assert behaviors == [line.behavior for line in table.lines] == ["pure", "random"]


def test_costs_add_up_over_agents_and_average_over_trials() -> None:
    rows = [
        returns([-1.0, -1.0], agent, trial=trial, wall_s=seconds)
        for agent, trial, seconds in ((0, 0, 3.0), (1, 0, 4.0), (0, 1, 9.0))
    ]
    rows += [row("train_seconds", 10.0) | {"device": "NVIDIA"}]
    table = cost_table(rows)
    assert [line.labels[-1] for line in table.lines] == ["NVIDIA", "cpu"]
    assert table.lines[1].cells[3].pieces[0][0] == f"{np.mean([7.0, 9.0]):.3g}"
    assert [note.partition(" of ")[0] for note in table.notes] == [
        "On NVIDIA: 10 seconds", "On cpu: 16 seconds",
    ]  # fmt: skip


def test_conditions_are_grouped_latest_first() -> None:
    rows = [row("rmse_mean", 0.1) | {"measured_at": "2026-01-02T00:00:00+00:00"}]
    rows += [row("rmse_mean", 0.1, 1, code_version="zzz") | {"measured_at": "2026-03-01"}]
    rows += [returns([1.0, 2.0], method="dqn", scope="own_agent", code_version="zzz")]
    table = conditions_table(rows)
    assert [line.labels for line in table.lines] == [
        ("zzz", synthetic.STAMP["jax"], "cpu"),
        ("abc123def0", synthetic.STAMP["jax"], "cpu"),
    ]
    assert [cell.pieces[0][0] for cell in table.lines[1].cells] == [
        "MountainCar", "PerSim", "1", "2026-01-02",
    ]  # fmt: skip


def test_no_two_of_all_methods_look_alike() -> None:
    looks = [line_look(index) for index in range(14)]
    assert len({(look["color"], str(look["linestyle"])) for look in looks}) == 14
    assert len({(look["color"], look["marker"]) for look in looks}) == 14
