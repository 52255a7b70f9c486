import pathlib
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from PIL import Image, ImageSequence

from envs import half_cheetah
from experiments import figures
from experiments.figures import cheetah, filmstrip
from experiments.figures.gallery import draw_gallery
from experiments.figures.shapes import Shape, moved, visible
from experiments.figures.style import PREDICTED_COLOR, TRUE_COLOR
from persim_jax.evaluation import paper
from tests.experiments import synthetic

AGENTS = list(paper.paper_agents("half_cheetah"))


def running(steps: int = 50, speed: float = 3.0) -> np.ndarray:
    """Observations `[S + 1, 18]` of a cheetah that glides to the right and swings its legs."""
    states = np.zeros((steps + 1, 18))
    states[:, 0] = speed
    states[:, 3:9] = 0.4 * np.sin(np.arange(steps + 1)[:, None] + np.arange(6))
    return states


def test_capsules_lie_where_mujoco_puts_them() -> None:
    mujoco = pytest.importorskip("mujoco")
    from envs.physics.cheetah_model import base_model

    model = base_model()
    data = mujoco.MjData(model)
    names = ("torso", "head", *cheetah.JOINTS)
    geoms = [model.geom(name).id for name in names]
    np.testing.assert_allclose(model.geom_size[geoms, 0], cheetah.RADIUS)
    poses = np.random.default_rng(0).uniform(-3.0, 3.0, (50, 9))
    for pose, ends in zip(poses, cheetah.capsule_ends(poses), strict=True):
        data.qpos[:] = pose
        mujoco.mj_forward(model, data)
        along = data.geom_xmat[geoms].reshape(-1, 3, 3)[:, :, 2] * model.geom_size[geoms, 1:2]
        middle = data.geom_xpos[geoms]
        expected = np.stack([middle - along, middle + along], axis=1)
        assert np.abs(expected[..., 1]).max() < 1e-12
        # Which end comes first means nothing.
        expected = expected[..., [0, 2]]
        swapped = np.abs(ends - expected[:, ::-1]).max(axis=(1, 2))
        assert np.minimum(np.abs(ends - expected).max(axis=(1, 2)), swapped).max() < 1e-6


def test_the_order_of_the_joints_is_the_model_s() -> None:
    mujoco = pytest.importorskip("mujoco")
    from envs.physics.cheetah_model import base_model

    found = [mujoco.mj_id2name(base_model(), mujoco.mjtObj.mjOBJ_JOINT, i) for i in range(9)]
    assert found == ["rootx", "rootz", "rooty", *cheetah.JOINTS]


def test_pitch_lowers_the_nose_and_the_torso_is_a_metre_long() -> None:
    torso = cheetah.capsule_ends(np.zeros(9))[0]
    np.testing.assert_allclose(torso, [[-0.5, 0.7], [0.5, 0.7]])
    pose = np.array([2.0, 0.3, np.pi / 2, *np.zeros(6)])
    np.testing.assert_allclose(cheetah.capsule_ends(pose)[0], [[2.0, 1.5], [2.0, 0.5]])


def test_x_is_the_sum_of_the_mean_velocities() -> None:
    rng = np.random.default_rng(1)
    x = np.cumsum(rng.normal(size=21))
    states = rng.normal(size=(21, 18))
    # A control step lasts 0.05 s. What went before the first row moves nothing.
    states[1:, 0] = np.diff(x) / 0.05
    poses = cheetah.poses_of(states)
    np.testing.assert_allclose(poses[:, 0], x - x[0], atol=1e-12)
    names = half_cheetah.SPEC.obs_names
    assert names[1:9] == ("z", "pitch", *cheetah.JOINTS)
    np.testing.assert_array_equal(poses[:, 1:], states[:, 1:9])


