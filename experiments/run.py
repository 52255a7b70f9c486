"""The main job: one environment, one behavior, from covariates to a report.

    python -m experiments.run --config=configs/mountain_car.py --workdir=runs/mountain_car
    python -m experiments.run --config=configs/cart_pole.py:smoke --workdir=/tmp/smoke \
        --config.behavior=pure_eps20 --config.trial=1

Started again on the same workdir it goes on where it stopped. `--config.FIELD=VALUE` changes a
field of the config; configs/base.py has them all.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import app, flags
from ml_collections import config_flags
from rich import box
from rich.console import Console
from rich.table import Table

from experiments import errors, families, settings
from experiments.accelerators import set_up_jax as set_up_jax
from experiments.errors import one_line_each
from experiments.method_stages import run_of
from experiments.progress import CHECKPOINT_SECONDS, Display
from experiments.records import read_rows
from experiments.report import build_report
from experiments.reporting import build, model
from experiments.reporting.ablations import ablation_tables
from experiments.reporting.render import MARKS
from experiments.stages import Run, make_dataset, make_world
from experiments.workdir import Workdir, opened
from persim_jax.methods import METHODS
from persim_jax.methods.persim import PERSIM
from persim_jax.methods.true_env import TRUE_ENV

FLAGS = flags.FLAGS
DEFAULT_METHODS = (PERSIM.name, TRUE_ENV.name)


def run(
    config: Mapping[str, Any],
    workdir: str | Path,
    methods: tuple[str, ...] = DEFAULT_METHODS,
    console: Console | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    planning: bool = True,
    report: bool = True,
) -> Path:
    """Runs every stage that is not done yet.

    Args:
      config: As `configs/base.py` makes it, as a plain dict.
      workdir: Made if missing.
      methods: Names in `METHODS`.
      console: Where progress is shown.
      checkpoint_seconds: Least time between two checkpoints of training.
      planning: Whether methods that plan are run in the true environment, too; a later start may
        add that.
      report: Whether to write the report; a sweep has one for all of its runs.

    Returns:
      Path of the report.

    Raises:
      ValueError: The config is wrong, the workdir was made with another one, or a file in it was
        cut short or altered.
      FloatingPointError: Training left the finite numbers.
    """
    settings.check(config, methods)
    families.check(config, methods)
    with (
        jax.default_matmul_precision(config["matmul_precision"]),
        Display(console or Console()) as display,
    ):
        # Before the folder is made: what is refused must leave none behind.
        world = make_world(config)
        with opened(workdir, config) as where:
            where.planning = planning
            _announce(where, display)
            dataset = make_dataset(where, world, display)
            found = Run(where, world, dataset, display, checkpoint_seconds)
            for name in methods:
                run_of(name)(name, found)
            if report and not where.report_is_current():
                with display.stage(where, "report"):
                    build_report(where.path)
            if not display.num_stages:
                display.say("nothing to do: all of it was done before")
            return where.path / "report.html"


def _announce(where: Workdir, display: Display) -> None:
    config = where.config
    display.say(
        f"{config['environment']}, {config['behavior']} data, {config['variant']} variant, trial "
        f"{config['trial']}, {config['agents']['num_agents']} agents, on {where.context.device}"
    )
    if where.other_code:
        display.say(
            f"{where.path} was begun with code version {where.other_code}, this is "
            f"{where.context.code_version}: what is done is kept, its rows say by which version"
        )


def show_tables(where: Path, config: Mapping[str, Any], console: Console) -> None:
    """Prints the tables of a run, the paper's numbers beside ours."""
    rows, name = read_rows(where / "rows.jsonl"), config["environment"]
    behaviors = [config["behavior"]]
    first, second = (make(rows, name, None, behaviors) for make in (build.table_1, build.table_2))
    for found in (first, second, build.table_3(rows, name), *ablation_tables(rows, name)):
        if found.lines:
            console.print(_rich_table(found))


def _rich_table(table: model.Table) -> Table:
    """A line for each agent and method, which fits a terminal however many methods there are."""
    # What the rows are of stands in the report; what is left is what a reader must know.
    notes = [note for note in table.notes if not note.startswith("Rows: ")]
    legend = "▲ better than the paper, = the same, ▼ worse."
    shown = Table(
        title=table.title, title_justify="left", caption=" ".join([legend, *notes]),
        caption_justify="left", box=box.SIMPLE_HEAD, pad_edge=False,
    )  # fmt: skip
    shown.add_column("Agent")
    shown.add_column("Method")
    shown.add_column("Ours", justify="right")
    shown.add_column("Paper", justify="right")
    for index, column in enumerate(table.columns):
        for line in table.lines:
            cell = line.cells[index]
            # Of Table 2 the return without its interval.
            pieces = cell.pieces if table.name == "table_1" else cell.pieces[:1]
            ours = " ".join(f"{text} {MARKS[mark]}".strip() for text, mark in pieces)
            first = column.name if line is table.lines[0] else ""
            shown.add_row(first, line.labels[-1], ours, cell.paper or model.DASH)
    return shown


