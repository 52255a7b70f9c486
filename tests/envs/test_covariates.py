"""The tables of agents: the protocol's numbers, and which agent plays which role."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envs import covariates

NAMES = ("mountain_car", "cart_pole", "half_cheetah")


@pytest.mark.parametrize("name", NAMES)
def test_every_agent_of_a_table_lies_in_its_range(name):
    table = covariates.get(name)
    agents = [
        table.default,
        *table.test_agents,
        *table.training_agents,
        *table.validation_targets,
    ]
    for agent in agents:
        assert len(agent) == len(table.names)
        assert np.all(np.less_equal(table.low, agent))
        assert np.all(np.less_equal(agent, table.high))
    assert len(table.test_agents) == len(table.paper_labels) == len(table.validation_targets) == 5
    assert not set(table.test_agents) & set(table.validation_targets)


def test_the_protocol_numbers():
    car, pole = covariates.get("mountain_car"), covariates.get("cart_pole")
    assert dict(zip(car.paper_labels[1:], car.test_agents[1:], strict=True)) == {
        "0.05": (0.0005,),
        "0.01": (0.001,),
        "0.025": (0.0025,),
        "0.035": (0.0035,),
    }
    assert (car.test_agents[0], car.paper_labels[0]) == ((0.0001,), "0.01")
    assert [tuple(map(float, label.split("/"))) for label in pole.paper_labels] == list(
        pole.test_agents
    )


@pytest.mark.parametrize("name", NAMES)
def test_500_agents_with_the_test_agents_scattered_among_them(name):
    table, agents = covariates.get(name), covariates.make_agents(name)
    assert agents.num_agents == 500
    assert agents.covariates.shape == (500, len(table.names))
    assert agents.covariates.dtype == np.float32
    assert len(set(agents.agent_ids.tolist())) == 500
    assert set(agents.test_ids) != set(range(5))
    for agent_id, expected, label in zip(
        agents.test_ids, table.test_agents, table.paper_labels, strict=True
    ):
        row = agents.covariates[agents.row_of(agent_id)]
        np.testing.assert_array_equal(row, np.float32(expected))
        assert agents.paper_labels[agent_id] == label
        assert agents.covariates_of(agent_id) == dict(zip(table.names, expected, strict=True))
    others = np.delete(agents.covariates, [agents.row_of(i) for i in agents.test_ids], axis=0)
    scaled = (others - np.float32(table.low)) / np.subtract(table.high, table.low)
    assert scaled.min() >= 0.0
    assert scaled.max() <= 1.0 + 1e-6
    # 495 uniform draws: the mean is within five standard errors of a half.
    np.testing.assert_allclose(scaled.mean(axis=0), 0.5, atol=5 * np.sqrt(1 / 12 / 495))


@pytest.mark.parametrize("name", NAMES)
def test_validation_agents_are_the_nearest_ones_that_are_free(name):
    table, agents = covariates.get(name), covariates.make_agents(name)
    width = np.subtract(table.high, table.low)
    taken = set(agents.test_ids)
    for target, agent_id in zip(table.validation_targets, agents.validation_ids, strict=True):
        assert agent_id not in taken
        distances = {
            int(i): np.linalg.norm((agents.covariates[agents.row_of(i)] - target) / width)
            for i in agents.agent_ids
            if i not in taken
        }
        assert distances[agent_id] <= min(distances.values()) + 1e-6
        taken.add(agent_id)


def test_the_seed_decides_and_nothing_else():
    first, again = covariates.make_agents("cart_pole"), covariates.make_agents("cart_pole")
    np.testing.assert_array_equal(first.covariates, again.covariates)
    assert first.test_ids == again.test_ids
    other = covariates.make_agents("cart_pole", seed=1)
    assert other.test_ids != first.test_ids
    assert not np.array_equal(other.covariates, first.covariates)


@settings(max_examples=30)
@given(
    name=st.sampled_from(NAMES),
    num_agents=st.integers(5, 60),
    seed=st.integers(0, 2**31),
)
def test_small_tables_keep_all_test_agents(name, num_agents, seed):
    table, agents = covariates.get(name), covariates.make_agents(name, num_agents, seed)
    assert len(set(agents.test_ids)) == 5
    rows = [agents.row_of(i) for i in agents.test_ids]
    np.testing.assert_array_equal(agents.covariates[rows], np.float32(table.test_agents))
    assert len(set(agents.validation_ids)) == min(5, num_agents - 5)
    assert not set(agents.validation_ids) & set(agents.test_ids)


def test_no_room_for_the_test_agents():
    with pytest.raises(ValueError, match=r"num_agents is 4.*at least 5"):
        covariates.make_agents("mountain_car", 4)


def test_unknown_names_and_ids_are_named():
    with pytest.raises(ValueError, match=r"'pendulum'.*mountain_car, cart_pole, half_cheetah"):
        covariates.get("pendulum")
    with pytest.raises(KeyError, match="cart_pole has the id 5000"):
        covariates.make_agents("cart_pole").row_of(5000)


def test_nearest_scales_by_the_range():
    # Raw distances 3 and 0.4; scaled 3 / 16 and 0.4 / 0.7: the first candidate is nearer.
    candidates = np.asarray([[13.0, 0.5], [10.0, 0.9]])
    assert covariates.nearest("cart_pole", np.asarray([10.0, 0.5]), candidates) == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ties_go_to_the_lower_index_despite_rounding(dtype):
    # (1, 1) is equally far from all four training agents of HalfCheetah, in any order.
    corners = covariates.get("half_cheetah").training_agents
    for candidates in itertools.permutations(corners):
        centre = np.asarray([1.0, 1.0], dtype)
        assert covariates.nearest("half_cheetah", centre, np.asarray(candidates, dtype)) == 0


def test_training_agent_of_each_test_agent_by_hand():
    table = covariates.get("mountain_car")
    indices = covariates.nearest(
        "mountain_car", np.asarray(table.test_agents), np.asarray(table.training_agents)
    )
    # 0.0005 is 0.0002 from 0.0003 and 0.00025 from 0.00075.
    assert indices.tolist() == [0, 0, 1, 3, 4]
