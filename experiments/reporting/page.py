"""A report as one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import html
import io
import json
import pathlib
import string
from collections.abc import Iterable

from PIL import Image

from experiments.figures.gallery import Picture
from experiments.reporting.accept import settle
from experiments.reporting.bars import to_bars
from experiments.reporting.content import Content
from experiments.reporting.coverage import Gap
from experiments.reporting.render import LEGEND, to_html

_TEMPLATE = pathlib.Path(__file__).with_name("page_template.html")
SUBTITLE = "PerSim in JAX: personalized simulators, beside the numbers of the paper"


def to_page(content: Content) -> str:
    """Renders a report; images are inside the page."""
    sections = [
        ("verdict", "Where we stand", _verdict(content)),
        *_parts(content, "overview"),
        ("missing", "Not there yet", _missing(content)),
        *_parts(content, "tables", _legend(content)),
        *_parts(content, "ablations"),
        *_parts(content, "unseen"),
        *_parts(content, "studies"),
        *_parts(content, "figures"),
        *_parts(content, "costs"),
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


def _parts(content: Content, name: str, before: str = "") -> list[tuple[str, str, str]]:
    """A section of tables and pictures; none if it has nothing to show."""
    section = content.section(name)
    inside = "".join(map(to_html, section.tables)) + "".join(map(_figure, section.pictures))
    return [(name, html.escape(section.title), before + inside)] if inside else []


def _verdict(content: Content) -> str:
    strong = [content.lead, *content.headlines]
    lines = "".join(f"<p><strong>{html.escape(x)}</strong></p>" for x in strong if x)
    parts = [f'<div class="verdict">{lines}</div>', to_bars(content.counts)]
    if content.coverage.sentence and (content.workdir.is_sweep or content.workdir.kept):
        parts.append(f"<p>{html.escape(content.coverage.sentence)}</p>")
    ours = [table for table in content.behind if table.name == "behind"]
    others = [table for table in content.behind if table.name != "behind"]
    parts += map(to_html, ours)
    for table in others:
        summary = f"{html.escape(table.title)} ({len(table.lines)})"
        inside = to_html(table)
        parts.append(f"<details><summary>{summary}</summary>{inside}</details>")
    if content.sentences:
        inside = _list(content.sentences)
        parts.append(f"<details><summary>Counts in words</summary>{inside}</details>")
    return "".join(parts)


def _missing(content: Content) -> str:
    """What a finished run would have, with the commands that make it; empty if all is there."""
    found, parts = content.coverage, []
    if content.missing:
        parts.append(f'<div class="missing">{_list(content.missing)}</div>')
    if not found.gaps:
        return "".join(parts)
    parts.append(to_html(found.table))
    first = min(gap.trials for gap in found.gaps)[0]
    now = [gap for gap in found.gaps if first in gap.trials]
    later = [gap for gap in found.gaps if first not in gap.trials]
    parts.append(f"<h3>Cells without rows, and what makes them: trial {first}</h3>")
    parts.append("".join(map(_gap, now)))
    if later:
        inside = "".join(map(_gap, later))
        parts.append(f"<details><summary>Further trials</summary>{inside}</details>")
    return "".join(parts)


def _gap(gap: Gap) -> str:
    noun = "trial" if len(gap.trials) == 1 else "trials"
    trials = f"{noun} {', '.join(map(str, gap.trials))}"
    head = f"<strong>{html.escape(gap.title)}</strong>, {trials}: {gap.num_cells} cells"
    cells, command = _list(gap.cells), f"<pre>{html.escape(gap.command)}</pre>"
    return f'<details class="gap"><summary>{head}</summary>{cells}{command}</details>'


def _legend(content: Content) -> str:
    compares = any(table.compares for table in content.section("tables").tables)
    return f'<p class="note">{html.escape(LEGEND)}</p>' if compares else ""


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
    """Returns an image file as a `data:` address; a PNG with the 256 colours nearest to its own."""
    kind = {".png": "image/png", ".gif": "image/gif", ".svg": "image/svg+xml"}[path.suffix]
    data = path.read_bytes()
    if path.suffix == ".png":
        data = min(data, _with_palette(data), key=len)
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _with_palette(data: bytes) -> bytes:
    """The PNG in a palette: drawings have few colours, and the page a third of the size."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(
            buffer, "png", optimize=True
        )
    return buffer.getvalue()


def _conditions(content: Content) -> str:
    stamp, config = content.workdir.stamp, content.workdir.config
    parts = [to_html(table) for table in content.section("measured").tables]
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
    if len(versions) < 2:
        return f"Made from {count} result rows of code version {', '.join(versions) or 'unknown'}."
    again = count - len(settle(content.workdir.rows)[0])
    return (
        f"Made from {count} result rows of {len(versions)} code versions, kept apart: of numbers "
        f"that were measured again ({again} rows) tables show the latest, and commands name the "
        "version."
    )


def _list(items: Iterable[str]) -> str:
    inside = "".join(f"<li>{html.escape(item)}</li>" for item in items)
    return f"<ul>{inside}</ul>" if inside else ""
