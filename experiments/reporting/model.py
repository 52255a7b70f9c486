"""A table before it is Markdown, LaTeX, CSV or HTML; and how its numbers are written."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping

from experiments.reporting.measures import Measure
from persim_jax.evaluation import paper

DASH = "–"
METHOD_NAMES: Mapping[str, str] = {
    **paper.METHODS,
    "true_env": "True env + MPC",
    "concat_mlp": "Concatenating MLP",
    "pooled_mlp": "Pooled MLP",
    "per_agent_mlp": "Per-agent MLP",
}
UNITS: Mapping[str, str] = {
    "gravity": "gravity",
    "force": "force",
    "length": "length",
    "mass_scale": "mass ×",
    "damping_scale": "damping ×",
}


@dataclasses.dataclass(frozen=True)
class Column:
    """A column's head: a name and, below it, a note such as the paper's label."""

    name: str
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
      pieces: What stands in it, each text with its verdict against the paper (or empty).
      paper: The paper's numbers, written as the paper does; empty where it has none.
      extra: A further line below.
      measures: The numbers, for CSV.
      agent: Name of the agent, for CSV.
    """

    pieces: tuple[tuple[str, str], ...] = ((DASH, ""),)
    paper: str = ""
    extra: str = ""
    measures: tuple[Measure, ...] = ()
    agent: str = ""


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a table: its labels, its cells, the keys behind the labels, what makes it.

    Its environment is empty where the whole table has one.
    """

    labels: tuple[str, ...]
    cells: tuple[Cell, ...]
    behavior: str = ""
    method: str = ""
    command: str = ""
    environment: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
      name: Such as `table_1`, for CSV and anchors.
      environment: Our name of the environment; empty where a table spans several.
      title: One line.
      stubs: Heads of the label columns.
      columns: Heads of the others.
      lines: Its lines.
      notes: Sentences below it.
      missing: Cells without a row, each in words.
    """

    name: str
    environment: str
    title: str
    stubs: tuple[str, ...]
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def compares(self) -> bool:
        """Whether any cell stands beside a number of the paper."""
        return any(piece[1] for line in self.lines for cell in line.cells for piece in cell.pieces)


def method_name(method: str) -> str:
    """Returns a method as tables print it."""
    own = re.fullmatch(r"persim_(bcq|cql)_(\d+)", method)
    fallback = f"PerSim-{own[1].upper()}-{own[2]}" if own else method.replace("_", "-")
    return METHOD_NAMES.get(method, fallback)


def environment_name(environment: str) -> str:
    """Returns an environment as tables print it."""
    return paper.ENVIRONMENTS.get(environment, environment)


def behavior_name(behavior: str) -> str:
    """Returns the data's behavior as tables print it."""
    return DASH if behavior == "any" else paper.BEHAVIORS.get(behavior, behavior)


def agent_name(covariates: Mapping[str, float]) -> str:
    """Returns an agent by its covariates, such as `force 10, length 0.85`."""
    return ", ".join(f"{UNITS.get(k, k)} {float(v):.4g}" for k, v in covariates.items())


def error_text(value: float) -> str:
    """Writes an error with two digits when small, three otherwise."""
    if not math.isfinite(value):
        return DASH
    if value == 0 or 0.1 <= abs(value) < 1000:
        return f"{value:.3f}" if abs(value) < 1 else f"{value:.3g}"
    if 1e-4 <= abs(value) < 0.1:
        return f"{value:.{1 - math.floor(math.log10(abs(value)))}f}"
    return f"{value:.1e}"


def r2_text(value: float) -> str:
    """Writes an R^2 with two decimals, one when it is far below zero."""
    if not math.isfinite(value):
        return DASH
    return minus(f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}")


def return_text(value: float, std: float = math.nan) -> str:
    """Writes a return and, if known, its spread over trials."""
    if not math.isfinite(value):
        return DASH
    digits = 0 if abs(value) >= 1000 else 1
    spread = f" ± {std:.{0 if std >= 100 else 1}f}" if math.isfinite(std) else ""
    return minus(f"{value:.{digits}f}") + spread


def measure_text(measured: Measure) -> str:
    """Writes a number as its metric is written, or that it diverged; a return with its spread."""
    if measured.num_diverged:
        return diverged_text(measured.num_diverged, measured.num_trials, "trials")
    if measured.metric == "rmse_mean":
        return error_text(measured.value)
    if measured.metric == "r2_median":
        return r2_text(measured.value)
    return return_text(measured.value, measured.std)


def diverged_text(count: int, total: int, what: str) -> str:
    """Says how many of the trials or runs diverged, shortly if all did."""
    return "diverged" if count == total else f"diverged in {count} of {total} {what}"


def interval_text(low: float, high: float, digits: int = 1, scale: float = 1.0) -> str:
    """Writes an interval; empty if it is unknown."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{minus(f'{low * scale:.{digits}f}')}, {minus(f'{high * scale:.{digits}f}')}]"


def minus(text: str) -> str:
    """Returns a number with a minus sign instead of a hyphen, and without the sign of zero."""
    if text.startswith("-") and not text.strip("-0."):
        text = text[1:]
    return text.replace("-", "−")
