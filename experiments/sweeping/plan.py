"""From a sweep's name to jobs with configs, digests and folders. No array is made here."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from configs.sweeps import Job, Request
from experiments.reporting.overrides import overrides_of
from experiments.stamps import ROOT, jsonable
from experiments.sweeping.launchers import find_launcher
from persim_jax.methods import METHODS, TRUE_ENV, parse_name

FOLDER = "jobs"
Overrides = Sequence[tuple[str, Any]]


@dataclasses.dataclass(frozen=True)
class Planned:
    """A job of a sweep, ready to be run.

    Attributes:
      job: As the sweep yielded it, with the overrides of the command line.
      variant: Of the config.
      config: The config as plain JSON types.
      key: Digest of config, methods, measures and launcher: what is done under it stays done.
      folder: Name of its workdir in `jobs/`, the digest of the config at its end. Jobs that
        measure different things with one config share it, and so all that it took to make.
      asked: The methods that the sweep asks for, where `job` has only those that are left.
    """

    job: Job
    variant: str
    config: Mapping[str, Any]
    key: str
    folder: str
    asked: tuple[str, ...] = ()

    @property
    def trial(self) -> int:
        """Number of the trial."""
        return int(self.config["trial"])

    @property
    def name(self) -> str:
        """What it is, for people."""
        changes = [f"{f}={v}" for f, v in self.job.overrides if f not in ("behavior", "trial")]
        about = [self.config["environment"], self.config["behavior"], f"trial {self.trial}"]
        what = " and ".join(self.job.measures)
        return f"{', '.join([*about, *changes])}: {what} of {', '.join(self.job.methods)}"

    @property
    def about(self) -> dict[str, Any]:
        """What a reader of the index must know of the job, as plain data."""
        names = ("environment", "behavior", "trial", "variant", "seed")
        found = {name: self.config[name] for name in names}
        asked = {"methods": list(self.job.methods), "measures": list(self.job.measures)}
        return found | {"overrides": overrides_of(self.config)} | asked

    @property
    def whole(self) -> Planned:
        """The job with all methods that the sweep asks for."""
        if not self.asked:
            return self
        job = dataclasses.replace(self.job, methods=self.asked)
        return dataclasses.replace(self, job=job, asked=())

    def only(self, methods: Sequence[str]) -> Planned:
        """The same job, for some of its methods; key and folder stay."""
        whole = self.whole
        if set(methods) == set(whole.job.methods):
            return whole
        job = dataclasses.replace(whole.job, methods=tuple(methods))
        return dataclasses.replace(whole, job=job, asked=whole.job.methods)


def make_request(variant: str, environments: Sequence[str], trials: Sequence[int]) -> Request:
    """What a sweep function is asked for, with the methods that have landed."""
    names = tuple(METHODS)
    parsed = {name: parse_name(name) for name in names}
    return Request(
        variant=variant,
        environments=tuple(environments),
        trials=tuple(trials),
        methods=names,
        predictors=tuple(
            name for name in names if METHODS[name].model is not None and name != TRUE_ENV.name
        ),
        simulating=tuple(name for name, about in parsed.items() if about and about.num_synthetic),
    )


def load_sweep(reference: str) -> Callable[[Request], Iterable[Job]]:
    """A sweep from `path/to/file.py:NAME`.

    Raises:
      ValueError: The text has another form, there is no such file, or no such sweep in it; names
        those that there are.
    """
    path, colon, name = reference.rpartition(":")
    if not (path and colon and name):
        raise ValueError(f"--sweep={reference} names no sweep: write configs/sweeps.py:table_1")
    module = _load(path)
    sweeps = {
        key: value
        for key, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and key[0] != "_"
    }
    if name not in sweeps:
        near = difflib.get_close_matches(name, sweeps, n=1)
        raise ValueError(
            f"{path} has no sweep {name!r}{f' (did you mean {near[0]!r}?)' if near else ''}: "
            f"it has {', '.join(sweeps) or 'none'}"
        )
    found: Callable[[Request], Iterable[Job]] = sweeps[name]
    return found


def jobs_of(reference: str, request: Request) -> list[Job]:
    """The jobs of a sweep, all of them.

    Raises:
      ValueError: As `load_sweep`; or the sweep raises an error, or yields something else than jobs.
    """
    sweep = load_sweep(reference)
    try:
        jobs = list(sweep(request))
    except Exception as error:
        raise ValueError(f"{reference} raises {type(error).__name__}: {error}") from error
    for job in jobs:
        if not isinstance(job, Job):
            raise ValueError(f"{reference} yields {job!r}: a sweep yields configs.sweeps.Job")
    return jobs


def make_plan(
    jobs: Iterable[Job], variant: str, overrides: Overrides = (), where: Path = ROOT
) -> list[Planned]:
    """The jobs with their configs.

    Args:
      jobs: Of a sweep.
      variant: Of their configs.
      overrides: Of the command line, after the jobs' own.
      where: Folder that the paths of configs are relative to.

    Raises:
      ValueError: An override names no field or has the wrong type, a measure is unknown, a job has
        no methods or cannot run with its config, or two jobs are the same; names both.
    """
    plan: list[Planned] = []
    for job in jobs:
        full = dataclasses.replace(job, overrides=(*job.overrides, *overrides))
        plan.append(_planned(full, variant, where))
    _refuse_twins(plan)
    return plan


def parse_override(text: str) -> tuple[str, Any]:
    """A field and its value from `FIELD=VALUE`, the value as Python reads it, else as text.

    Raises:
      ValueError: There is no `=`.
    """
    field, equals, value = text.partition("=")
    if not (field and equals):
        raise ValueError(f"--override={text} sets nothing: write --override=model.rank=2")
    try:
        return field, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return field, value


def build_config(job: Job, variant: str, where: Path = ROOT) -> dict[str, Any]:
    """The job's config as plain JSON types.

    Raises:
      ValueError: There is no such file, variant or field, or a value has the wrong type.
    """
    module = _load(where / job.config, "configs/cart_pole.py")
    if not hasattr(module, "get_config"):
        raise ValueError(
            f"{job.config} has no get_config(variant): it is no environment's config; use "
            "configs/cart_pole.py, for example"
        )
    config = module.get_config(variant)
    for field, value in job.overrides:
        _set(config, field, value, job.config)
    plain: dict[str, Any] = jsonable(config.to_dict())
    return plain


def digest_of(value: Any) -> str:
    """Ten hexadecimal digits that name plain data."""
    text = json.dumps(jsonable(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def _planned(job: Job, variant: str, where: Path) -> Planned:
    _refuse_unknown_measures(job)
    methods: Any = job.methods
    # Of no method everything is measured: such a job would count as done.
    if not methods or isinstance(methods, str):
        raise ValueError(
            f"a job of {job.config} has the methods {methods!r}: give a tuple of their names, "
            "such as ('persim',)"
        )
    config = build_config(job, variant, where)
    _refuse_what_cannot_run(job, config)
    about = {
        "config": config,
        "methods": sorted(job.methods),
        "measures": sorted(job.measures),
        "launcher": job.launcher,
    }
    # The whole config and not only what names rows: a workdir belongs to one config.
    folder = "-".join(
        [config["environment"], config["behavior"], f"t{config['trial']}", digest_of(config)]
    )
    return Planned(job, variant, config, digest_of(about), folder)


def _refuse_unknown_measures(job: Job) -> None:
    known = find_launcher(job.launcher).measures
    unknown = [measure for measure in job.measures if known and measure not in known]
    if unknown or not job.measures:
        raise ValueError(
            f"a job of {job.config} asks for the measures {job.measures}: {job.launcher} has "
            f"{', '.join(known) or 'others, but none were named'}"
        )


def _refuse_what_cannot_run(job: Job, config: dict[str, Any]) -> None:
    check = find_launcher(job.launcher).check
    if check is None:
        return
    try:
        check(config, job.methods)
    except ValueError as error:
        changes = ", ".join(f"{field}={value}" for field, value in job.overrides)
        where = f"a job of {job.config}{f' with {changes}' if changes else ''}"
        raise ValueError(f"{where} cannot run: {error}") from error


def _refuse_twins(plan: Sequence[Planned]) -> None:
    seen: dict[str, tuple[int, Planned]] = {}
    for number, planned in enumerate(plan, start=1):
        if planned.key in seen:
            first, twin = seen[planned.key]
            raise ValueError(
                f"jobs {first} ({twin.name}) and {number} ({planned.name}) of the sweep have the "
                f"same digest, {planned.key}: they would measure the same numbers. Yield one of "
                "them, or let them differ in config, methods, measures or launcher"
            )
        seen[planned.key] = (number, planned)


def _set(config: ConfigDict, field: str, value: Any, source: str) -> None:
    """Changes a field that is there to a value of its type."""
    if field in ("environment", "variant"):
        # They say which settings a file gave: rows of others would bear their name.
        raise ValueError(
            f"override {field}={value}: the config file and the variant that it is asked for say "
            "that: use --environments and --variant"
        )
    *sections, last = field.split(".")
    tree: Any = config
    for depth, name in enumerate([*sections, last]):
        if not isinstance(tree, ConfigDict) or name not in tree:
            inside = ".".join(field.split(".")[:depth])
            known = ", ".join(sorted(tree)) if isinstance(tree, ConfigDict) else "no fields"
            raise ValueError(
                f"override {field}={value}: {source} has no field {field}; "
                f"{f'config.{inside}' if inside else 'config'} has {known}"
            )
        if depth < len(sections):
            tree = tree[name]
    try:
        tree[last] = tuple(value) if isinstance(value, list) else value
    except TypeError as error:
        raise ValueError(f"override {field}={value}: {error}") from error


def _load(path: str | Path, example: str = "configs/sweeps.py") -> ModuleType:
    """A Python file as a module; one of the repository under its own name."""
    full = Path(path).resolve()
    if not full.is_file():
        raise ValueError(f"there is no file {path}: use {example}, for example")
    if full.suffix != ".py":
        raise ValueError(f"{path} is no Python file: use {example}, for example")
    try:
        return _imported(full)
    except Exception as error:
        raise ValueError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error


def _imported(full: Path) -> ModuleType:
    if full.is_relative_to(ROOT):
        return importlib.import_module(".".join(full.relative_to(ROOT).with_suffix("").parts))
    name = f"sweep_file_{digest_of(str(full))}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, full)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        # The next one who asks is told the same, and gets no half of a module.
        del sys.modules[name]
        raise
    return module
