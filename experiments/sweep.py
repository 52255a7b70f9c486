"""Many runs by one command: every table and figure of the paper, or a grid of your own.

    python -m experiments.sweep --sweep=configs/sweeps.py:table_1 --workdir=runs/table_1
    python -m experiments.sweep --sweep=configs/sweeps.py:paper --workdir=runs/paper --dry_run
    python -m experiments.sweep --sweep=configs/sweeps.py:rank --workdir=runs/rank \
        --environments=cart_pole --trials=1 --override=train.num_epochs=50

Started again on the same workdir it goes on where it stopped. What is done is never run again, also
when its rows lie in `results/` and the workdir is new. Each run has a workdir in `jobs/`; one page
about all of them is made by `python -m experiments.report --workdir=DIR`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import jax
from absl import app, flags
from rich.console import Console
from rich.text import Text

from configs.base import VARIANTS
from experiments.errors import stop
from experiments.records import read_rows
from experiments.stamps import ROOT, code_version
from experiments.sweeping import devices
from experiments.sweeping.costs import Costs, calibration, estimates
from experiments.sweeping.done import Todo, what_is_left
from experiments.sweeping.index import RUNNING, Index
from experiments.sweeping.launchers import find_launcher
from experiments.sweeping.local import Executor, LocalExecutor
from experiments.sweeping.plan import (
    FOLDER,
    Planned,
    jobs_of,
    make_plan,
    make_request,
    parse_override,
)
from experiments.sweeping.queue import Queue
from experiments.sweeping.view import View, plan_table, seconds_text
from experiments.sweeping.worker import Order
from experiments.workdir import waiting_for

FLAGS = flags.FLAGS
# HalfCheetah needs an extra and, without an accelerator, hours for each job: who wants it says so.
CLASSIC = ("mountain_car", "cart_pole")
NUM_TRIALS = {"smoke": 1, "default": 5, "paper": 5}
POLL_SECONDS = 0.2


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A sweep before anything runs.

    Attributes:
      folder: Of the sweep.
      index: Its index.
      todo: What is left.
      seconds: Expected, of each job by its key.
      factor: Seconds that an expected second takes here.
      version: Of the code.
    """

    folder: Path
    index: Index
    todo: Todo
    seconds: Mapping[str, float]
    factor: float
    version: str

    def write_plan(self) -> None:
        """Writes the plan into the index, done jobs included: a report shows what was asked for."""
        todo = self.todo
        self.index.announce(todo.jobs, self.seconds, todo.done, todo.elsewhere)


