"""A checksum tells datasets apart, whatever they were read from; words name what was read."""

import dataclasses

import numpy as np
import pytest

from persim_jax.data.sources import load_source
from persim_jax.data.storage import save_dataset
from persim_jax.data.summary import describe, digest
from persim_jax.data.tables import Columns
from tests.data.segmented import make_segmented


def test_a_digest_is_of_the_content_wherever_it_came_from(tmp_path):
    data = make_segmented()
    save_dataset(tmp_path / "own", data, {})
    assert digest(load_source(str(tmp_path / "own.npz"), Columns())) == digest(data)


@pytest.mark.parametrize("name", ["obs", "actions", "inputs", "rewards", "mask", "agent_ids"])
def test_a_digest_sees_every_number(name):
    data = make_segmented()
    values = np.array(getattr(data, name))
    values.flat[0] = not values.flat[0] if name == "mask" else values.flat[0] + 1
    assert digest(data.replace(**{name: values})) != digest(data)


def test_a_digest_sees_names():
    data = make_segmented()
    renamed = dataclasses.replace(data.info, agent_names=("ann", "bob", "cyd"))
    assert digest(data.replace(info=renamed)) != digest(data)


def test_a_description_counts_what_is_there():
    # ann has runs of 4 and 3 rows, bob one of 6, cy three: 5, 5 and 4 steps, 3 gaps between.
    assert describe(make_segmented()) == [
        "3 agents, 14 transitions, 4 to 5 of each, 3 gaps in time",
        "states: x, y; action: one of 3: none, low, high",
        "inputs, known and not predicted: meal",
    ]
    plain = make_segmented(discrete=False, inputs=False)
    covariates = dataclasses.replace(plain.info, covariate_names=("weight",))
    assert describe(plain.replace(info=covariates))[1:] == [
        "states: x, y; action: continuous: dose, rate",
        "covariates, not shown to the model: weight",
    ]
