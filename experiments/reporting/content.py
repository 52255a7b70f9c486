"""What a report says, before it is a page: where we stand, tables, pictures, what is missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from experiments.figures.gallery import Picture
from experiments.records import TRUE_ENV, Row
from experiments.reporting import build, costs, model, side_tables, standing, summary
from experiments.reporting.ablations import ablation_tables
from experiments.reporting.augmentation import gain_sentences, gains_table
from experiments.reporting.commands import with_commands
from experiments.reporting.coverage import Coverage, coverage
from experiments.reporting.measures import BETTER, SAME, WORSE
from experiments.reporting.model import Table
from experiments.reporting.newcomers import newcomers_tables
from experiments.reporting.overview import overview_tables
from experiments.reporting.pictures import draw_pictures
from experiments.reporting.selection import ABLATIONS, SMOKE
from experiments.reporting.sheet import environments, is_policy
from experiments.reporting.studies import study_tables
from experiments.reporting.workdir import Workdir
from persim_jax.evaluation import paper

DEFAULT_METHODS = ("persim", TRUE_ENV)
PREDICTING = frozenset({"persim", "cadm_vanilla", "cadm_pets", *ABLATIONS})


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a report: tables and the figures that go with them.

    Attributes:
      name: For links.
      title: Its heading.
      tables: Tables that have something to show.
      pictures: Figures on disk, after the tables.
    """

    name: str
    title: str
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()


