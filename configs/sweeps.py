"""Sweeps: which runs make which table or figure.

    python -m experiments.sweep --sweep=configs/sweeps.py:table_1 --workdir=runs/table_1

A sweep is a public function of this file, or of one of yours: given a `Request` it yields `Job`s,
first one trial of everything, then the next trial, so that a sweep that is stopped has whole
trials. Data only: what a job costs, whether it is done and where it runs is for
`experiments.sweep`.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

PREDICTION, RETURNS = "prediction", "returns"
RUN = "experiments.sweeping.launchers:RUN"
UNSEEN = "experiments.sweeping.launchers:UNSEEN"

BEHAVIORS = ("random", "pure", "pure_eps20", "pure_eps40")
OWN_RANKS = {"mountain_car": 3, "cart_pole": 5, "half_cheetah": 15}
RANKS = (1, 2, 3, 4, 5, 7, 10, 15, 20)
ENSEMBLE_SIZES = (1, 2, 3, 5, 8)
NUM_AGENTS = (25, 50, 100, 250, 500)
SMOKE = {RANKS: (1,), ENSEMBLE_SIZES: (1, 2), NUM_AGENTS: (10, 20)}
"""What the smoke variant has of them."""
# Not in the paper: Table 1 has their errors, a sweep of their own their returns.
ABLATIONS = ("concat_mlp", "pooled_mlp", "per_agent_mlp")
NEWCOMER_BEHAVIORS = ("pure_eps40", "random")


@dataclasses.dataclass(frozen=True)
class Job:
    """One run: a config with some fields changed, and what is measured with it.

    Attributes:
      config: File with `get_config(variant)`, such as `configs/cart_pole.py`.
      overrides: Dotted fields with their values, such as `("model.rank", 2)`.
      methods: As in result rows.
      measures: What is asked for of each; without returns, methods that plan do not plan.
      launcher: `module:NAME` of an `experiments.sweeping.launchers.Launcher`.
    """

    config: str
    overrides: tuple[tuple[str, Any], ...] = ()
    methods: tuple[str, ...] = ("persim",)
    measures: tuple[str, ...] = (PREDICTION, RETURNS)
    launcher: str = RUN


@dataclasses.dataclass(frozen=True)
class Request:
    """What a sweep is asked for.

    Attributes:
      variant: "smoke", "default" or "paper".
      environments: Names of config files in `configs/`.
      trials: Numbers of the trials.
      methods: All methods that have landed, in the order of the tables.
      predictors: Those with a model that can be put to the prediction test.
      simulating: Those that train on trajectories of PerSim's simulators.
    """

    variant: str
    environments: tuple[str, ...]
    trials: tuple[int, ...]
    methods: tuple[str, ...]
    predictors: tuple[str, ...]
    simulating: tuple[str, ...]


def table_1(request: Request) -> Iterator[Job]:
    """Prediction error of every method with a model, on four kinds of data."""
    for trial, environment, behavior in _cells(request, BEHAVIORS):
        yield _job(environment, behavior, trial, request.predictors, (PREDICTION,))


def table_2(request: Request) -> Iterator[Job]:
    """What every method earns in the true environment, on four kinds of data."""
    everywhere = _without(request.methods, {"true_env", *request.simulating, *ABLATIONS})
    for trial, environment, behavior in _cells(request, BEHAVIORS):
        # The truth uses no data: once is enough.
        bound = ("true_env",) if behavior == BEHAVIORS[0] else ()
        yield _job(environment, behavior, trial, (*everywhere, *bound), (RETURNS,))


def table_3(request: Request) -> Iterator[Job]:
    """Offline learners with an agent's own trajectory, and with five of its simulator beside it."""
    learners = tuple(m for m in request.methods if m in ("bcq_a", "cql_a"))
    for trial, environment, behavior in _cells(request, ("random",)):
        yield _job(environment, behavior, trial, (*learners, *request.simulating), (RETURNS,))


def ablations(request: Request) -> Iterator[Job]:
    """What PerSim predicts and earns without one of its ideas, on four kinds of data."""
    methods = tuple(m for m in request.methods if m in ("persim", *ABLATIONS))
    for trial, environment, behavior in _cells(request, BEHAVIORS):
        yield _job(environment, behavior, trial, methods)


