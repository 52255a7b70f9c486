"""How command lines end that cannot go on: one line on standard error, and the exit status 1."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import NoReturn

from rich.console import Console
from rich.text import Text


def stop(message: str) -> NoReturn:
    """Ends the program."""
    _tell(message)
    raise SystemExit(1)


def _tell(message: str) -> None:
    text = Text.assemble(("error: ", "bold red"), message)
    Console(stderr=True).print(text, soft_wrap=True, highlight=False)


@contextlib.contextmanager
def one_line_each() -> Iterator[None]:
    """Errors that say what to do end the program in one line; the log has the whole story."""
    try:
        yield
    except KeyboardInterrupt:
        _tell("interrupted: the same command goes on where it stopped")
        sys.stdout.flush()
        # What is written is whole. An orderly exit crashes where XLA was cut off while compiling.
        os._exit(130)
    except (ValueError, FloatingPointError, OSError) as error:
        stop(" ".join(str(error).split()))
