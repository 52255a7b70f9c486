"""Environments whose physics differ by agent, as records of pure functions."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType

from envs.base import Env, EnvSpec

__all__ = ["ENV_NAMES", "Env", "EnvSpec", "backends", "make"]

ENV_NAMES = ("mountain_car", "cart_pole", "half_cheetah")


def make(name: str, backend: str | None = None) -> Env:
    """Returns the environment called `name`.

    The same record comes back at every call with the same backend: it is hashable, and as a static
    argument of `jit` it must not look new each time. The module behind it is imported here and not
    above, since heavy simulators should only load for those who use them.

    Args:
      name: One of `ENV_NAMES`.
      backend: What steps the physics, where there is a choice; see `envs.half_cheetah.BACKENDS`.
        None and "auto" take what suits this machine; `spec.backend` says which it is.

    Raises:
      ValueError: There is no environment of that name, or it has no such backend.
      ModuleNotFoundError: The backend is not installed.
    """
    if name not in ENV_NAMES:
        raise ValueError(
            f"There is no environment called {name!r}; use one of {', '.join(ENV_NAMES)}."
        )
    module = importlib.import_module(f"envs.{name}")
    if hasattr(module, "BACKENDS"):
        env: Env = module.make("auto" if backend is None else backend)
        return env
    if backend not in (None, "auto"):
        raise ValueError(
            f"{name} has no backends to choose from, so {backend!r} is none of them: leave "
            "backend out, or use 'auto'."
        )
    return _make_plain(module)


def backends(name: str) -> tuple[str, ...]:
    """Names of what can step an environment's physics, "auto" aside; none where it is itself."""
    module = importlib.import_module(f"envs.{name}")
    return tuple(b for b in getattr(module, "BACKENDS", ()) if b != "auto")


@functools.cache
def _make_plain(module: ModuleType) -> Env:
    env: Env = module.make()
    return env
