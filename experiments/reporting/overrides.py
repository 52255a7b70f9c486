"""In what a run's config differs from the one that is shipped; what sweeps vary on purpose."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments.stamps import jsonable

FIELD = "overrides"
"""Field of a row: dotted names of what its run set otherwise than the shipped config, by value."""
KNOBS: Mapping[str, str] = {
    "agents.num_agents": "agents in the data, N",
    "model.rank": "rank",
    "model.ensemble_size": "members of the ensemble, M",
}
"""Settings that a study varies, and how its axis is named; rows with one are in no other table."""
SHARED = "settings_shared"
"""Field of a row, in a report only: every run has its settings, so that no study varies them."""
SHIPPED = ""
"""`settings_key` of rows of the shipped config."""
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


def is_study(row: Mapping[str, Any]) -> bool:
    """Returns whether a row belongs to a study of some setting, and so to no other table."""
    return not row.get(SHARED) and any(name in KNOBS for name in settings_of(row))


def shipped_value(environment: str, variant: str, name: str) -> Any:
    """Returns the shipped value of a setting by its dotted name; None if there is none."""
    return dict(_leaves(shipped_config(environment, variant) or {})).get(name)


def settings_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a row's number was measured with otherwise than shipped, the seed included.

    What the number does not depend on, such as the planner's horizon for an offline learner, is
    left out: it is one number, whatever the run that measured it has set there.
    """
    overrides, seed = row.get(FIELD) or {}, row.get("seed") or 0
    found = dict(overrides)
    if overrides:
        about = (row["environment"], row["method"], row.get("variant") or "default")
        found = dict(_own(*about, Items(sorted(found.items()))))
    return found | ({"seed": seed} if seed else {})


def settings_key(row: Mapping[str, Any]) -> str:
    """Returns the settings of a row as a text that tells them apart; empty for the shipped ones."""
    return ", ".join(f"{name}={value}" for name, value in sorted(settings_of(row).items()))


class Items(tuple[tuple[str, Any], ...]):
    """Overrides in a key: told apart by their text, as lists have no hash."""

    def __hash__(self) -> int:
        return hash(repr(self))


@functools.lru_cache
def _own(environment: str, method: str, variant: str, overrides: Items) -> Items:
    """Those of the overrides that are in the digest of the method's rows; all if none is known."""
    about = (environment, "random", method, variant, 0)
    if shipped_digest(*about, overrides) is None:
        return overrides
    names = range(len(overrides))
    rest = [Items((*overrides[:n], *overrides[n + 1 :])) for n in names]
    whole = shipped_digest(*about, overrides)
    return Items(overrides[n] for n in names if shipped_digest(*about, rest[n]) != whole)


@functools.lru_cache
def shipped_digest(
    environment: str, behavior: str, method: str, variant: str, seed: int, overrides: Items
) -> str | None:
    """Returns the digest of today's shipped config with some overrides; None if there is none."""
    # Here, not above: it takes jax, without which reports of rows start faster.
    from experiments.baseline_settings import method_digest

    shipped = shipped_config(environment, variant)
    if shipped is None:
        return None
    config = shipped | {"behavior": behavior, "seed": seed}
    try:
        for name, value in overrides:
            config = _with(config, name.split("."), value)
        return method_digest(config, method)
    except (KeyError, ValueError):
        return None


def _with(config: dict[str, Any], names: Sequence[str], value: Any) -> dict[str, Any]:
    inner = value if len(names) == 1 else _with(config[names[0]], names[1:], value)
    return config | {names[0]: inner}


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