@dataclasses.dataclass(frozen=True)
class Content:
    """A report's parts.

    Attributes:
      workdir: What was read.
      lead: How PerSim's cells stand, in one sentence; empty without such cells.
      headlines: The verdict, one line per environment.
      counts: Cells ahead, level and behind, per table and environment.
      behind: The numbers that are behind the paper: PerSim's, then those of other methods.
      sentences: Further counts, in words.
      sections: The rest, in the order in which it is shown.
      coverage: How much is done, and what makes the rest.
      missing: Files and figures that a finished run would have, in words.
    """

    workdir: Workdir
    lead: str
    headlines: tuple[str, ...]
    counts: tuple[standing.Count, ...]
    behind: tuple[Table, ...]
    sentences: tuple[str, ...]
    sections: tuple[Section, ...]
    coverage: Coverage
    missing: tuple[str, ...]

    @property
    def tables(self) -> tuple[Table, ...]:
        """The tables of all sections."""
        return tuple(table for section in self.sections for table in section.tables)

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The pictures of all sections."""
        return tuple(picture for section in self.sections for picture in section.pictures)

    def section(self, name: str) -> Section:
        """Returns a section by its name; an empty one if it has nothing to show."""
        return next((s for s in self.sections if s.name == name), Section(name, ""))


def make_content(workdir: Workdir, policy_rows: Sequence[Row] = ()) -> Content:
    """Makes tables and sentences from a workdir's rows, and draws its figures.

    Args:
      workdir: What was read.
      policy_rows: Rows of the behavior and test policies, if the workdir has none of its own.
    """
    workdir = dataclasses.replace(workdir, rows=workdir.shown_rows)
    rows = workdir.rows
    main = {name: _main_tables(workdir, name) for name in _environments(workdir)}
    placings = standing.placings(table for tables in main.values() for table in tables)
    done = coverage(workdir)
    found = standing.counts(placings, done.absent)
    sections, undrawn = _sections(workdir, main, policy_rows)
    return Content(
        workdir=workdir,
        lead=standing.headline(found),
        headlines=tuple(_headlines(rows, main)),
        counts=tuple(found),
        behind=_behind(placings),
        sentences=tuple(_sentences(rows, main)),
        sections=tuple(s for s in sections if s.tables or s.pictures),
        coverage=done,
        missing=(*workdir.missing, *undrawn),
    )


def _sections(
    workdir: Workdir, main: dict[str, tuple[Table, ...]], policy_rows: Sequence[Row]
) -> tuple[list[Section], tuple[str, ...]]:
    rows = workdir.rows
    overview, studies = overview_tables(rows), study_tables(rows)
    drawn = draw_pictures(workdir, overview)
    tables: list[Table] = []
    for name, found in main.items():
        extra = [gains_table(rows, name), side_tables.differences_table(rows, name)]
        tables += [with_commands(table, rows) for table in found if table.lines or table.missing]
        tables += [table for table in extra if table.lines]
    ablations = [
        with_commands(table, rows) for name in main for table in ablation_tables(rows, name)
    ]
    cost = [costs.cost_table(rows), side_tables.policies_table([*rows, *policy_rows])]
    conditions = costs.conditions_table(rows)
    return [
        Section("overview", "PerSim against each method", tuple(overview), drawn.overview),
        Section("tables", "Tables of the paper", tuple(tables)),
        Section("ablations", "Ablations", tuple(ablations)),
        Section("unseen", "Unseen agents", tuple(newcomers_tables(rows)), drawn.unseen),
        Section("studies", "Studies of one setting", tuple(studies.values()), drawn.studies),
        Section("figures", "Figures", (), drawn.figures),
        Section("costs", "Cost, and the policies behind the data", tuple(cost)),
        Section("measured", "Measured with", (conditions,) if conditions.lines else ()),
    ], drawn.missing


def _behind(placings: Sequence[standing.Placing]) -> tuple[Table, ...]:
    ours = [p for p in placings if p.is_ours]
    others = [p for p in placings if not p.is_ours]
    tables = (
        standing.behind_table(ours, "behind", "PerSim's numbers behind the paper, worst first"),
        standing.behind_table(
            others, "behind_others", "Other methods' numbers below the paper's, worst first"
        ),
    )
    return tuple(table for table in tables if table.lines)


def _sentences(rows: Sequence[Row], names: Iterable[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        differences = side_tables.differences_table(rows, name)
        found.append(summary.prediction_sentence(rows, name))
        found.append(summary.control_sentence(rows, name))
        found += summary.difference_sentences(differences)
        found += gain_sentences(rows, name)
    return [sentence for sentence in found if sentence]


def _headlines(rows: Sequence[Row], main: dict[str, tuple[Table, ...]]) -> list[str]:
    found = [line for name, tables in main.items() if (line := _headline(name, *tables[:2]))]
    if rows and all(row.get("variant") == SMOKE for row in rows):
        found.insert(0, "A smoke run: its sizes are for tests, its numbers mean nothing.")
    if not found:
        return ["No verdict yet: PerSim has no result here that the paper has a number for."]
    return found


def _environments(workdir: Workdir) -> list[str]:
    """Environments with a table: the paper's only, where rows of many runs were kept."""
    configured = workdir.config.get("environment")
    found = environments(workdir.rows) or ([configured] if configured else [])
    return [name for name in found if not workdir.kept or name in paper.ENVIRONMENTS]


def _main_tables(workdir: Workdir, environment: str) -> tuple[Table, ...]:
    """Makes Tables 1 to 3 with a line for every method that the run was asked for."""
    methods = _methods(workdir, environment)
    behavior = workdir.config.get("behavior")
    behaviors = None if behavior is None else [behavior]
    predicting = [m for m in methods if m in PREDICTING and not build.is_ablation(m)]
    first = build.table_1(workdir.rows, environment, predicting or ["persim"], behaviors)
    if not predicting:  # nobody asked for it
        first = dataclasses.replace(first, lines=(), missing=())
    plain = [method for method in methods if build.in_table_2(method)]
    second = build.table_2(workdir.rows, environment, plain, behaviors)
    third = build.table_3(workdir.rows, environment)
    return (first, second, third) if third.lines else (first, second)


def _methods(workdir: Workdir, environment: str) -> list[str]:
    # Of a sweep, whose jobs ask for different things, "Not there yet" says what is missing.
    told = () if workdir.is_sweep else tuple(m for run in workdir.runs for m in run.methods)
    asked = list(told or DEFAULT_METHODS)
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
