"""All tables that rows can make, in one list, in any format."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.records import Row
from experiments.reporting.ablations import ablation_tables
from experiments.reporting.augmentation import gains_table
from experiments.reporting.build import table_1, table_2, table_3
from experiments.reporting.costs import cost_table
from experiments.reporting.model import Table
from experiments.reporting.overview import overview_tables
from experiments.reporting.render import LEGEND, to_csv, to_html, to_latex, to_markdown
from experiments.reporting.sheet import environments
from experiments.reporting.side_tables import differences_table, policies_table


def all_tables(rows: Sequence[Row]) -> list[Table]:
    """Returns every table that has something to show, environment by environment."""
    tables: list[Table] = []
    for name in environments(rows):
        tables += [
            table_1(rows, name),
            table_2(rows, name),
            table_3(rows, name),
            gains_table(rows, name),
            differences_table(rows, name),
            *ablation_tables(rows, name),
        ]
    tables += overview_tables(rows)
    tables += [policies_table(rows), cost_table(rows)]
    return [table for table in tables if table.lines]


def render_tables(tables: Sequence[Table], suffix: str) -> str:
    """Renders tables in the format of a file name's suffix.

    Raises:
      ValueError: If the suffix is none of .md, .html, .tex and .csv.
    """
    if suffix == ".csv":
        return to_csv(tables)
    if suffix == ".tex":
        return "\n".join(to_latex(table) for table in tables)
    if suffix == ".html":
        return "\n".join(to_html(table) for table in tables)
    if suffix == ".md":
        return "\n".join([*(to_markdown(table) for table in tables), LEGEND, ""])
    raise ValueError(
        f"cannot write tables as {suffix!r}: use a name ending in .md, .html, .tex, .csv"
    )
