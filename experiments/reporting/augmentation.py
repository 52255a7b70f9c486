"""What synthetic trajectories do for offline learners: differences, and how many cells they win."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from experiments.records import Row
from experiments.reporting import model
from experiments.reporting.measures import trial_values
from experiments.reporting.model import Column, Line, Table
from experiments.reporting.selection import METHOD_ORDER, AgentKey, ordered
from experiments.reporting.sheet import Sheet, make_sheet
from experiments.reporting.side_tables import difference_cell
from persim_jax.evaluation import aggregate, paper
from persim_jax.methods.offline import parse_name

BEHAVIOR = "random"
PAPERS_COUNT = 5
Cells = Mapping[tuple[str, AgentKey], list[Row]]


def gains_table(rows: Sequence[Row], environment: str) -> Table:
    """Makes the table of each learner with synthetic trajectories minus it without them.

    Differences are paired by episode; a cell is better or worse where the 95 % interval of the
    difference excludes 0, else a tie.
    """
    sheet, cells = _random_cells(rows, environment)
    lines = []
    for method in ordered({name for name, _ in cells if _count(name)}, METHOD_ORDER):
        for plain in _plain(method):
            if any(name == plain for name, _ in cells):
                found = tuple(
                    difference_cell(cells.get((method, key), []), cells.get((plain, key), []), name)
                    for key, name in _agents(sheet)
                )
                labels = (model.method_name(method), model.method_name(plain))
                lines.append(Line(labels, found, BEHAVIOR, method))
    return Table(
        name="gains",
        environment=environment,
        title=f"{model.environment_name(environment)}, Random: return with synthetic trajectories "
        "minus return without, paired by episode",
        stubs=("Method", "Against"),
        columns=tuple(Column(name) for _, name in _agents(sheet)),
        lines=tuple(lines),
        notes=("Marks: the 95 % interval of the difference lies above 0, holds 0, lies below 0.",),
    )


def gain_sentences(rows: Sequence[Row], environment: str) -> list[str]:
    """Says in how many cells PerSim-X-5 is at or above both X-P and X-A, and above both.

    Means over trials are compared; equal ones, such as MountainCar's floor, are ties.
    """
    sheet, cells = _random_cells(rows, environment)
    sentences = []
    for learner in ("bcq", "cql"):
        names = (f"persim_{learner}_{PAPERS_COUNT}", f"{learner}_p", f"{learner}_a")
        found = [
            [_mean(cells[name, key]) for name in names]
            for key, _ in _agents(sheet)
            if all((name, key) in cells for name in names)
        ]
        if found:
            reached = sum(ours >= max(others) for ours, *others in found)
            above = sum(ours > max(others) for ours, *others in found)
            sentences.append(
                f"Synthetic trajectories, {model.environment_name(environment)}, Random: "
                f"{model.method_name(names[0])} is at or above both {model.method_name(names[1])} "
                f"and {model.method_name(names[2])} in {reached} of {len(found)} cells, above both "
                f"in {above}."
            )
    return sentences


def _random_cells(rows: Sequence[Row], environment: str) -> tuple[Sheet, Cells]:
    """Rows of offline learners on random data, by method and agent."""
    sheet = make_sheet(
        rows,
        environment,
        3,
        ("return_mean",),
        lambda r: r["behavior"] == BEHAVIOR and parse_name(r["method"]) is not None,
    )
    return sheet, {(method, key): found for (_, method, key, _), found in sheet.cells.items()}


def _agents(sheet: Sheet) -> list[tuple[AgentKey, str]]:
    return [
        (paper.agent_key(sheet.environment, agent), model.agent_name(agent))
        for agent in sheet.agents
    ]


def _count(method: str) -> int:
    """Number of synthetic trajectories of a method; 0 for one without."""
    about = parse_name(method)
    return 0 if about is None else about.num_synthetic


def _plain(method: str) -> tuple[str, str]:
    """The learner without synthetic trajectories, on all agents' data and on one's."""
    about = parse_name(method)
    assert about is not None
    return f"{about.learner}_p", f"{about.learner}_a"


def _mean(rows: Sequence[Row]) -> float:
    return aggregate.mean_and_std(trial_values(rows))[0]
