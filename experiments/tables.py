"""Result rows to the paper's tables, ours beside the paper's.

    python -m experiments.tables --rows=results --readme=README.md          # rewrite its results
    python -m experiments.tables --rows=results --readme=README.md --check  # are they up to date?
    python -m experiments.tables --rows=results --out=tables.html           # every table

`--out` ends in .md, .html, .tex or .csv. Without `--readme` and `--out`, Markdown goes to the
terminal.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from absl import app, flags

from experiments.errors import one_line_each, stop
from experiments.records import Row, read_rows
from experiments.reporting.catalogue import all_tables, render_tables
from experiments.reporting.readme import readme_part, splice
from persim_jax.files import write_atomically

FLAGS = flags.FLAGS


def update_readme(rows: Sequence[Row], path: pathlib.Path, check: bool = False) -> bool:
    """Rewrites, or only checks, a README's results; returns whether it was up to date."""
    old = path.read_text(encoding="utf8")
    new = splice(old, readme_part(rows))
    if new != old and not check:
        write_atomically(path, new.encode())
    return new == old


def main(argv: Sequence[str]) -> None:
    """Writes what was asked for."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    with one_line_each():
        current = _write(pathlib.Path(FLAGS.rows), FLAGS.readme, FLAGS.out)
    if FLAGS.check and not current:
        stop(f"{FLAGS.readme} is out of date: run this command again without --check")


def _write(source: pathlib.Path, readme: str | None, out: str | None) -> bool:
    """Writes tables; returns whether the README was up to date."""
    # A README may be written before there are results; tables of nothing are a mistake.
    rows = [] if readme and not source.exists() else read_rows(source)
    rows = [row for row in rows if FLAGS.variant in ("", row.get("variant"))]
    if out:
        text = render_tables(all_tables(rows), pathlib.Path(out).suffix)
        write_atomically(pathlib.Path(out), text.encode())
    if readme:
        return update_readme(rows, pathlib.Path(readme), FLAGS.check)
    if not out:
        print(render_tables(all_tables(rows), ".md"))
    return True


if __name__ == "__main__":
    flags.DEFINE_string("rows", "results", "File of rows, or folder of *.jsonl files.")
    flags.DEFINE_string("readme", None, "Markdown file whose results part is rewritten.")
    flags.DEFINE_bool("check", False, "Write nothing; exit 1 if --readme is out of date.")
    flags.DEFINE_string("out", None, "File for all tables: .md, .html, .tex or .csv.")
    flags.DEFINE_string("variant", "default", "Show rows of this variant only; empty: of all.")
    app.run(main)
