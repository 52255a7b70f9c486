"""The main job from covariates to a report, in this process."""

import importlib
import io
import itertools
import json
import re
import shutil
from pathlib import Path

import jax
import pytest
from rich.console import Console

from experiments import workdir
from experiments.records import read_rows
from experiments.run import run, show_tables
from experiments.stamps import ROOT
from tests.experiments.jobs import made_once

pytestmark = [pytest.mark.slow, pytest.mark.optimizes]

PREDICTION = ("rmse_mean", "rmse_std", "r2_median", "r2_mean", "episodes_left_out")
GROWTH = ("rmse_first_step", "rmse_last_step", "error_growth_per_step", "rmse_over_horizon")
CONTROL = ("return_mean", "return_std")


def printed(config, where: Path, width: int = 80) -> str:
    """Runs in this process; returns what was printed."""
    console = Console(file=io.StringIO(), width=width)
    before = jax.config.jax_default_matmul_precision
    assert run(config, where, console=console) == where / "report.html"
    assert jax.config.jax_default_matmul_precision == before
    return console.file.getvalue()


@pytest.fixture(scope="module", params=["mountain_car", "cart_pole"])
def smoke(request, tmp_path_factory):
    """The smoke variant, run in this process: config, workdir (not to be changed), what it said."""
    config = importlib.import_module(f"configs.{request.param}").get_config("smoke").to_dict()

    def make(folder: Path) -> None:
        text = printed(config, folder)
        (folder / "printed").write_text(text, "utf8")

    where = made_once(tmp_path_factory, f"smoke_{request.param}", make)
    return config, where, (where / "printed").read_text("utf8")


def test_a_run_leaves_what_the_contracts_promise(smoke):
    _, where, _ = smoke
    names = {path.name for path in where.iterdir()}
    assert names >= {
        "config.json", "environment.json", "dataset", "checkpoints", "simulators", "metrics.jsonl",
        "rows.jsonl", "figures", "report.html", "report.md", "report.tex", "report.csv", "log.txt",
        "timings.json", "arrays", "tensorboard",
    }  # fmt: skip
    stamp = json.loads((where / "environment.json").read_text("utf8"))
    assert stamp["matmul_precision"] == "highest"
    assert json.loads((where / "timings.json").read_text("utf8")).keys() == {
        "data", "fit persim", "prediction persim", "planning persim", "planning true_env", "report"
    }  # fmt: skip


def test_every_number_of_the_tables_has_one_row(smoke):
    config, where, _ = smoke
    rows = read_rows(where / "rows.jsonl")
    found = {(row["method"], row["metric"], row["paper_label"], row["agent_id"]) for row in rows}
    assert len(found) == len(rows)
    agents = {(row["paper_label"], row["agent_id"]) for row in rows if row["agent_id"] is not None}
    assert len(agents) == 5
    measured = {(m, metric) for m, metric, _, agent in found if agent is not None}
    both = ("persim", "true_env")
    assert measured == {
        *itertools.product(["persim"], PREDICTION + GROWTH), *itertools.product(both, CONTROL)
    }  # fmt: skip
    others = {(method, metric) for method, metric, _, agent in found if agent is None}
    assert len(found) == 5 * (5 + 4 + 2 + 2) + len(others)
    names = {"mountain_car": ["gravity"], "cart_pole": ["force", "length"]}[config["environment"]]
    assert others == {
        *itertools.product(["persim"], [f"factor_correlation_{name}" for name in names]),
        ("any", "collect_steps_per_second"), ("any", "matmul_flops_per_second"),
        ("persim", "train_seconds"), ("persim", "train_flops_per_second"),
        *itertools.product(both, ["compile_seconds", "plan_decisions_per_second"]),
    }  # fmt: skip
    for row in rows:
        assert row["environment"] == config["environment"]
        assert (row["variant"], row["trial"], row["seed"]) == ("smoke", 0, 0)
        assert row["behavior"] == ("any" if row["method"] == "true_env" else "random")


def test_the_report_knows_what_the_shipped_policies_earn(smoke):
    config, where, _ = smoke
    text = (where / "report.md").read_text("utf8")
    assert "returns of the behavior and test policies" not in text
    shown = [float(x) for x in re.findall(r"\| (-?[\d.]+) ± ", text.replace("−", "-"))]
    shipped = ROOT / "experiments" / "shipped_policies" / f"{config['environment']}.json"
    for policy in json.loads(shipped.read_text("utf8"))["policies"]:
        assert min(abs(x - policy["return_mean"]) for x in shown) < 0.06


def test_what_is_printed_says_each_stage_in_a_line(smoke):
    config, _, text = smoke
    # On a busy machine a stage says now and then how far it is: those lines are set in.
    lines = [line for line in text.splitlines() if not line.startswith("  ")]
    assert lines[0].startswith(f"{config['environment']}, random data, smoke variant, trial 0")
    stages = ["data", "fit persim", "prediction persim", "planning persim", "planning true_env"]
    for line, stage in zip(lines[1:], [*stages, "report"], strict=True):
        assert re.match(rf"{stage}\b.* \(\d+\.\d s\)$", line)
    speed = r"epoch \d+, loss .*; .* [MG]FLOP/s, [\d.]+ % of a large matrix product's .* \(highest"
    assert re.search(speed, lines[2])


def test_the_tables_fit_a_terminal_and_show_the_paper_beside_ours(smoke):
    config, where, _ = smoke
    console = Console(file=io.StringIO(), width=80)
    show_tables(where, config, console)
    text = console.file.getvalue()
    assert "Table 1" in text
    assert "Table 2" in text
    paper = {
        "mountain_car": ("0.04 (1.00)", "−53.95 ± 4.10"),
        "cart_pole": ("0.014 (0.98)", "200.0 ± 0.0"),
    }
    for number in paper[config["environment"]]:
        assert number in text
    assert max(map(len, text.splitlines())) <= 80
    rows = read_rows(where / "rows.jsonl")
    value = next(r for r in rows if (r["method"], r["metric"]) == ("true_env", "return_mean"))
    assert f"{value['value']:.1f}".replace("-", "−") in text


def test_a_second_start_runs_nothing_again(smoke, tmp_path, monkeypatch):
    config, where, _ = smoke
    shutil.copytree(where, tmp_path, dirs_exist_ok=True)
    # Somebody may commit while the tests run.
    stamp = json.loads((where / "environment.json").read_text("utf8"))
    monkeypatch.setattr(workdir, "environment_stamp", lambda: stamp)
    kept = ("rows.jsonl", "timings.json", "report.html", "metrics.jsonl", "environment.json")
    before = {name: (tmp_path / name).read_bytes() for name in kept}
    log = (where / "log.txt").read_text("utf8")
    assert "nothing to do: all of it was done before" in printed(config, tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in kept} == before
    assert "started" not in (tmp_path / "log.txt").read_text("utf8")[len(log) :]
