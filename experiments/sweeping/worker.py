"""Does jobs, one after the other, in a process of its own.

    python -m experiments.sweeping.worker --cores=0,1

Started by `experiments.sweep`, which writes a job as a line of JSON to its standard input and reads
what became of it from its standard output. What the job itself prints goes to `output.txt` in its
workdir. One process does many jobs: what it has imported and compiled it keeps. It ends when its
standard input does, so that no worker outlives its sweep.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.records import IDENTITY, Row, code_version, read_rows
from experiments.sweeping.index import DONE, FAILED

OUTPUT = "output.txt"
CACHE_VARIABLE = "PERSIM_COMPILE_CACHE"
"""Environment variable with the folder for compiled programs."""
LOCK_SECONDS = 60.0
"""How long to wait for a workdir in which a process that is being killed still works."""
MAPS, MANY_MAPS = Path("/proc/self/maps"), 30_000
"""Linux allows a process 65530 mappings, and each compiled program takes some."""


class Order(NamedTuple):
    """A job as a worker is told of it: plain data.

    Attributes:
      key: Of the job.
      launcher: As in `configs.sweeps.Job`.
      config: Plain.
      methods: To be measured.
      measures: What of them.
      workdir: Its folder.
      store: Folder of stages that jobs share.
      command: What a reader types to have the same.
    """

    key: str
    launcher: str
    config: dict[str, Any]
    methods: Sequence[str]
    measures: Sequence[str]
    workdir: str
    store: str
    command: Sequence[str]


class Outcome(NamedTuple):
    """What became of a job.

    Attributes:
      key: Of the job.
      state: Done or failed.
      seconds: That it took, without the worker's start.
      rows: Rows in its workdir.
      code_version: Of the code that did it.
      error: Why it failed, in a line.
      lacks: Numbers that it ended without: method, metric and agent of each.
      tired: Whether the worker should be replaced before the next job.
    """

    key: str
    state: str
    seconds: float = 0.0
    rows: int = 0
    code_version: str | None = None
    error: str | None = None
    lacks: Sequence[Sequence[Any]] | None = None
    tired: bool = False


def perform(order: Order) -> Outcome:
    """Does one job; whatever goes wrong is its outcome."""
    start = time.perf_counter()
    workdir = Path(order.workdir)
    # The command of a run stands in its workdir and in the report: not the worker's, which nobody
    # types, but the one that makes the same numbers.
    sys.orig_argv = list(order.command)
    try:
        with _printing_to(workdir):
            try:
                rows, version = _perform(order, workdir)
                lacks = _lacks(order, rows)
            except BaseException:
                traceback.print_exc()
                raise
    except (Exception, SystemExit) as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        seconds = time.perf_counter() - start
        return Outcome(order.key, FAILED, seconds, error=text, tired=_tired())
    seconds = time.perf_counter() - start
    return Outcome(order.key, DONE, seconds, len(rows), version, lacks=lacks, tired=_tired())


def _lacks(order: Order, rows: Sequence[Row]) -> list[list[Any]]:
    """Numbers that a job has ended without: only then is a missing one not a lost one."""
    from experiments.sweeping.done import identities_of, identity

    have = {identity(row) for row in rows}
    return [
        [found[IDENTITY.index(name)] for name in ("method", "metric", "agent_id")]
        for method in order.methods
        for found in identities_of(order.config, order.launcher, method, order.measures)
        if found not in have
    ]


def _perform(order: Order, workdir: Path) -> tuple[list[Row], str]:
    from experiments import store
    from experiments.sweeping.launchers import find_launcher
    from experiments.workdir import waiting_for

    launcher = find_launcher(order.launcher)
    # Whoever was killed in this folder may take a moment to be gone.
    with waiting_for(workdir, LOCK_SECONDS):
        pass
    with store.using(order.store):
        launcher.run(order.config, workdir, tuple(order.methods), tuple(order.measures))
    rows = workdir / "rows.jsonl"
    return read_rows(rows) if rows.exists() else [], code_version()


@contextlib.contextmanager
def _printing_to(workdir: Path) -> Iterator[None]:
    """Sends what this process prints, C++ code included, to a job's `output.txt`."""
    workdir.mkdir(parents=True, exist_ok=True)
    kept = [os.dup(number) for number in (1, 2)]
    with (workdir / OUTPUT).open("a", encoding="utf8", buffering=1) as file:
        try:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
            # Where standard output is not file 1, as in workers of Ray, too.
            with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
                yield
        finally:
            for number, copy in zip((1, 2), kept, strict=True):
                os.dup2(copy, number)
                os.close(copy)


def _tired() -> bool:
    return MAPS.exists() and MAPS.read_bytes().count(b"\n") > MANY_MAPS


def read_orders(lines: queue.SimpleQueue[str]) -> None:
    """Passes lines of standard input on; ends the process, whatever it does, when there are none.

    A sweep that is killed closes the pipe: a worker that went on would hold its workdir's lock.
    """
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)


def main(argv: Sequence[str]) -> None:
    """Does jobs until standard input ends."""
    for argument in argv[1:]:
        name, _, value = argument.partition("=")
        if name == "--cores" and value and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {int(core) for core in value.split(",")})
    # Answers go where only the sweep reads; a stray print of a library goes to standard error.
    answers = os.fdopen(os.dup(1), "w", encoding="utf8", buffering=1)
    os.dup2(2, 1)
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=read_orders, args=(lines,), daemon=True).start()

    from experiments.accelerators import set_up_jax

    set_up_jax(deterministic=True, compile_cache=os.environ.get(CACHE_VARIABLE))
    while True:
        outcome = perform(Order(**json.loads(lines.get())))
        answers.write(json.dumps(outcome._asdict()) + "\n")


if __name__ == "__main__":
    main(sys.argv)
