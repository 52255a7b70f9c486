"""The arrays of the figures, computed again from what they are made of."""

import re
import shutil

import jax
import numpy as np
import pytest

from experiments import arrays
from experiments.arrays import read_predictions, write_arrays
from experiments.measure import open_loop_paths
from experiments.settings import persim_config
from experiments.stages import make_world
from experiments.workdir import Workdir
from persim_jax.files import CorruptFileError
from persim_jax.methods import PERSIM
from persim_jax.simulators import PersonalizedSimulators
from tests.experiments.jobs import arrays_of, dataset_of, tiny
from tests.toys import factor_params

EPISODES, STEPS = 5, 40


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Arrays of simulators with random weights; CartPole, so that episodes end."""
    config = tiny(
        "cart_pole", prediction__num_episodes=EPISODES, prediction__num_steps=STEPS,
        prediction__warm_up=140,
    )  # fmt: skip
    where, world = Workdir(tmp_path_factory.mktemp("arrays"), config), make_world(config)
    factor = persim_config(config).factor(dataset_of(world))
    simulators = PersonalizedSimulators(
        params=factor_params(factor), agent_ids=world.agents.agent_ids,
        covariates=world.agents.covariates, config=factor, task=world.env,
    )  # fmt: skip
    write_arrays(where, world, simulators)
    return where, world, simulators


def test_factors_stand_beside_the_agents_that_they_are_of(written):
    where, world, simulators = written
    found = arrays_of(where.path / "arrays" / "factors.npz")
    # u(n) is the agent's embedding row plus the shared bias.
    weights = jax.tree.map(np.asarray, simulators.params.weights)
    rows, bias = weights["agent_encoder"]["embedding"], weights["agent_bias"]
    np.testing.assert_allclose(found["factors"], rows + bias[:, None], rtol=1e-6)
    np.testing.assert_array_equal(found["agent_ids"], world.agents.agent_ids)
    np.testing.assert_array_equal(found["covariates"], world.agents.covariates)
    tests = found["covariates"][found["test_rows"]]
    expected = [(2, 0.5), (10, 0.5), (18, 0.5), (10, 0.85), (10, 0.15)]
    np.testing.assert_array_equal(tests, np.float32(expected))


def test_predictions_are_one_long_episode_and_the_errors_of_all(written):
    where, world, simulators = written
    found = arrays_of(where.path / "arrays" / "predictions.npz")
    assert found["true"].shape == found["predicted"].shape == (5, STEPS + 1, 4)
    np.testing.assert_array_equal(found["agent_ids"], world.agents.test_ids)
    ended = 0
    for number, agent_id in enumerate(world.agents.test_ids):
        paths = open_loop_paths(where, world, PERSIM, simulators, agent_id)
        true, predicted, mask = (np.asarray(x) for x in (paths.true, paths.predicted, paths.mask))
        lengths = mask.sum(axis=1)
        episode = int(np.flatnonzero(lengths == lengths.max())[0])
        length = int(lengths[episode])
        ended += length < STEPS
        for name, path in (("true", true), ("predicted", predicted)):
            np.testing.assert_array_equal(
                found[name][number, : length + 1], path[episode, : length + 1]
            )
            assert np.isnan(found[name][number, length + 1 :]).all()
        np.testing.assert_array_equal(found["true"][number, 0], found["predicted"][number, 0])
        for step in range(STEPS):
            alive = np.flatnonzero(mask[:, step])
            curves = [found[f"rmse_per_step{end}"][number, step] for end in ("", "_low", "_high")]
            if not alive.size:
                assert np.isnan(curves).all()
                continue
            squared = (true[alive, step + 1] - predicted[alive, step + 1]) ** 2
            errors = np.sqrt(squared.mean(axis=1, dtype=np.float64))
            expected = [errors.mean(), *np.quantile(errors, [0.1, 0.9])]
            np.testing.assert_allclose(curves, expected, rtol=1e-4)
    assert ended


def test_arrays_are_written_once_and_each_again_when_missing(written, monkeypatch):
    where, world, simulators = written
    folder = where.path / "arrays"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "predictions.npz").unlink()
    monkeypatch.setattr(PersonalizedSimulators, "agent_factors", None)
    write_arrays(where, world, simulators)
    monkeypatch.setattr(arrays, "_predictions", None)
    write_arrays(where, world, simulators)
    assert {path.name for path in folder.iterdir()} == set(before)
    assert (folder / "factors.npz").read_bytes() == before["factors.npz"]


@pytest.mark.parametrize("cut", [0, 100, -100])
def test_predictions_are_read_as_written_or_refused_by_name(written, tmp_path, cut):
    where, _, _ = written
    path = tmp_path / "arrays" / "predictions.npz"
    shutil.copytree(where.path / "arrays", path.parent)
    copy = Workdir(tmp_path, where.config)
    found, expected = read_predictions(copy), arrays_of(path)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CorruptFileError, match=re.escape(str(path))):
        read_predictions(copy)
