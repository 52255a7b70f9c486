"""A dataset comes back as it was saved, or loading says which file is wrong."""

import dataclasses
import hashlib
import json
import os

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persim_jax.data.dataset import DatasetInfo, OfflineDataset
from persim_jax.data.storage import dataset_paths, load_dataset, load_provenance, save_dataset
from persim_jax.files import CorruptFileError, sha256_of

PROVENANCE = {"seed": 3, "policies": ["a", "b"], "by_trial": {0: "x"}, "sizes": (1, 2)}


def make_dataset(scale=1.0):
    """Three agents, four steps; each number is its own position, times `scale`."""
    count = np.arange(3 * 5 * 2, dtype=np.float32).reshape(3, 5, 2) * np.float32(scale)
    return OfflineDataset(
        obs=count,
        actions=np.arange(12, dtype=np.int32).reshape(3, 4) % 2,
        rewards=count[:, :4, 0] / np.float32(8),
        terminated=np.eye(3, 4, k=1, dtype=bool),
        mask=np.arange(4) < np.asarray([[2], [3], [4]]),
        agent_ids=np.asarray([40, 7, 9], np.int32),
        covariates=np.float32([[0.1], [0.2], [0.3]]),
        info=DatasetInfo("toy", "pure_eps20", ("x", "y"), ("gravity",), 2, 2),
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Returns the path of a dataset and the bytes of its two files."""
    path = tmp_path_factory.mktemp("saved") / "random_0.5"
    save_dataset(path, make_dataset(), PROVENANCE)
    return path, tuple(file.read_bytes() for file in dataset_paths(path))


@pytest.fixture
def copy(saved, tmp_path):
    """Returns the path of a fresh copy that a test may spoil."""
    path = tmp_path / saved[0].name
    for file, data in zip(dataset_paths(path), saved[1], strict=True):
        file.write_bytes(data)
    return path


def assert_equal(actual, expected):
    assert actual.info == expected.info
    for field in dataclasses.fields(expected):
        if field.name != "info":
            value = getattr(actual, field.name)
            if getattr(expected, field.name) is None:
                assert value is None
                continue
            assert isinstance(value, np.ndarray)
            assert value.dtype == getattr(expected, field.name).dtype
            np.testing.assert_array_equal(value, getattr(expected, field.name))


def test_a_dataset_comes_back_as_it_was(saved):
    assert_equal(load_dataset(saved[0]), make_dataset())


def test_a_dataset_on_a_device_is_saved_as_well(tmp_path):
    save_dataset(tmp_path / "deep" / "er" / "set", jax.device_put(make_dataset()), {})
    assert_equal(load_dataset(tmp_path / "deep" / "er" / "set"), make_dataset())


@pytest.mark.parametrize("suffix", ["", ".npz", ".json"])
def test_either_file_stands_for_the_dataset_and_dots_are_no_suffix(saved, suffix):
    path = saved[0].with_name(saved[0].name + suffix)
    assert [file.name for file in dataset_paths(path)] == ["random_0.5.npz", "random_0.5.json"]
    assert_equal(load_dataset(path), make_dataset())


def test_the_sidecar_tells_what_the_arrays_are(saved):
    npz, sidecar_file = dataset_paths(saved[0])
    sidecar = json.loads(sidecar_file.read_text())
    assert sidecar["file"] == {
        "name": npz.name,
        "bytes": npz.stat().st_size,
        "sha256": sha256_of(npz),
    }
    assert sidecar["arrays"]["obs"]["shape"] == [3, 5, 2]
    assert sidecar["agents"] == {
        "40": {"gravity": 0.1},
        "7": {"gravity": 0.2},
        "9": {"gravity": 0.3},
    }
    assert sidecar["info"]["behavior"] == "pure_eps20"
    expected = {"seed": 3, "policies": ["a", "b"], "by_trial": {"0": "x"}, "sizes": [1, 2]}
    assert load_provenance(saved[0]) == expected


def test_saving_again_replaces_and_leaves_nothing_behind(copy):
    save_dataset(copy, make_dataset(scale=2.0), {})
    assert_equal(load_dataset(copy), make_dataset(scale=2.0))
    assert sorted(os.listdir(copy.parent)) == ["random_0.5.json", "random_0.5.npz"]


def test_what_cannot_be_saved_leaves_the_old_dataset(copy):
    bad = make_dataset(scale=np.nan)
    with pytest.raises(ValueError, match="agent 40"):
        save_dataset(copy, bad, {})
    with pytest.raises(TypeError):
        save_dataset(copy, make_dataset(scale=2.0), {"array": np.zeros(2)})
    assert_equal(load_dataset(copy), make_dataset())


def test_a_crash_between_the_two_files_is_noticed(copy, monkeypatch):
    def crash(path, value):
        raise OSError("no space left on device")

    monkeypatch.setattr("persim_jax.data.storage.write_json_atomically", crash)
    with pytest.raises(OSError, match="no space"):
        save_dataset(copy, make_dataset(scale=2.0), {})
    with pytest.raises(CorruptFileError, match=r"random_0.5\.npz is not the file"):
        load_dataset(copy)


@settings(max_examples=40)
@given(data=st.data())
@pytest.mark.parametrize("which", [0, 1])
def test_a_truncated_file_is_named(saved, tmp_path_factory, which, data):
    path = tmp_path_factory.mktemp("cut") / saved[0].name
    contents = list(saved[1])
    # The sidecar ends with a line feed that carries nothing.
    length = data.draw(st.integers(0, len(contents[which]) - 2))
    contents[which] = contents[which][:length]
    for file, content in zip(dataset_paths(path), contents, strict=True):
        file.write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"random_0.5\.(npz|json).*delete.*run again"):
        load_dataset(path)


@settings(max_examples=200)
@given(data=st.data())
@pytest.mark.parametrize("which", [0, 1])
def test_a_flipped_bit_is_noticed(saved, tmp_path_factory, which, data):
    path = tmp_path_factory.mktemp("flip") / saved[0].name
    contents = [bytearray(content) for content in saved[1]]
    position = data.draw(st.integers(0, len(contents[which]) - 1))
    contents[which][position] ^= 1 << data.draw(st.integers(0, 7))
    for file, content in zip(dataset_paths(path), contents, strict=True):
        file.write_bytes(content)
    with pytest.raises(CorruptFileError) as caught:
        load_dataset(path)
    assert dataset_paths(path)[which].name in str(caught.value)


def test_the_message_gives_both_checksums(copy):
    npz, sidecar = dataset_paths(copy)
    written = sha256_of(npz)
    npz.write_bytes(npz.read_bytes()[:-7])
    with pytest.raises(CorruptFileError) as caught:
        load_dataset(copy)
    for part in (str(npz), written, sha256_of(npz), str(sidecar)):
        assert part in str(caught.value)


def test_an_altered_sidecar_is_named(copy):
    _, file = dataset_paths(copy)
    file.write_text(file.read_text().replace('"gravity"', '"levity"'))
    with pytest.raises(CorruptFileError, match=r"json was altered"):
        load_dataset(copy)
    with pytest.raises(CorruptFileError, match=r"json was altered"):
        load_provenance(copy)


@pytest.mark.parametrize("content", ["", "[]", "null", "3", "{}", '{"sidecar_sha256": 1}'])
def test_a_sidecar_of_something_else_is_refused(copy, content):
    dataset_paths(copy)[1].write_text(content)
    with pytest.raises(CorruptFileError, match="json"):
        load_dataset(copy)


def test_a_dataset_of_the_version_before_is_read(copy):
    _, file = dataset_paths(copy)
    sidecar = json.loads(file.read_text())
    del sidecar["sidecar_sha256"]
    sidecar["format"] = "persim_jax.OfflineDataset/1"
    old = ("environment", "behavior", "obs_names", "covariate_names", "num_actions", "action_size")
    sidecar["info"] = {name: sidecar["info"][name] for name in old}
    content = json.dumps(sidecar, sort_keys=True)
    sidecar["sidecar_sha256"] = hashlib.sha256(content.encode()).hexdigest()
    file.write_text(json.dumps(sidecar))
    assert_equal(load_dataset(copy), make_dataset())


def test_missing_files_are_named(copy):
    npz, sidecar = dataset_paths(copy)
    data = npz.read_bytes()
    npz.unlink()
    with pytest.raises(CorruptFileError, match=r"npz is missing"):
        load_dataset(copy)
    npz.write_bytes(data)
    sidecar.unlink()
    with pytest.raises(CorruptFileError, match=r"json, the sidecar of .*npz, is missing"):
        load_dataset(copy)
    npz.unlink()
    with pytest.raises(FileNotFoundError, match="there is no dataset"):
        load_dataset(copy)