def parse_flags(argv: Sequence[str]) -> list[str]:
    """As absl does it; what is wrong with a flag is told in one line."""
    try:
        rest: list[str] = FLAGS(argv)
        # Reading it tells what the file's own code did wrong; a launcher may do without a config.
        if FLAGS.config is not None:
            FLAGS.config.lock()
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        errors.stop(_flag_problem(error, argv))
    if len(rest) > 1:
        errors.stop(f"unknown arguments: {' '.join(rest[1:])}")
    # They say which settings a file gives: changed afterwards, rows would bear a wrong name.
    if named := [arg for arg in argv if re.match(r"--?config\.(environment|variant)\b", arg)]:
        errors.stop(
            f"{named[0]}: the file and what follows its colon say that: --config=FILE:VARIANT"
        )
    return rest


def _flag_problem(error: Exception, argv: Sequence[str]) -> str:
    """One line about what ml_collections and absl tell in many."""
    configs = [arg.partition("=")[2] for arg in argv if arg.startswith("--config=")]
    path = configs[-1].partition(":")[0] if configs else ""
    if path and not Path(path).is_file():
        return f"there is no config file {path}: use configs/mountain_car.py, for example"
    text = " ".join(str(error.args[0] if error.args else error).split())
    if path and "has no attribute 'get_config'" in text:
        return (
            f"{path} has no get_config(variant): it is no environment's config; use "
            "configs/mountain_car.py, for example"
        )
    if isinstance(error, AttributeError | KeyError):
        name = re.search(r"\w+", text)
        changes = [arg for arg in argv if arg.startswith("--config.")]
        wrong = [arg for arg in changes if name and name.group() in arg.partition("=")[0]]
        hint = text.partition("Did you mean")[2]
        return f"{''.join(wrong[:1]) or text}: the config has no such field" + (
            f". Did you mean{hint}" if hint else f"; {path} and configs/base.py have its fields"
        )
    # The error of a config file comes with its traceback, whose last line says what is wrong.
    cause = re.search(r"Traceback.* \w+(?:Error|Exception): (.*)", text)
    return f"{path}: {cause.group(1)}" if cause else text


def main(argv: Sequence[str]) -> None:
    """Runs with the flags as parsed, then shows what came out."""
    del argv
    set_up_jax(FLAGS.deterministic, FLAGS.compile_cache)
    # What a pipe's encoding lacks must not end a run.
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    # A pipe has no width: the tables take what they need.
    console = Console() if sys.stdout.isatty() else Console(width=200)
    config = FLAGS.config.to_dict()
    with one_line_each():
        report = run(
            config, FLAGS.workdir, tuple(FLAGS.methods), console, FLAGS.checkpoint_seconds,
            FLAGS.planning,
        )  # fmt: skip
        show_tables(Path(FLAGS.workdir), config, console)
    console.print(f"report: {report}", highlight=False, soft_wrap=True)


def _define_flags() -> None:
    config_flags.DEFINE_config_file(
        "config", None, "What to run: configs/ENV.py[:smoke|default|paper]. --config.FIELD=VALUE "
        "changes a field, such as --config.behavior=pure or --config.trial=1; configs/base.py "
        "lists them.", lock_config=True,
    )  # fmt: skip
    flags.DEFINE_string(
        "workdir", None, "Folder of the run, made if missing. With one that is there the run goes "
        "on where it stopped.",
    )  # fmt: skip
    flags.DEFINE_list(
        "methods",
        list(DEFAULT_METHODS),
        f"Some of {', '.join(METHODS)}; persim_bcq_K and persim_cql_K for any number K.",
    )
    flags.DEFINE_bool(
        "planning", True, "Run methods that plan in the true environment, too; false leaves "
        "that to a later start.",
    )  # fmt: skip
    flags.DEFINE_bool(
        "deterministic", True, "Let a GPU give the same numbers each time, at some cost in speed; "
        "a CPU does so anyway.",
    )  # fmt: skip
    flags.DEFINE_string(
        "compile_cache", None, "Folder for compiled programs: the next run with the same sizes "
        "starts faster, and compile_seconds then is the time of reading them.",
    )  # fmt: skip
    flags.DEFINE_float(
        "checkpoint_seconds", CHECKPOINT_SECONDS, "Least time between two checkpoints of training; "
        "0 writes one after every epoch.", lower_bound=0.0,
    )  # fmt: skip
    flags.mark_flags_as_required(["config", "workdir"])


if __name__ == "__main__":
    _define_flags()
    app.run(main, flags_parser=parse_flags)
