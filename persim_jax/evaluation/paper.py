"""The paper's Tables 1, 2 and 3, looked up under this project's names.

The figures lie beside this file as `paper_tables.csv`, one line per number, agents named by their
true covariates. They are read as text, because how many decimals a number was printed with decides
whether ours is "the same".
"""

from __future__ import annotations

import csv
import functools
import math
import pathlib
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

TABLES_FILE = pathlib.Path(__file__).with_name("paper_tables.csv")
NUM_TRIALS = 5
"""Trials behind every `value ± std` of Tables 2 and 3."""

ENVIRONMENTS: Mapping[str, str] = {
    "mountain_car": "MountainCar",
    "cart_pole": "CartPole",
    "half_cheetah": "HalfCheetah",
}
BEHAVIORS: Mapping[str, str] = {
    "pure": "Pure",
    "random": "Random",
    "pure_eps20": "Pure-ε-20",
    "pure_eps40": "Pure-ε-40",
    "any": "any",
}
METHODS: Mapping[str, str] = {
    "persim": "PerSim",
    "cadm_vanilla": "Vanilla CaDM",
    "cadm_pets": "PE-TS CaDM",
    "bcq_p": "BCQ-P",
    "bcq_a": "BCQ-A",
    "cql_p": "CQL-P",
    "cql_a": "CQL-A",
    "morel_p": "MOReL-P",
    "morel_a": "MOReL-A",
    "persim_bcq_5": "PerSim-BCQ-5",
    "persim_cql_5": "PerSim-CQL-5",
    "true_env": "True env+MPC",
}
COVARIATES: Mapping[str, tuple[str, ...]] = {
    "mountain_car": ("gravity",),
    "cart_pole": ("force", "length"),
    "half_cheetah": ("mass_scale", "damping_scale"),
}
# The paper's gravities have slipped decimals, and two agents share one label.
_GRAVITY_LABELS: Mapping[str, str] = {
    "0.0001": "0.01",
    "0.0005": "0.05",
    "0.001": "0.01",
    "0.0025": "0.025",
    "0.0035": "0.035",
}

Agent: TypeAlias = Mapping[str, float] | str
"""An agent's covariates by name, or the label that the paper prints for it."""
_AgentKey: TypeAlias = tuple[str, ...]


class PaperCell(NamedTuple):
    """One number as the paper prints it.

    Attributes:
      value: The number.
      std: Standard deviation over five trials; None in Table 1, which has none.
      decimals: Digits printed after the decimal point.
      text: The number with its digits, and its spread if it has one, as printed.
    """

    value: float
    std: float | None
    decimals: int
    text: str


def paper_cell(
    table: int, environment: str, agent: Agent, behavior: str, method: str, metric: str
) -> PaperCell | None:
    """Returns the paper's number for one cell, or None where the paper prints none.

    Args:
      table: 1 (prediction error), 2 (return) or 3 (augmented offline learners).
      environment: Our name, such as `mountain_car`.
      agent: Covariates by name; or the paper's label, where it names one agent only.
      behavior: Our name of the data; ignored for `true_env`, which uses none.
      method: Our name, such as `persim`.
      metric: `rmse_mean`, `r2_median` or `return_mean`.

    Raises:
      ValueError: If the paper has no such table, or the label names two agents.
    """
    if table not in (1, 2, 3):
        raise ValueError(f"table is {table!r}; the paper's tables of numbers are 1, 2 and 3")
    if environment not in ENVIRONMENTS or method not in METHODS:
        return None
    if isinstance(agent, str):
        key = _label_key(table, environment, agent)
    else:
        key = agent_key(environment, agent)
    data = "any" if method == "true_env" else BEHAVIORS.get(behavior, "")
    name = (str(table), ENVIRONMENTS[environment], key, data, METHODS[method], metric)
    return _cells().get(name)


def paper_value(
    table: int, environment: str, agent: Agent, behavior: str, method: str, metric: str
) -> tuple[float, float | None] | None:
    """Returns `(value, std)` of `paper_cell`, or None where the paper prints no number."""
    cell = paper_cell(table, environment, agent, behavior, method, metric)
    return None if cell is None else (cell.value, cell.std)


