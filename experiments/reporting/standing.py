"""Where we stand against the paper: how many cells are ahead, level, behind; which are behind."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Sequence

from experiments.reporting import model
from experiments.reporting.measures import BETTER, LOWER_IS_BETTER, SAME, WORSE, Measure
from experiments.reporting.model import Cell, Column, Line, Table
from experiments.reporting.selection import ENVIRONMENT_ORDER
from experiments.reporting.sheet import is_augmented

OURS = "persim"
METRICS = {"rmse_mean": "RMSE", "r2_median": "R²", "return_mean": "return"}


@dataclasses.dataclass(frozen=True)
class Placing:
    """A number of ours beside the paper's.

    Attributes:
      table: Number of the paper's table.
      environment: Its name.
      behavior: Name of the data.
      method: Name of the method.
      agent: The agent, in words.
      measure: The number and its verdict.
    """

    table: int
    environment: str
    behavior: str
    method: str
    agent: str
    measure: Measure

    @property
    def is_ours(self) -> bool:
        """Whether the method is PerSim, alone or behind an offline learner."""
        return self.method == OURS or is_augmented(self.method)

    @property
    def gap(self) -> float:
        """How far behind the paper we are, as a share of the paper's number; negative if ahead.

        A zero of the paper counts as half of the last digit that it prints.
        """
        paper = self.measure.paper
        assert paper is not None
        scale = max(abs(paper.value), 0.5 * 10.0**-paper.decimals)
        difference = self.measure.value - paper.value
        return difference / scale if self.measure.metric in LOWER_IS_BETTER else -difference / scale


@dataclasses.dataclass(frozen=True)
class Count:
    """How cells of one table, environment and group of methods stand; errors and returns only."""

    table: int
    environment: str
    is_ours: bool
    better: int
    same: int
    worse: int

    @property
    def total(self) -> int:
        """Cells with a verdict."""
        return self.better + self.same + self.worse

    @property
    def title(self) -> str:
        """The table and the environment, in words."""
        return f"Table {self.table}, {model.environment_name(self.environment)}"


def placings(tables: Iterable[Table]) -> list[Placing]:
    """Returns every number of Tables 1 to 3 that the paper has, too.

    Of Table 3 only the methods with synthetic trajectories: the others stand in Table 2.
    """
    return [
        Placing(int(table.name[-1]), table.environment, line.behavior, line.method, cell.agent, m)
        for table in tables
        if table.name in ("table_1", "table_2", "table_3")
        for line in table.lines
        if table.name != "table_3" or is_augmented(line.method)
        for cell in line.cells
        for m in cell.measures
        if m.paper is not None and m.verdict
    ]


def counts(found: Sequence[Placing]) -> list[Count]:
    """Returns the counts per table, environment and group, tables first; R² is not counted."""
    grouped: dict[tuple[bool, int, int, str], Counter[str]] = {}
    for placing in found:
        if placing.measure.metric != "r2_median":
            rank = _rank(placing.environment)
            name = (not placing.is_ours, placing.table, rank, placing.environment)
            grouped.setdefault(name, Counter())[placing.measure.verdict] += 1
    return [
        Count(table, environment, not others, count[BETTER], count[SAME], count[WORSE])
        for (others, table, _, environment), count in sorted(grouped.items())
    ]


def behind(found: Iterable[Placing]) -> list[Placing]:
    """Returns the numbers that are worse than the paper's, worst first."""
    return sorted((p for p in found if p.measure.verdict == WORSE), key=lambda p: -p.gap)


def behind_table(found: Sequence[Placing], name: str, title: str) -> Table:
    """Makes the table of the cells behind the paper, worst first."""
    lines = []
    for placing in behind(found):
        measured = placing.measure
        assert measured.paper is not None
        cells = [
            Cell(pieces=((_with_interval(measured), ""),)),
            Cell(pieces=((model.minus(measured.paper.text), ""),)),
            Cell(pieces=((_gap_text(placing), WORSE),)),
        ]
        labels = (
            f"Table {placing.table}, {METRICS[measured.metric]}",
            model.environment_name(placing.environment),
            model.behavior_name(placing.behavior),
            model.method_name(placing.method),
            placing.agent,
        )
        lines.append(Line(labels, tuple(cells), placing.behavior, placing.method))
    columns = (Column("Ours", "95 % interval"), Column("Paper"), Column("Behind by"))
    stubs = ("Number", "Environment", "Data", "Method", "Agent")
    return Table(name, "", title, stubs, columns, tuple(lines))


def headline(found: Sequence[Count]) -> str:
    """Says in one sentence how PerSim's cells stand."""
    ours = [count for count in found if count.is_ours]
    total = sum(count.total for count in ours)
    if not total:
        return ""
    better, same, worse = (
        sum(getattr(count, name) for count in ours) for name in (BETTER, SAME, WORSE)
    )
    return (
        f"Of {total} errors and returns of PerSim that the paper has, too, {better} are better "
        f"than the paper's, {same} the same, {worse} worse."
    )


def _rank(environment: str) -> int:
    known = environment in ENVIRONMENT_ORDER
    return ENVIRONMENT_ORDER.index(environment) if known else len(ENVIRONMENT_ORDER)


def _with_interval(measured: Measure) -> str:
    write = {"rmse_mean": model.error_text, "r2_median": model.r2_text}.get(
        measured.metric, model.return_text
    )
    interval = ""
    if math.isfinite(measured.low):
        interval = f" [{write(measured.low)}, {write(measured.high)}]"
    return write(measured.value) + interval


def _gap_text(placing: Placing) -> str:
    measured = placing.measure
    assert measured.paper is not None
    if measured.metric == "r2_median":
        return model.minus(f"{measured.paper.value - measured.value:.2f}")
    return f"{100 * placing.gap:.0f} %"
