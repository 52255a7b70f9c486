import csv
import io
import math
import pathlib
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from experiments import tables
from experiments.records import Row, append_rows
from experiments.reporting import build, costs, model, readme, render, side_tables, summary
from experiments.reporting.catalogue import all_tables, render_tables
from experiments.reporting.measures import Measure, reached, verdict
from experiments.reporting.model import Cell, Table
from experiments.reporting.selection import common_episodes, pair_with_true_env, select
from experiments.stamps import ROOT
from persim_jax.evaluation import paper
from tests.experiments.synthetic import returns, row


def cell(table: Table, agent: int, method: str = "persim", behavior: str = "random") -> Cell:
    lines = [x for x in table.lines if (x.method, x.behavior) == (method, behavior)]
    assert len(lines) == 1
    return lines[0].cells[agent]


def printed(value: float, decimals: int, std: float | None = None) -> paper.PaperCell:
    return paper.PaperCell(value, std, decimals, str(value))


@pytest.mark.parametrize(
    ("value", "paper_value", "decimals", "expected"),
    [
        (0.0349, 0.04, 2, "better"),  # printed as 0.03
        (0.0351, 0.04, 2, "same"),
        (0.0449, 0.04, 2, "same"),
        (0.0451, 0.04, 2, "worse"),
        (0.0049, 0.0, 1, "same"),  # the protocol's rule for a printed 0.0
        (0.0051, 0.0, 1, "worse"),
        (0.0100, 0.010, 3, "same"),
        (math.nan, 0.01, 2, ""),
    ],
)
def test_verdict_on_errors(value: float, paper_value: float, decimals: int, expected: str) -> None:
    measured = Measure("rmse_mean", value, paper=printed(paper_value, decimals))
    assert verdict(measured) == expected


@pytest.mark.parametrize(
    ("value", "half_width", "expected"),
    [
        # 1.96 * 5 / sqrt(5) = 4.38 of the paper's; with 3 of ours sqrt(4.38^2 + 3^2) = 5.31.
        (-195.7, 0.0, "same"),
        (-195.5, 0.0, "better"),
        (-204.5, 0.0, "worse"),
        (-204.5, 3.0, "same"),
        (-205.4, 3.0, "worse"),
    ],
)
def test_verdict_on_returns(value: float, half_width: float, expected: str) -> None:
    ends = (value - half_width, value + half_width)
    measured = Measure("return_mean", value, math.nan, *ends, paper=printed(-200.0, 1, 5.0))
    assert verdict(measured) == expected


def test_reached_counts_as_the_protocol() -> None:
    def error(value: float, paper_value: float) -> Measure:
        made = Measure("rmse_mean", value, paper=printed(paper_value, 2))
        return Measure("rmse_mean", value, paper=made.paper, verdict=verdict(made))

    assert reached(error(0.044, 0.04))
    assert not reached(error(0.046, 0.04))
    assert reached(error(0.02, 0.04), 0.5)
    assert not reached(error(0.021, 0.04), 0.5)
    assert reached(error(0.004, 0.0), 0.5)
    assert not reached(error(0.006, 0.0))
    assert not reached(Measure("rmse_mean", 0.1))


def test_table_1_stands_beside_the_papers_numbers() -> None:
    rows = [row("rmse_mean", 0.003), row("r2_median", 0.998)]
    rows += [row("rmse_mean", 0.05, 3, trial=t) for t in (0, 1)]
    table = build.table_1(rows, "mountain_car")
    assert [column.name for column in table.columns][:2] == ["gravity 0.0001", "gravity 0.0005"]
    assert [column.note for column in table.columns] == [
        f"paper: {label}" for label in ("0.01", "0.05", "0.01", "0.025", "0.035")
    ]
    first = cell(table, 0)
    assert first.pieces == (("0.0030", "better"), ("(1.00)", "same"))
    assert first.paper == "0.04 (1.00)"
    assert cell(table, 3).pieces == (("0.050", "worse"), ("(–)", ""))
    assert cell(table, 1).pieces == (("–", ""),)
    assert "PerSim, Random, gravity 0.0005" in table.missing
    assert "PerSim, Random, gravity 0.0025 (in part)" in table.missing
    assert len(table.missing) == 4


