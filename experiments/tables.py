"""Result rows to the paper's tables, ours beside the paper's.

    python -m experiments.tables --rows=results --readme=README.md          # rewrite its results
    python -m experiments.tables --rows=results --readme=README.md --check  # are they up to date?
    python -m experiments.tables --rows=results --out=tables.html           # every table

`--out` ends in .md, .html, .tex or .csv. Without `--readme` and `--out`, Markdown goes to the
terminal.
"""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence

from absl import app, flags

from experiments.records import Row, read_rows
from experiments.reporting.catalogue import all_tables, render_tables
from experiments.reporting.readme import readme_part, splice
from persim_jax.files import write_atomically

_ROWS = flags.DEFINE_string("rows", "results", "File of rows, or folder of *.jsonl files.")
_README = flags.DEFINE_string("readme", None, "Markdown file whose results part is rewritten.")
_CHECK = flags.DEFINE_bool("check", False, "Write nothing; exit 1 if --readme is out of date.")
_OUT = flags.DEFINE_string("out", None, "File for all tables: .md, .html, .tex or .csv.")
_VARIANT = flags.DEFINE_string("variant", None, "Show rows of this variant only.")


def update_readme(rows: Sequence[Row], path: pathlib.Path, check: bool = False) -> bool:
    """Rewrites, or only checks, a README's results; returns whether it was up to date."""
    old = path.read_text(encoding="utf8")
    new = splice(old, readme_part(rows))
    if new != old and not check:
        write_atomically(path, new.encode())
    return new == old


def _main(argv: Sequence[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments {' '.join(argv[1:])}")
    source = pathlib.Path(_ROWS.value)
    rows = read_rows(source) if source.exists() or not _README.value else []
    rows = [row for row in rows if _VARIANT.value in (None, row.get("variant"))]
    if _OUT.value:
        out = pathlib.Path(_OUT.value)
        write_atomically(out, render_tables(all_tables(rows), out.suffix).encode())
    if _README.value:
        current = update_readme(rows, pathlib.Path(_README.value), _CHECK.value)
        if _CHECK.value and not current:
            sys.exit(f"{_README.value} is out of date; run this command again without --check")
    elif not _OUT.value:
        print(render_tables(all_tables(rows), ".md"))


if __name__ == "__main__":
    app.run(_main)
