"""Environments whose physics differ by agent, as records of pure functions."""

from __future__ import annotations

import functools
import importlib

from envs.base import Env, EnvSpec

__all__ = ["ENV_NAMES", "Env", "EnvSpec", "make"]

ENV_NAMES = ("mountain_car", "cart_pole")


@functools.cache
def make(name: str) -> Env:
    """Returns the environment called `name`.

    The same record comes back at every call: it is hashable, and as a static argument of `jit` it
    must not look new each time. The module behind it is imported here and not above, since
    heavy simulators should only load for those who use them.

    Args:
      name: One of `ENV_NAMES`.

    Raises:
      ValueError: There is no environment of that name.
    """
    if name not in ENV_NAMES:
        raise ValueError(
            f"There is no environment called {name!r}; use one of {', '.join(ENV_NAMES)}."
        )
    env: Env = importlib.import_module(f"envs.{name}").make()
    return env
