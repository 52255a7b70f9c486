"""The rows of one environment and one table of the paper, by cell."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from experiments.records import TRUE_ENV, Row
from experiments.reporting.measures import Measure, measure, with_divergence
from experiments.reporting.overrides import SHIPPED, is_study, settings_key
from experiments.reporting.selection import (
    ENVIRONMENT_ORDER,
    AgentKey,
    agent_of,
    ordered,
    pair_with_true_env,
    select,
)
from persim_jax.evaluation import paper


@dataclasses.dataclass(frozen=True)
class Sheet:
    """Selected rows of one environment, by cell.

    Attributes:
      others: Settings that other rows of the table have, which it does not show.
    """

    environment: str
    table: int
    metrics: tuple[str, ...]
    agents: tuple[dict[str, float], ...]
    cells: Mapping[tuple[str, str, AgentKey, str], list[Row]]
    others: tuple[str, ...] = ()

    def measures(self, behavior: str, method: str, agent: dict[str, float]) -> list[Measure]:
        """Returns the measures of a cell, those only whose rows exist."""
        key = paper.agent_key(self.environment, agent)
        found = [(m, self.cells.get((behavior, method, key, m), [])) for m in self.metrics]
        return [
            measure(rows, self.paper(behavior, method, agent, metric))
            for metric, rows in found
            if rows
        ]

    def paper(
        self, behavior: str, method: str, agent: dict[str, float], metric: str
    ) -> paper.PaperCell | None:
        """Returns the paper's number of a cell."""
        return paper.paper_cell(self.table, self.environment, agent, behavior, method, metric)

    @property
    def rows(self) -> list[Row]:
        """All rows that the sheet shows."""
        return [row for rows in self.cells.values() for row in rows]


def environments(rows: Iterable[Row]) -> list[str]:
    """Returns the environments of rows, in the paper's order."""
    return ordered((row["environment"] for row in rows), ENVIRONMENT_ORDER)


def is_augmented(method: str) -> bool:
    """Returns whether a method learns offline from synthetic trajectories too (Table 3)."""
    return method.startswith("persim_")


def is_policy(row: Row) -> bool:
    """Returns whether a row is about a policy that made data or tests, not about a method."""
    return "scope" in row


def make_sheet(
    rows: Sequence[Row],
    environment: str,
    table: int,
    metrics: tuple[str, ...],
    keep: Callable[[Row], bool] = lambda row: True,
) -> Sheet:
    """Selects the rows of one environment's table, by cell.

    Args:
      rows: Rows of any kind.
      environment: Its name in rows.
      table: Number of the paper's table.
      metrics: Metrics of the table, the one that is compared first.
      keep: Which of the rows with these metrics belong to the table.
    """
    here = [
        row
        for row in with_divergence(row for row in rows if row["environment"] == environment)
        if row["metric"] in metrics and not is_policy(row) and not is_study(row) and keep(row)
    ]
    cells: dict[tuple[str, str, AgentKey, str], list[Row]] = defaultdict(list)
    for row in select(here):
        if row["covariates"]:
            cells[row["behavior"], row["method"], agent_of(row), row["metric"]].append(row)
    agents = paper.paper_agents(environment) or _agents_of(here)
    shown = {paper.agent_key(environment, agent) for agent in agents}
    kept = {name: found for name, found in cells.items() if name[2] in shown}
    settings = {settings_key(row) for found in kept.values() for row in found}
    others = {settings_key(row) for row in here if row["covariates"]} - settings - {SHIPPED}
    return Sheet(environment, table, metrics, agents, kept, tuple(sorted(others)))


def shortfall_pairs(
    sheet: Sheet,
) -> dict[tuple[str, str, AgentKey], tuple[list[float], list[float]]]:
    """Returns paired returns (true environment, method) per cell, trials one after the other."""
    pairs: dict[tuple[str, str, AgentKey], tuple[list[float], list[float]]] = {}
    true_rows = [row for row in sheet.rows if row["method"] == TRUE_ENV]
    for (behavior, method, key, _), rows in sheet.cells.items():
        found = [pair_with_true_env(row, true_rows) for row in rows]
        if method != TRUE_ENV and all(pair is not None for pair in found):
            kept = [pair for pair in found if pair is not None]
            pairs[behavior, method, key] = (
                [value for true, _ in kept for value in true],
                [value for _, own in kept for value in own],
            )
    return pairs


def _agents_of(rows: Iterable[Row]) -> tuple[dict[str, float], ...]:
    """Returns the distinct agents of rows, for an environment that the paper does not have."""
    found = {agent_of(row): row for row in rows if row["covariates"]}
    by_id = sorted(found.values(), key=lambda row: (row["agent_id"] is None, row["agent_id"]))
    return tuple(dict(row["covariates"]) for row in by_id)
