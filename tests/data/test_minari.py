"""Minari's own loader reads what we write, and what comes back is what was written."""

import json

import gymnasium
import numpy as np
import pytest

from persim_jax.data.minari import is_minari_id, load_minari, save_minari
from persim_jax.data.sources import load_source
from persim_jax.data.tables import Columns, DataError
from tests.data import test_dataset
from tests.data.segmented import make_segmented

minari = pytest.importorskip("minari")

FIELDS = ("obs", "actions", "rewards", "terminated", "mask", "agent_ids", "covariates")


def assert_same(found, expected):
    assert found.info == expected.info
    for name in FIELDS:
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("discrete", [True, False])
def test_a_round_trip_changes_no_value(tmp_path, discrete):
    dataset = test_dataset.make_dataset(discrete)
    # Past an agent's end nothing is stored; we pad with zeros.
    pad = dataset.mask if discrete else dataset.mask[..., None]
    dataset = dataset.replace(actions=np.where(pad, dataset.actions, dataset.actions.dtype.type(0)))
    folder = save_minari(dataset, "own/toy-v0", tmp_path)
    assert_same(load_minari(folder), dataset)
    assert_same(load_minari(folder.parent), dataset)
    assert_same(load_source(str(folder.parent), Columns()), dataset)


@pytest.mark.parametrize("discrete", [True, False])
def test_gaps_names_and_inputs_survive(tmp_path, discrete):
    dataset = make_segmented(discrete)
    found = load_minari(save_minari(dataset, "own-v1", tmp_path))
    assert found.info == dataset.info
    assert found.row_of("bob") == 1
    np.testing.assert_array_equal(found.mask, dataset.mask)
    ours, theirs = found.transitions(), dataset.transitions()
    for name in ("agent", "obs", "actions", "next_obs", "terminated"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


def test_minaris_own_loader_finds_it_with_metadata_of_agents(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    dataset = test_dataset.make_dataset()
    save_minari(dataset, "own/toy-v0")
    theirs = minari.load_dataset("own/toy-v0")
    assert theirs.total_episodes == 4
    assert theirs.total_steps == sum(test_dataset.LENGTHS)
    assert isinstance(theirs.action_space, gymnasium.spaces.Discrete)
    metadata = list(theirs.storage.get_episode_metadata(range(4)))
    assert [facts["agent_id"] for facts in metadata] == list(test_dataset.IDS)
    for row, episode in enumerate(theirs.iterate_episodes()):
        length = test_dataset.LENGTHS[row]
        np.testing.assert_array_equal(episode.observations, dataset.obs[row, : length + 1])
        np.testing.assert_array_equal(episode.actions, dataset.actions[row, :length])
        assert episode.terminations[-1] != episode.truncations[-1]
        assert not episode.truncations[:-1].any()
        sevenths = metadata[row]["covariates"]["sevenths"]
        assert np.float32(sevenths) == dataset.covariates[row, 0]
    assert_info = load_source("own/toy-v0", Columns()).info
    assert assert_info == dataset.info


def other_peoples(path, observations, actions, space, infos=None):
    """A dataset of two episodes as another program would write it."""
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    path.mkdir()
    spaces = gymnasium.spaces
    box = lambda values: spaces.Box(-9, 9, values.shape[1:], values.dtype)  # noqa: E731
    observed = (
        spaces.Dict({name: box(part) for name, part in observations.items()})
        if isinstance(observations, dict)
        else box(observations)
    )
    storage = MinariStorage.new(path / "data", observation_space=observed, action_space=space)
    storage.update_metadata({"dataset_id": "other/one-v0", "minari_version": minari.__version__})
    ends = np.asarray([False, False, True])
    storage.update_episodes(
        [
            EpisodeBuffer(
                observations=observations, actions=actions, rewards=np.arange(3.0),
                terminations=end, truncations=~end & ends, infos=infos,
            )
            for end in (ends, ends & False)
        ]
    )  # fmt: skip
    return path


def test_of_other_peoples_datasets_every_episode_is_an_agent(tmp_path):
    obs = {"a": np.arange(8.0).reshape(4, 2), "b": np.full((4, 1), 5.0)}
    actions = np.asarray([[0.5], [1.5], [-1.0]])
    path = other_peoples(tmp_path / "one", obs, actions, gymnasium.spaces.Box(-2, 2, (1,), float))
    data = load_minari(path)
    assert (data.num_agents, data.info.action_size, data.info.discrete) == (2, 1, False)
    assert data.info.environment == "other/one-v0"
    np.testing.assert_array_equal(data.obs[1], np.concatenate([obs["a"], obs["b"]], axis=1))
    np.testing.assert_array_equal(data.actions[0], actions)
    np.testing.assert_array_equal(data.terminated, [[0, 0, 1], [0, 0, 0]])
    assert not data.info.segmented
    discrete = other_peoples(
        tmp_path / "two", obs["a"], np.asarray([2, 0, 1]), gymnasium.spaces.Discrete(3)
    )
    assert load_minari(discrete).info.num_actions == 3


def test_actions_may_begin_at_one_and_inputs_with_those_of_the_reset(tmp_path):
    obs, space = np.arange(8.0).reshape(4, 2), gymnasium.spaces.Discrete(3, start=1)
    infos = {"inputs": np.float32([5.0, 6.0, 7.0, 8.0])}
    path = other_peoples(tmp_path / "one", obs, np.asarray([3, 1, 2]), space, infos)
    data = load_minari(path)
    np.testing.assert_array_equal(data.actions[0], [2, 0, 1])
    assert data.info.action_names == ("1", "2", "3")
    np.testing.assert_array_equal(data.inputs[0], [[5.0], [6.0], [7.0]])


def test_double_precision_and_large_ids_are_not_cut_down_in_silence(tmp_path):
    obs, space = np.arange(8.0).reshape(4, 2), gymnasium.spaces.Discrete(3)
    far = other_peoples(tmp_path / "far", obs + 1e9, np.asarray([2, 0, 1]), space)
    with pytest.raises(ValueError, match=r"obs_0 lies around 1e\+09 and changes by 2 in a step"):
        load_minari(far)
    near = other_peoples(tmp_path / "near", obs, np.asarray([2, 0, 1]), space)
    assert load_minari(near).obs.dtype == np.float32
    large = test_dataset.make_dataset(ids=np.arange(4) + 2**40)
    large = large.replace(agent_ids=np.arange(4) + 2**40)
    np.testing.assert_array_equal(
        load_minari(save_minari(large, "own/ids-v0", tmp_path)).agent_ids, large.agent_ids
    )


def test_agents_of_other_peoples_datasets_have_the_same_covariates(tmp_path):
    obs, space = np.arange(8.0).reshape(4, 2), gymnasium.spaces.Discrete(3)
    path = other_peoples(tmp_path / "one", obs, np.asarray([2, 0, 1]), space)
    storage = minari.MinariDataset(path / "data").storage
    storage.update_episode_metadata([{"covariates/mass": 1.5}], [0])
    with pytest.raises(DataError, match="covariates of agent 1 are none, those of agent 0 mass"):
        load_minari(path)
    storage.update_episode_metadata([{"covariates/mass": 2.5}], [1])
    np.testing.assert_array_equal(load_minari(path).covariates, [[1.5], [2.5]])


def test_what_cannot_be_read_is_refused(tmp_path):
    whole = np.arange(4).reshape(4, 1)
    path = other_peoples(
        tmp_path / "one", whole, np.asarray([2, 0, 1]), gymnasium.spaces.Discrete(3)
    )
    with pytest.raises(DataError, match="observations are int64 of shape"):
        load_minari(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty is no dataset.*metadata\.json"):
        load_minari(tmp_path / "empty")


def test_what_is_there_is_not_overwritten_and_a_failure_leaves_nothing(tmp_path, monkeypatch):
    dataset = test_dataset.make_dataset()
    save_minari(dataset, "toy-v0", tmp_path)
    with pytest.raises(ValueError, match="toy-v0 is there already"):
        save_minari(dataset, "toy-v0", tmp_path)
    with pytest.raises(ValueError, match="'toy' is no id of Minari"):
        save_minari(dataset, "toy", tmp_path)
    monkeypatch.setattr(json, "dumps", lambda value: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_minari(dataset, "other-v0", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["toy-v0"]
    assert is_minari_id("D4RL/door/human-v2")
    assert not is_minari_id("runs/glucose.csv")


def test_sources_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file or folder"):
        load_source(str(tmp_path / "absent"), Columns())
    (tmp_path / "notes.pdf").write_text("x")
    with pytest.raises(DataError, match=r"notes\.pdf is no dataset: give a table"):
        load_source(str(tmp_path / "notes.pdf"), Columns())
