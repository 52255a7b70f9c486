"""What the tables say, in sentences: where we are ahead of the paper and where behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from experiments.records import TRUE_ENV, Row
from experiments.reporting import model
from experiments.reporting.build import CONTROL, PREDICTION, in_table_2
from experiments.reporting.measures import BETTER, SAME, WORSE, Measure, reached
from experiments.reporting.model import Table
from experiments.reporting.sheet import Sheet, make_sheet, shortfall_pairs
from persim_jax.evaluation import aggregate, paper
from persim_jax.evaluation.aggregate import Estimate


def prediction_sentence(rows: Sequence[Row], environment: str, method: str = "persim") -> str:
    """Says in how many cells of Table 1 a method reaches the paper's error, and half of it."""
    sheet = make_sheet(rows, environment, 1, PREDICTION)
    errors = [m for m in _measures(sheet, method) if m.metric == "rmse_mean" and m.paper]
    if not errors:
        return ""
    at, half = sum(map(reached, errors)), sum(reached(m, 0.5) for m in errors)
    return (
        f"Prediction, {model.environment_name(environment)}: {model.method_name(method)}'s RMSE is "
        f"at or below the paper's in {at} of {_cells(len(errors))}, at or below half of it in "
        f"{half}."
    )


def control_sentence(rows: Sequence[Row], environment: str, method: str = "persim") -> str:
    """Says how a method's returns stand against the paper's and the true environment's."""
    sheet = _control_sheet(rows, environment)
    returns = [m for m in _measures(sheet, method) if m.paper]
    parts = []
    if returns:
        count = Counter(m.verdict for m in returns)
        parts.append(
            f"better than the paper's in {count[BETTER]} of {_cells(len(returns))}, the same in "
            f"{count[SAME]}, worse in {count[WORSE]}"
        )
    shortfall, num_cells = mean_shortfall(sheet, method)
    if num_cells:
        interval = model.interval_text(shortfall.low, shortfall.high, 1, 100.0)
        parts.append(
            " ".join(
                [
                    "mean shortfall against True env + MPC",
                    _percent(shortfall.value),
                    *([interval] if interval else []),
                    f"over {_cells(num_cells)}",
                ]
            )
        )
        theirs, num_theirs = paper_shortfall(sheet, method)
        if num_theirs:
            parts[-1] += f" (the paper's own numbers: {_percent(theirs)} over {num_theirs})"
    if not parts:
        return ""
    head = f"Return, {model.environment_name(environment)}, {model.method_name(method)}: "
    return f"{head}{'; '.join(parts)}."


def difference_sentences(table: Table) -> list[str]:
    """Says against every other method in how many cells the reference is ahead, level, behind."""
    counts: dict[str, Counter[str]] = {}
    for line in table.lines:
        count = counts.setdefault(line.method, Counter())
        count.update(m.verdict for cell in line.cells for m in cell.measures)
    return [
        f"{model.environment_name(table.environment)}, return against {model.method_name(method)}: "
        f"ahead in {count[BETTER]}, level in {count[SAME]}, behind in {count[WORSE]} cells"
        + (f"; {count['']} of a single episode decide nothing." if count[""] else ".")
        for method, count in counts.items()
        if count
    ]


def standing(table: Table, method: str = "persim") -> list[str]:
    """Says in which cells of a table a method is ahead of the paper and in which behind."""
    named: dict[str, list[str]] = {BETTER: [], SAME: [], WORSE: []}
    for line in table.lines:
        for cell in line.cells if line.method == method else ():
            verdict = cell.pieces[0][1]
            if verdict:
                named[verdict].append(f"{cell.agent} ({line.labels[0]})")
    words = {BETTER: "Ahead of the paper", SAME: "Level with it", WORSE: "Behind it"}
    return [f"{words[v]}: {', '.join(cells)}." for v, cells in named.items() if cells]


def mean_shortfall(sheet: Sheet, method: str) -> tuple[Estimate, int]:
    """Returns a method's mean shortfall over cells and the number of cells."""
    pairs = [pair for (_, name, _), pair in shortfall_pairs(sheet).items() if name == method]
    return aggregate.relative_shortfall(pairs).mean, len(pairs)


def paper_shortfall(sheet: Sheet, method: str) -> tuple[float, int]:
    """Returns the mean shortfall of the paper's means, over those of our cells that it prints."""
    values = []
    for behavior, name, key, metric in sheet.cells:
        agent = next(a for a in sheet.agents if paper.agent_key(sheet.environment, a) == key)
        true = sheet.paper("any", TRUE_ENV, agent, metric)
        theirs = sheet.paper(behavior, method, agent, metric)
        if name == method and true is not None and theirs is not None:
            values.append((true.value - theirs.value) / abs(true.value))
    return aggregate.mean_and_std(values)[0], len(values)


def _control_sheet(rows: Sequence[Row], environment: str) -> Sheet:
    return make_sheet(rows, environment, 2, CONTROL, lambda r: in_table_2(r["method"]))


def _measures(sheet: Sheet, method: str) -> list[Measure]:
    lines = dict.fromkeys(key[0] for key in sheet.cells if key[1] == method)
    return [m for b in lines for agent in sheet.agents for m in sheet.measures(b, method, agent)]


def _cells(count: int) -> str:
    return f"{count} cell{'' if count == 1 else 's'}"


def _percent(share: float) -> str:
    return f"{model.minus(f'{100 * share:.1f}')} %"
