"""A validation as one HTML file that needs nothing beside it."""

from __future__ import annotations

import html
import json
import pathlib
import string
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from experiments.figures.validation import plot_agents, plot_coverage, plot_gain, plot_rivals
from experiments.reporting import validation_words as words
from experiments.reporting.page import data_uri
from persim_jax.validation.config import ValidationConfig
from persim_jax.validation.judgement import Findings
from persim_jax.validation.verdicts import DO_NOT_TRUST, TRUST, TRUST_UP_TO, AgentVerdict, counted

_TEMPLATE = pathlib.Path(__file__).with_name("page_template.html")
_RANK = {DO_NOT_TRUST: 0, TRUST_UP_TO: 1, TRUST: 2}
_CLASSES = {DO_NOT_TRUST: "worse", TRUST_UP_TO: "", TRUST: "better"}
LONG = 60
"""Verdicts beyond which those that say "trust" are folded away."""


def to_page(
    findings: Findings, config: ValidationConfig, facts: Mapping[str, Any], choices: Any
) -> str:
    """Renders a validation.

    Args:
      findings: What was found.
      config: How it was found.
      facts: Of the data and of this computation, by name.
      choices: Of the procedure that was judged; plain data.
    """
    sections = [
        ("verdict", "In short", _short(findings, config)),
        ("errors", "How far simulated paths go astray", _errors(findings)),
        ("difference", "Do agents differ?", _difference(findings)),
        ("intervals", "Do intervals hold?", _intervals(findings, config)),
        ("support", "Where the data end", _support(findings, config)),
        ("method", "How this was judged", _list(words.how_judged(findings, config))),
        ("conditions", "How it was made", _conditions(facts, choices)),
        ("agents", "Verdict on each agent", _agents(findings, config)),
    ]
    body = "\n".join(
        f'<section id="{name}" aria-labelledby="{name}-head"><h2 id="{name}-head">{title}</h2>'
        f"{inside}</section>"
        for name, title, inside in sections
    )
    template = string.Template(_TEMPLATE.read_text(encoding="utf8"))
    return template.substitute(
        title=html.escape(f"Can these simulators be trusted? {facts['data']}"),
        subtitle=html.escape(
            "Simulators of many agents, each learned from one short record, tested on what they "
            "had not seen"
        ),
        contents="".join(f'<a href="#{name}">{title}</a>' for name, title, _ in sections),
        body=body,
        footer=html.escape(f"Code version {facts['code version']}."),
    )


def _short(findings: Findings, config: ValidationConfig) -> str:
    said = _list(words.sentences(findings, config))
    return (
        f'<div class="verdict"><p><strong>{html.escape(words.headline(findings))}</strong></p>'
        f"{said}</div>"
    )


def _errors(findings: Findings) -> str:
    panels = {
        "known agents, the end of their records": findings.tails.errors,
        "new agents": findings.unseen.errors,
    }
    return _figure(
        lambda path: plot_rivals(panels, path),
        "Errors grow with the number of simulated steps",
        "Lower is better; each line of the grid is ten times the one below. At the grey line, 1, a "
        "simulation is no better than always guessing the average. A line may fall where fewer "
        "records are long enough to count.",
        "Lines of the error of the personal simulators and their three rivals over the steps.",
    )


def _difference(findings: Findings) -> str:
    parts = {"known agents": findings.tails.gain, "new agents": findings.unseen.gain}
    figure = _figure(
        lambda path: plot_gain({k: (g.gain, g.low, g.high) for k, g in parts.items()}, path),
        "What it is worth to know who is who",
        "Zero is a simulator that treats all agents alike. Bars are 95 % intervals; where one "
        "reaches zero, no difference was found.",
        "Gain of personal simulators over a pooled one, with intervals.",
    )
    return f"<p>{html.escape(words.heterogeneity_sentence(findings.tails.gain))}</p>{figure}"


