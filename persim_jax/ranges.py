"""Ranges that the numbers of a config must lie in, so that one which cannot be meant is refused.

A config calls these when it is made: inside a trace such a number would fail late, or train another
way without a word. NaN lies in no range.
"""

from __future__ import annotations

import math
import numbers
from typing import Any


def count(name: str, value: object) -> None:
    """Raises if a value is no number of things: zero is none, and -1 would count from the end.

    Raises:
      ValueError: It is no whole number from 1 on.
    """
    _whole(name, value, 1)


def counts(config: Any, least: int, *names: str) -> None:
    """Raises if a number of things is below `least`, or a fraction: half a batch is none.

    Raises:
      ValueError: One is; says which.
    """
    for name in names:
        _whole(name, getattr(config, name), least)


def _whole(name: str, value: object, least: int) -> None:
    if not _is_whole(value, least):
        raise ValueError(f"{name} is {value}: it must be at least {least}, and a whole number")


def _is_whole(value: Any, least: int) -> bool:
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    return whole and value >= least


def at_least(config: Any, least: int, *names: str) -> None:
    """Raises if a number is below `least`.

    Raises:
      ValueError: One is; says which.
    """
    for name in names:
        if not getattr(config, name) >= least:
            raise ValueError(f"{name} is {getattr(config, name)}: it must be at least {least}")


def between(config: Any, low: float, high: float, *names: str) -> None:
    """Raises if a number is outside `[low, high]`.

    Raises:
      ValueError: One is; says which.
    """
    for name in names:
        if not low <= getattr(config, name) <= high:
            raise ValueError(
                f"{name} is {getattr(config, name)}: it must lie in [{low:g}, {high:g}]"
            )


def positive(config: Any, *names: str) -> None:
    """Raises if a number is not above 0 and finite.

    Raises:
      ValueError: One is not; says which.
    """
    for name in names:
        if not 0 < getattr(config, name) < math.inf:
            raise ValueError(f"{name} is {getattr(config, name)}: it must be positive and finite")


def not_negative(config: Any, *names: str) -> None:
    """Raises if a number is below 0 or not finite.

    Raises:
      ValueError: One is; says which.
    """
    for name in names:
        if not 0 <= getattr(config, name) < math.inf:
            raise ValueError(
                f"{name} is {getattr(config, name)}: it must not be negative, and must be finite"
            )


def widths(config: Any, *names: str) -> None:
    """Raises if a layer has no unit, or a part of one; no layers at all are a linear map.

    Raises:
      ValueError: One has; says where.
    """
    for name in names:
        given = getattr(config, name)
        if not all(_is_whole(width, 1) for width in given):
            raise ValueError(
                f"{name} are {given}: every layer needs a width of at least 1, and a whole number"
            )
