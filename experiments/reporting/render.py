"""Tables to Markdown, HTML, LaTeX and CSV."""

from __future__ import annotations

import csv
import html
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence

from experiments.reporting.measures import BETTER, SAME, WORSE
from experiments.reporting.model import Cell, Column, Line, Table

MARKS: Mapping[str, str] = {BETTER: "▲", SAME: "=", WORSE: "▼", "": ""}
LEGEND = (
    "▲ better than the paper, = the same, ▼ worse. Numbers are the same when equal as the paper "
    "printed them (an error printed as 0.0: below 0.005), and when the 95 % interval of the "
    "difference holds 0: ours over episodes or, if wider, over trials, and the paper's spread over "
    "five trials where it prints one. In brackets: 95 % bootstrap interval of the mean over "
    "episodes. Shortfall: (R_true − R_method) / |R_true|, episodes paired."
)
DIVERGED = (
    "Diverged: predictions left the finite numbers in at least one episode of a trial, as to the "
    "median R² in half of them. A mean with such a trial is infinite: worse than any number."
)
_BARE = re.compile(r"–|[−\d.,]+")
_LATEX_MARKS: Mapping[str, str] = {
    BETTER: r"$\uparrow$",
    SAME: "$=$",
    WORSE: r"$\downarrow$",
    "": "",
}
_LATEX = str.maketrans(
    {
        "&": r"\&",
        "%": r"\%",
        "$": r"\$",
        "#": r"\#",
        "_": r"\_",
        "{": r"\{",
        "}": r"\}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "\\": r"\textbackslash{}",
        "−": "$-$",
        "–": "--",
        "±": r"$\pm$",
        "×": r"$\times$",
        "²": "$^2$",
        "ε": r"$\varepsilon$",
        "∞": r"$\infty$",
        "▲": r"$\uparrow$",
        "▼": r"$\downarrow$",
        "|": r"$|$",
    }
)
CSV_FIELDS = (
    "table",
    "environment",
    "behavior",
    "method",
    "agent",
    "metric",
    "value",
    "std",
    "low",
    "high",
    "num_trials",
    "num_diverged",
    "num_episodes",
    "paper",
    "paper_std",
    "verdict",
    "command",
)


def to_markdown(table: Table, level: int = 3) -> str:
    """Renders a table as GitHub's Markdown under a heading of a level (0: none)."""
    lines = [f"{'#' * level} {table.title}", ""] if level else []
    if table.lines:
        heads = [*table.stubs, *(_markdown_head(column) for column in table.columns)]
        rules = ["---"] * len(table.stubs) + [":-:"] * len(table.columns)
        lines += [_pipes(heads), _pipes(rules)]
        lines += [_pipes([*x.labels, *map(_markdown_cell, x.cells)]) for x in table.lines]
        lines.append("")
    lines += [f"{note}\n" for note in footnotes(table)]
    return "\n".join(lines).rstrip() + "\n"


def to_html(table: Table) -> str:
    """Renders a table as an HTML figure; marks carry their meaning for those who hear it."""
    heads = "".join(f'<th scope="col">{html.escape(stub)}</th>' for stub in table.stubs)
    for column in table.columns:
        note = f"<small>{html.escape(column.note)}</small>" if column.note else ""
        heads += f'<th scope="col" class="num">{html.escape(column.name)}{note}</th>'
    body = []
    for line in table.lines:
        title = f' title="{html.escape(line.command)}"' if line.command else ""
        labels = "".join(
            f'<th scope="row"{title}>{html.escape(label)}</th>' for label in line.labels
        )
        body.append(f"<tr>{labels}{''.join(_html_cell(cell) for cell in line.cells)}</tr>")
    name = "-".join(part for part in (table.name, table.environment) if part)
    grid = (
        f'<div class="scroll {table.name}" tabindex="0" role="region" aria-labelledby="{name}">'
        f'<table aria-labelledby="{name}"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )
    grid = f'<h3 id="{name}">{html.escape(table.title)}</h3>{grid if table.lines else ""}'
    notes = "".join(f'<p class="note">{html.escape(note)}</p>' for note in footnotes(table))
    return grid + notes + _html_commands(table)


def commands(table: Table) -> list[tuple[str, str]]:
    """Returns `(labels, command)` of every line whose command is known."""
    return [(", ".join(line.labels), line.command) for line in table.lines if line.command]


def _html_commands(table: Table) -> str:
    items = "".join(
        f"<dt>{html.escape(labels)}</dt><dd><code>{html.escape(command)}</code></dd>"
        for labels, command in commands(table)
    )
    if not items:
        return ""
    summary = "<summary>The command of each line</summary>"
    return f'<details class="commands">{summary}<dl>{items}</dl></details>'


def to_latex(table: Table) -> str:
    """Renders a table for LaTeX with the packages `booktabs` and `graphicx`."""
    if not table.lines:
        return "\n".join(f"% {note}" for note in (table.title, *footnotes(table))) + "\n"
    heads = [latex(stub) for stub in table.stubs]
    heads += [_stack([column.name, column.note]) for column in table.columns]
    body = [[*map(latex, x.labels), *map(_latex_cell, x.cells)] for x in table.lines]
    notes = " ".join(latex(note) for note in footnotes(table))
    label = "-".join(part for part in (table.name, table.environment) if part).replace("_", "-")
    rows = "\n".join(" & ".join(line) + r" \\" for line in body)
    spec = "l" * len(table.stubs) + "c" * len(table.columns)
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            r"\centering",
            rf"\caption{{{latex(table.title)}}}",
            rf"\label{{tab:{label}}}",
            r"\resizebox{\textwidth}{!}{%",
            rf"\begin{{tabular}}{{{spec}}}",
            r"\toprule",
            " & ".join(heads) + r" \\",
            r"\midrule",
            rows,
            r"\bottomrule",
            r"\end{tabular}}",
            rf"\par\smallskip{{\footnotesize {notes}}}" if notes else "%",
            r"\end{table}",
            "",
        ]
    )


