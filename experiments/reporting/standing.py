"""Where we stand against the paper: how many cells are ahead, level, behind; which are behind."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from experiments.reporting import model
from experiments.reporting.build import is_ablation
from experiments.reporting.measures import BETTER, LOWER_IS_BETTER, SAME, WORSE, Measure
from experiments.reporting.model import Cell, Column, Line, Table
from experiments.reporting.selection import ENVIRONMENT_ORDER
from experiments.reporting.sheet import is_augmented

OURS = "persim"
ABSENT = "absent"
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
        return _is_ours(self.method)

    @property
    def gap(self) -> float:
        """How far behind the paper we are, as a share of the paper's number; negative if ahead.

        A zero of the paper counts as half of the last digit that it prints. Infinite if a trial
        diverged.
        """
        paper = self.measure.paper
        assert paper is not None
        scale = max(abs(paper.value), 0.5 * 10.0**-paper.decimals)
        difference = self.measure.value - paper.value
        return difference / scale if self.measure.metric in LOWER_IS_BETTER else -difference / scale


@dataclasses.dataclass(frozen=True)
class Count:
    """How cells of one table, environment and group of methods stand; errors and returns only.

    Attributes:
      table: Number of the paper's table.
      environment: Its name.
      is_ours: Whether of PerSim, or of the other methods.
      better: Cells better than the paper's.
      same: The same.
      worse: Worse.
      absent: Cells that would be there, and have no row yet.
    """

    table: int
    environment: str
    is_ours: bool
    better: int
    same: int
    worse: int
    absent: int = 0

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


def counts(
    found: Sequence[Placing], absent: Mapping[tuple[int, str, str], int] | None = None
) -> list[Count]:
    """Returns the counts per table, environment and group, ours first; R² is not counted.

    Args:
      found: The numbers.
      absent: Cells without a row by table, environment and method. Of Table 3 those of methods with
        synthetic trajectories count, as the others stand in Table 2.
    """
    grouped: dict[tuple[bool, int, str], Counter[str]] = defaultdict(Counter)
    for placing in found:
        if placing.measure.metric != "r2_median":
            name = (placing.is_ours, placing.table, placing.environment)
            grouped[name][placing.measure.verdict] += 1
    for (table, environment, method), number in (absent or {}).items():
        if (table != 3 or is_augmented(method)) and not is_ablation(method):
            grouped[_is_ours(method), table, environment][ABSENT] += number
    return [
        Count(table, environment, ours, count[BETTER], count[SAME], count[WORSE], count[ABSENT])
        for (ours, table, environment), count in sorted(
            grouped.items(), key=lambda x: (not x[0][0], x[0][1], _rank(x[0][2]), x[0][2])
        )
        if count.total()
    ]


def behind(found: Iterable[Placing]) -> list[Placing]:
    """Returns the numbers that are worse than the paper's, worst first."""
    return sorted((p for p in found if p.measure.verdict == WORSE), key=lambda p: -p.gap)


def behind_table(found: Sequence[Placing], name: str, title: str) -> Table:
    """Makes the table of the numbers behind the paper, worst first."""
    lines = []
    late = behind(found)
    for placing in late:
        measured = placing.measure
        assert measured.paper is not None
        cells = (
            Cell(pieces=((model.measure_text(measured), WORSE), *_interval(measured))),
            Cell(pieces=((model.minus(measured.paper.text), ""),)),
        )
        what = f"Table {placing.table}, {METRICS[measured.metric]}"
        where = (
            model.environment_name(placing.environment),
            model.behavior_name(placing.behavior),
            model.method_name(placing.method),
            placing.agent,
        )
        labels = (_gap_text(placing), f"{what}: {', '.join(where)}")
        lines.append(Line(labels, cells, placing.behavior, placing.method))
    notes: tuple[str, ...] = ("Behind by: share of the paper's number; of R², the difference.",)
    known = [placing.measure for placing in late if not placing.measure.num_diverged]
    if any(not math.isfinite(measured.low) for measured in known):
        notes += ("Where ours has no interval, of one episode, the paper's spread alone decides.",)
    columns = (Column("Ours", "95 % interval"), Column("Paper"))
    return Table(name, "", title, ("Behind by", "Number"), columns, tuple(lines), notes)


def headline(found: Sequence[Count]) -> str:
    """Says in one sentence how PerSim's cells stand."""
    ours = [count for count in found if count.is_ours]
    total = sum(count.total for count in ours)
    if not total:
        return ""
    better, same, worse = (
        sum(getattr(count, name) for count in ours) for name in (BETTER, SAME, WORSE)
    )
    absent = sum(count.absent for count in ours)
    more = f" {absent} more are not measured yet." if absent else ""
    return (
        f"Of {total} errors and returns of PerSim, alone or behind an offline learner, {better} "
        f"are better than the paper's, {same} the same, {worse} worse.{more}"
    )


def _is_ours(method: str) -> bool:
    return method == OURS or is_augmented(method)


def _rank(environment: str) -> int:
    known = environment in ENVIRONMENT_ORDER
    return ENVIRONMENT_ORDER.index(environment) if known else len(ENVIRONMENT_ORDER)


def _interval(measured: Measure) -> tuple[tuple[str, str], ...]:
    if not math.isfinite(measured.low):
        return ()
    write = _writer(measured)
    return ((f"[{write(measured.low)}, {write(measured.high)}]", ""),)


def _writer(measured: Measure) -> Callable[[float], str]:
    known = {"rmse_mean": model.error_text, "r2_median": model.r2_text}
    return known.get(measured.metric, model.return_text)


def _gap_text(placing: Placing) -> str:
    measured = placing.measure
    assert measured.paper is not None
    if measured.num_diverged:
        return "∞"
    if measured.metric == "r2_median":
        return model.minus(f"{measured.paper.value - measured.value:.2f}")
    return f"{100 * placing.gap:.0f} %"
