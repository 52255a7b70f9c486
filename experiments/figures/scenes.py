"""What a state looks like: the lines, boxes and dots of one environment, without a plotting library.

A scene is a list of shapes in world coordinates. The film strip draws them with matplotlib, the
animation with Pillow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float]


class Shape(NamedTuple):
    """A shape.

    Attributes:
      kind: `polygon` (filled), `line` (open, with `width`) or `disc` (at one point, with `width`).
      points: World coordinates.
      width: Of a line, or the diameter of a disc, in world units.
      part: `body` or `detail`: a detail is drawn lighter.
    """

    kind: str
    points: tuple[Point, ...]
    width: float = 0.0
    part: str = "body"


class Scene(NamedTuple):
    """How an environment is drawn.

    Attributes:
      shapes: `(state [D], covariates by name) -> shapes` of the moving parts.
      ground: Shapes that stay.
      window: `(states [T, D], covariates) -> (x_min, x_max, y_min, y_max)` that shows them all.
    """

    shapes: Callable[[Sequence[float], Mapping[str, float]], list[Shape]]
    ground: tuple[Shape, ...]
    window: Callable[[NDArray[Any], Mapping[str, float]], tuple[float, float, float, float]]


CART_WIDTH, CART_HEIGHT = 0.36, 0.2
# Wide enough for the longest pole of the population to stand upright.
_POLE_ROOM = 2 * 0.85 + CART_HEIGHT + 0.1
HILL_LEFT, HILL_RIGHT, GOAL = -1.2, 0.6, 0.5
CAR_LENGTH, CAR_HEIGHT = 0.2, 0.09


def cart_pole_shapes(state: Sequence[float], covariates: Mapping[str, float]) -> list[Shape]:
    """Draws cart and pole; the pole has the agent's own length (`length` is half of it)."""
    x, theta = float(state[0]), float(state[2])
    half = CART_WIDTH / 2
    cart = ((x - half, 0.0), (x + half, 0.0), (x + half, CART_HEIGHT), (x - half, CART_HEIGHT))
    length = 2 * float(covariates.get("length", 0.5))
    tip = (x + length * math.sin(theta), CART_HEIGHT + length * math.cos(theta))
    return [
        Shape("polygon", cart),
        Shape("line", ((x, CART_HEIGHT), tip), 0.07, "detail"),
        Shape("disc", ((x, CART_HEIGHT),), 0.09),
    ]


def hill(x: float) -> float:
    """Returns the height of MountainCar's road, `sin(3 x)` scaled as the task is drawn."""
    return math.sin(3 * x) * 0.45 + 0.55


def mountain_car_shapes(state: Sequence[float], covariates: Mapping[str, float]) -> list[Shape]:
    """Draws the car, standing on the road and turned along it."""
    del covariates  # gravity is not to be seen
    x = float(state[0])
    slope = math.atan2(1.35 * math.cos(3 * x), 1.0)
    along = (math.cos(slope), math.sin(slope))
    up = (-along[1], along[0])

    def place(a: float, b: float) -> Point:
        return (x + a * along[0] + b * up[0], hill(x) + a * along[1] + b * up[1])

    half, low, high = CAR_LENGTH / 2, 0.035, 0.035 + CAR_HEIGHT
    body = (place(-half, low), place(half, low), place(half * 0.8, high), place(-half * 0.8, high))
    wheels = [Shape("disc", (place(s * half * 0.6, 0.03),), 0.07, "detail") for s in (-1, 1)]
    return [Shape("polygon", body), *wheels]


def _cart_pole_window(
    states: NDArray[Any], covariates: Mapping[str, float]
) -> tuple[float, float, float, float]:
    del covariates
    x = states[:, 0][np.isfinite(states[:, 0])]
    middle = (x.min() + x.max()) / 2 if x.size else 0.0
    half = max(0.9, (x.max() - x.min()) / 2 + 0.5) if x.size else 0.9
    return middle - half, middle + half, -0.12, _POLE_ROOM


def _mountain_car_window(
    states: NDArray[Any], covariates: Mapping[str, float]
) -> tuple[float, float, float, float]:
    del states, covariates
    return HILL_LEFT - 0.12, HILL_RIGHT + 0.12, 0.0, 1.32


_ROAD = tuple((float(x), hill(float(x))) for x in np.linspace(HILL_LEFT, HILL_RIGHT, 91))
_FLAG = ((GOAL, hill(GOAL)), (GOAL, hill(GOAL) + 0.26))
_BANNER = (_FLAG[1], (GOAL + 0.1, hill(GOAL) + 0.22), (GOAL, hill(GOAL) + 0.18))
SCENES: Mapping[str, Scene] = {
    "cart_pole": Scene(
        cart_pole_shapes,
        (Shape("line", ((-20.0, 0.0), (20.0, 0.0)), 0.02, "detail"),),
        _cart_pole_window,
    ),
    "mountain_car": Scene(
        mountain_car_shapes,
        (
            Shape("line", _ROAD, 0.02, "detail"),
            Shape("line", _FLAG, 0.015),
            Shape("polygon", _BANNER),
        ),
        _mountain_car_window,
    ),
}


def scene_of(environment: str) -> Scene:
    """Returns how an environment is drawn.

    Raises:
      ValueError: If it has no drawing.
    """
    if environment not in SCENES:
        raise ValueError(
            f"there is no drawing of {environment!r}; there is one of {', '.join(sorted(SCENES))}"
        )
    return SCENES[environment]
