"""One page about a run or a sweep: verdict, tables beside the paper's, figures, conditions.

    python -m experiments.report --workdir=runs/mountain_car
    python -m experiments.report --workdir=runs/mountain_car --accept   # its rows into results/

Writes `report.html` (one file that can be sent around), `report.md`, `report.tex` and `report.csv`
into the workdir. A run that is not finished gets a report, too; it says what is missing.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

from absl import app, flags

from experiments.reporting.accept import accept_rows
from experiments.reporting.content import make_content
from experiments.reporting.documents import to_latex_report, to_markdown_report
from experiments.reporting.page import to_page
from experiments.reporting.render import to_csv
from experiments.reporting.workdir import read_workdir
from persim_jax.files import write_atomically

FLAGS = flags.FLAGS


def build_report(workdir: str | os.PathLike[str]) -> pathlib.Path:
    """Writes the report of a run or a sweep in four formats; returns the path of the HTML."""
    path = pathlib.Path(workdir)
    content = make_content(read_workdir(path))
    texts = {
        "md": to_markdown_report(content),
        "tex": to_latex_report(content),
        "csv": to_csv(content.tables),
        "html": to_page(content),
    }
    for suffix, text in texts.items():
        write_atomically(path / f"report.{suffix}", text.encode())
    return path / "report.html"


def _main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments {' '.join(argv[1:])}")
    print(f"wrote {build_report(FLAGS.workdir)}")
    if FLAGS.accept:
        rows = read_workdir(pathlib.Path(FLAGS.workdir)).rows
        written = accept_rows(rows, pathlib.Path(FLAGS.results), FLAGS.allow_dirty)
        print(f"accepted {len(rows)} rows into {', '.join(map(str, written))}")


if __name__ == "__main__":
    # Here and not above, since other launchers import `build_report` and have flags of these names.
    flags.DEFINE_string("workdir", None, "Folder of a run or a sweep.", required=True)
    flags.DEFINE_bool("accept", False, "Copy the rows into --results.")
    flags.DEFINE_string("results", "results", "Folder of accepted rows.")
    flags.DEFINE_bool("allow_dirty", False, "Accept rows of code that differs from its commit.")
    app.run(_main)
