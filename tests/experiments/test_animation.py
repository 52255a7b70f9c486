import itertools

import numpy as np
import pytest
from PIL import Image

from experiments.figures import animation, scenes
from experiments.figures.style import COLORS, PREDICTED_COLOR, TRUE_COLOR

RNG = np.random.default_rng(0)


def luminance(color: str) -> float:
    """WCAG 2.1's relative luminance."""
    channels = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.03928, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(first: str, second: str) -> float:
    low, high = sorted([luminance(first), luminance(second)])
    return (high + 0.05) / (low + 0.05)


def test_true_and_predicted_differ_in_brightness_not_only_in_hue() -> None:
    assert contrast(TRUE_COLOR, PREDICTED_COLOR) > 3
    assert contrast(TRUE_COLOR, "#FFFFFF") > 7
    # WCAG asks for 3 of graphics; the light blue and amber of the palette come last.
    assert all(contrast(color, "#FFFFFF") > 2 for color in COLORS)
    assert len(set(COLORS)) == len(COLORS)


def test_index_finds_the_nearest_colour_of_all() -> None:
    palette = animation._palette()
    pixels = RNG.integers(0, 256, (6, 7, 3)).astype(np.uint8)
    indexed = animation._index(Image.fromarray(pixels), palette)
    assert indexed.mode == "P"
    found = np.asarray(indexed.convert("RGB"), int)
    for row, column in itertools.product(range(6), range(7)):
        own = pixels[row, column].astype(int)
        best = min(((palette.astype(int) - own) ** 2).sum(axis=1))
        assert ((found[row, column] - own) ** 2).sum() == best


def test_palette_holds_every_drawn_colour_exactly() -> None:
    palette = {tuple(color) for color in animation._palette().tolist()}
    assert len(animation._palette()) <= 256
    for color in ("#FFFFFF", TRUE_COLOR, animation.GROUND_COLOR):
        assert tuple(int(color[i : i + 2], 16) for i in (1, 3, 5)) in palette
    # 0.4 of (213, 94, 0) over white.
    assert (238, 191, 153) in palette
    assert animation._mix(PREDICTED_COLOR, 0.4) == (238, 191, 153)
    assert animation._mix("#000000", 0.5, "#646464") == (50, 50, 50)


def test_windows_get_one_scale_and_the_shape_of_a_panel() -> None:
    windows = [(-1.0, 1.0, -0.1, 2.0), (4.0, 6.0, -0.1, 0.7)]
    made = animation._same_scale(windows, (300, 200))
    for (left, right, low, high), old in zip(made, windows, strict=True):
        assert (right - left) / (high - low) == pytest.approx(1.5)
        assert right - left == pytest.approx(made[0][1] - made[0][0])
        assert (left + right) / 2 == pytest.approx((old[0] + old[1]) / 2)
        assert low == old[2]
        assert left <= old[0] <= old[1] <= right
        assert high >= old[3]


@pytest.mark.parametrize("length", [0.15, 0.5, 0.85])
@pytest.mark.parametrize("theta", [-0.2, 0.0, 0.2])
def test_cart_and_pole_stay_inside_their_window(length: float, theta: float) -> None:
    scene = scenes.scene_of("cart_pole")
    agent = {"force": 10.0, "length": length}
    states = np.array([[-0.7, 0.0, theta, 0.0], [0.6, 0.0, -theta, 0.0], [np.nan] * 4])
    left, right, low, high = scene.window(states, agent)
    for state in states[:2]:
        for shape in scene.shapes(list(state), agent):
            x, y = np.array(shape.points).T
            assert left < x.min()
            assert x.max() < right
            assert low < y.min()
            assert y.max() < high


def test_the_pole_is_a_rectangle_on_the_cart() -> None:
    cart, pole = scenes.cart_pole_shapes([1.0, 0.0, 0.3, 0.0], {"length": 0.5})
    corners = np.array(pole.points)
    sides = np.roll(corners, -1, axis=0) - corners
    lengths = np.linalg.norm(sides, axis=1)
    assert lengths == pytest.approx([1.0, scenes.POLE_WIDTH] * 2)
    assert sides[0] @ sides[1] == pytest.approx(0.0, abs=1e-12)
    assert corners[[0, 3]].mean(axis=0) == pytest.approx([1.0, scenes.CART_HEIGHT])
    assert np.mean(cart.points, axis=0)[0] == pytest.approx(1.0)


def test_an_episode_that_never_was_finite_still_has_a_window() -> None:
    scene = scenes.scene_of("cart_pole")
    window = scene.window(np.full((3, 4), np.nan), {"length": 0.5})
    assert np.isfinite(window).all()
    both = np.stack([np.full((3, 4), np.nan), np.array([[0.0] * 4, [5.0, 0, 0, 0], [1.0] * 4])])
    windows = scenes.windows_of(scene, both, [{"length": 0.5}] * 2)
    assert windows[0][1] - windows[0][0] == pytest.approx(windows[1][1] - windows[1][0])
    assert windows[1][1] - windows[1][0] == pytest.approx(6.0)


def test_a_still_world_is_a_small_file(tmp_path: object) -> None:
    still = np.zeros((1, 51, 4))
    path = f"{tmp_path}/still.gif"
    animation.write_gif("cart_pole", still, still, [{"length": 0.5}], path)
    with Image.open(path) as image:
        assert image.n_frames == 51
        image.seek(25)
        frame = np.asarray(image.convert("RGB"))
    # The predicted state lies exactly on the true one: their common colour, nowhere the tint.
    panel = frame[40:220].reshape(-1, 3)
    overlap = animation._mix(PREDICTED_COLOR, 0.4, TRUE_COLOR)
    assert (panel == overlap).all(axis=1).sum() > 1000
    assert (panel == animation._mix(PREDICTED_COLOR, 0.4)).all(axis=1).sum() < 50
