"""What a sweep shows: live on a terminal, as lines elsewhere; at the end, what failed and why."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from experiments.sweeping.index import DONE
from experiments.sweeping.plan import FOLDER, Planned
from experiments.sweeping.worker import OUTPUT, Outcome

LAST_LINES = 12
SHOWN_FAILURES = 5


class View:
    """The jobs of a sweep as they run.

    Attributes:
      console: Where to.
    """

    def __init__(
        self,
        console: Console,
        todo: Sequence[Planned],
        num_done: int,
        estimates: Mapping[str, float],
        slots: int,
        factor: float,
    ) -> None:
        """Knows what there is to do.

        Args:
          console: Where to.
          todo: Jobs to be run.
          num_done: Jobs that were done before.
          estimates: Seconds of each job by its key.
          slots: Jobs at a time.
          factor: Seconds that an estimated second takes.
        """
        self.console = console
        self._estimates, self._slots, self._factor = estimates, slots, factor
        self._left = {planned.key: planned for planned in todo}
        self._running: dict[str, tuple[Planned, float]] = {}
        self._done, self._before = num_done, num_done
        self._total = num_done + len(todo)
        self._failed: list[tuple[Planned, Outcome]] = []
        self._spent = self._expected = 0.0
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=2)

    def __enter__(self) -> View:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.console.is_terminal:
            self._live.stop()

    @property
    def failed(self) -> Sequence[tuple[Planned, Outcome]]:
        """Jobs that failed."""
        return self._failed

    def say(self, text: str) -> None:
        """Prints one line, however long it is."""
        self.console.print(escape(text), highlight=False, soft_wrap=True)

    def started(self, planned: Planned) -> None:
        """A worker has the job now."""
        self._running[planned.key] = (planned, time.monotonic())
        if not self.console.is_terminal:
            about = seconds_text(self._estimates[planned.key] * self._rate())
            self.say(f"{planned.name}: started, about {about}")

    def ended(self, planned: Planned, outcome: Outcome) -> None:
        """The job is over."""
        self._running.pop(planned.key, None)
        self._left.pop(planned.key, None)
        if outcome.state == DONE:
            self._done += 1
            self._spent += outcome.seconds
            self._expected += self._estimates[planned.key]
        else:
            self._failed.append((planned, outcome))
            self.say(f"{planned.name}: FAILED after {seconds_text(outcome.seconds)}: "
                     f"{outcome.error}")  # fmt: skip
        if not self.console.is_terminal and outcome.state == DONE:
            self.say(f"{planned.name}: done in {seconds_text(outcome.seconds)}; {self.summary()}")

    def seconds_left(self) -> float:
        """Until all is done, as the jobs so far suggest."""
        now, rate = time.monotonic(), self._rate()
        work = sum(self._estimates[key] * rate for key in self._left)
        for key, (_, since) in self._running.items():
            work -= min(now - since, self._estimates[key] * rate)
        return work / max(1, min(self._slots, len(self._left)))

    def summary(self) -> str:
        """One line: how far the sweep is."""
        parts = [f"{self._done} of {self._total} done", f"{len(self._running)} running"]
        parts += [f"{len(self._failed)} failed"] if self._failed else []
        parts += [f"about {seconds_text(self.seconds_left())} left"] if self._left else []
        return ", ".join(parts)

    def end(self, folder: Path) -> None:
        """Says what jobs took against what was expected, and what failed with its last lines."""
        if self._expected:
            ratio = self._spent / (self._expected * self._factor)
            took = seconds_text(self._spent)
            self.say(f"jobs took {took}, {ratio:.2f} times what was expected")
        for planned, outcome in self._failed[:SHOWN_FAILURES]:
            workdir = folder / FOLDER / planned.folder
            self.say(f"\nFAILED {planned.name}\n  {outcome.error}\n  in {workdir}")
            for line in last_lines(workdir / OUTPUT):
                self.say(f"  | {line}")
        more = self._failed[SHOWN_FAILURES:]
        for planned, outcome in more:
            self.say(f"FAILED {planned.name}: {outcome.error}")
        if self._failed:
            self.say(
                f"{len(self._failed)} failed: the same command with --retry_failed tries again"
            )

    def _rate(self) -> float:
        return self._spent / self._expected if self._expected else self._factor

    def _render(self) -> Group:
        bar = ProgressBar(self._total, self._done + len(self._failed), width=40)
        table = Table.grid(padding=(0, 2))
        now, rate = time.monotonic(), self._rate()
        for key, (planned, since) in list(self._running.items()):
            table.add_row(
                "▸", Text(planned.name), seconds_text(now - since),
                f"of about {seconds_text(self._estimates[key] * rate)}",
            )  # fmt: skip
        return Group(Text(self.summary()), bar, table)


def last_lines(path: Path) -> list[str]:
    """The end of a job's output; none if there is no such file."""
    try:
        text = path.read_bytes()[-20_000:].decode("utf8", "replace")
    except OSError:
        return []
    return text.splitlines()[-LAST_LINES:]


def seconds_text(seconds: float) -> str:
    """A time for people: 8 s, 12 min, 3.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def plan_table(
    todo: Sequence[Planned],
    done: Sequence[Planned],
    failed: Sequence[Planned],
    estimates: Mapping[str, float],
    factor: float,
) -> Table:
    """The jobs of a sweep with what they are expected to cost."""
    table = Table(box=None, pad_edge=False)
    table.add_column("Job")
    table.add_column("State")
    table.add_column("Expected", justify="right")
    for planned in todo:
        cost = seconds_text(estimates[planned.key] * factor)
        table.add_row(Text(planned.name), "to do", cost)
    for planned in failed:
        table.add_row(Text(planned.name), "failed", "")
    for planned in done:
        table.add_row(Text(planned.name), "done", "")
    return table
