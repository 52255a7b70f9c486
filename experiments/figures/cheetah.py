"""HalfCheetah as capsules: planar forward kinematics of gymnasium's `half_cheetah.xml`.

The numbers of that file are written down here, so that drawing needs no physics engine. Angles
turn about the y axis, which points away from the viewer: a positive pitch lowers the nose.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from envs import half_cheetah
from experiments.figures.shapes import Scene, Shape, Window

RADIUS = 0.046
"""Of every capsule in m."""
TORSO_HEIGHT = 0.7
"""Height of the torso above the ground at z = 0, in m."""
JOINTS = half_cheetah.JOINTS
_OBSERVED = [half_cheetah.SPEC.obs_names.index(name) for name in ("z", "pitch", *JOINTS)]
_X_VELOCITY = half_cheetah.SPEC.obs_names.index("x_velocity")


class Limb(NamedTuple):
    """A capsule that turns with a joint.

    Attributes:
      parent: The limb or `torso` whose frame holds the joint.
      joint: Place `(x, z)` of the joint in the parent's frame in m.
      middle: Middle of the capsule in its own frame, whose origin is the joint.
      angle: How far the capsule's axis is turned from upright in its own frame in rad.
      half: Half the length of its axis in m.
    """

    parent: str
    joint: tuple[float, float]
    middle: tuple[float, float]
    angle: float
    half: float


# The torso lies along x; the head is fixed to it.
TORSO = ((-0.5, 0.0), (0.5, 0.0))
HEAD = Limb("torso", (0.0, 0.0), (0.6, 0.1), 0.87, 0.15)
LIMBS: Mapping[str, Limb] = {
    "bthigh": Limb("torso", (-0.5, 0.0), (0.1, -0.13), -3.8, 0.145),
    "bshin": Limb("bthigh", (0.16, -0.25), (-0.14, -0.07), -2.03, 0.15),
    "bfoot": Limb("bshin", (-0.28, -0.14), (0.03, -0.097), -0.27, 0.094),
    "fthigh": Limb("torso", (0.5, 0.0), (-0.07, -0.12), 0.52, 0.133),
    "fshin": Limb("fthigh", (-0.14, -0.24), (0.065, -0.09), -0.6, 0.106),
    "ffoot": Limb("fshin", (0.13, -0.18), (0.045, -0.07), -0.6, 0.07),
}


def capsule_ends(poses: NDArray[Any]) -> NDArray[np.float64]:
    """Returns both ends of the axis of every capsule.

    Args:
      poses: `[..., 9]`: x and z in m, pitch and the joint angles in the order of `JOINTS` in rad.

    Returns:
      `[..., 8, 2, 2]`, (x, z) of both ends of torso, head and limbs, in m.
    """
    poses = np.asarray(poses, float)
    origin = poses[..., :2] + np.array([0.0, TORSO_HEIGHT])
    frames = {"torso": (origin, poses[..., 2])}
    ends = [_placed(np.array(TORSO), *frames["torso"]), _placed(_axis(HEAD), *frames["torso"])]
    for column, name in enumerate(JOINTS, start=3):
        limb = LIMBS[name]
        parent_origin, parent_angle = frames[limb.parent]
        joint = _placed(np.array([limb.joint]), parent_origin, parent_angle)[..., 0, :]
        frames[name] = (joint, parent_angle + poses[..., column])
        ends.append(_placed(_axis(limb), *frames[name]))
    return np.stack(ends, axis=-3)


def _axis(limb: Limb) -> NDArray[np.float64]:
    along = limb.half * np.array([np.sin(limb.angle), np.cos(limb.angle)])
    return np.array(limb.middle) + np.stack([-along, along])


def _placed(points: NDArray[Any], origin: NDArray[Any], angle: NDArray[Any]) -> NDArray[np.float64]:
    """Returns points `[P, 2]` of frames at `origin [..., 2]` turned by `angle [...]`."""
    cos, sin = np.cos(angle)[..., None], np.sin(angle)[..., None]
    x, z = points[:, 0], points[:, 1]
    return origin[..., None, :] + np.stack([x * cos + z * sin, z * cos - x * sin], axis=-1)


def poses_of(states: NDArray[Any]) -> NDArray[np.float64]:
    """Returns poses `[T, 9]` of observations `[T, 18]`, NaN from the first that is not finite.

    x is not observed: it is the mean velocities of the control steps added up, from 0 at row 0.
    """
    states = np.asarray(states, float)
    with np.errstate(over="ignore", invalid="ignore"):
        x = np.cumsum(states[1:, _X_VELOCITY]) * half_cheetah.SPEC.dt
    poses = np.column_stack([np.concatenate([[0.0], x]), states[:, _OBSERVED]])
    lost = ~(np.isfinite(states).all(axis=1) & np.isfinite(poses).all(axis=1))
    return np.where(np.logical_or.accumulate(lost)[:, None], np.nan, poses)


def shapes_of(pose: Sequence[float], covariates: Mapping[str, float]) -> list[Shape]:
    """Draws the cheetah of a pose `[9]`."""
    del covariates  # neither mass nor damping is to be seen
    return [
        Shape("capsule", ((float(a[0]), float(a[1])), (float(b[0]), float(b[1]))), 2 * RADIUS)
        for a, b in capsule_ends(np.asarray(pose))
    ]


# Seen from the camera, in m: a cheetah at rest at least; one that flies off leaves the picture.
HALF_WIDTH = (1.0, 1.6)
LOW, HIGH = (-0.3, -0.16), (1.25, 1.9)
_MARGIN = 0.08
# Room for the notes.
_SKY = 0.18
# How far the camera leaves the true cheetah for the predicted one.
_LEAN = 0.5


def window_of(poses: NDArray[Any], covariates: Mapping[str, float]) -> Window:
    """Returns a window around poses `[T, 9]` whose x is relative to the camera."""
    del covariates
    poses = poses[np.isfinite(poses).all(axis=1)]
    points = capsule_ends(poses).reshape(-1, 2)
    reach = RADIUS + _MARGIN
    half = float(np.clip(np.abs(points[:, 0]).max(initial=0.0) + reach, *HALF_WIDTH))
    low = float(points[:, 1].min(initial=0.0)) - reach
    high = float(points[:, 1].max(initial=0.0)) + reach + _SKY
    return -half, half, float(np.clip(low, *LOW)), float(np.clip(high, *HIGH))


def camera_of(true: NDArray[Any], predicted: NDArray[Any]) -> NDArray[np.float64]:
    """Returns the camera's x `[T]`: with the true cheetah, leaning towards the predicted one."""
    place = _held(true[:, 0])
    return place + np.clip(_held(predicted[:, 0] - true[:, 0]) / 2, -_LEAN, _LEAN)


