"""The part of README.md that is made of rows."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.records import TRUE_ENV, Row
from experiments.reporting import build, side_tables, summary
from experiments.reporting.augmentation import gain_sentences, gains_table
from experiments.reporting.render import LEGEND, to_markdown
from experiments.reporting.sheet import environments
from persim_jax.evaluation import paper

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
COMMAND = "python -m experiments.tables --rows=results --readme=README.md"
METHOD = "persim"


def readme_part(rows: Sequence[Row]) -> str:
    """Returns the summary and the tables, as Markdown without the markers."""
    if not rows:
        return f"No results are accepted yet. `{COMMAND}` writes this part from rows.\n"
    parts = [f"This part is written by `{COMMAND}`; every number is a row in `results/`.\n"]
    shown = environments(rows)
    sentences = [
        sentence
        for name in shown
        for sentence in (
            summary.prediction_sentence(rows, name, METHOD),
            summary.control_sentence(rows, name, METHOD),
            *summary.difference_sentences(side_tables.differences_table(rows, name, METHOD)),
            *gain_sentences(rows, name),
        )
        if sentence
    ]
    parts.append("".join(f"- {sentence}\n" for sentence in sentences))
    for name in shown:
        first = build.table_1(rows, name, methods=[METHOD])
        second = build.table_2(rows, name, methods=[TRUE_ENV, METHOD])
        # Other numbers of synthetic trajectories than the paper's are in a figure.
        known = [row for row in rows if row["method"] in paper.METHODS]
        third, gains = build.table_3(known, name), gains_table(known, name)
        parts += [to_markdown(t) for t in (first, second, third, gains) if t.lines]
    parts.append(f"{LEGEND}\n")
    return "\n".join(parts)


def splice(text: str, part: str) -> str:
    """Returns a README with the lines between the markers replaced.

    Raises:
      ValueError: If the markers are not there, once each and in order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(
            f"the README needs the lines {BEGIN} and {END}, once each and in this order, to show "
            "where results go"
        )
    head, _, rest = text.partition(BEGIN)
    return f"{head}{BEGIN}\n\n{part.strip()}\n\n{END}{rest.partition(END)[2]}"