def unseen(request: Request) -> Iterator[Job]:
    """Agents that were not in the data, from few transitions or covariates (Appendix F.5)."""
    for trial, environment, behavior in _cells(request, NEWCOMER_BEHAVIORS):
        yield _job(environment, behavior, trial, ("persim",), ("unseen",), launcher=UNSEEN)


def data_scarcity(request: Request) -> Iterator[Job]:
    """Errors and returns against the number of agents, one trajectory each (Appendix F.6)."""
    methods = _without(request.methods, {"true_env", *request.simulating, *ABLATIONS})
    for trial, environment, behavior in _cells(request, ("random",)):
        for number in _sizes(request, NUM_AGENTS):
            changes = (("agents.num_agents", number),)
            yield _job(environment, behavior, trial, methods, changes=changes)


def rank(request: Request) -> Iterator[Job]:
    """PerSim's error against its rank; Theorem 1 says that a small one suffices."""
    for trial, environment, behavior in _cells(request, ("random",)):
        for number in sorted({*_sizes(request, RANKS), OWN_RANKS.get(environment, RANKS[0])}):
            changes = (("model.rank", number),)
            yield _job(environment, behavior, trial, ("persim",), (PREDICTION,), changes)


def ensemble_size(request: Request) -> Iterator[Job]:
    """PerSim's error and returns against the number of members."""
    for trial, environment, behavior in _cells(request, ("random",)):
        for number in _sizes(request, ENSEMBLE_SIZES):
            changes = (("model.ensemble_size", number),)
            yield _job(environment, behavior, trial, ("persim",), changes=changes)


def behavior_quality(request: Request) -> Iterator[Job]:
    """PerSim on data from the uniformly random to the trained policy."""
    for trial, environment, behavior in _cells(
        request, ("random", "pure_eps40", "pure_eps20", "pure")
    ):
        yield _job(environment, behavior, trial, ("persim",))


def paper(request: Request) -> Iterator[Job]:
    """All of it: one trial of every table and figure, then the next trial."""
    parts = (
        table_1, table_2, table_3, unseen, data_scarcity, rank, ensemble_size, behavior_quality,
        ablations,
    )  # fmt: skip
    for trial in request.trials:
        one = dataclasses.replace(request, trials=(trial,))
        jobs = itertools.chain.from_iterable(part(one) for part in parts)
        yield from _uncovered(jobs, request)


def _cells(request: Request, behaviors: Iterable[str]) -> Iterator[tuple[int, str, str]]:
    return itertools.product(request.trials, request.environments, tuple(behaviors))


def _job(
    environment: str,
    behavior: str,
    trial: int,
    methods: tuple[str, ...],
    measures: tuple[str, ...] = (PREDICTION, RETURNS),
    changes: tuple[tuple[str, Any], ...] = (),
    launcher: str = RUN,
) -> Job:
    overrides = (("behavior", behavior), ("trial", trial), *changes)
    return Job(f"configs/{environment}.py", overrides, methods, measures, launcher)


def _without(methods: Iterable[str], left_out: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in methods if name not in set(left_out))


def _sizes(request: Request, full: tuple[int, ...]) -> tuple[int, ...]:
    return SMOKE[full] if request.variant == "smoke" else full


def _uncovered(jobs: Iterable[Job], request: Request) -> Iterator[Job]:
    """Jobs without the methods that earlier ones measure already: tables share numbers."""
    seen: set[tuple[Any, ...]] = set()
    for job in jobs:
        about = (job.config, _changes(job, request.variant), job.launcher)
        wanted = {
            method: {
                (*about, method, measure)
                for measure in job.measures
                # Who has no model has no prediction test.
                if measure != PREDICTION or method in request.predictors
            }
            for method in job.methods
        }
        methods = tuple(method for method in job.methods if not wanted[method] <= seen)
        seen.update(*(wanted[method] for method in methods))
        if methods:
            yield dataclasses.replace(job, methods=methods)


def _changes(job: Job, variant: str) -> frozenset[tuple[str, Any]]:
    """Overrides that change something: the default rank is no other config."""
    module = importlib.import_module(job.config.removesuffix(".py").replace("/", "."))
    defaults = module.get_config(variant)
    return frozenset(
        (field, value)
        for field, value in job.overrides
        if functools.reduce(lambda tree, name: tree[name], field.split("."), defaults) != value
    )
