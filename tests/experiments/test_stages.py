"""The stages: given the same key they make the same things, once, and a kill loses nothing."""

import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import envs
from envs import covariates
from experiments import stages
from experiments.stages import make_dataset, make_simulators, make_world
from experiments.workdir import Workdir
from persim_jax import checkpoints
from persim_jax.checkpoints import CorruptCheckpointError
from persim_jax.data import storage
from persim_jax.files import CorruptFileError
from persim_jax.simulators import PersonalizedSimulators
from persim_jax.training import DivergedError
from tests.experiments.jobs import (
    assert_same_arrays,
    curve_of,
    made_once,
    quiet_display,
    rows_of,
    tiny,
)


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def killed(*_, **__):
    raise Killed


@pytest.fixture(scope="module", params=["mountain_car", "cart_pole"])
def world(request):
    return make_world(tiny(request.param, agents__num_agents=40))


def test_the_world_is_that_of_the_protocol(world):
    table = covariates.get(world.env.spec.name)
    found = world.agents.covariates[world.test_rows()]
    np.testing.assert_array_equal(found, np.float32(table.test_agents))
    values = np.stack(jax.tree.leaves(world.env_params))
    assert values.shape[1] == 40
    for name, column in zip(table.names, world.agents.covariates.T, strict=True):
        np.testing.assert_array_equal(world.env_params[name], column)


def test_the_pure_policy_of_an_agent_is_that_of_the_nearest_training_agent(world):
    table = covariates.get(world.env.spec.name)
    width = np.subtract(table.high, table.low)
    scaled = (world.agents.covariates - table.low) / width
    anchors = (np.array(table.training_agents) - table.low) / width
    distances = np.array([[np.sqrt(np.sum((a - b) ** 2)) for b in anchors] for a in scaled])
    clear = np.sort(distances, axis=1)[:, 1] - distances.min(axis=1) > 1e-5
    assert clear.sum() > 30
    for given, own in zip(
        jax.tree.leaves(world.policies.pure), jax.tree.leaves(world.pure_params), strict=True
    ):
        expected = np.asarray(given)[distances.argmin(axis=1)]
        np.testing.assert_array_equal(np.asarray(own)[clear], expected[clear])


def test_too_few_agents_are_refused():
    with pytest.raises(ValueError, match="num_agents is 4, but mountain_car has 5 test agents"):
        make_world(tiny(agents__num_agents=4))


def data_of(path: Path, config: dict):
    """Workdir, world and dataset of a config."""
    where, world = Workdir(path, config), make_world(config)
    return where, world, make_dataset(where, world, quiet_display())