def test_missing_methods_are_dashes_and_listed_once() -> None:
    rows = [row("rmse_mean", 0.003)]
    table = build.table_1(rows, "mountain_car", methods=["persim", "cadm_pets"])
    assert cell(table, 0, "cadm_pets").pieces == (("–", ""),)
    assert cell(table, 0, "cadm_pets").paper == "0.242 (0.31)"
    assert "PE-TS CaDM, Random, all agents" in table.missing
    assert build.table_1([], "mountain_car").missing == ("all cells of Table 1, MountainCar",)


def test_table_2_is_mean_std_interval_and_shortfall() -> None:
    rows = [returns([-210.0, -190.0], 3, trial=t) for t in (0, 1)]
    rows[1] = returns([-220.0, -200.0], 3, trial=1)
    rows += [returns([-200.0, -180.0], 3, "true_env", trial=t) for t in (0, 1)]
    table = build.table_2(rows, "mountain_car")
    assert table.lines[0].method == "true_env"
    shown = cell(table, 3)
    # Trial means -200 and -210; the paper's is -186.6 ± 4.25.
    assert shown.pieces[0] == ("−205.0 ± 7.1", "worse")
    # Of the true environment's -190: (-190 + 205) / 190.
    assert shown.extra.startswith("shortfall 7.9 % [")
    assert shown.paper == "−186.6 ± 4.25"
    measured = shown.measures[0]
    assert (measured.num_trials, measured.num_episodes) == (2, 2)
    assert measured.low == pytest.approx(-215.0)
    assert measured.high == pytest.approx(-195.0)
    assert "2 trials; 2 episodes per agent and trial" in table.notes[0]


def test_equal_shortfall_in_all_pairs_has_no_width() -> None:
    true = [-100.0, -150.0, -200.0]
    rows = [returns([1.1 * value for value in true]), returns(true, method="true_env")]
    table = build.table_2(rows, "mountain_car")
    assert cell(table, 0).extra == "shortfall 10.0 % [10.0, 10.0]"
    sentence = summary.control_sentence(rows, "mountain_car")
    assert "mean shortfall against True env + MPC 10.0 % [10.0, 10.0] over 1 cell" in sentence
    # Of the paper's own numbers: (-53.95 + 57.70) / 53.95.
    assert "(the paper's own numbers: 7.0 % over 1)" in sentence


def test_episodes_pair_within_agent_trial_and_seed_and_as_far_as_both_go() -> None:
    own = returns([1.0, 2.0, 3.0], trial=1)
    partner = returns([10.0, 20.0], trial=1, method="true_env")
    others = [
        returns([0.0, 0.0], trial=0, method="true_env"),
        returns([0.0, 0.0], trial=1, method="true_env", agent=2),
        returns([0.0, 0.0], trial=1, seed=5, method="true_env"),
    ]
    assert pair_with_true_env(own, [*others, partner]) == ([10.0, 20.0], [1.0, 2.0])
    assert pair_with_true_env(own, others) is None
    assert pair_with_true_env(row("return_mean", 1.0), [partner]) is None
    a, _ = common_episodes(own | {"episode_values": [None, 1.0]}, partner)
    np.testing.assert_array_equal(a, [np.nan, 1.0])


def test_the_run_s_own_true_env_is_preferred() -> None:
    own = returns([1.0, 2.0], model={"rank": 9})
    same = returns([7.0, 8.0], method="true_env", model={"rank": 9}, measured_at="2020")
    newer = returns([5.0, 6.0], method="true_env", measured_at="2030")
    found = pair_with_true_env(own, [same, newer])
    assert found is not None
    assert found[0] == [7.0, 8.0]


def _at(time: str, value: float, **fields: Any) -> Row:
    return row("rmse_mean", value, **fields) | {"measured_at": time}


def test_the_newest_configuration_is_shown_with_all_of_its_trials() -> None:
    old = [_at("2026-01-01", 1.0, trial=t) for t in (0, 1, 2)]
    new = [_at("2026-02-01", 2.0 + t, trial=t, model={"rank": 5}) for t in (0, 1)]
    again = _at("2026-03-01", 9.0, trial=0, model={"rank": 5}, code_version="fff")
    assert [r["value"] for r in select([*old, *new])] == [2.0, 3.0]
    assert [r["value"] for r in select([again, *new, *old])] == [9.0, 3.0]


def test_smoke_runs_are_shown_only_if_there_is_nothing_else() -> None:
    smoke = _at("2026-05-01", 5.0, variant="smoke")
    real = _at("2026-01-01", 1.0)
    assert select([smoke, real]) == [real]
    assert select([smoke]) == [smoke]
    assert select([smoke, real], variant="smoke") == [smoke]
    notes = build.table_1([smoke], "mountain_car").notes
    assert any("smoke variant" in note for note in notes)


