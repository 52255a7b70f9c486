"""What a drawing is made of: shapes in world coordinates, and how an environment becomes shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float]
Window = tuple[float, float, float, float]
"""`(x_min, x_max, y_min, y_max)` in world coordinates."""


class Shape(NamedTuple):
    """A shape.

    Attributes:
      kind: `polygon` (filled), `line` (open, with `width`), `capsule` (two points, with `width`
        and round ends) or `disc` (at one point, with `width`).
      points: World coordinates.
      width: Of a line or a capsule, or the diameter of a disc, in world units.
    """

    kind: str
    points: tuple[Point, ...]
    width: float = 0.0


def as_observed(states: NDArray[Any]) -> NDArray[Any]:
    """Returns states as they are: their first coordinate is where the agent stands."""
    return states


def stands_still(true: NDArray[Any], predicted: NDArray[Any]) -> NDArray[Any]:
    """Returns the place `[T]` of a camera that never moves."""
    del predicted
    return np.zeros(len(true))


def no_note(state: Sequence[float]) -> str:
    """Returns nothing to be written."""
    del state
    return ""


class Scene(NamedTuple):
    """How an environment is drawn.

    A pose `[P]` is what the drawing needs of a state; its first coordinate is x.

    Attributes:
      shapes: `(pose [P], covariates by name) -> shapes` of the moving parts.
      ground: `window -> shapes` that do not move.
      window: `(poses [T, P], covariates) -> window` that shows all of an agent's poses, as seen
        from the camera.
      poses: `states [T, D] -> poses [T, P]`, NaN where a state is not finite.
      camera: `(true poses [T, P], predicted poses) -> x [T]` of the camera.
      note: `pose [P] -> text` to write beside it.
      panel: Width and height of an agent's panel in the animation in pixels.
      columns: Panels in a row of the animation.
      caption: What a reader must know to read the drawing.
    """

    shapes: Callable[[Sequence[float], Mapping[str, float]], list[Shape]]
    ground: Callable[[Window], list[Shape]]
    window: Callable[[NDArray[Any], Mapping[str, float]], Window]
    poses: Callable[[NDArray[Any]], NDArray[Any]] = as_observed
    camera: Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]] = stands_still
    note: Callable[[Sequence[float]], str] = no_note
    panel: tuple[int, int] = (216, 190)
    columns: int = 5
    caption: str = ""


def visible(shapes: Sequence[Shape], window: Window) -> list[Shape]:
    """Returns the shapes that may reach into the window.

    What a model predicts can be anywhere; renderers overflow on coordinates that are too large.
    """
    left, right, low, high = window
    kept = []
    for shape in shapes:
        x, y = zip(*shape.points, strict=True)
        reach = shape.width / 2
        aside = max(x) + reach < left or min(x) - reach > right
        if not aside and max(y) + reach >= low and min(y) - reach <= high:
            kept.append(shape)
    return kept


def moved(window: Window, x: float) -> Window:
    """Returns a window as seen from a camera at `x`."""
    left, right, low, high = window
    return left + x, right + x, low, high
