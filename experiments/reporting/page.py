"""A report as one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import html
import json
import pathlib
import string
from collections.abc import Iterable

from experiments.figures.gallery import Picture
from experiments.reporting.content import Content
from experiments.reporting.render import LEGEND, to_html

_TEMPLATE = pathlib.Path(__file__).with_name("page_template.html")
SUBTITLE = "PerSim in JAX: personalized simulators, beside the numbers of the paper"


def to_page(content: Content) -> str:
    """Renders a report; images are inside the page."""
    sections = [
        ("verdict", "Verdict", _verdict(content)),
        ("tables", "Tables", _tables(content)),
        ("figures", "Figures", "".join(_figure(picture) for picture in content.pictures)),
        ("runs", "Runs", _list(content.workdir.jobs)),
        ("conditions", "How it was made", _conditions(content)),
    ]
    shown = [section for section in sections if section[2]]
    body = "\n".join(
        f'<section id="{name}" aria-labelledby="{name}-head"><h2 id="{name}-head">{title}</h2>'
        f"{inside}</section>"
        for name, title, inside in shown
    )
    template = string.Template(_TEMPLATE.read_text(encoding="utf8"))
    return template.substitute(
        title=html.escape(f"Report: {content.workdir.title}"),
        subtitle=html.escape(SUBTITLE),
        contents="".join(f'<a href="#{name}">{title}</a>' for name, title, _ in shown),
        body=body,
        footer=html.escape(_made_by(content)),
    )


def _verdict(content: Content) -> str:
    lines = "".join(f"<p><strong>{html.escape(line)}</strong></p>" for line in content.headlines)
    parts = [f'<div class="verdict">{lines}{_list(content.sentences)}</div>']
    if content.details:
        inside = _list(content.details)
        parts.append(f"<details><summary>Cell by cell</summary>{inside}</details>")
    if content.missing:
        inside = _list(content.missing)
        parts.append(f'<div class="missing"><strong>Not there yet</strong>{inside}</div>')
    return "".join(parts)


def _tables(content: Content) -> str:
    legend = f'<p class="note">{html.escape(LEGEND)}</p>'
    shown = "".join(to_html(table) for table in content.tables)
    return (legend if any(table.compares for table in content.tables) else "") + shown


def _figure(picture: Picture) -> str:
    title, caption, alt = (html.escape(x) for x in (picture.title, picture.caption, picture.alt))
    image = f'<img src="{data_uri(picture.path)}" alt="{alt}">'
    text = f"<figcaption><strong>{title}.</strong> {caption}</figcaption>"
    if picture.path.suffix != ".gif":
        return f"<figure>{image}{text}</figure>"
    # Motion that nobody can stop distracts: closing the details hides it.
    return (
        f'<figure class="motion"><details open><summary>Animation (close to stop)</summary>{image}'
        f"</details>{text}</figure>"
    )


def data_uri(path: pathlib.Path) -> str:
    """Returns an image file as a `data:` address."""
    kind = {".png": "image/png", ".gif": "image/gif", ".svg": "image/svg+xml"}[path.suffix]
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _conditions(content: Content) -> str:
    stamp, config = content.workdir.stamp, content.workdir.config
    parts = []
    if stamp.get("command"):
        parts.append(f"<h3>Command</h3><pre>{html.escape(str(stamp['command']))}</pre>")
    facts = "".join(
        f"<dt>{html.escape(name.replace('_', ' '))}</dt><dd>{html.escape(str(value))}</dd>"
        for name, value in stamp.items()
        if name != "command" and value not in (None, "")
    )
    if facts:
        parts.append(f"<h3>Environment</h3><dl>{facts}</dl>")
    if config:
        text = html.escape(json.dumps(config, indent=2, ensure_ascii=False))
        parts.append(
            f"<h3>Config</h3><details><summary>All fields</summary><pre>{text}</pre></details>"
        )
    return "".join(parts)


def _made_by(content: Content) -> str:
    versions = sorted({str(row.get("code_version")) for row in content.workdir.rows})
    count = len(content.workdir.rows)
    return f"Made from {count} result rows of code version {', '.join(versions) or 'unknown'}."


def _list(items: Iterable[str]) -> str:
    inside = "".join(f"<li>{html.escape(item)}</li>" for item in items)
    return f"<ul>{inside}</ul>" if inside else ""
