"""Stages that runs share: made once, whichever run asks first, and found again by the others.

Runs of a sweep that differ only in what comes after a stage, such as rank after the dataset, have
its outcome in common. Within `using(folder)` a stage looks into the folder first, under the digest
of what it depends on; the first run makes it while those that ask at the same moment wait. Without
`using` nothing is shared, and each run makes its own.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

from experiments.records import Row, append_rows, read_rows
from experiments.stamps import config_digest
from experiments.workdir import Workdir, waiting_for
from persim_jax.files import write_json_atomically

P = ParamSpec("P")
Result = TypeVar("Result")

LOG = logging.getLogger("persim_jax")
COMPLETE = "complete.json"
_STORE: ContextVar[Path | None] = ContextVar("store", default=None)


@contextlib.contextmanager
def using(folder: str | Path | None) -> Iterator[None]:
    """Lets stages share their outcomes in a folder, made if missing; None shares nothing."""
    token = _STORE.set(None if folder is None else Path(folder))
    try:
        yield
    finally:
        _STORE.reset(token)


class Shared(NamedTuple):
    """A stage that runs may have in common.

    Attributes:
      folder: In the workdir, where the stage keeps its outcome; `FOLDER/FOLDER.json` is written
        last, so with it the stage is done.
      fields: Top-level fields of the config that the outcome depends on.
      rows: Metrics of the rows that the stage adds, by method. Who finds the stage adds them, too:
        they say what its own outcome took to make.
      files: Beside the folder, also the stage's.
    """

    folder: str
    fields: Sequence[str]
    rows: Mapping[str, Sequence[str]]
    files: Sequence[str] = ()

    def digest(self, config: Mapping[str, Any]) -> str:
        """Names the outcome."""
        return config_digest({name: config[name] for name in self.fields}, exclude=())

    def is_in(self, workdir: Path) -> bool:
        """Whether a workdir has the outcome."""
        return (workdir / self.folder / f"{self.folder}.json").exists()

    def paths(self, root: Path) -> list[Path]:
        """The outcome's files, relative to where it lies; what says that it is done comes last."""
        inside = [f for f in (root / self.folder).rglob("*") if f.is_file() and f.name[0] != "."]
        inside += [root / name for name in self.files if (root / name).exists()]
        last = root / self.folder / f"{self.folder}.json"
        return [f.relative_to(root) for f in sorted(inside, key=lambda f: (f == last, f))]

    def own_rows(self, rows: Sequence[Row]) -> list[Row]:
        """Those that the stage added."""
        return [row for row in rows if row["metric"] in self.rows.get(row["method"], ())]


def shared_stage(
    folder: str,
    fields: Sequence[str],
    rows: Mapping[str, Sequence[str]],
    files: Sequence[str] = (),
) -> Callable[[Callable[P, Result]], Callable[P, Result]]:
    """Makes a stage shared; its first argument is the workdir, the rest as in `Shared`."""
    stage = Shared(folder, tuple(fields), rows, tuple(files))

    def decorate(make: Callable[P, Result]) -> Callable[P, Result]:
        @functools.wraps(make)
        def made(*args: P.args, **kwargs: P.kwargs) -> Result:
            store, workdir = _STORE.get(), args[0]
            if store is None or not isinstance(workdir, Workdir):
                return make(*args, **kwargs)
            entry = store / stage.folder / stage.digest(workdir.config)
            if stage.is_in(workdir.path) and (entry / COMPLETE).exists():
                return make(*args, **kwargs)
            # Who comes second waits here until the first is done, or dead.
            with waiting_for(entry):
                if (entry / COMPLETE).exists():
                    _take(stage, entry, workdir)
                    return make(*args, **kwargs)
                result = make(*args, **kwargs)
                _put(stage, entry, workdir)
                return result

        return made

    return decorate


def _take(stage: Shared, entry: Path, workdir: Workdir) -> None:
    """Brings an outcome from the store, rows before files: with the last file the stage is done."""
    digest = workdir.context.config_digest
    rows = [row | {"config_digest": digest} for row in read_rows(entry / "rows.jsonl")]
    workdir.add([row for row in rows if not workdir.has(row["method"], row["metric"])])
    _copy(stage, entry, workdir.path)
    LOG.info("%s: found in %s", stage.folder, entry)


def _put(stage: Shared, entry: Path, workdir: Workdir) -> None:
    _copy(stage, workdir.path, entry)
    found = {(row["method"], row["metric"]): row for row in stage.own_rows(workdir.rows())}
    # Of who died before the mark was set: another config's rows would stand beside these.
    (entry / "rows.jsonl").unlink(missing_ok=True)
    append_rows(entry / "rows.jsonl", list(found.values()))
    fields = {name: workdir.config[name] for name in stage.fields}
    write_json_atomically(entry / COMPLETE, {"made_in": workdir.path.name, "depends_on": fields})


def _copy(stage: Shared, source: Path, target: Path) -> None:
    """Copies an outcome, each file whole or not at all."""
    for name in stage.paths(source):
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        try:
            _link_or_copy(source / name, temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _link_or_copy(source: Path, target: Path) -> None:
    # Arrays, which are large, are never written to in place, so that two names may share them.
    if source.suffix == ".npz":
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
    shutil.copyfile(source, target)
