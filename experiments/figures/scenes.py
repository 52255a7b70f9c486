"""What a state looks like: the lines, boxes and dots of one environment, as plain data.

A scene is a list of shapes in world coordinates. The film strip draws them with matplotlib, the
animation with Pillow.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from experiments.figures import cheetah
from experiments.figures.shapes import Point, Scene, Shape, Window

CART_WIDTH, CART_HEIGHT, POLE_WIDTH = 0.36, 0.2, 0.07
HILL_LEFT, HILL_RIGHT, GOAL = -1.2, 0.6, 0.5
CAR_LENGTH, CAR_HEIGHT, WHEEL = 0.28, 0.12, 0.1


def cart_pole_shapes(state: Sequence[float], covariates: Mapping[str, float]) -> list[Shape]:
    """Draws cart and pole; the pole has the agent's own length (`length` is half of it)."""
    x, theta = float(state[0]), float(state[2])
    half = CART_WIDTH / 2
    cart = ((x - half, 0.0), (x + half, 0.0), (x + half, CART_HEIGHT), (x - half, CART_HEIGHT))
    length = 2 * float(covariates.get("length", 0.5))
    along = (math.sin(theta), math.cos(theta))
    side = (along[1] * POLE_WIDTH / 2, -along[0] * POLE_WIDTH / 2)
    corners = ((0.0, 1), (length, 1), (length, -1), (0.0, -1))
    pole = tuple(
        (x + far * along[0] + sign * side[0], CART_HEIGHT + far * along[1] + sign * side[1])
        for far, sign in corners
    )
    return [Shape("polygon", cart), Shape("polygon", pole)]


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

    half, low, high = CAR_LENGTH / 2, WHEEL / 2, WHEEL / 2 + CAR_HEIGHT
    body = (place(-half, low), place(half, low), place(half * 0.75, high), place(-half, high))
    wheels = [Shape("disc", (place(s * half * 0.6, WHEEL / 2),), WHEEL) for s in (-1, 1)]
    return [Shape("polygon", body), *wheels]


def _cart_pole_window(states: NDArray[Any], covariates: Mapping[str, float]) -> Window:
    x = states[:, 0][np.isfinite(states[:, 0])]
    middle = float(x.min() + x.max()) / 2 if x.size else 0.0
    half = max(0.9, float(x.max() - x.min()) / 2 + 0.5) if x.size else 0.9
    height = 2 * float(covariates.get("length", 0.5)) + CART_HEIGHT
    return middle - half, middle + half, -0.1, max(height + 0.12, 0.75)


def _mountain_car_window(states: NDArray[Any], covariates: Mapping[str, float]) -> Window:
    del states, covariates
    return HILL_LEFT - 0.12, HILL_RIGHT + 0.12, 0.0, 1.34


_ROAD = tuple((float(x), hill(float(x))) for x in np.linspace(HILL_LEFT, HILL_RIGHT, 91))
_FLAG = ((GOAL, hill(GOAL)), (GOAL, hill(GOAL) + 0.26))
_BANNER = (_FLAG[1], (GOAL + 0.1, hill(GOAL) + 0.22), (GOAL, hill(GOAL) + 0.18))


def _mountain_car_ground(window: Window) -> list[Shape]:
    del window
    return [Shape("line", _ROAD, 0.02), Shape("line", _FLAG, 0.015), Shape("polygon", _BANNER)]


def _cart_pole_ground(window: Window) -> list[Shape]:
    return [Shape("line", ((window[0] - 1, 0.0), (window[1] + 1, 0.0)), 0.02)]


SCENES: Mapping[str, Scene] = {
    "cart_pole": Scene(cart_pole_shapes, _cart_pole_ground, _cart_pole_window),
    "mountain_car": Scene(mountain_car_shapes, _mountain_car_ground, _mountain_car_window),
    "half_cheetah": cheetah.SCENE,
}


class Film(NamedTuple):
    """What a film strip or an animation shows of A agents over T states.

    Attributes:
      true: `[A, T, P]` poses.
      predicted: `[A, T, P]` poses.
      cameras: `[A, T]`, x of the camera.
      windows: One per agent, as seen from its camera.
    """

    true: NDArray[Any]
    predicted: NDArray[Any]
    cameras: NDArray[Any]
    windows: list[Window]


def film_of(
    scene: Scene, true: ArrayLike, predicted: ArrayLike, agents: Sequence[Mapping[str, float]]
) -> Film:
    """Places states `[A, T, D]` before the camera.

    Raises:
      ValueError: If the shapes do not fit each other.
    """
    true, predicted = np.asarray(true, float), np.asarray(predicted, float)
    if true.shape != predicted.shape or true.ndim != 3 or len(agents) != len(true):
        raise ValueError(
            f"true {true.shape}, predicted {predicted.shape} and {len(agents)} agents do not fit: "
            "give [agents, steps + 1, coordinates] twice and one set of covariates per agent"
        )
    true, predicted = (
        np.stack([scene.poses(own) for own in states]) for states in (true, predicted)
    )
    cameras = np.stack([scene.camera(*own) for own in zip(true, predicted, strict=True)])
    seen = np.concatenate([true, predicted], axis=1)
    seen[..., 0] -= np.concatenate([cameras, cameras], axis=1)
    return Film(true, predicted, cameras, windows_of(scene, seen, agents))


def windows_of(
    scene: Scene, poses: NDArray[Any], agents: Sequence[Mapping[str, float]]
) -> list[Window]:
    """Returns a window per agent that shows its poses `[A, T, P]`; all have the same width."""
    windows = [scene.window(own, agent) for own, agent in zip(poses, agents, strict=True)]
    width = max(right - left for left, right, _, _ in windows)
    return [
        ((left + right - width) / 2, (left + right + width) / 2, low, high)
        for left, right, low, high in windows
    ]


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
