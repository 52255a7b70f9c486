"""A report as Markdown and as LaTeX; both show the figures that lie beside them."""

from __future__ import annotations

import json

from experiments.reporting.content import Content
from experiments.reporting.page import SUBTITLE
from experiments.reporting.render import LEGEND, latex, to_latex, to_markdown


def to_markdown_report(content: Content) -> str:
    """Renders a report as Markdown, figures by relative path."""
    workdir = content.workdir
    parts = [f"# Report: {workdir.title}", SUBTITLE, "## Verdict"]
    parts += [f"**{line}**" for line in content.headlines]
    parts += [_bullets(content.sentences)] if content.sentences else []
    if content.details:
        parts += ["Cell by cell:", _bullets(content.details)]
    if content.missing:
        parts += ["Not there yet:", _bullets(content.missing)]
    parts.append("## Tables")
    if any(table.compares for table in content.tables):
        parts.append(LEGEND)
    parts += [to_markdown(table).strip() for table in content.tables]
    if content.pictures:
        parts.append("## Figures")
    for picture in content.pictures:
        source = picture.path.relative_to(workdir.path).as_posix()
        parts += [f"### {picture.title}", f"![{picture.alt}]({source})", picture.caption]
    if workdir.jobs:
        parts += ["## Runs", _bullets(workdir.jobs)]
    parts.append("## How it was made")
    if workdir.stamp.get("command"):
        parts.append(f"```\n{workdir.stamp['command']}\n```")
    facts = [
        f"{k.replace('_', ' ')}: {v}" for k, v in workdir.stamp.items() if k != "command" and v
    ]
    parts += [_bullets(facts)] if facts else []
    if workdir.config:
        parts.append(f"```json\n{json.dumps(workdir.config, indent=2, ensure_ascii=False)}\n```")
    return "\n\n".join(parts) + "\n"


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
        r"\section*{Verdict}",
        _items((*content.headlines, *content.sentences)),
    ]
    if content.missing:
        lines += [r"Not there yet:", _items(content.missing)]
    lines += [r"\section*{Tables}", latex(LEGEND)]
    lines += [to_latex(table) for table in content.tables]
    for picture in content.pictures:
        if picture.path.suffix == ".gif":  # paper does not move
            continue
        source = picture.path.relative_to(workdir.path).as_posix()
        lines += [
            r"\begin{figure}[htbp]",
            r"\centering",
            rf"\includegraphics[width=\textwidth,height=0.8\textheight,keepaspectratio]{{{source}}}",
            rf"\caption{{{latex(picture.title)}. {latex(picture.caption)}}}",
            r"\end{figure}",
        ]
    if workdir.stamp.get("command"):
        command = latex(str(workdir.stamp["command"]))
        lines += [r"\section*{How it was made}", rf"\texttt{{{command}}}"]
    return "\n".join([*lines, r"\end{document}", ""])


def _bullets(items: tuple[str, ...] | list[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _items(items: tuple[str, ...]) -> str:
    inside = "\n".join(rf"\item {latex(item)}" for item in items)
    return f"\\begin{{itemize}}\n{inside}\n\\end{{itemize}}"