def test_data_are_collected_once(tmp_path, monkeypatch):
    where, world, first = data_of(tmp_path, tiny(behavior="pure"))
    rows = where.rows_path.read_bytes()
    monkeypatch.setattr(stages.collect, "collect_dataset", killed)
    second = make_dataset(where, world, quiet_display())
    for name in ("obs", "actions", "rewards", "terminated", "mask", "agent_ids", "covariates"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert where.rows_path.read_bytes() == rows
    (row,) = where.rows()
    assert (row["method"], row["metric"]) == ("any", "collect_steps_per_second")
    assert row["num_steps"] == int(first.mask.sum())
    assert row["value"] == pytest.approx(row["num_steps"] / row["wall_s"])
    provenance = storage.load_provenance(tmp_path / "dataset" / "dataset")
    assert provenance["config_digest"] == row["config_digest"]
    assert provenance["policies"] == world.policies.sidecar["sha256"]


def test_the_pure_data_follow_the_pure_policies(tmp_path):
    _, world, dataset = data_of(tmp_path, tiny("cart_pole", behavior="pure"))
    kernels = jax.tree.map(np.asarray, world.pure_params)
    scale = stages.load_policies("cart_pole").sidecar["dqn"]["obs_scale"] or 1.0

    def greedy(agent: int, obs: np.ndarray) -> int:
        hidden = obs * np.asarray(scale)
        layers = [k for k in sorted(kernels["params"]) if k.startswith("dense")]
        for layer in layers:
            weights = kernels["params"][layer]
            hidden = hidden @ weights["kernel"][agent] + weights["bias"][agent]
            hidden = hidden if layer == layers[-1] else np.maximum(hidden, 0)
        return int(np.argmax(hidden))

    for agent in range(dataset.num_agents):
        for t in range(0, int(dataset.lengths[agent]), 9):
            assert dataset.actions[agent, t] == greedy(agent, dataset.obs[agent, t])


def test_a_trial_draws_new_data_for_the_same_agents(tmp_path):
    _, world, first = data_of(tmp_path / "0", tiny())
    _, other, second = data_of(tmp_path / "1", tiny(trial=1))
    np.testing.assert_array_equal(first.covariates, second.covariates)
    np.testing.assert_array_equal(first.agent_ids, second.agent_ids)
    assert not np.isin(first.obs[:, 0, 0], second.obs[:, 0, 0]).any()
    for one, two in zip(
        jax.tree.leaves(world.policies.test), jax.tree.leaves(other.policies.test), strict=True
    ):
        np.testing.assert_array_equal(one, two)


def test_data_do_not_depend_on_what_is_trained_or_measured(tmp_path):
    _, _, first = data_of(tmp_path / "0", tiny())
    changed = tiny(model__rank=1, train__num_epochs=9, prediction__num_episodes=7)
    _, _, second = data_of(tmp_path / "1", changed)
    np.testing.assert_array_equal(first.obs, second.obs)


@pytest.mark.parametrize("when", ["before the arrays", "before the sidecar"])
def test_data_whose_making_was_killed_are_made_again(tmp_path, monkeypatch, when):
    config = tiny()
    where, world = Workdir(tmp_path / "a", config), make_world(config)
    name = "write_atomically" if when == "before the arrays" else "write_json_atomically"
    with monkeypatch.context() as patch, pytest.raises(Killed):  # noqa: PT012
        patch.setattr(storage, name, killed)
        make_dataset(where, world, quiet_display())
    assert not (where.path / "dataset" / "dataset.json").exists()
    make_dataset(where, world, quiet_display())
    data_of(tmp_path / "b", config)
    assert rows_of(tmp_path / "a") == rows_of(tmp_path / "b")
    assert_same_arrays(*(tmp_path / n / "dataset" / "dataset.npz" for n in "ab"))


def test_a_dataset_that_was_cut_short_is_named(tmp_path):
    where, world, _ = data_of(tmp_path, tiny())
    path = tmp_path / "dataset" / "dataset.npz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CorruptFileError, match=re.escape(str(path))):
        make_dataset(where, world, quiet_display())


def test_data_of_other_policies_are_refused(tmp_path):
    where, world, _ = data_of(tmp_path, tiny())
    sidecar = world.policies.sidecar | {"sha256": "0" * 64}
    other = world._replace(policies=world.policies._replace(sidecar=sidecar))
    with pytest.raises(ValueError, match=r"dataset was made when the shipped policies had .* 0000"):
        make_dataset(where, other, quiet_display())


def train_config(**changes):
    return tiny(train__num_epochs=3, train__polish_rounds=1, **changes)


def simulators_of(path: Path, config: dict, seconds: float = 0.0):
    where, world, dataset = data_of(path, config)
    return make_simulators(where, world, dataset, quiet_display(), seconds)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """A workdir with simulators, trained in one go."""
    return made_once(tmp_path_factory, "unbroken", lambda p: simulators_of(p, train_config()))


def assert_same_runs(first: Path, second: Path) -> None:
    assert rows_of(first) == rows_of(second)
    assert_same_arrays(
        first / "simulators" / "simulators.npz", second / "simulators" / "simulators.npz"
    )
    one, two = ([line | {"wall_s": 0} for line in curve_of(path)] for path in (first, second))
    assert one == two


@pytest.mark.optimizes
@pytest.mark.slow
@pytest.mark.parametrize("epoch", [1, 3, 4])
@pytest.mark.parametrize("when", ["before the checkpoint", "before its sidecar"])
def test_training_that_was_killed_ends_as_an_unbroken_one(
    tmp_path, monkeypatch, unbroken, epoch, when
):
    save, write = checkpoints.save, checkpoints.write_json_atomically

    def killed_save(folder, step, state):
        if step == epoch:
            raise Killed
        save(folder, step, state)

    def killed_write(path, value):
        if path.name == f"{epoch}.json":
            raise Killed
        write(path, value)

    with monkeypatch.context() as patch, pytest.raises(Killed):  # noqa: PT012
        if when == "before the checkpoint":
            patch.setattr(checkpoints, "save", killed_save)
        else:
            patch.setattr(checkpoints, "write_json_atomically", killed_write)
        simulators_of(tmp_path, train_config())
    assert checkpoints.latest_step(tmp_path / "checkpoints") == (epoch - 1 or None)
    simulators_of(tmp_path, train_config())
    assert_same_runs(unbroken, tmp_path)


@pytest.mark.optimizes
@pytest.mark.slow
def test_simulators_whose_saving_was_killed_keep_their_training_time(
    tmp_path, monkeypatch, unbroken
):
    with monkeypatch.context() as patch, pytest.raises(Killed):  # noqa: PT012
        patch.setattr(PersonalizedSimulators, "save", killed)
        simulators_of(tmp_path, train_config())
    curve = curve_of(tmp_path)
    simulators_of(tmp_path, train_config())
    assert_same_runs(unbroken, tmp_path)
    rows = Workdir(tmp_path, train_config()).rows()
    (row,) = (r for r in rows if r["metric"] == "train_seconds")
    # All of the training, not the moment that reading the last checkpoint took.
    assert row["value"] >= curve[-1]["wall_s"]
    assert json.loads((tmp_path / "timings.json").read_text())["fit persim"] >= row["value"]


@pytest.mark.optimizes
@pytest.mark.slow
def test_simulators_are_trained_once(tmp_path, unbroken, monkeypatch):
    shutil.copytree(unbroken, tmp_path, dirs_exist_ok=True)
    rows = (tmp_path / "rows.jsonl").read_bytes()
    monkeypatch.setattr(stages, "PERSIM", stages.PERSIM._replace(fit=killed))
    simulators = simulators_of(tmp_path, train_config())
    assert simulators.num_agents == 8
    assert simulators.task is envs.make("mountain_car")
    assert (tmp_path / "rows.jsonl").read_bytes() == rows


@pytest.mark.optimizes
@pytest.mark.slow
def test_an_altered_checkpoint_and_altered_simulators_are_named(tmp_path, unbroken):
    shutil.copytree(unbroken, tmp_path, dirs_exist_ok=True)
    arrays = tmp_path / "simulators" / "simulators.npz"
    content = bytearray(arrays.read_bytes())
    content[-200] ^= 1
    arrays.write_bytes(content)
    with pytest.raises(CorruptFileError, match=re.escape(str(arrays))):
        simulators_of(tmp_path, train_config())
    for path in (tmp_path / "simulators").iterdir():
        path.unlink()
    folder = tmp_path / "checkpoints" / "4"
    victim = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-1])
    with pytest.raises(CorruptCheckpointError, match=re.escape(str(folder))):
        simulators_of(tmp_path, train_config())


@pytest.mark.optimizes
@pytest.mark.slow
def test_training_that_diverges_says_which_member_and_when(tmp_path):
    config = tiny(train__learning_rate=1e30)
    told = r"member\(s\) \[0, 1\] is not finite in epoch 1 from step .* There is no checkpoint"
    with pytest.raises(DivergedError, match=told):
        simulators_of(tmp_path, config)
    assert not (tmp_path / "simulators").exists()
    assert {row["metric"] for row in Workdir(tmp_path, config).rows()} == {
        "collect_steps_per_second"
    }
