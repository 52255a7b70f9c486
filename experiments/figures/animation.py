"""Figure 2 in motion: an animated GIF drawn with Pillow from the states."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont

from experiments.figures.filmstrip import GROUND_COLOR, LOST, PREDICTED_ALPHA
from experiments.figures.scenes import Film, film_of, scene_of
from experiments.figures.shapes import Scene, Shape, Window, moved, visible
from experiments.figures.style import PREDICTED_COLOR, TRUE_COLOR
from persim_jax.files import write_atomically

FRAME_MS = 80
LAST_FRAME_MS = 1500
_TOP = 36
_BOTTOM = 26
# Drawn larger and shrunk: Pillow's shapes have hard edges.
_OVERSAMPLE = 3
# How strongly the last state of an ended episode is drawn.
_ENDED = 0.4
# The bar that tells the time.
_BAR, _BAR_DONE = "#E3E6EA", "#5B6470"


def write_gif(
    environment: str,
    true: ArrayLike,
    predicted: ArrayLike,
    agents: Sequence[Mapping[str, float]],
    path: str | os.PathLike[str],
) -> int:
    """Writes one panel per agent, one frame per step, for ever repeated.

    Args:
      environment: A name in `SCENES`.
      true: `[A, S + 1, D]`; NaN after an episode has ended, where the last state stays, paler.
      predicted: `[A, S + 1, D]`, as `true`.
      agents: The agents' covariates by name, length A.
      path: File to write.

    Returns:
      The number of frames.
    """
    scene = scene_of(environment)
    film = film_of(scene, true, predicted, agents)
    film = film._replace(windows=_same_scale(film.windows, scene.panel))
    frames = [_frame(scene, film, agents, step) for step in range(film.true.shape[1])]
    # One palette for all frames: colours do not flicker, and the file is smaller.
    palette = _palette()
    indexed = [_index(frame, palette) for frame in frames]
    buffer = io.BytesIO()
    indexed[0].save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=indexed[1:],
        duration=[FRAME_MS] * (len(frames) - 1) + [LAST_FRAME_MS],
        loop=0,
        optimize=True,
    )
    write_atomically(path, buffer.getvalue())
    return len(frames)


def _frame(
    scene: Scene, film: Film, agents: Sequence[Mapping[str, float]], step: int
) -> Image.Image:
    width, height = scene.panel
    columns = min(scene.columns, len(agents))
    rows = -(-len(agents) // columns)
    frame = Image.new("RGB", (width * columns, rows * (_TOP + height) + _BOTTOM), "white")
    pen = ImageDraw.Draw(frame)
    for i, agent in enumerate(agents):
        left, top = i % columns * width, i // columns * (_TOP + height)
        window = moved(film.windows[i], film.cameras[i, step])
        panel = _panel(scene, film.true[i], film.predicted[i], agent, window, step)
        frame.paste(panel, (left, top + _TOP))
        words = [f"{name} {float(value):.4g}" for name, value in agent.items()]
        text = ", ".join(words).replace("_", " ")
        middle = (left + width // 2, top + _TOP // 2)
        pen.text(middle, text, fill=TRUE_COLOR, font=_font(14), anchor="mm")
        _notes(pen, scene, film.true[i], film.predicted[i], (left, top + _TOP), step)
    _legend(pen, frame.size, step, film.true.shape[1] - 1)
    return frame


def _notes(
    pen: ImageDraw.ImageDraw,
    scene: Scene,
    true: NDArray[Any],
    predicted: NDArray[Any],
    corner: tuple[int, int],
    step: int,
) -> None:
    # In the upper corners of a panel: left of the true pose, right of the predicted one.
    left, top = corner[0] + 8, corner[1] + 6
    right = corner[0] + scene.panel[0] - 8
    font = _font(14)
    note = _note_at(scene, true, step)
    pen.text((left, top), note, fill=TRUE_COLOR, font=font)
    lost = np.isfinite(true[step]).all() and not np.isfinite(predicted[step]).all()
    note = LOST if lost else _note_at(scene, predicted, step)
    pen.multiline_text(
        (right, top), note, fill=PREDICTED_COLOR, font=font, anchor="ra", align="right"
    )


def _note_at(scene: Scene, poses: NDArray[Any], step: int) -> str:
    index = last_finite(poses, step)
    return "" if index is None else scene.note(poses[index])


def _legend(pen: ImageDraw.ImageDraw, size: tuple[int, int], step: int, last: int) -> None:
    width, row = size[0], size[1] - _BOTTOM // 2
    tint = _mix(PREDICTED_COLOR, PREDICTED_ALPHA)
    for x, color, text in ((10, TRUE_COLOR, "true"), (70, tint, "predicted")):
        pen.rectangle((x, row - 5, x + 10, row + 5), fill=color)
        pen.text((x + 16, row), text, fill=TRUE_COLOR, font=_font(13), anchor="lm")
    pen.text(
        (width - 10, row), f"step {step} of {last}", fill=TRUE_COLOR, font=_font(13), anchor="rm"
    )
    # A bar that fills tells where in the horizon the loop is.
    left, right = 170, max(171, width - 120)
    pen.rectangle((left, row - 2, right, row + 2), fill=_BAR)
    pen.rectangle(
        (left, row - 2, left + (right - left) * step / max(last, 1), row + 2), fill=_BAR_DONE
    )


def _panel(
    scene: Scene,
    true: NDArray[Any],
    predicted: NDArray[Any],
    agent: Mapping[str, float],
    window: Window,
    step: int,
) -> Image.Image:
    size = (scene.panel[0] * _OVERSAMPLE, scene.panel[1] * _OVERSAMPLE)
    panel = Image.new("RGB", size, "white")
    _draw(panel, scene.ground(window), GROUND_COLOR, window)
    for poses, color, alpha in (
        (true, TRUE_COLOR, 1.0),
        (predicted, PREDICTED_COLOR, PREDICTED_ALPHA),
    ):
        index = last_finite(poses, step)
        if index is None:
            continue
        # All shapes of one state share a layer, so that where they overlap they stay one colour.
        layer = Image.new("L", size, 0)
        _draw(layer, scene.shapes(poses[index], agent), 255, window)
        strength = alpha if index == step else _ENDED * alpha
        mask = layer.point(lambda level, strength=strength: round(level * strength))
        panel.paste(Image.new("RGB", size, color), (0, 0), mask)
    ImageDraw.Draw(panel).rectangle((0, 0, size[0] - 1, size[1] - 1), outline=_BAR, width=3)
    return panel.resize(scene.panel, Image.Resampling.LANCZOS)


def last_finite(states: NDArray[Any], step: int) -> int | None:
    """Returns the last step up to `step` at which the episode still went on, if any."""
    alive = np.flatnonzero(np.isfinite(states[: step + 1]).all(axis=1))
    return int(alive[-1]) if alive.size else None


def _draw(image: Image.Image, shapes: Sequence[Shape], color: str | int, window: Window) -> None:
    pen = ImageDraw.Draw(image)
    scale = image.width / (window[1] - window[0])
    for shape in visible(shapes, window):
        points = [((x - window[0]) * scale, (window[3] - y) * scale) for x, y in shape.points]
        width = max(1, round(shape.width * scale))
        if shape.kind == "polygon":
            pen.polygon(points, fill=color)
        elif shape.kind in ("line", "capsule"):
            pen.line(points, fill=color, width=width, joint="curve")
        if shape.kind in ("disc", "capsule") or (shape.kind == "line" and len(points) == 2):
            # Round ends for lines, too.
            for x, y in points:
                box = (x - width / 2, y - width / 2, x + width / 2, y + width / 2)
                pen.ellipse(box, fill=color)


def _same_scale(windows: Sequence[Window], panel: tuple[int, int]) -> list[Window]:
    """Widens windows to one size that has the shape of a panel, so that agents can be compared."""
    height = max(high - low for _, _, low, high in windows)
    width = max(*(right - left for left, right, _, _ in windows), height * panel[0] / panel[1])
    height = width * panel[1] / panel[0]
    middles = [(left + right) / 2 for left, right, _, _ in windows]
    # The ground stays at the bottom: what is added in height is sky.
    return [
        (middle - width / 2, middle + width / 2, low, low + height)
        for middle, (_, _, low, _) in zip(middles, windows, strict=True)
    ]


def _palette() -> NDArray[np.uint8]:
    """Returns all colours that are drawn and what lies between any two of them, `[P, 3]`.

    A palette counted from a frame would lose the colour of a small object.
    """
    overlap = _mix(PREDICTED_COLOR, PREDICTED_ALPHA, TRUE_COLOR)
    tint = _mix(PREDICTED_COLOR, PREDICTED_ALPHA)
    ground, bar, done = (_mix(color, 1.0) for color in (GROUND_COLOR, _BAR, _BAR_DONE))
    true, predicted = (_mix(color, 1.0) for color in (TRUE_COLOR, PREDICTED_COLOR))
    ends = [(255, 255, 255), true, predicted, tint, overlap, ground, bar, done]
    pale = [_mix(TRUE_COLOR, _ENDED), _mix(PREDICTED_COLOR, _ENDED * PREDICTED_ALPHA)]
    pairs = [(np.array(a), np.array(b)) for i, a in enumerate(ends) for b in ends[:i]]
    between = [part * a + (1 - part) * b for a, b in pairs for part in (0.2, 0.4, 0.6, 0.8)]
    return np.rint(np.stack([*ends, *pale, *between])).astype(np.uint8)


def _index(frame: Image.Image, palette: NDArray[np.uint8]) -> Image.Image:
    """Returns a frame in the nearest colours of a palette; Pillow's own search is only rough."""
    pixels = np.asarray(frame).reshape(-1, 3)
    codes = pixels.astype(np.int32) @ np.array([65536, 256, 1], np.int32)
    distinct, places = np.unique(codes, return_inverse=True)
    colors = np.stack([distinct >> 16, distinct >> 8 & 255, distinct & 255], axis=1)
    distance = np.square(colors[:, None, :] - palette[None].astype(np.int32)).sum(axis=-1)
    nearest = distance.argmin(axis=1).astype(np.uint8)
    indexed = Image.fromarray(nearest[places].reshape(frame.height, frame.width))
    indexed.putpalette(palette.tobytes())
    return indexed


def _mix(color: str, alpha: float, ground: str = "#FFFFFF") -> tuple[int, int, int]:
    """Returns a colour laid over another."""
    over, under = (ImageColor.getrgb(name)[:3] for name in (color, ground))
    red, green, blue = (round(b + alpha * (a - b)) for a, b in zip(over, under, strict=True))
    return red, green, blue


def _font(size: int) -> Any:
    return ImageFont.load_default(size)