def paper_agents(environment: str) -> tuple[dict[str, float], ...]:
    """Returns the covariates of the five test agents, in the order of Table 3."""
    if environment not in ENVIRONMENTS:
        return ()
    keys = (n[2] for n in _cells() if n[0] == "3" and n[1] == ENVIRONMENTS[environment])
    names = COVARIATES[environment]
    return tuple(dict(zip(names, map(float, key), strict=True)) for key in dict.fromkeys(keys))


def paper_label(environment: str, covariates: Mapping[str, float]) -> str | None:
    """Returns how the paper prints a test agent; None for any other agent."""
    key = agent_key(environment, covariates)
    if key not in {agent_key(environment, agent) for agent in paper_agents(environment)}:
        return None
    return _GRAVITY_LABELS[key[0]] if environment == "mountain_car" else "/".join(key)


def printed_cells(environment: str) -> tuple[tuple[int, str, str, _AgentKey], ...]:
    """Returns `(table, behavior, method, agent's key)` of every cell that the paper prints.

    Of the metrics of a cell there is but one entry. The behavior of `true_env` is `any`.
    """
    behaviors, methods = ({v: k for k, v in names.items()} for names in (BEHAVIORS, METHODS))
    shown = ENVIRONMENTS.get(environment)
    found = [(int(n[0]), behaviors[n[3]], methods[n[4]], n[2]) for n in _cells() if n[1] == shown]
    return tuple(dict.fromkeys(found))


def agent_key(environment: str, covariates: Mapping[str, float]) -> _AgentKey:
    """Returns covariates as text with four digits, so that float32 and float64 agree.

    Raises:
      ValueError: If a covariate of the environment is absent.
    """
    names = COVARIATES.get(environment, tuple(covariates))
    absent = [name for name in names if name not in covariates]
    if absent:
        raise ValueError(
            f"covariates {dict(covariates)} lack {', '.join(absent)}: an agent of {environment} "
            f"is named by {', '.join(names)}"
        )
    return tuple(f"{float(covariates[name]):.4g}" for name in names)


def equal_as_printed(value: float, cell: PaperCell) -> bool:
    """Returns whether a value, printed with the paper's digits, is the paper's number."""
    return math.isfinite(value) and round(value, cell.decimals) == cell.value


def _label_key(table: int, environment: str, label: str) -> _AgentKey:
    """Returns the agent that a table means by a label."""
    if environment != "mountain_car":
        try:
            return tuple(f"{float(part):.4g}" for part in label.strip("()").split("/"))
        except ValueError as error:
            raise ValueError(
                f"label {label!r} is not numbers joined by '/', such as 2/0.5"
            ) from error
    shown = {key for n in _cells() if n[0] == str(table) and (key := n[2]) and len(key) == 1}
    meant = [key for key in shown if _GRAVITY_LABELS[key[0]] == label]
    if len(meant) > 1:
        raise ValueError(
            f"label {label!r} names {len(meant)} agents in Table {table}; give the covariates "
            "instead, such as {'gravity': 0.0001}"
        )
    return meant[0] if meant else (label,)


@functools.lru_cache(maxsize=1)
def _cells() -> dict[tuple[str, str, _AgentKey, str, str, str], PaperCell]:
    """Reads the file into cells by (table, environment, agent, data, method, metric)."""
    cells: dict[tuple[str, str, _AgentKey, str, str, str], PaperCell] = {}
    with TABLES_FILE.open(encoding="utf8", newline="") as file:
        for line in csv.DictReader(file):
            key = tuple(f"{float(part):.4g}" for part in line["agent"].split("/"))
            name = (line["table"], line["environment"], key)
            cells[*name, line["dataset"], line["method"], line["metric"]] = PaperCell(
                value=float(line["value"]),
                std=float(line["std"]) if line["std"] else None,
                decimals=len(line["value"].partition(".")[2]),
                text=" ± ".join(filter(None, (line["value"], line["std"]))),
            )
    return cells
