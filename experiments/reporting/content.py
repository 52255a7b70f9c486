"""What a report says, before it is a page: verdict, tables, pictures, conditions."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

from experiments.figures.gallery import Picture, draw_gallery
from experiments.records import NO_BEHAVIOR, TRUE_ENV, Row
from experiments.reporting import build, model, side_tables, summary
from experiments.reporting.measures import BETTER, SAME, WORSE
from experiments.reporting.model import Table
from experiments.reporting.sheet import environments
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
      headlines: The verdict, a few sentences.
      details: Where exactly we stand, longer lists.
      tables: Tables.
      pictures: Figures on disk.
      missing: What a finished run would have, in words.
    """

    workdir: Workdir
    headlines: tuple[str, ...]
    details: tuple[str, ...]
    tables: tuple[Table, ...]
    pictures: tuple[Picture, ...]
    missing: tuple[str, ...]


def make_content(workdir: Workdir) -> Content:
    """Makes tables and sentences from a workdir's rows, and draws its figures."""
    headlines: list[str] = []
    details: list[str] = []
    tables: list[Table] = []
    for name in _environments(workdir):
        first, second = _main_tables(workdir, name)
        differences = side_tables.differences_table(workdir.rows, name)
        headlines += _headlines(workdir.rows, name, first, second)
        headlines += summary.difference_sentences(differences)
        details += [
            f"{table.title.partition(':')[0]}. {text}"
            for table in (first, second)
            for text in summary.standing(table)
        ]
        tables += [first, second]
        tables += [t for t in (build.table_3(workdir.rows, name), differences) if t.lines]
    tables += [side_tables.policies_table(workdir.rows), side_tables.cost_table(workdir.rows)]
    pictures, undrawn = ([], []) if workdir.jobs else draw_gallery(workdir.path, workdir.config)
    if not headlines:
        headlines.append(
            "No verdict yet: PerSim has no result here that the paper has a number for."
        )
    return Content(
        workdir=workdir,
        headlines=tuple(headlines),
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
    plain = [method for method in methods if not build.is_augmented(method)]
    second = build.table_2(workdir.rows, environment, plain, behaviors)
    return first, second


def _methods(workdir: Workdir, environment: str) -> list[str]:
    asked = workdir.config.get("methods") or DEFAULT_METHODS
    asked = asked.split(",") if isinstance(asked, str) else list(asked)
    metrics = {*build.PREDICTION, *build.CONTROL}
    found = {
        row["method"]
        for row in workdir.rows
        if row["environment"] == environment and row["metric"] in metrics and "scope" not in row
    }
    return [*asked, *sorted(found - set(asked))]


def _headlines(rows: Sequence[Row], environment: str, first: Table, second: Table) -> list[str]:
    standings = [_standing("Prediction error", first), _standing("Return", second)]
    sentences = [
        summary.prediction_sentence(rows, environment),
        summary.control_sentence(rows, environment),
    ]
    name = model.environment_name(environment)
    return [f"{name}. {text}" for text in standings if text] + [s for s in sentences if s]


def _standing(what: str, table: Table, method: str = "persim") -> str:
    """Says in one word, and in counts, how a method stands against the paper."""
    verdicts = Counter(
        cell.pieces[0][1]
        for line in table.lines
        if line.method == method and line.behavior != NO_BEHAVIOR
        for cell in line.cells
    )
    better, same, worse = (verdicts[v] for v in (BETTER, SAME, WORSE))
    total = better + same + worse
    if not total:
        return ""
    if better and not worse:
        word = "ahead of the paper"
    elif worse and not better:
        word = "behind the paper"
    elif better or worse:
        word = "mixed against the paper"
    else:
        word = "level with the paper"
    counts = f"better in {better}, the same in {same}, worse in {worse} of {total} cells"
    return f"{what}: {word} ({counts})."
