"""What command lines share: functions by name, files that must be new, errors in one line."""

from __future__ import annotations

import contextlib
import csv
import difflib
import importlib
import io
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.text import Text

from experiments import errors
from experiments import run as launcher
from persim_jax.files import write_atomically


def load_function(reference: str) -> Callable[..., Any]:
    """A function from `module:function`, the module as Python finds it from the current folder.

    Raises:
      ValueError: The text has another form, there is no such module or function, or the module
        cannot be imported; says which and why.
    """
    module_name, colon, name = reference.partition(":")
    if not (module_name and colon and name):
        raise ValueError(f"{reference!r} names no function: write module:function")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise ValueError(
                f"there is no module {missing!r}: {module_name.replace('.', '/')}.py should lie in "
                "the current folder, or its package be installed"
            ) from error
        raise ValueError(f"module {module_name!r} needs {missing!r}, which is missing") from error
    except Exception as error:
        raise ValueError(
            f"module {module_name!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    found = getattr(module, name, None)
    if not callable(found):
        known = [n for n, value in vars(module).items() if callable(value) and n[0] != "_"]
        near = difflib.get_close_matches(name, known, n=1)
        raise ValueError(
            f"module {module_name!r} has no function {name!r}"
            + (
                f" (did you mean {near[0]!r}?)"
                if near
                else f": it has {', '.join(known) or 'none'}"
            )
        )
    function: Callable[..., Any] = found
    return function


def refuse_existing(path: str | Path) -> Path:
    """The path of a file that is to be written.

    Raises:
      ValueError: There is something already.
    """
    path = Path(path)
    if path.exists():
        raise ValueError(f"{path} exists already: give another --out, or remove it first")
    return path


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Writes a table, whole or not at all; numbers with the digits that float32 has."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([f"{x:.7g}" if isinstance(x, float | np.floating) else x for x in row])
    write_atomically(path, text.getvalue().encode())


@contextlib.contextmanager
def one_line_each() -> Iterator[None]:
    """As the launcher of runs does it; unknown agents are errors of one line, warnings a line.

    Within, products are in float32, also on accelerators that would round them: answers are those
    of the simulators that validation has judged.
    """

    def show(message: Warning | str, *rest: Any, **more: Any) -> None:
        warn(str(message))

    launcher.set_up_jax(True, None)
    with (
        warnings.catch_warnings(),
        errors.one_line_each(),
        jax.default_matmul_precision("highest"),
    ):
        warnings.simplefilter("default")
        warnings.showwarning = show
        try:
            yield
        except KeyError as error:
            raise ValueError(str(error.args[0])) from error


def warn(text: str) -> None:
    """A line on standard error."""
    line = Text.assemble(("warning: ", "bold yellow"), text)
    Console(stderr=True).print(line, soft_wrap=True, highlight=False)
