"""One page about a run, a sweep, or what was kept of many: verdict, tables, figures, conditions.

    python -m experiments.report --workdir=runs/mountain_car
    python -m experiments.report --workdir=runs/mountain_car --accept   # its rows into results/
    python -m experiments.report --workdir=results                      # of all that was kept

Writes `report.html` (one file that can be sent around), `report.md`, `report.tex` and `report.csv`
into the workdir. A run that is not finished gets a report, too; it says what is missing, and with
which command it is made.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

from absl import app, flags

from experiments.errors import one_line_each
from experiments.records import Row, read_rows
from experiments.reporting.accept import accept_rows, prune
from experiments.reporting.content import make_content
from experiments.reporting.documents import to_latex_report, to_markdown_report
from experiments.reporting.page import to_page
from experiments.reporting.render import to_csv
from experiments.reporting.sheet import environments, is_policy
from experiments.reporting.workdir import read_workdir
from experiments.stamps import ROOT
from persim_jax.files import write_atomically

FLAGS = flags.FLAGS
RESULTS = ROOT / "results"


def build_report(
    workdir: str | os.PathLike[str], results: str | os.PathLike[str] = RESULTS
) -> pathlib.Path:
    """Writes the report of a run or a sweep in four formats.

    Args:
      workdir: The folder; anything in it may be missing.
      results: Folder of accepted rows. What the shipped policies reach is read from there, as runs
        do not train them; nothing else is.

    Returns:
      Path of the HTML.
    """
    path = pathlib.Path(workdir)
    found = read_workdir(path)
    content = make_content(found, _policy_rows(pathlib.Path(results), found.rows))
    texts = {
        "md": to_markdown_report(content),
        "tex": to_latex_report(content),
        "csv": to_csv(content.tables),
        "html": to_page(content),
    }
    for suffix, text in texts.items():
        write_atomically(path / f"report.{suffix}", text.encode())
    return path / "report.html"


def _policy_rows(results: pathlib.Path, own: Sequence[Row]) -> list[Row]:
    if not results.is_dir() or any(map(is_policy, own)):
        return []
    shown = environments(own)
    return [r for r in read_rows(results) if is_policy(r) and r["environment"] in shown]


def main(argv: Sequence[str]) -> None:
    """Writes the report and, if asked to, accepts the rows."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    with one_line_each():
        workdir, results = pathlib.Path(FLAGS.workdir), pathlib.Path(FLAGS.results)
        kept = workdir.resolve() == results.resolve()
        if FLAGS.accept and kept:
            print(f"pruned {prune(results)} rows that were measured again, from {results}")
        print(f"wrote {build_report(workdir, results)}")
        if FLAGS.accept and not kept:
            _accept(workdir, results, FLAGS.allow_dirty)


def _accept(workdir: pathlib.Path, results: pathlib.Path, allow_dirty: bool) -> None:
    """Takes the rows of a folder into results, and says what it did."""
    # What a sweep found in results when it began is there already.
    found = accept_rows(read_workdir(workdir, elsewhere=False).rows, results, allow_dirty)
    for note in found.notes:
        print(note)
    files = f" into {', '.join(map(str, found.files))}" if found.files else ""
    print(f"accepted {found.num_taken} rows{files}; {found.num_pruned} older ones went")


if __name__ == "__main__":
    # Here, not above: the launcher of runs imports this module and has flags of the same names.
    flags.DEFINE_string("workdir", None, "Folder of a run or a sweep.", required=True)
    flags.DEFINE_bool("accept", False, "Copy the rows into --results.")
    flags.DEFINE_string("results", "results", "Folder of accepted rows.")
    flags.DEFINE_bool(
        "allow_dirty", False,
        "Accept rows of code that differs from its commit, or was measured without git.",
    )  # fmt: skip
    app.run(main)
