"""Can the simulators of a workdir be trusted? A page for people and a verdict for programs.

    python -m experiments.validate --workdir=runs/glucose
    python -m experiments.validate --workdir=runs/mountain_car --agent_share=0.25

Fits again with the same choices on a part of the data, judges that procedure by what was held out
and leaves the simulators as they are. Takes the workdir of `experiments.fit` or of
`experiments.run`. Writes `validation.html`, `verdict.json`, `calibration.json`, which rescales
intervals, and `validation_rows.jsonl`. The exit status is 0 whatever the verdict, 2 where there are
too few agents or steps for one, 1 for errors.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import app, flags
from rich.console import Console

from experiments import run
from experiments.errors import one_line_each
from experiments.fit import read_fit
from experiments.records import Row, RowContext, append_rows, make_row
from experiments.reporting.validation_page import to_page
from experiments.reporting.validation_words import headline, sentences
from experiments.settings import persim_config, stage_key
from experiments.stamps import environment_stamp, jsonable
from persim_jax.calibration import Calibration
from persim_jax.calibration import save as save_calibration
from persim_jax.data.dataset import OfflineDataset
from persim_jax.data.lags import with_lags
from persim_jax.data.storage import dataset_paths, load_dataset
from persim_jax.files import write_atomically, write_json_atomically
from persim_jax.methods.persim import PersimConfig
from persim_jax.validation.config import CannotJudgeError, TrustConfig, ValidationConfig
from persim_jax.validation.judgement import Findings, PartFindings, as_json, conclude
from persim_jax.validation.procedure import PERSONALIZED, gather

FLAGS = flags.FLAGS
CANNOT_JUDGE = 2
UNKNOWN = "unknown"
"""The behavior of data of which nobody said what chose the actions."""


class Procedure(NamedTuple):
    """What is judged.

    Attributes:
      dataset: All of the data.
      model: How simulators are fitted to it.
      key: Of the split and of training.
      settings: What rows say of it: environment, behavior, variant, trial, seed and all choices.
    """

    dataset: OfflineDataset
    model: PersimConfig
    key: jax.Array
    settings: dict[str, Any]


def read_procedure(workdir: Path) -> Procedure:
    """Finds out what was done in a workdir.

    Raises:
      FileNotFoundError: Nothing was fitted there.
      ValueError: A file was cut short or altered, or is of another version.
    """
    if (workdir / "choices.json").exists():
        dataset, choices = read_fit(workdir)
        settings = {
            "environment": dataset.info.environment, "behavior": dataset.info.behavior,
            "variant": "fit", "trial": 0, "seed": choices.seed,
            "choices": dataclasses.asdict(choices),
        }  # fmt: skip
        lagged = with_lags(dataset, choices.lags)
        return Procedure(lagged, choices.config(), choices.key(2), settings)
    path = workdir / "config.json"
    if not path.exists() or not dataset_paths(workdir / "dataset" / "dataset")[1].exists():
        raise FileNotFoundError(
            f"{workdir} holds no fitted data: give a workdir of experiments.fit or experiments.run"
        )
    config = json.loads(path.read_text("utf8"))
    dataset = load_dataset(workdir / "dataset" / "dataset")
    return Procedure(dataset, persim_config(config), stage_key(config, "validation"), config)


def validate(
    workdir: str | Path,
    config: ValidationConfig | None = None,
    out: str | Path | None = None,
    console: Console | None = None,
) -> Findings:
    """Judges the procedure of a workdir and writes what it found.

    Args:
      workdir: Of `experiments.fit` or `experiments.run`.
      config: What is held out, and thresholds.
      out: Where files go; the workdir by default.
      console: Where progress is shown.

    Raises:
      CannotJudgeError: There are too few agents or steps.
      FileNotFoundError: Nothing was fitted there.
    """
    start, config = time.perf_counter(), config or ValidationConfig()
    stamp = environment_stamp()  # now, since files may change while this runs
    workdir, console = Path(workdir), console or Console()
    procedure = read_procedure(workdir)

    def say(text: str) -> None:
        console.print(f"  {text} ({time.perf_counter() - start:.0f} s)", highlight=False)

    evidence = gather(procedure.key, procedure.dataset, procedure.model, config, say)
    findings = conclude(evidence, config)
    seconds = time.perf_counter() - start
    context = RowContext.from_config(procedure.settings, stamp)
    rows = rows_of(context, findings, config, seconds)
    facts = _facts(procedure, stamp, seconds)
    choices = jsonable({"procedure": procedure.settings, "validation": dataclasses.asdict(config)})
    page = to_page(findings, config, facts, choices)
    folder = Path(out) if out else workdir
    folder.mkdir(parents=True, exist_ok=True)
    # An earlier one is none on what follows.
    (folder / "verdict.json").unlink(missing_ok=True)
    append_rows(folder / "validation_rows.jsonl", rows)
    write_atomically(folder / "validation.html", page.encode())
    tables = (findings.tails.widths, findings.unseen.widths)
    save_calibration(folder / "calibration.json", Calibration(config.levels, *tables))
    # Last, so that a verdict is there only when all else is.
    write_json_atomically(folder / "verdict.json", as_json(findings, config))
    return findings


def rows_of(
    context: RowContext, findings: Findings, config: ValidationConfig, seconds: float
) -> list[Row]:
    """Every number of a validation as a row; an interval is that of the value."""
    rows = [make_row(context, method="persim", metric="validation_seconds", value=seconds)]
    for name, part in (("known", findings.tails), ("unseen", findings.unseen)):
        gain = part.gain
        rows.append(
            make_row(
                context, method="persim", metric=f"validation_gain_{name}", value=gain.gain,
                interval=[gain.low, gain.high], num_agents=gain.num_agents,
                num_queries=gain.num_windows,
            )
        )  # fmt: skip
        rows += _coverage_rows(context, name, part)
        rows += _error_rows(context, name, part, config)
    for verdict in ("trust", "trust_up_to", "do_not_trust"):
        found = sum(v.verdict == verdict for v in findings.verdicts)
        rows.append(
            make_row(
                context, method="persim", metric=f"validation_agents_{verdict}", value=found,
                num_agents=len(findings.verdicts),
            )
        )  # fmt: skip
    return rows


def _coverage_rows(context: RowContext, name: str, part: PartFindings) -> list[Row]:
    return [
        make_row(
            context, method="persim",
            metric=f"validation_coverage_{name}_{kind}_{found.level:g}_step_{found.step}",
            value=found.share, interval=[found.low, found.high], num_queries=found.windows,
            num_agents=part.num_agents,
        )
        for kind, all_found in (("given", part.before), ("rescaled", part.after))
        for found in all_found
    ]  # fmt: skip


def _error_rows(
    context: RowContext, name: str, part: PartFindings, config: ValidationConfig
) -> list[Row]:
    return [
        make_row(
            context, method="persim" if method == PERSONALIZED else method,
            metric=f"validation_rmse_{name}_step_{step}", value=float(curve[step - 1]),
            num_queries=int(part.windows[step - 1]), num_agents=part.num_agents,
        )
        for method, curve in part.errors.items()
        for step in config.steps
        if step <= len(curve)
    ]  # fmt: skip


def _facts(procedure: Procedure, stamp: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """What the page says of data and computation."""
    info, lengths = procedure.dataset.info, procedure.dataset.lengths
    return {
        "data": info.environment + (f", {info.behavior}" if info.behavior != UNKNOWN else ""),
        "agents": procedure.dataset.num_agents,
        "steps": f"{lengths.sum()}, {lengths.min()} to {lengths.max()} of an agent",
        "predicted": ", ".join(info.target_names),
        "inputs": ", ".join(info.input_names) or "none",
        "command": stamp.get("command", ""),
        "code version": stamp["code_version"],
        "jax": stamp["jax"],
        "device": stamp["device"],
        "seconds": f"{seconds:.0f}",
    }


def main(argv: Sequence[str]) -> None:
    """Judges with the flags as parsed."""
    del argv
    run.set_up_jax(deterministic=True, compile_cache=None)
    console = Console(width=100)
    with one_line_each():
        limits: dict[str, Any] = {
            field.name: FLAGS[field.name].value for field in dataclasses.fields(TrustConfig)
        }
        numbers: dict[str, Any] = {name: FLAGS[name].value for name in _NUMBERS}
        config = ValidationConfig(trust=TrustConfig(**limits), **numbers)
        try:
            with jax.default_matmul_precision("highest"):
                findings = validate(FLAGS.workdir, config, FLAGS.out, console)
        except CannotJudgeError as error:
            console.print(f"cannot judge: {error}", highlight=False, soft_wrap=True)
            sys.exit(CANNOT_JUDGE)
    for line in (headline(findings), *sentences(findings, config)):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(f"page: {Path(FLAGS.out or FLAGS.workdir) / 'validation.html'}", highlight=False)


_NUMBERS = {
    "tail_share": "Last part of each record that training does not see.",
    "agent_share": "Agents that training does not see.",
    "transitions": "Steps from which such an agent is personalized.",
    "horizon": "Steps that are simulated ahead.",
    "max_windows": "Simulated paths of an agent.",
}


def _define_flags() -> None:
    flags.DEFINE_string("workdir", None, "Of experiments.fit or experiments.run.", required=True)
    flags.DEFINE_string("out", None, "Folder of page, verdict and rows; the workdir by default.")
    defaults = dataclasses.asdict(ValidationConfig())
    for name, text in _NUMBERS.items():
        _define(name, defaults[name], text)
    for field in dataclasses.fields(TrustConfig):
        _define(field.name, field.default, "Threshold, see persim_jax.validation.config.")


def _define(name: str, default: Any, text: str) -> None:
    kind = flags.DEFINE_integer if isinstance(default, int) else flags.DEFINE_float
    kind(name, default, text)


if __name__ == "__main__":
    _define_flags()
    app.run(main)
