"""In what a run's config differs from the one that is shipped; what sweeps vary on purpose."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from experiments.records import Row
from experiments.stamps import jsonable

FIELD = "overrides"
"""Field of a row: dotted names of what its run set otherwise than the shipped config, by value."""
KNOBS: Mapping[str, str] = {
    "agents.num_agents": "agents in the data, N",
    "model.rank": "rank",
    "model.ensemble_size": "members of the ensemble, M",
}
"""Settings that a study varies, and how its axis is named; rows with one are in no other table."""
# They have fields of their own in rows, or are of the machine.
_NAMED = frozenset({"environment", "behavior", "variant", "trial", "seed"})


@functools.lru_cache
def shipped_config(environment: str, variant: str) -> dict[str, Any] | None:
    """Returns the shipped config as plain data; None if there is none of this name."""
    try:
        module = importlib.import_module(f"configs.{environment}")
        config = module.get_config("" if variant == "default" else variant)
    except (ModuleNotFoundError, ValueError):
        return None
    plain: dict[str, Any] = jsonable(config.to_dict())
    return plain


def overrides_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a run's config sets otherwise than the shipped one, by dotted name.

    Fields that one of the two lacks came or went with the code, and are no one's choice.
    """
    names = (config.get("environment"), config.get("variant"))
    shipped = shipped_config(str(names[0]), str(names[1])) if all(names) else None
    if shipped is None:
        return {}
    before = dict(_leaves(shipped))
    return {
        name: value
        for name, value in _leaves(jsonable(config))
        if name in before and value != before[name] and name not in _NAMED
    }


def knobs_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns which of the `KNOBS` a row's run has set, and to what."""
    found = row.get(FIELD) or {}
    return {name: found[name] for name in KNOBS if name in found}


def is_study(row: Row) -> bool:
    """Returns whether a row belongs to a study of some setting, and so to no other table."""
    return bool(knobs_of(row))


def shipped_value(environment: str, variant: str, name: str) -> Any:
    """Returns the shipped value of a setting by its dotted name; None if there is none."""
    return dict(_leaves(shipped_config(environment, variant) or {})).get(name)


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