def prepare(
    plan: Sequence[Planned], folder: Path, results: Path, retry_failed: bool = False
) -> Prepared:
    """Finds out what of a plan is left, and what it will cost; writes nothing.

    Raises:
      ValueError: The folder is a run's.
    """
    if (folder / "config.json").exists():
        raise ValueError(f"{folder} is the workdir of a run: give the sweep a folder of its own")
    index, version = Index(folder), code_version()
    todo = what_is_left(plan, folder, index, results, version, retry_failed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of corrupt lines `what_is_left` has told
        costs = Costs(read_rows(results) if results.exists() else [])
    return Prepared(
        folder, index, todo, estimates(todo.jobs, costs), calibration(index.entries.values()),
        version,
    )  # fmt: skip


def run_jobs(prepared: Prepared, executor: Executor, console: Console) -> bool:
    """Runs what is left.

    Args:
      prepared: The sweep; its folder is this process's alone.
      executor: Who does the jobs. Not closed.
      console: Where progress is shown.

    Returns:
      Whether no job failed, now or before.
    """
    folder, index, todo = prepared.folder, prepared.index, prepared.todo
    seconds, factor = prepared.seconds, prepared.factor
    queue, running = Queue(todo.jobs, seconds), dict[str, Planned]()
    view = View(console, todo.jobs, len(todo.done), seconds, executor.slots, factor)
    with view:
        _note(view.say, prepared.write_plan)
        while queue or running:
            while len(running) < executor.slots and (found := queue.next(running.values())):
                running[found.key] = found
                about = {"estimate": seconds[found.key]}
                _note(view.say, functools.partial(index.add, found, RUNNING, **about))
                executor.submit(make_order(found, folder))
                view.started(found)
            for outcome in executor.wait(POLL_SECONDS):
                ended = running.pop(outcome.key)
                result = outcome._asdict() | {"estimate": seconds[ended.key]}
                for name in ("key", "state", "tired"):
                    del result[name]
                _note(view.say, functools.partial(index.add, ended, outcome.state, **result))
                view.ended(ended, outcome)
    view.end(folder)
    view.say(view.summary())
    return not view.failed and not todo.failed


def _note(say: Callable[[str], None], write: Callable[[], object]) -> None:
    """Writes to the index; jobs go on if it cannot be written, and are found done next time."""
    try:
        write()
    except OSError as error:
        say(f"the index cannot be written ({error}): jobs go on, their own folders count")


def make_order(planned: Planned, folder: Path) -> Order:
    """A job as a worker is told of it."""
    workdir = folder / FOLDER / planned.folder
    launcher = find_launcher(planned.job.launcher)
    return Order(
        key=planned.key,
        launcher=planned.job.launcher,
        config=dict(planned.config),
        methods=planned.job.methods,
        measures=planned.job.measures,
        workdir=str(workdir.absolute()),
        store=str((folder / "store").absolute()),
        command=launcher.command(planned.job, planned.variant, workdir),
    )


def announce(prepared: Prepared, console: Console, workers: int) -> None:
    """Says how much there is to do."""
    todo, work = prepared.todo, sum(prepared.seconds.values()) * prepared.factor
    for note in todo.notes:
        console.print(Text(note), soft_wrap=True)
    parts = [f"{len(todo.jobs)} job{'s' * (len(todo.jobs) != 1)} to do, {len(todo.done)} done"]
    if todo.failed:
        parts.append(f"{len(todo.failed)} failed before (--retry_failed tries them again)")
    if todo.jobs:
        wall = work / min(workers, len(todo.jobs))
        parts.append(
            f"{seconds_text(work)} of work, about {seconds_text(wall)} with {workers} "
            f"worker{'s' * (workers != 1)}"
        )
    console.print(Text(f"{'; '.join(parts)}; code version {prepared.version}"), soft_wrap=True)


def sweep(console: Console) -> bool:
    """Does what the flags say; returns whether nothing failed."""
    environments = tuple(FLAGS.environments)
    trials = range(FLAGS.trials or NUM_TRIALS[FLAGS.variant])
    # What is wrong with the command is told before anything is done.
    jobs = jobs_of(FLAGS.sweep, make_request(FLAGS.variant, environments, trials))
    plan = make_plan(jobs, FLAGS.variant, [parse_override(text) for text in FLAGS.override])
    if not plan:
        raise ValueError(
            f"{FLAGS.sweep} yields no job for --environments={','.join(environments)} and "
            f"{len(trials)} trials: there is nothing to do"
        )
    if FLAGS.ray_address and FLAGS.executor != "ray":
        raise ValueError(
            f"--ray_address={FLAGS.ray_address} is of a Ray cluster, but the jobs would run on "
            "this machine: give --executor=ray, too"
        )
    folder, results = Path(FLAGS.workdir), Path(FLAGS.results)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: --workdir is a folder, made if missing")
    if FLAGS.dry_run:
        prepared = prepare(plan, folder, results, FLAGS.retry_failed)
        todo = prepared.todo
        console.print(
            plan_table(todo.jobs, todo.done, todo.failed, prepared.seconds, prepared.factor)
        )
        announce(prepared, console, FLAGS.workers or 1)
        return True
    with _alone(folder):
        prepared = prepare(plan, folder, results, FLAGS.retry_failed)
        if not prepared.todo.jobs:
            announce(prepared, console, 1)
            _note(lambda text: console.print(Text(text)), prepared.write_plan)
            for planned in prepared.todo.failed:
                error = prepared.index.entries[planned.key].error
                console.print(Text(f"FAILED before: {planned.name}: {error}"), soft_wrap=True)
            return not prepared.todo.failed
        with make_executor(len(prepared.todo.jobs)) as executor:
            announce(prepared, console, executor.slots)
            return run_jobs(prepared, executor, console)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(waiting_for(folder, 1.0))
        except ValueError as error:
            raise ValueError(
                f"another sweep works in {folder}: wait for it, or give another --workdir"
            ) from error
        yield


@contextlib.contextmanager
def make_executor(num_jobs: int) -> Iterator[Executor]:
    """Who the flags say does the jobs.

    Raises:
      ValueError: There are not enough devices, or Ray is not installed.
    """
    executor: Executor
    if FLAGS.executor == "ray":
        from experiments.sweeping.ray_cluster import RayExecutor

        executor = RayExecutor(
            FLAGS.ray_address, FLAGS.workers, FLAGS.cpus_per_job, FLAGS.gpus_per_job,
            FLAGS.compile_cache,
        )  # fmt: skip
    else:
        cores, gpus = devices.find_cores(), devices.find_gpus(os.environ)
        shares = devices.share_out(FLAGS.workers, cores, gpus, FLAGS.share_devices)
        # Fewer jobs than workers: those that there are have the rest of the cores, too.
        if num_jobs < len(shares):
            shares = devices.share_out(num_jobs, cores, gpus, FLAGS.share_devices)
        executor = LocalExecutor(shares, FLAGS.compile_cache)
    try:
        yield executor
    finally:
        executor.close()


def main(argv: Sequence[str]) -> None:
    """Runs with the flags as parsed; the exit status is 1 if a job failed."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    # This process plans: it must take no memory on an accelerator that a worker is to have.
    jax.config.update("jax_platforms", "cpu")
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    console = Console() if sys.stdout.isatty() else Console(width=200)
    start = time.perf_counter()
    try:
        good = sweep(console)
    except KeyboardInterrupt:
        console.print("interrupted: the same command goes on where it stopped")
        raise SystemExit(130) from None
    except (ValueError, OSError) as error:
        stop(" ".join(str(error).split()))
    console.print(f"{seconds_text(time.perf_counter() - start)} in all", highlight=False)
    if not good:
        raise SystemExit(1)


def _define_flags() -> None:
    flags.DEFINE_string(
        "sweep", None, "Which jobs: configs/sweeps.py:NAME, or a function of a file of yours.",
        required=True,
    )  # fmt: skip
    flags.DEFINE_string("workdir", None, "Folder of the sweep, made if missing.", required=True)
    flags.DEFINE_enum("variant", "default", VARIANTS, "Of the configs.")
    flags.DEFINE_list("environments", list(CLASSIC), "Config files in configs/, without .py.")
    flags.DEFINE_integer("trials", 0, "How many; 0 is 1 for smoke and 5 else.", lower_bound=0)
    flags.DEFINE_multi_string("override", [], "FIELD=VALUE in every config, such as model.rank=2.")
    flags.DEFINE_integer(
        "workers", 0, "Jobs at a time; 0 is one for each GPU, or else for each CPU core.",
        lower_bound=0,
    )  # fmt: skip
    flags.DEFINE_enum("executor", "local", ["local", "ray"], "Processes here, or a Ray cluster.")
    flags.DEFINE_bool("share_devices", False, "Let several jobs have one GPU or core.")
    flags.DEFINE_string(
        "ray_address", None, "Of the cluster's head, HOST:PORT, or auto; none starts one here."
    )
    flags.DEFINE_float("cpus_per_job", 1.0, "CPU cores of a job on Ray.", lower_bound=0.1)
    flags.DEFINE_float(
        "gpus_per_job", -1.0, "GPUs of a job on Ray; negative: 1 where there are any, else none."
    )
    flags.DEFINE_bool("dry_run", False, "List the jobs with what they will cost; run nothing.")
    flags.DEFINE_bool("retry_failed", False, "Try jobs again that failed.")
    flags.DEFINE_string("results", str(ROOT / "results"), "Accepted rows, which count as done.")
    flags.DEFINE_string("compile_cache", None, "As of experiments.run, for all workers.")


if __name__ == "__main__":
    _define_flags()
    app.run(main)
