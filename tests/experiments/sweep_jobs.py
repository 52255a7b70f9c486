"""Cheap jobs for the tests of sweeps: they write rows in steps, and share a stage."""

import io
import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from configs.sweeps import Job, Request
from experiments.records import Row, make_row, read_rows
from experiments.store import shared_stage
from experiments.sweeping.launchers import Launcher
from experiments.sweeping.worker import Order, Outcome, perform
from experiments.workdir import Workdir, opened
from tests.experiments.jobs import untimed

COUNTING = "tests.experiments.sweep_jobs:COUNTER"
STEPS = 6
# What a test asks of the jobs in other processes.
PACE = "SWEEP_TEST_PACE"
TROUBLE = "SWEEP_TEST_TROUBLE"


def counting(request: Request):
    """Eight jobs, two for each dataset."""
    for trial in request.trials:
        for behavior in ("random", "pure", "pure_eps20", "pure_eps40"):
            for rank in (1, 2):
                yield counting_job(behavior, rank, trial)


def counting_job(behavior: str = "random", rank: int = 1, trial: int = 0) -> Job:
    overrides = (("behavior", behavior), ("trial", trial), ("model.rank", rank))
    return Job("configs/mountain_car.py", overrides, ("persim",), ("steps",), COUNTING)


def twins(request: Request):
    """Two jobs that are one: the smoke variant's rank is 3."""
    yield counting_job(rank=3)
    yield Job("configs/mountain_car.py", (), ("persim",), ("steps",), COUNTING)


@shared_stage("numbers", ("environment", "behavior", "trial"), {"any": ("numbers_made",)})
def make_numbers(workdir: Workdir) -> list[int]:
    """A stage: what it makes depends on the behavior alone."""
    path = workdir.path / "numbers" / "numbers.json"
    if path.exists():
        return json.loads(path.read_text("utf8"))
    time.sleep(pace())
    behavior = str(workdir.config["behavior"])
    note(f"made {behavior}")
    workdir.add([make_row(workdir.context, method="any", metric="numbers_made", value=STEPS)])
    path.parent.mkdir(exist_ok=True)
    numbers = [len(behavior) + step for step in range(STEPS)]
    path.write_text(json.dumps(numbers), "utf8")
    return numbers


def run(
    config: dict[str, Any], workdir: Path, methods: Sequence[str], measures: Sequence[str]
) -> None:
    with opened(workdir, config) as where:
        note(f"began {where.path.name} {os.getpid()}")
        _trouble(config, where)
        numbers = make_numbers(where)
        for method in methods:
            for step, number in enumerate(numbers):
                if not where.has(method, "rmse_mean", step):
                    time.sleep(pace())
                    value = number * config["model"]["rank"] + config["trial"]
                    about = {"method": method, "metric": "rmse_mean", "agent_id": step}
                    where.add([make_row(where.context, value=value, **about)])
        print("counted")


def _trouble(config: dict[str, Any], where: Workdir) -> None:
    """What the tests of failures let happen to the jobs on pure data."""
    what = os.environ.get(TROUBLE, "")
    if config["behavior"] != "pure":
        return
    if what == "error":
        print("a line before")
        raise ValueError("of no use")
    if what == "full":
        # The kernel's own word for it.
        with open("/dev/full", "wb", buffering=0) as file:
            file.write(b"rows")
    if what == "crash":
        os.kill(os.getpid(), signal.SIGKILL)


def pace() -> float:
    return float(os.environ.get(PACE, "0"))


def note(text: str) -> None:
    """A line in a file that all processes of a test write to."""
    path = os.environ.get("SWEEP_TEST_NOTES")
    if path:
        with open(path, "a", encoding="utf8") as file:
            file.write(f"{text}\n")


COUNTER = Launcher(
    run,
    lambda config, method, measures: frozenset(("rmse_mean", n) for n in range(STEPS)),
    lambda job, variant, workdir: ["python", "-m", "counting", f"--workdir={workdir}"],
)


class HereExecutor:
    """Jobs in this process, one at a time, in the order in which they come."""

    slots = 1

    def __init__(self) -> None:
        self.orders: list[Order] = []
        self._ended: list[Outcome] = []

    def submit(self, order: Order) -> None:
        self.orders.append(order)
        self._ended.append(perform(order))

    def wait(self, seconds: float) -> list[Outcome]:
        ended, self._ended = self._ended, []
        return ended

    def close(self) -> None:
        pass


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def rows_of_sweep(folder: Path) -> dict[tuple[Any, ...], Row]:
    """All rows of all jobs but for times; two of one identity are an error."""
    return untimed(read_rows(folder / "jobs"))
