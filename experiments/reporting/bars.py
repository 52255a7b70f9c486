"""How cells stand against the paper, as bars of a page: seen at once, heard as words."""

from __future__ import annotations

import html
from collections.abc import Sequence

from experiments.reporting.measures import BETTER, SAME, WORSE
from experiments.reporting.render import MARKS
from experiments.reporting.standing import Count

_WORDS = {BETTER: "better", SAME: "the same", WORSE: "worse"}


def to_bars(counts: Sequence[Count]) -> str:
    """Renders counts as one bar each, PerSim's first; empty without any."""
    groups = {
        "PerSim against the paper's PerSim": [count for count in counts if count.is_ours],
        "Other methods against the paper's runs of them": [c for c in counts if not c.is_ours],
    }
    parts = []
    for title, found in groups.items():
        if found:
            bars = "".join(map(_bar, found))
            parts.append(f'<h3>{html.escape(title)}</h3><ul class="bars">{bars}</ul>')
    legend = ", ".join(f"{MARKS[verdict]} {word}" for verdict, word in _WORDS.items())
    note = f"Cells by their error or return against the paper's: {legend}."
    if any(count.absent for count in counts):
        note += " Dashed: cells without rows yet."
    return f'{"".join(parts)}<p class="note">{html.escape(note)}</p>' if parts else ""


def _bar(count: Count) -> str:
    numbers = {BETTER: count.better, SAME: count.same, WORSE: count.worse}
    pieces = "".join(
        f'<span class="bar {verdict}" style="flex-grow:{number}">{MARKS[verdict]} {number}</span>'
        for verdict, number in numbers.items()
        if number
    )
    words = ", ".join(f"{number} {_WORDS[verdict]}" for verdict, number in numbers.items())
    if count.absent:
        pieces += f'<span class="bar absent" style="flex-grow:{count.absent}">{count.absent}</span>'
        words += f", {count.absent} without rows"
    title = html.escape(count.title)
    return (
        f'<li><span class="bar-name">{title}</span>'
        f'<span class="bar-row" role="img" aria-label="{title}: {words}">{pieces}</span></li>'
    )
