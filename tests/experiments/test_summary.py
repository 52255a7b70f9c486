import json
from pathlib import Path

import pytest

from experiments.records import Row, append_rows
from experiments.reporting import build, summary
from experiments.reporting.content import make_content
from experiments.reporting.sheet import environments, make_sheet, shortfall_pairs
from experiments.reporting.workdir import Workdir, read_workdir
from tests.experiments import synthetic
from tests.experiments.synthetic import returns, row


def workdir(rows: list[Row], path: object, **config: object) -> Workdir:
    jobs = () if config else ("a", "b")
    return Workdir(path, dict(config), {}, rows, jobs, ())  # type: ignore[arg-type]


def test_prediction_counts_cells_that_the_paper_prints() -> None:
    # Random data, the paper: 0.04, none, none, 0.01, 0.01.
    rows = [row("rmse_mean", value, agent) for agent, value in enumerate((0.02, 9, 9, 0.014, 0.03))]
    sentence = summary.prediction_sentence(rows, "mountain_car")
    assert sentence == (
        "Prediction, MountainCar: PerSim's RMSE is at or below the paper's in 2 of 3 cells, at or "
        "below half of it in 1."
    )
    assert summary.prediction_sentence(rows, "cart_pole") == ""
    assert summary.prediction_sentence(rows[1:2], "mountain_car") == ""


def test_all_behaviors_count() -> None:
    # The paper on (10, 0.85): random 0.06, pure_eps40 0.0.
    rows = [
        row("rmse_mean", 0.004, 3, environment="cart_pole", behavior=behavior)
        for behavior in ("random", "pure_eps40")
    ]
    sentence = summary.prediction_sentence(rows, "cart_pole")
    assert "in 2 of 2 cells, at or below half of it in 2." in sentence


def test_shortfall_is_the_mean_over_agents_and_behaviors() -> None:
    rows = [returns([-100.0, -100.0], agent, "true_env") for agent in (0, 1)]
    rows += [returns([-110.0, -110.0], 0), returns([-130.0, -130.0], 1)]
    rows += [returns([-120.0, -120.0], 0, behavior="pure")]
    sheet = make_sheet(rows, "mountain_car", 2, build.CONTROL)
    estimate, count = summary.mean_shortfall(sheet, "persim")
    assert count == 3
    assert estimate == pytest.approx((0.2, 0.2, 0.2))
    assert set(shortfall_pairs(sheet)) == {
        ("random", "persim", ("0.0001",)),
        ("random", "persim", ("0.0005",)),
        ("pure", "persim", ("0.0001",)),
    }


def test_shortfall_pools_paired_trials() -> None:
    rows = [returns([-100.0, -300.0], 0, "true_env", trial=t) for t in (0, 1)]
    rows += [returns([-100.0, -300.0], 0), returns([-200.0, -400.0], 0, trial=1)]
    sheet = make_sheet(rows, "mountain_car", 2, build.CONTROL)
    pairs = shortfall_pairs(sheet)["random", "persim", ("0.0001",)]
    assert pairs == ([-100.0, -300.0] * 2, [-100.0, -300.0, -200.0, -400.0])
    # (-200 + 250) / 200
    assert summary.mean_shortfall(sheet, "persim")[0].value == pytest.approx(0.25)


def test_a_trial_without_its_partner_leaves_the_cell_out() -> None:
    rows = [returns([-100.0, -100.0], 0, "true_env")]
    rows += [returns([-110.0, -110.0], 0), returns([-150.0, -150.0], 0, trial=1)]
    sheet = make_sheet(rows, "mountain_car", 2, build.CONTROL)
    assert shortfall_pairs(sheet) == {}
    assert "shortfall" not in summary.control_sentence(rows, "mountain_car")


