"""A report as Markdown and as LaTeX; both show the figures that lie beside them."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Sequence

from experiments.figures.gallery import Picture
from experiments.reporting.content import Content
from experiments.reporting.page import SUBTITLE
from experiments.reporting.render import LEGEND, commands, latex, to_latex, to_markdown
from experiments.reporting.workdir import Workdir


def to_markdown_report(content: Content) -> str:
    """Renders a report as Markdown, figures by relative path."""
    workdir = content.workdir
    parts = [f"# Report: {workdir.title}", SUBTITLE, "## Where we stand"]
    parts += [f"**{line}**" for line in (content.lead, *content.headlines) if line]
    parts += [_bullets(_counts(content))] if content.counts else []
    parts += [to_markdown(table).strip() for table in content.behind]
    parts += [_bullets(content.sentences)] if content.sentences else []
    parts += _markdown_missing(content)
    for section in content.sections:
        parts.append(f"## {section.title}")
        if any(table.compares for table in section.tables) and section.name == "tables":
            parts.append(LEGEND)
        parts += [to_markdown(table).strip() for table in section.tables]
        for picture in section.pictures:
            source = _source(picture, workdir)
            parts += [f"### {picture.title}", f"![{picture.alt}]({source})", picture.caption]
    if workdir.jobs:
        parts += ["## Runs", _bullets(workdir.jobs)]
    parts += _markdown_conditions(content)
    return "\n\n".join(parts) + "\n"


def _markdown_missing(content: Content) -> list[str]:
    parts = [_bullets(content.missing)] if content.missing else []
    if content.coverage.gaps:
        parts += [content.coverage.sentence, to_markdown(content.coverage.table).strip()]
    for gap in content.coverage.gaps:
        trials = ", ".join(map(str, gap.trials))
        parts.append(f"{gap.title}, trial {trials}: {gap.num_cells} cells without rows")
        parts += [_bullets(gap.cells), f"```\n{gap.command}\n```"]
    return ["## Not there yet", *parts] if parts else []


def _markdown_conditions(content: Content) -> list[str]:
    workdir = content.workdir
    parts = ["## How it was made"]
    if workdir.stamp.get("command"):
        parts.append(f"```\n{workdir.stamp['command']}\n```")
    facts = [
        f"{k.replace('_', ' ')}: {v}" for k, v in workdir.stamp.items() if k != "command" and v
    ]
    parts += [_bullets(facts)] if facts else []
    if workdir.config:
        parts.append(f"```json\n{json.dumps(workdir.config, indent=2, ensure_ascii=False)}\n```")
    for table in content.tables:
        if found := commands(table):
            parts.append(f"### Commands: {table.title}")
            parts += [f"{labels}:\n\n```\n{command}\n```" for labels, command in found]
    return parts


def _counts(content: Content) -> list[str]:
    return [
        f"{count.title}, {'PerSim' if count.is_ours else 'other methods'}: {count.better} better, "
        f"{count.same} the same, {count.worse} worse"
        for count in content.counts
    ]


def _source(picture: Picture, workdir: Workdir) -> str:
    """The path of a picture from the folder of the report."""
    return pathlib.Path(os.path.relpath(picture.path, workdir.path)).as_posix()


def to_latex_report(content: Content) -> str:
    """Renders a report as a LaTeX document that compiles beside its `figures/`."""
    workdir = content.workdir
    lines = [
        r"\documentclass[10pt]{article}",
        r"\usepackage[a4paper,landscape,margin=18mm]{geometry}",
        r"\usepackage[T1]{fontenc}",
        r"\usepackage{booktabs,graphicx}",
        rf"\title{{{latex(workdir.title)}}}",
        rf"\author{{{latex(SUBTITLE)}}}",
        r"\date{}",
        r"\begin{document}",
        r"\maketitle",
        r"\section*{Where we stand}",
        _items((*filter(None, [content.lead]), *content.headlines, *content.sentences)),
    ]
    lines += [to_latex(table) for table in content.behind]
    missing = [*content.missing, *_latex_gaps(content)]
    if missing:
        lines += [r"\section*{Not there yet}", _items(missing)]
    lines += [r"\section*{Tables}", latex(LEGEND)]
    lines += [to_latex(table) for table in content.tables]
    lines += _latex_figures(content)
    lines += _latex_conditions(content)
    return "\n".join([*lines, r"\end{document}", ""])


def _latex_gaps(content: Content) -> list[str]:
    found = content.coverage
    trials = {gap: ", ".join(map(str, gap.trials)) for gap in found.gaps}
    named = [
        f"{gap.title}, trial {trials[gap]}: {'; '.join(gap.cells)}. {gap.command}"
        for gap in found.gaps
    ]
    return [found.sentence, *named] if named else []


def _latex_figures(content: Content) -> list[str]:
    lines: list[str] = []
    for picture in content.pictures:
        if picture.path.suffix == ".gif":  # paper does not move
            continue
        source = _source(picture, content.workdir)
        lines += [
            r"\begin{figure}[htbp]",
            r"\centering",
            rf"\includegraphics[width=\textwidth,height=0.8\textheight,keepaspectratio]{{{source}}}",
            rf"\caption{{{latex(picture.title)}. {latex(picture.caption)}}}",
            r"\end{figure}",
        ]
    return lines


def _latex_conditions(content: Content) -> list[str]:
    lines = [r"\section*{How it was made}"]
    if command := content.workdir.stamp.get("command"):
        lines.append(rf"\texttt{{{latex(str(command))}}}")
    for table in content.tables:
        if found := commands(table):
            lines.append(rf"\subsection*{{Commands: {latex(table.title)}}}")
            lines.append(
                "\n\n".join(
                    rf"{latex(labels)}: {{\scriptsize\texttt{{{latex(command)}}}}}"
                    for labels, command in found
                )
            )
    return lines


def _bullets(items: Sequence[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _items(items: Sequence[str]) -> str:
    inside = "\n".join(rf"\item {latex(item)}" for item in items)
    return f"\\begin{{itemize}}\n{inside}\n\\end{{itemize}}"
