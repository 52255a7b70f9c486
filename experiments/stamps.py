"""Under what conditions a number was measured: code version, config digest, machine."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "persim_jax")
# Accepted results and prose change no number: they must not make the next run "dirty".
_PROSE = (":(exclude)results", ":(exclude)docs", ":(exclude)*.md", ":(exclude)*.ipynb")

LATER_FIELDS: dict[str, Any] = {}
"""Options that came after rows were kept, dotted, with the value under which all is as it was.

An option with this value is in no digest, so that the rows from before it still count. Whoever adds
one to a config adds it here, too; what is here stays for ever.
"""


def jsonable(value: Any) -> Any:
    """Returns a value as plain JSON types: arrays as lists, numbers that are not finite as None.

    Raises:
      TypeError: If it holds something that is not data, such as a function.
    """
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # numpy and jax arrays and scalars
        return jsonable(value.tolist())
    raise TypeError(
        f"{value!r} of type {type(value).__name__} cannot be written as JSON; give numbers, text, "
        "lists, dicts or arrays"
    )


def config_digest(
    config: Mapping[str, Any], exclude: tuple[str, ...] = ("trial", "baselines")
) -> str:
    """Returns twelve hexadecimal digits that name a config.

    Args:
      config: Nested dict; the order of keys does not matter.
      exclude: Top-level keys left out. The trial is one: trials of one config belong together and
        carry their number in the row. What the baselines are trained with is in the digests of
        their own rows; see `experiments.baseline_settings.method_digest`.
    """
    kept = without_later({key: value for key, value in config.items() if key not in exclude})
    text = json.dumps(jsonable(kept), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def without_later(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config without those of `LATER_FIELDS` that change nothing."""
    kept = dict(config)
    for field, neutral in LATER_FIELDS.items():
        kept = _without(kept, field.split("."), jsonable(neutral))
    return kept


def _without(config: Mapping[str, Any], path: list[str], neutral: Any) -> dict[str, Any]:
    name, *rest = path
    inner = config.get(name)
    if rest and isinstance(inner, Mapping):
        return {**config, name: _without(inner, rest, neutral)}
    if not rest and name in config and jsonable(inner) == neutral:
        return {key: value for key, value in config.items() if key != name}
    return dict(config)


@functools.lru_cache(maxsize=1)
def code_version() -> str:
    """Returns the short git commit, `-dirty` if code differs from it; else the package's version.

    Asked once per process: what was imported does not change when the files do.
    """
    if _git("rev-parse", "--show-toplevel") == str(ROOT):
        commit = _git("rev-parse", "--short=10", "HEAD")
        if commit:
            changes = _git("status", "--porcelain", "--", ".", *_PROSE)
            return commit if changes == "" else f"{commit}-dirty"
    return _version("persim_jax") or "unversioned"


def environment_stamp() -> dict[str, Any]:
    """Returns versions, device, machine and command of this process, for `environment.json`."""
    import jax  # here, so that tables and reports of old rows start without jax

    devices = jax.devices()
    settings: Any = jax.config  # its fields are made at run time, unseen by type checkers
    return {
        "command": _command(),
        "code_version": code_version(),
        "git_commit": _git("rev-parse", "HEAD") or None,
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "device": devices[0].platform,
        "device_kind": devices[0].device_kind,
        "device_count": len(devices),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "matmul_precision": str(settings.jax_default_matmul_precision),
        "x64": bool(settings.jax_enable_x64),
    }


def _command() -> str:
    """Returns the command as a reader would type it at the root of the repository."""
    words = list(sys.orig_argv[1:]) or list(sys.argv)
    return shlex.join(["python", *words])


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """Returns git's answer at the root of the repository; None without git or a repository."""
    # Optional locks are off: asking for the status must not disturb a git command beside it.
    command = ["git", "--no-optional-locks", "-C", str(ROOT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