def test_agents_of_no_table_and_policies_stay_out() -> None:
    other = row("rmse_mean", 1.0) | {"covariates": {"gravity": 0.0011}, "agent_id": 77}
    table = build.table_1([other, row("rmse_mean", 0.5)], "mountain_car")
    assert [c.pieces[0][0] for c in table.lines[0].cells] == ["0.500", "–", "–", "–", "–"]
    # The default agent is a test agent and one that a policy was trained on.
    policy = returns([-90.0], 3, "dqn", scope="own_agent", target=-200.0, behavior="pure")
    assert not build.table_2([policy], "mountain_car").lines


def test_left_out_episodes_are_told() -> None:
    rows = [row("rmse_mean", 0.5), row("episodes_left_out", 3.0, num_episodes=200)]
    rows.append(row("episodes_left_out", 0.0, 1, num_episodes=200))
    note = build.table_1(rows, "mountain_car").notes[0]
    assert note.startswith("Episodes too short to score, left out: 3 in all trials (PerSim, Random")


def test_differences_are_paired_and_ties_are_ties() -> None:
    rows = [returns([5.0, 7.0, 9.0]), returns([4.0, 6.0, 8.0], method="cql_p")]
    rows += [returns([-500.0] * 3, 4), returns([-500.0] * 3, 4, "cql_p")]
    rows += [returns([0.0, 1.0, 2.0], 2), returns([2.0, 3.0, 4.0], 2, "cql_p")]
    table = side_tables.differences_table(rows, "mountain_car")
    assert cell(table, 0, "cql_p").pieces == (("1.0", "better"), ("[1.0, 1.0]", ""))
    assert cell(table, 4, "cql_p").pieces[0] == ("0.0", "same")
    assert cell(table, 2, "cql_p").pieces[0] == ("−2.0", "worse")
    assert cell(table, 1, "cql_p").pieces == (("–", ""),)
    assert summary.difference_sentences(table) == [
        "MountainCar, return against CQL-P: ahead in 1, level in 1, behind in 1 cells."
    ]


def test_table_3_holds_offline_learners_on_random_data_only() -> None:
    rows = [returns([-60.0, -60.0], method="persim_bcq_5"), returns([-500.0] * 2, method="bcq_p")]
    rows += [returns([-70.0] * 2, method="bcq_p", behavior="pure")]
    rows += [returns([-50.0] * 2, method="cql_p")]
    table = build.table_3(rows, "mountain_car")
    assert [line.method for line in table.lines] == ["bcq_p", "persim_bcq_5"]
    assert {line.behavior for line in table.lines} == {"random"}
    assert cell(table, 0, "persim_bcq_5").paper == "−68.84 ± 15.2"
    methods = {line.method for line in build.table_2(rows, "mountain_car").lines}
    assert methods == {"bcq_p", "cql_p"}
    assert not build.table_3(rows[1:], "mountain_car").lines


def test_policies_and_cost_tables() -> None:
    own = returns([-180.0, -190.0], 3, "dqn", scope="own_agent", target=-200.0, behavior="pure")
    everyone = own | {"scope": "all_agents", "covariates": {}, "agent_id": None, "value": -231.0}
    table = side_tables.policies_table([everyone | {"target": None}, own])
    assert [line.labels[-1] for line in table.lines] == ["gravity 0.0025", "all agents"]
    assert [c.pieces[0][0] for c in table.lines[0].cells] == ["−200.0", "−185.0", "2"]
    assert side_tables.policies_table([]).missing
    times = [row("train_seconds", value, trial=trial) for trial, value in enumerate((10.0, 14.0))]
    cost = costs.cost_table(times)
    assert [c.pieces[0][0] for c in cost.lines[0].cells] == ["12", *["–"] * 5]


@pytest.mark.parametrize(
    ("write", "value", "text"),
    [
        (model.error_text, 0.00034, "0.00034"),
        (model.error_text, 0.0142, "0.014"),
        (model.error_text, 0.1523, "0.152"),
        (model.error_text, 4.0641, "4.06"),
        (model.error_text, 0.0, "0.000"),
        (model.error_text, 3.2e-6, "3.2e-06"),
        (model.error_text, math.nan, "–"),
        (model.r2_text, -18.44, "−18.4"),
        (model.r2_text, 0.998, "1.00"),
        (model.r2_text, -0.001, "0.00"),
        (model.return_text, -205.04, "−205.0"),
        (model.return_text, 42893.4, "42893"),
    ],
)
def test_numbers_as_written(write: Any, value: float, text: str) -> None:
    assert write(value) == text