@pytest.mark.parametrize(("column", "value"), [(5, np.nan), (17, np.inf), (0, 1e308)])
def test_poses_end_where_a_state_leaves_the_finite_numbers(column: int, value: float) -> None:
    states = running(10)
    # Twice 1e308 is more than a number can be.
    states[3 if column == 0 else 4 : 5, column] = value
    poses = cheetah.poses_of(states)
    finite = np.isfinite(poses).all(axis=1)
    assert finite.tolist() == [True] * 4 + [False] * 7
    assert np.isnan(poses[4:]).all()


def test_the_camera_runs_with_the_true_cheetah_and_leans_to_the_predicted_one() -> None:
    true, predicted = np.zeros((6, 9)), np.zeros((6, 9))
    true[:, 0] = np.arange(6.0)
    predicted[:, 0] = true[:, 0] + [0.0, 0.4, -0.4, 1e30, np.nan, 0.0]
    true[5], predicted[5] = np.nan, np.nan
    cameras = cheetah.camera_of(true, predicted)
    # Held where one ends.
    np.testing.assert_allclose(cameras, [0.0, 1.2, 1.8, 3.5, 4.5, 4.5])
    np.testing.assert_array_equal(cheetah.camera_of(true * np.nan, true), np.zeros(6))


def test_a_running_cheetah_stays_in_its_window() -> None:
    poses = cheetah.poses_of(running())
    camera = cheetah.camera_of(poses, poses)
    seen = poses - np.eye(1, 9) * camera[:, None]
    window = cheetah.window_of(seen, {})
    for pose, x in zip(poses, camera, strict=True):
        left, right, low, high = moved(window, float(x))
        for shape in cheetah.shapes_of(list(pose), {}):
            px, py = np.array(shape.points).T
            assert left < px.min() - cheetah.RADIUS
            assert px.max() + cheetah.RADIUS < right
            assert low < py.min() - cheetah.RADIUS
            assert py.max() + cheetah.RADIUS < high


@pytest.mark.parametrize("offset", [0.0, 1e30, np.nan])
def test_a_window_is_at_least_and_at_most_so_large(offset: float) -> None:
    left, right, low, high = cheetah.window_of(np.zeros((2, 9)) + offset, {})
    assert left == -right
    assert low == pytest.approx(-0.16)
    assert cheetah.HALF_WIDTH[0] <= right <= cheetah.HALF_WIDTH[1]
    assert cheetah.HIGH[0] <= high <= cheetah.HIGH[1]


def test_tiles_stay_in_the_world_while_the_window_moves() -> None:
    found = []
    for x in (0.0, 0.7, 123.4, -55.5):
        window = moved((-1.3, 1.3, -0.2, 1.2), x)
        line, *tiles = visible(cheetah.ground_of(window), window)
        assert line.points[0][0] < window[0]
        assert window[1] < line.points[1][0]
        found.append(len(tiles))
        for tile in tiles:
            left = tile.points[0][0]
            assert left == pytest.approx(round(left))
            assert tile.points[1][0] - left == pytest.approx(0.5)
    # 2.6 m show two to four of the tiles, one in each metre.
    assert set(found) <= {2, 3, 4}


def test_shapes_out_of_sight_are_left_out() -> None:
    window = (0.0, 1.0, 0.0, 1.0)
    near = Shape("capsule", ((-0.04, 0.5), (-0.2, 0.5)), 0.1)
    far = Shape("capsule", ((-0.06, 0.5), (-0.2, 0.5)), 0.1)
    across = Shape("polygon", ((-1e9, -1e9), (1e9, -1e9), (0.0, 1e9)))
    high = Shape("disc", ((0.5, 1e300),), 0.1)
    assert visible([near, far, across, high], window) == [near, across]


