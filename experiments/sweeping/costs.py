"""What a job will cost, from what earlier ones cost.

Seconds of training, prediction test and episodes stand in rows; the newest measurement of the same
config counts, else the newest of the same method in the same environment, else `DEFAULTS`. Rows of
the default variant say what it costs on the CPU cores of one machine. What the machine at hand
makes of that is learnt from the jobs that are done: `calibration`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from experiments.baseline_settings import method_digest
from experiments.records import Row
from experiments.sweeping.index import DONE, Entry
from experiments.sweeping.plan import Planned

PARTS = {"train_seconds": "train", "rmse_mean": "prediction", "return_mean": "returns"}
UNSEEN = "unseen"
# Seconds at the default variant, on two CPU cores: (training, prediction test, returns).
DEFAULTS: Mapping[str, Mapping[str, tuple[float, float, float]]] = {
    "mountain_car": {
        "persim": (20, 3, 50), "true_env": (0, 0, 8), "cadm": (120, 5, 150),
        "bcq": (30, 0, 3), "cql": (30, 0, 3), "morel": (120, 0, 3), "": (30, 3, 50),
    },
    "cart_pole": {
        "persim": (80, 3, 250), "true_env": (0, 0, 13), "cadm": (120, 5, 400),
        "bcq": (30, 0, 2), "cql": (30, 0, 2), "morel": (120, 0, 2), "": (80, 3, 250),
    },
    "half_cheetah": {
        "persim": (1300, 15, 1100), "true_env": (0, 0, 3000), "cadm": (2500, 20, 3000),
        "bcq": (600, 0, 60), "cql": (600, 0, 60), "morel": (2500, 0, 60), "": (1300, 15, 1100),
    },
}  # fmt: skip
NEWCOMERS = {"mountain_car": 10.0, "cart_pole": 12.0, "half_cheetah": 260.0}
PAPER = {"train": 30.0, "prediction": 2.0, "returns": 3.0}
"""How often the default variant's seconds the authors' settings take."""
SMOKE_SECONDS, SMOKE_METHOD = 4.0, 6.0
START_SECONDS = {"mountain_car": 12.0, "cart_pole": 12.0, "half_cheetah": 90.0}
"""Of a job beside its methods: data, compilation, files."""


class Costs:
    """Estimates of what jobs cost."""

    def __init__(self, rows: Iterable[Row]) -> None:
        """Learns from rows, smoke runs left out."""
        groups: dict[tuple[Any, ...], dict[str, float]] = defaultdict(dict)
        newest: dict[tuple[Any, ...], str] = {}
        for row in rows:
            part = PARTS.get(row["metric"])
            if part is None or row.get("variant") == "smoke" or not row.get("wall_s"):
                continue
            fields = ("environment", "variant", "method", "behavior", "config_digest", "trial")
            about = (*(row.get(name) for name in fields), row.get("code_version"))
            groups[about][part] = groups[about].get(part, 0.0) + float(row["wall_s"])
            newest[about] = max(newest.get(about, ""), row.get("measured_at") or "")
        # By what is known: the config, the kind of data, or no more than the method.
        self._known: dict[tuple[Any, ...], dict[str, float]] = defaultdict(dict)
        for about in sorted(groups, key=lambda group: newest[group]):
            environment, variant, method, behavior, digest, *_ = about
            like = (environment, variant, method)
            for key in ((method, digest), (*like, behavior), like):
                self._known[key] |= groups[about]

    def of(self, planned: Planned, trained: Collection[str] = ()) -> float:
        """Seconds that a job will take on one worker.

        Args:
          planned: The job.
          trained: Methods that another job with its config trains, and it finds.
        """
        config, job = planned.config, planned.job
        environment = str(config["environment"])
        if config["variant"] == "smoke":
            return SMOKE_SECONDS + SMOKE_METHOD * len(job.methods) * len(job.measures)
        total = START_SECONDS.get(environment, 30.0)
        if UNSEEN in job.measures:
            total += NEWCOMERS.get(environment, 30.0)
        for method in job.methods:
            wanted = {*job.measures} if method in trained else {"train", *job.measures}
            parts = self._parts(planned, method)
            total += sum(seconds for part, seconds in parts.items() if part in wanted)
        return total

    def _parts(self, planned: Planned, method: str) -> dict[str, float]:
        config = planned.config
        like = (config["environment"], config["variant"], method)
        factor = PAPER if config["variant"] == "paper" else dict.fromkeys(PAPER, 1.0)
        default = zip(PAPER, _default(str(config["environment"]), method), strict=True)
        parts = {part: seconds * factor[part] for part, seconds in default}
        parts |= self._known.get(like, {}) | self._known.get((*like, config["behavior"]), {})
        parts = {part: s * _size(planned, part, method) for part, s in parts.items()}
        return parts | self._known.get((method, method_digest(config, method)), {})


def calibration(entries: Iterable[Entry]) -> float:
    """How many seconds one estimated second takes here, from the jobs that are done; else 1."""
    done = [e for e in entries if e.state == DONE and e.seconds and e.estimate]
    expected = sum(e.estimate or 0.0 for e in done)
    return sum(e.seconds or 0.0 for e in done) / expected if expected else 1.0


def estimates(plan: Iterable[Planned], costs: Costs) -> dict[str, float]:
    """Seconds of each job by its key; of jobs with one config only the first trains a method."""
    seconds: dict[str, float] = {}
    trained: dict[str, set[str]] = defaultdict(set)
    for planned in plan:
        seconds[planned.key] = costs.of(planned, trained[planned.folder])
        trained[planned.folder] |= set(planned.job.methods)
    return seconds


def _default(environment: str, method: str) -> tuple[float, float, float]:
    table = DEFAULTS.get(environment, DEFAULTS["cart_pole"])
    names = [name for name in table if name and method.startswith(name)]
    if method.startswith("persim_"):  # its simulators and a learner
        train, *rest = table["bcq"]
        return table["persim"][0] + train, rest[0], rest[1]
    return table[names[0] if names else ""]


def _size(planned: Planned, part: str, method: str) -> float:
    """How much larger a job is than the default one, in what overrides of sweeps change."""
    config, factor = planned.config, 1.0
    if part == "train" and not method.endswith("_a"):
        factor *= config["agents"]["num_agents"] / 500
    if method.startswith(("persim", "concat", "pooled", "per_agent")) and part != "prediction":
        factor *= config["model"]["ensemble_size"] / 5
    return factor