def test_the_papers_own_shortfall_by_hand() -> None:
    rows = [returns([-1.0, -1.0], agent) for agent in range(5)]
    sheet = make_sheet(rows, "mountain_car", 2, build.CONTROL)
    value, count = summary.paper_shortfall(sheet, "persim")
    # Table 2, random: -57.70, -186.6, -210.1 against -53.95, -182.9, -197.5.
    cells = [(57.70 - 53.95) / 53.95, (186.6 - 182.9) / 182.9, (210.1 - 197.5) / 197.5]
    assert (value, count) == (pytest.approx(sum(cells) / 3), 3)


def test_standing_names_cells() -> None:
    rows = [row("rmse_mean", value, agent) for agent, value in enumerate((0.02, 9, 9, 0.012, 0.03))]
    table = build.table_1(rows, "mountain_car")
    assert summary.standing(table) == [
        "Ahead of the paper: gravity 0.0001 (Random).",
        "Level with it: gravity 0.0025 (Random).",
        "Behind it: gravity 0.0035 (Random).",
    ]
    assert summary.standing(table, "cql_p") == []


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        ((0.001, 0.001), "prediction error ahead of the paper"),
        ((0.04, 0.001), "prediction error ahead of the paper"),
        ((0.04, 0.01), "prediction error level with the paper"),
        ((0.9, 0.01), "prediction error behind the paper"),
        ((0.9, 0.001), "prediction error partly ahead of the paper, partly behind"),
    ],
)
def test_headline_words(errors: tuple[float, float], words: str, tmp_path: object) -> None:
    rows = [row("rmse_mean", errors[0], 0), row("rmse_mean", errors[1], 3)]
    content = make_content(workdir(rows, tmp_path))
    assert content.headlines == (f"MountainCar: {words}.",)


def test_the_true_environment_makes_no_headline(tmp_path: object) -> None:
    content = make_content(workdir([returns([-1.0, -1.0], 0, "true_env")], tmp_path))
    assert content.headlines[0].startswith("No verdict yet")


def test_a_smoke_run_says_so_first(tmp_path: object) -> None:
    content = make_content(workdir([row("rmse_mean", 0.001, variant="smoke")], tmp_path))
    assert content.headlines[0].startswith("A smoke run")
    assert len(content.headlines) == 2


def test_a_run_shows_the_methods_it_was_asked_for(tmp_path: Path) -> None:
    command = "python -m experiments.run --config=configs/mountain_car.py --methods=cadm_pets,bcq_p"
    (tmp_path / "config.json").write_text(json.dumps(synthetic.config(behavior="pure")), "utf8")
    (tmp_path / "environment.json").write_text(json.dumps({"command": command}), "utf8")
    append_rows(tmp_path / "rows.jsonl", [row("rmse_mean", 0.1, behavior="pure")])
    first, second = make_content(read_workdir(tmp_path)).section("tables").tables[:2]
    assert [line.method for line in first.lines] == ["persim", "cadm_pets"]
    assert [line.method for line in second.lines] == ["persim", "cadm_pets", "bcq_p"]
    assert {line.behavior for line in second.lines} == {"pure"}
    assert "BCQ-P, Pure, all agents" in second.missing


def test_environments_come_in_the_papers_order() -> None:
    rows = [{"environment": name} for name in ("zoo", "cart_pole", "mountain_car", "cart_pole")]
    assert environments(rows) == ["mountain_car", "cart_pole", "zoo"]


def test_an_environment_of_ones_own_gets_tables_without_a_paper() -> None:
    rows = [
        row("rmse_mean", value, agent) | {"environment": "my_own", "covariates": {"size": size}}
        for agent, (value, size) in enumerate([(0.1, 3.0), (0.2, 1.0)])
    ]
    table = build.table_1(rows, "my_own")
    assert [column.name for column in table.columns] == ["size 3", "size 1"]
    assert [column.note for column in table.columns] == ["", ""]
    assert [cell.paper for cell in table.lines[0].cells] == ["", ""]
    assert not table.compares
