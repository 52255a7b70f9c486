"""What a report says, before it is a page: verdict, tables, pictures, conditions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from experiments.figures.gallery import Picture, draw_gallery
from experiments.records import TRUE_ENV, Row
from experiments.reporting import build, model, side_tables, summary
from experiments.reporting.augmentation import gain_sentences, gains_table
from experiments.reporting.measures import BETTER, SAME, WORSE
from experiments.reporting.model import Table
from experiments.reporting.selection import SMOKE
from experiments.reporting.sheet import environments, is_augmented, is_policy
from experiments.reporting.workdir import Workdir

DEFAULT_METHODS = ("persim", TRUE_ENV)
PREDICTING = frozenset(
    {"persim", "cadm_vanilla", "cadm_pets", "concat_mlp", "pooled_mlp", "per_agent_mlp"}
)


@dataclasses.dataclass(frozen=True)
class Content:
    """A report's parts, in the order in which they are shown.

    Attributes:
      workdir: What was read.
      headlines: The verdict, one line per environment.
      sentences: The counts behind it.
      details: Where exactly we stand, longer lists.
      tables: Tables.
      pictures: Figures on disk.
      missing: What a finished run would have, in words.
    """

    workdir: Workdir
    headlines: tuple[str, ...]
    sentences: tuple[str, ...]
    details: tuple[str, ...]
    tables: tuple[Table, ...]
    pictures: tuple[Picture, ...]
    missing: tuple[str, ...]


def make_content(workdir: Workdir, policy_rows: Sequence[Row] = ()) -> Content:
    """Makes tables and sentences from a workdir's rows, and draws its figures.

    Args:
      workdir: What was read.
      policy_rows: Rows of the behavior and test policies, if the workdir has none of its own.
    """
    headlines: list[str] = []
    sentences: list[str] = []
    details: list[str] = []
    tables: list[Table] = []
    for name in _environments(workdir):
        first, second = _main_tables(workdir, name)
        differences = side_tables.differences_table(workdir.rows, name)
        headlines.append(_headline(name, first, second))
        sentences.append(summary.prediction_sentence(workdir.rows, name))
        sentences.append(summary.control_sentence(workdir.rows, name))
        sentences += summary.difference_sentences(differences)
        details += [
            f"{table.title.partition(':')[0]}. {text}"
            for table in (first, second)
            for text in summary.standing(table)
        ]
        tables += [first, second]
        third, gains = build.table_3(workdir.rows, name), gains_table(workdir.rows, name)
        sentences += gain_sentences(workdir.rows, name)
        tables += [t for t in (third, gains, differences) if t.lines]
    tables += [side_tables.policies_table([*workdir.rows, *policy_rows])]
    tables += [side_tables.cost_table(workdir.rows)]
    pictures, undrawn = ([], []) if workdir.jobs else draw_gallery(workdir.path, workdir.config)
    if workdir.rows and all(row.get("variant") == SMOKE for row in workdir.rows):
        headlines.insert(0, "A smoke run: its sizes are for tests, its numbers mean nothing.")
    if not any(headlines):
        headlines.append(
            "No verdict yet: PerSim has no result here that the paper has a number for."
        )
    return Content(
        workdir=workdir,
        headlines=tuple(filter(None, headlines)),
        sentences=tuple(filter(None, sentences)),
        details=tuple(details),
        tables=tuple(tables),
        pictures=tuple(pictures),
        missing=(*workdir.missing, *undrawn),
    )


def _environments(workdir: Workdir) -> list[str]:
    configured = workdir.config.get("environment")
    return environments(workdir.rows) or ([configured] if configured else [])


def _main_tables(workdir: Workdir, environment: str) -> tuple[Table, Table]:
    """Makes Tables 1 and 2 with a line for every method that the run was asked for."""
    methods = _methods(workdir, environment)
    behavior = workdir.config.get("behavior")
    behaviors = None if behavior is None else [behavior]
    predicting = [method for method in methods if method in PREDICTING]
    first = build.table_1(workdir.rows, environment, predicting or ["persim"], behaviors)
    plain = [method for method in methods if not is_augmented(method)]
    second = build.table_2(workdir.rows, environment, plain, behaviors)
    return first, second


def _methods(workdir: Workdir, environment: str) -> list[str]:
    asked = workdir.config.get("methods") or DEFAULT_METHODS
    asked = asked.split(",") if isinstance(asked, str) else list(asked)
    metrics = {*build.PREDICTION, *build.CONTROL}
    found = {
        row["method"]
        for row in workdir.rows
        if row["environment"] == environment and row["metric"] in metrics and not is_policy(row)
    }
    return [*asked, *sorted(found - set(asked))]


def _headline(environment: str, first: Table, second: Table) -> str:
    """Says in one line how PerSim's errors and returns stand against the paper's."""
    words = {"prediction error": _standing(first), "return": _standing(second)}
    parts = [f"{what} {word}" for what, word in words.items() if word]
    return f"{model.environment_name(environment)}: {'; '.join(parts)}." if parts else ""


def _standing(table: Table, method: str = "persim") -> str:
    """Returns how a method stands against the paper in a table, in words."""
    verdicts = {
        cell.pieces[0][1] for line in table.lines if line.method == method for cell in line.cells
    }
    if BETTER in verdicts and WORSE in verdicts:
        return "partly ahead of the paper, partly behind"
    if BETTER in verdicts:
        return "ahead of the paper"
    if WORSE in verdicts:
        return "behind the paper"
    return "level with the paper" if SAME in verdicts else ""
