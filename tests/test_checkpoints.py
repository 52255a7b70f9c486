"""Checkpoints come back bit for bit, or not at all and with a word about which folder."""

import re
import shutil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax import checkpoints
from persim_jax.checkpoints import CorruptCheckpointError


class State(NamedTuple):
    """As a training state: nested arrays of several types, and a typed key."""

    weights: dict
    moments: tuple
    key: jax.Array
    epoch: jax.Array


def make_state(epoch=3, width=4):
    rng = np.random.default_rng(epoch)
    return State(
        weights={"kernel": jnp.asarray(rng.normal(size=(2, width)), jnp.float32)},
        moments=(jnp.asarray(rng.normal(size=5), jnp.float32), (jnp.asarray([True, False]),)),
        key=jax.random.fold_in(jax.random.key(9), epoch),
        epoch=jnp.asarray(epoch, jnp.int32),
    )


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert ours.dtype == theirs.dtype
        if jnp.issubdtype(ours.dtype, jax.dtypes.prng_key):
            ours, theirs = jax.random.key_data(ours), jax.random.key_data(theirs)
        np.testing.assert_array_equal(ours, theirs)


@pytest.fixture
def folder(tmp_path):
    """A folder, not yet there, for checkpoints."""
    return tmp_path / "deep" / "checkpoints"


def files_of(folder, step):
    return sorted(p for p in (folder / str(step)).rglob("*") if p.is_file())


def test_a_state_comes_back_bit_for_bit_with_its_key(folder):
    assert checkpoints.latest_step(folder) is None
    checkpoints.save(folder, 3, make_state())
    assert checkpoints.latest_step(folder) == 3
    found = checkpoints.restore(folder, 3, make_state(epoch=8))
    assert_same(found, make_state())
    # A key that is data only would not draw the same numbers.
    np.testing.assert_array_equal(
        jax.random.normal(found.key, (3,)), jax.random.normal(make_state().key, (3,))
    )


def test_the_last_two_are_kept_and_each_is_its_own(folder):
    for epoch in (1, 2, 5, 10):
        checkpoints.save(folder, epoch, make_state(epoch))
    assert checkpoints.latest_step(folder) == 10
    kept = {p.name for p in folder.iterdir() if p.is_dir()}
    assert kept == {"5", "10"}
    for epoch in (5, 10):
        assert_same(checkpoints.restore(folder, epoch, make_state()), make_state(epoch))
    with pytest.raises(FileNotFoundError):
        checkpoints.restore(folder, 7, make_state())


@pytest.mark.parametrize("harm", ["flip", "truncate", "delete", "add"])
def test_an_altered_checkpoint_is_refused_by_name(folder, harm):
    checkpoints.save(folder, 3, make_state())
    largest = max(files_of(folder, 3), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    if harm == "flip":
        content[len(content) // 2] ^= 1
        largest.write_bytes(content)
    elif harm == "truncate":
        largest.write_bytes(content[:-1])
    elif harm == "delete":
        largest.unlink()
    else:
        (folder / "3" / "extra").write_bytes(b"")
    with pytest.raises(CorruptCheckpointError, match=re.escape(str(folder / "3"))):
        checkpoints.restore(folder, 3, make_state())


@pytest.mark.parametrize("content", [b"", b'{"sha256": "00', b"[]", b'{"sha256": "00"}'])
def test_an_altered_sidecar_is_refused_by_name(folder, content):
    checkpoints.save(folder, 3, make_state())
    (folder / "3.json").write_bytes(content)
    with pytest.raises(CorruptCheckpointError, match=re.escape(str(folder / "3"))):
        checkpoints.restore(folder, 3, make_state())


def test_a_checkpoint_that_was_cut_off_does_not_count_and_stands_in_nobodys_way(folder):
    checkpoints.save(folder, 1, make_state(1))
    checkpoints.save(folder, 4, make_state(4))
    # Killed after the folder was there and before its sidecar was.
    (folder / "4.json").unlink()
    assert checkpoints.latest_step(folder) == 1
    # Training goes on from 1 and saves 2, 4 and 6; Orbax alone would skip 2, and 4 as well.
    for epoch in (2, 4, 6):
        checkpoints.save(folder, epoch, make_state(epoch + 100)._replace(epoch=jnp.asarray(epoch)))
        found = checkpoints.restore(folder, epoch, make_state())
        assert int(found.epoch) == epoch
        assert_same(found.weights, make_state(epoch + 100).weights)


def test_after_deleting_a_corrupt_folder_the_one_before_it_counts(folder):
    for epoch in (1, 2):
        checkpoints.save(folder, epoch, make_state(epoch))
    shutil.rmtree(folder / "2")
    assert checkpoints.latest_step(folder) == 1
    checkpoints.save(folder, 2, make_state(7))
    assert_same(checkpoints.restore(folder, 2, make_state()), make_state(7))


def test_going_back_in_time_is_refused_and_changes_nothing(folder):
    checkpoints.save(folder, 5, make_state(5))
    for step in (5, 4):
        with pytest.raises(ValueError, match="older than number 5"):
            checkpoints.save(folder, step, make_state(1))
    assert_same(checkpoints.restore(folder, 5, make_state()), make_state(5))


STATE = make_state()
OTHERS = {
    "another width": (make_state(width=5), r"\.weights\['kernel'\] is float32\[2, 4\] there"),
    "another type": (
        STATE._replace(epoch=jnp.asarray(3.0)),
        r"\.epoch is int32\[\] there and float32\[\] here",
    ),
    "a part more": (
        STATE._replace(weights={**STATE.weights, "bias": jnp.zeros(3)}),
        r"\.weights\['bias'\] is missing there",
    ),
    "a part less": (
        STATE._replace(moments=STATE.moments[:1]),
        r"\.moments\[1\]\[0\] is bool\[2\] there and missing here",
    ),
    "a key as numbers": (
        STATE._replace(key=jax.random.key_data(STATE.key)),
        r"\.key is key<fry>\[\] there and uint32\[2\] here",
    ),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_state_of_another_structure_is_refused_with_the_part_that_differs(folder, case):
    checkpoints.save(folder, 3, make_state())
    like, message = OTHERS[case]
    with pytest.raises(CorruptCheckpointError, match=message) as error:
        checkpoints.restore(folder, 3, like)
    assert str(folder / "3") in str(error.value)