def example() -> list[Row]:
    rows = [returns([-60.0, -58.0]), returns([-50.0, -52.0], method="true_env")]
    return [*rows, row("rmse_mean", 0.001), row("r2_median", 1.0)]


def test_markdown_has_as_many_cells_in_every_line() -> None:
    for table in all_tables(example()):
        text = render.to_markdown(table)
        pipes = {len(re.findall(r"(?<!\\)\|", x)) for x in text.split("\n") if x.startswith("|")}
        assert pipes == {len(table.stubs) + len(table.columns) + 1}
    assert "0.0010 ▲ (1.00) =<br><sub>paper 0.04 (1.00)</sub>" in render_tables(
        all_tables(example()), ".md"
    )


def test_html_is_well_formed_and_says_what_marks_mean() -> None:
    import xml.etree.ElementTree as ET

    for table in all_tables(example()):
        tree = ET.fromstring(f"<div>{render.to_html(table)}</div>")
        widths = {len(line) for line in tree.iter("tr")}
        assert widths == {len(table.stubs) + len(table.columns)}
        for mark in tree.iter("span"):
            if mark.get("role") == "img":
                assert mark.get("aria-label") in ("better", "same", "worse")
    bad = Table("t", "", "a < b & c", ("x",), (), (), notes=("1 < 2",))
    ET.fromstring(f"<div>{render.to_html(bad)}</div>")


def test_latex_is_balanced_and_escaped() -> None:
    text = render_tables(all_tables(example()), ".tex")
    assert sorted(re.findall(r"\\begin\{(\w+)\}", text)) == sorted(
        re.findall(r"\\end\{(\w+)\}", text)
    )
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    assert text.isascii()
    assert not re.search(r"(?<!\\)%(?!\n)", text.replace("{!}{%", ""))
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().split("\n")
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {6}
    assert render.latex(r"50 % of a_b & \c") == r"50 \% of a\_b \& \textbackslash{}c"


def test_csv_has_the_numbers_of_both_sides() -> None:
    lines = list(csv.DictReader(io.StringIO(render_tables(all_tables(example()), ".csv"))))
    found = {(x["table"], x["method"], x["metric"]): x for x in lines}
    error = found["table_1", "persim", "rmse_mean"]
    assert (error["value"], error["paper"], error["verdict"]) == ("0.001", "0.04", "better")
    control = found["table_2", "persim", "return_mean"]
    assert (control["value"], control["low"], control["high"]) == ("-59", "-60", "-58")
    assert control["paper_std"] == "5.63"
    with pytest.raises(ValueError, match=r"cannot write tables as '\.pdf'"):
        render_tables([], ".pdf")


def test_readme_part_is_spliced_and_checked(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(f"# Top\n\n{readme.BEGIN}\nbygone\n{readme.END}\n\nbottom\n")
    rows = example()
    assert not tables.update_readme(rows, path, check=True)
    assert "bygone" in path.read_text()
    assert not tables.update_readme(rows, path)
    assert tables.update_readme(rows, path, check=True)
    text = path.read_text()
    assert text.startswith("# Top\n")
    assert text.endswith(f"{readme.END}\n\nbottom\n")
    assert "bygone" not in text
    assert "PerSim's RMSE is at or below the paper's in 1 of 1 cell, at or below half" in text
    assert readme.readme_part([]).startswith("No results are accepted yet.")
    with pytest.raises(ValueError, match="README needs the lines"):
        readme.splice("no markers", "x")


@pytest.mark.slow
def test_command_line(tmp_path: pathlib.Path) -> None:
    append_rows(tmp_path / "results" / "rows.jsonl", example())
    page = tmp_path / "README.md"
    page.write_text(f"{readme.BEGIN}\n{readme.END}\n")

    def command(*flags: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "experiments.tables", f"--rows={tmp_path / 'results'}"]
        return subprocess.run([*line, *flags], cwd=ROOT, capture_output=True, text=True)

    stale = command(f"--readme={page}", "--check")
    assert stale.returncode == 1
    assert "is out of date: run this command again without --check" in stale.stderr
    assert command(f"--readme={page}", f"--out={tmp_path / 't.csv'}").returncode == 0
    assert command(f"--readme={page}", "--check").returncode == 0
    assert (tmp_path / "t.csv").read_text().startswith("table,environment")