def test_the_outline_of_a_capsule_is_everywhere_its_radius_from_the_axis() -> None:
    start, end = np.array([0.3, -0.2]), np.array([-0.5, 0.9])
    shape = Shape("capsule", ((0.3, -0.2), (-0.5, 0.9)), 0.2)
    outline = np.asarray(filmstrip.capsule_outline(shape).vertices)
    axis = end - start
    along = np.clip((outline - start) @ axis / (axis @ axis), 0.0, 1.0)
    distance = np.linalg.norm(outline - (start + along[:, None] * axis), axis=1)
    np.testing.assert_allclose(distance, 0.1)
    # The shoelace formula: area of a stadium, positive as it runs anticlockwise.
    x, y = outline.T
    area = (x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2
    assert area == pytest.approx(0.2 * np.linalg.norm(axis) + np.pi * 0.01, rel=0.01)


def cheetahs(axes: Any, color: str) -> int:
    found = [p for p in axes.patches if isinstance(p, PathPatch)]
    return sum(tuple(p.get_facecolor()[:3]) == pytest.approx(to_rgb(color)) for p in found)


def impossible() -> tuple[np.ndarray, np.ndarray]:
    """True and predicted states of five agents, whose predictions go wrong in five ways."""
    true = np.stack([running()] * 5)
    predicted = true.copy()
    predicted[0, 5:] = np.nan
    predicted[1, 5:, 1] = -1e12  # far below the ground
    predicted[2, 5:, 2:9] = 1e17  # turned very often
    predicted[3, 5:, 0] = 1e300  # run away: 6 * 1e300 * 0.05 m at step 10
    predicted[4, 5:, 3:9] *= 9.0
    return true, predicted


def test_film_strip_of_impossible_predictions(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "strip.png"
    figure: Figure = figures.plot_filmstrip("half_cheetah", *impossible(), AGENTS, path)
    grid = np.array(figure.axes).reshape(5, 6)
    for axes in grid.flat:
        assert cheetahs(axes, TRUE_COLOR) == 1
        assert [text.get_text() for text in axes.texts if text.get_color() == TRUE_COLOR] == [
            f"{3.0 * 0.05 * 10 * axes.get_subplotspec().colspan.start:.1f} m"
        ]
    drawn = [cheetahs(axes, PREDICTED_COLOR) for axes in grid[:, 1]]
    assert drawn == [0, 0, 1, 0, 1]
    notes = [axes.texts[-1].get_text() for axes in grid[:, 1]]
    assert notes == [filmstrip.LOST, "1.5 m", "1.5 m", "3e+299 m", "1.5 m"]
    assert path.stat().st_size < 400_000


def test_animation_of_impossible_predictions(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "states.gif"
    true, predicted = (states[:, :16] for states in impossible())
    assert figures.write_gif("half_cheetah", true, predicted, AGENTS, path) == 16
    assert path.stat().st_size < 400_000
    with Image.open(path) as image:
        # Five panels in two rows.
        assert image.size[0] == 3 * 300
        frames = [np.asarray(f.convert("RGB"), int) for f in ImageSequence.Iterator(image)]
    first, last = (frame[36:236, 300:600] for frame in (frames[4], frames[12]))
    tint = np.array([238, 191, 153])
    # The second agent's predicted cheetah sank, the true one is there and the ground has moved.
    dark = [int(TRUE_COLOR[i : i + 2], 16) for i in (1, 3, 5)]
    assert (last == dark).all(axis=-1).sum() > 1000
    assert (last == tint).all(axis=-1).sum() < 30  # in the text's edges
    assert (first[-40:] != last[-40:]).any()
    # The third agent's, wildly turned, is drawn.
    assert (frames[12][36:236, 600:900] == tint).all(axis=-1).sum() > 300


def test_gallery_of_cheetahs_tells_how_to_read_it(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # t-SNE is slow and not what this is about.
    monkeypatch.setattr("experiments.figures.factors.tsne_embedding", lambda own: own[:, :2])
    workdir = synthetic.write_workdir(tmp_path / "run", "half_cheetah")
    pictures, missing = draw_gallery(workdir, synthetic.config("half_cheetah"))
    assert not missing
    captions = {picture.path.name: picture.caption for picture in pictures}
    assert captions["predictions.png"].endswith("which is the x velocity added up.")
    assert {"predictions.gif", "agent_factors.png", "horizon_error.png"} < set(captions)