def _intervals(findings: Findings, config: ValidationConfig) -> str:
    part = findings.unseen
    figure = _figure(
        lambda path: plot_coverage(
            [found[:3] for found in part.before], [found[:5] for found in part.after], path
        ),
        "How often intervals held on new agents",
        "Open marks are intervals as the model gives them, filled ones were rescaled on other "
        "agents, bars are the 95 % intervals of these. The grey line is what they promise.",
        "Share of values inside intervals, before and after rescaling, with the nominal level.",
    )
    rows = [
        [
            f"{new.level:.0%}", new.step, words.share_text(old.share),
            words.rescaled_text(old, new), new.windows,
        ]
        for old, new in zip(part.before, part.after, strict=True)
    ]  # fmt: skip
    head = ["Should hold", "Step", "As given", "Rescaled (95 % interval)", "Paths"]
    return figure + _table(head, rows)


def _support(findings: Findings, config: ValidationConfig) -> str:
    judged = [v for v in findings.verdicts if v.judged]
    limits = (config.trust.max_error, config.trust.max_outside)
    return _figure(
        lambda path: plot_agents(
            [v.error for v in judged], [v.outside for v in judged],
            [_RANK[v.verdict] for v in judged], limits, path,
        ),
        "Each agent: how wrong, and how far from the data",
        "Dashed lines are the limits of trust. An agent at the top was mostly in states, or took "
        "actions, that the data hardly contain.",
        "A scatter of agents by error and by the share of their steps outside the data.",
    )  # fmt: skip


def _agents(findings: Findings, config: ValidationConfig) -> str:
    rules = _list(words.thresholds(config))
    doubtful = [v for v in findings.verdicts if v.verdict != TRUST]
    if len(findings.verdicts) <= LONG:
        return rules + _verdicts(findings.verdicts)
    trusted = [v for v in findings.verdicts if v.verdict == TRUST]
    which = counted(len(trusted), "agent")
    folded = (
        f"<details><summary>The {which} that can be trusted</summary>{_verdicts(trusted)}</details>"
        if trusted
        else ""
    )
    shown = f"<h3>Agents with a limit</h3>{_verdicts(doubtful)}" if doubtful else ""
    return rules + shown + folded


def _verdicts(verdicts: Iterable[AgentVerdict]) -> str:
    rows = [
        [
            str(v.agent), ("", words.verdict_words(v), _CLASSES[v.verdict]),
            "known" if v.known else "new", v.judged,
            f"{v.error:.1%}" if v.judged else "", f"{v.outside:.0%}" if v.judged else "", v.reason,
        ]
        for v in verdicts
    ]  # fmt: skip
    head = ["Agent", "Verdict", "To training", "Steps tested", "Error", "Unlike the data", "Why"]
    return _table(head, rows)


def _conditions(facts: Mapping[str, Any], choices: Any) -> str:
    listed = "".join(
        f"<dt>{html.escape(str(name))}</dt><dd>{html.escape(str(value))}</dd>"
        for name, value in facts.items()
    )
    text = html.escape(json.dumps(choices, indent=1, ensure_ascii=False))
    return (
        f"<dl>{listed}</dl><details><summary>Choices of the procedure that was judged</summary>"
        f"<pre>{text}</pre></details>"
    )


def _table(head: list[str], rows: list[list[Any]]) -> str:
    top = "".join(f'<th class="num">{html.escape(name)}</th>' for name in head)
    lines = []
    for row in rows:
        cells = [
            f'<td class="{cell[2]}">{html.escape(cell[1])}</td>'
            if isinstance(cell, tuple)
            else f"<td>{html.escape(str(cell))}</td>"
            for cell in row
        ]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{top}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _figure(paint: Callable[[pathlib.Path], Any], title: str, caption: str, alt: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "figure.svg"
        paint(path)
        image = f'<img src="{data_uri(path)}" alt="{html.escape(alt)}">'
    return (
        f"<figure>{image}<figcaption><strong>{html.escape(title)}.</strong> "
        f"{html.escape(caption)}</figcaption></figure>"
    )


def _list(items: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{html.escape(item)}</li>' for item in items)}</ul>"