def to_csv(tables: Iterable[Table]) -> str:
    """Renders tables as one CSV: a line per number, with ours, the paper's, and the verdict.

    Cells that hold text only, such as those of the cost table, are in Markdown and HTML.
    """
    file = io.StringIO()
    writer = csv.DictWriter(file, CSV_FIELDS, lineterminator="\n")
    writer.writeheader()
    for table in tables:
        for line in table.lines:
            for cell in line.cells:
                writer.writerows(_records(table, line, cell))
    return file.getvalue()


def footnotes(table: Table) -> list[str]:
    """Returns the sentences below a table: its notes, what diverged means, what is missing."""
    notes = list(table.notes)
    if any(m.num_diverged for line in table.lines for cell in line.cells for m in cell.measures):
        notes.append(DIVERGED)
    if table.missing:
        shown = "; ".join(table.missing[:12])
        more = f"; and {len(table.missing) - 12} more" if len(table.missing) > 12 else ""
        notes.append(f"Missing: {shown}{more}.")
    return notes


def latex(text: str) -> str:
    """Escapes text for LaTeX."""
    return text.translate(_LATEX)


def _records(table: Table, line: Line, cell: Cell) -> list[dict[str, object]]:
    return [
        {
            "table": table.name,
            "environment": line.environment or table.environment,
            "behavior": line.behavior,
            "method": line.method,
            "agent": cell.agent,
            "metric": m.metric,
            "value": _number(m.value),
            "std": _number(m.std),
            "low": _number(m.low),
            "high": _number(m.high),
            "num_trials": m.num_trials,
            "num_diverged": m.num_diverged,
            "num_episodes": m.num_episodes,
            "paper": None if m.paper is None else m.paper.value,
            "paper_std": None if m.paper is None else m.paper.std,
            "verdict": m.verdict,
            "command": line.command,
        }
        for m in cell.measures
    ]


def _number(value: float) -> str:
    """Empty where it is unknown; `inf` or `-inf` of what diverged."""
    return "" if math.isnan(value) else f"{value:.6g}"


def _marked(cell: Cell) -> str:
    return " ".join(f"{text} {MARKS[verdict]}".strip() for text, verdict in cell.pieces)


def _pipes(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_head(column: Column) -> str:
    return column.name + (f"<br><sub>{column.note}</sub>" if column.note else "")


def _markdown_cell(cell: Cell) -> str:
    below = [cell.extra, f"paper {cell.paper}" if cell.paper else ""]
    text = _marked(cell) + "".join(f"<br><sub>{part}</sub>" for part in below if part)
    return text.replace("|", r"\|")


def _html_cell(cell: Cell) -> str:
    pieces = []
    for text, verdict in cell.pieces:
        mark = ""
        if verdict:
            mark = (
                f' <span class="mark {verdict}" role="img" aria-label="{verdict}" '
                f'title="{verdict}">{MARKS[verdict]}</span>'
            )
        # Most of a page's cells are a bare number or a dash, which no line breaks anyway.
        bare = not verdict and _BARE.fullmatch(text)
        pieces.append(text if bare else f'<span class="piece">{_unbroken(text)}{mark}</span>')
    below = f"<small>{_unbroken(cell.extra)}</small>" if cell.extra else ""
    if cell.paper:
        below += f'<small class="paper">paper {_unbroken(cell.paper)}</small>'
    verdict = cell.pieces[0][1]
    opening = f'<td class="{verdict}">' if verdict else "<td>"
    return f"{opening}{' '.join(pieces)}{below}</td>"


def _unbroken(text: str) -> str:
    """Returns text for HTML whose lines do not break inside a number with its spread."""
    for apart in (" ± ", ", ", " %"):
        text = text.replace(apart, apart.replace(" ", "\N{NO-BREAK SPACE}"))
    return html.escape(text)


def _latex_cell(cell: Cell) -> str:
    first = " ".join(f"{latex(text)}{_LATEX_MARKS[verdict]}" for text, verdict in cell.pieces)
    below = [cell.extra, f"paper {cell.paper}" if cell.paper else ""]
    return _stack_latex([first, *(rf"{{\scriptsize {latex(part)}}}" for part in below if part)])


def _stack(parts: Sequence[str]) -> str:
    return _stack_latex([latex(part) for part in parts if part])


def _stack_latex(parts: Sequence[str]) -> str:
    if len(parts) == 1:
        return parts[0]
    stacked = r" \\ ".join(parts)
    return rf"\begin{{tabular}}[c]{{@{{}}c@{{}}}}{stacked}\end{{tabular}}"