def _held(values: NDArray[Any]) -> NDArray[np.float64]:
    """Returns values `[T]` in which each NaN is the last number before it, or 0."""
    index = np.where(np.isfinite(values), np.arange(1, len(values) + 1), 0)
    return np.concatenate([[0.0], values])[np.maximum.accumulate(index)]


TILE, _TILE_DEPTH = 0.5, 0.08


def ground_of(window: Window) -> list[Shape]:
    """Draws the ground: every second tile of 0.5 m is filled, so that it is seen to move."""
    left, right = window[:2]
    shapes = [Shape("line", ((left - 1, 0.0), (right + 1, 0.0)), 0.02)]
    first = int(np.floor(left / (2 * TILE)))
    for x in (2 * TILE * i for i in range(first, first + int((right - left) / TILE / 2) + 3)):
        tile = ((x, 0.0), (x + TILE, 0.0), (x + TILE, -_TILE_DEPTH), (x, -_TILE_DEPTH))
        shapes.append(Shape("polygon", tile))
    return shapes


def distance_note(pose: Sequence[float]) -> str:
    """Writes how far a pose has come, such as `3.2 m`."""
    x = round(float(pose[0]), 1) + 0.0  # no minus before a zero
    return f"{x:.1f} m" if abs(x) < 1000 else f"{x:.0e} m"


SCENE = Scene(
    shapes_of,
    ground_of,
    window_of,
    poses_of,
    camera_of,
    distance_note,
    panel=(300, 200),
    columns=3,
    caption=(
        "The camera runs along; tiles of the ground are 0.5 m. Numbers: the distance covered, "
        "which is the x velocity added up."
    ),
)
