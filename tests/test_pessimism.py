"""The pessimistic MDP on chains and toys whose numbers are known by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persim_jax.collect import memoryless
from persim_jax.models.base import DynamicsModel
from persim_jax.pessimism import (
    Pessimism,
    PessimisticTask,
    data_disagreement,
    disagreement,
    distance_scale,
    halt_reward,
    in_halt,
    pessimistic_model,
    start_obs,
    unknown_threshold,
)
from persim_jax.rollout import unroll
from persim_jax.tasks import DataSpec, make_task
from persim_jax.types import Transitions
from tests.toys import gains_model, line_env

CHAIN = make_task(
    DataSpec("chain", ("position",), 2, (), (), 5),
    lambda obs, action, next_obs: -1.0 - obs[0],
    lambda obs: obs[0] >= 3.0,
)


def step_members(leap, key, bound, state, encoded):
    """Two members go from 0 to 1 to 2; about what follows 1 they differ by `leap`."""
    del key, bound, encoded
    differs = jnp.where(state >= 1.0, leap, 0.0) * jnp.asarray([[0.0], [1.0]])
    return state + 1.0 + differs


@functools.cache
def chain(leap=0.5):
    return DynamicsModel(
        num_members=2, init=None, fit_normalizer=None, loss=None,
        bind=lambda params, agent, history: params,
        encode_actions=lambda bound, actions: actions,
        start=lambda bound, obs: jnp.broadcast_to(obs, (2, 1)),
        step=functools.partial(step_members, leap),
        observe=lambda state: state,
    )  # fmt: skip


def follow(threshold, member=0, halt=-50.0, leap=0.5, lowest=-9.0):
    bound = Pessimism(
        jnp.zeros(()), jnp.asarray(member), jnp.asarray(threshold), jnp.ones(1)
    )  # fmt: skip
    policy = memoryless(lambda key, params, obs: jnp.asarray(1), ())
    task = PessimisticTask(CHAIN, lowest, halt)
    return unroll(
        jax.random.key(0), pessimistic_model(chain(leap), CHAIN), bound, task, policy,
        start_obs(jnp.zeros(1)), 5,
    )  # fmt: skip


def test_a_chain_ends_in_halt_which_pays_once_and_then_nothing():
    found = follow(0.4)
    # 0 -> 1 is known, 1 -> 2 is not: the position stays, the flag rises, the episode ends.
    np.testing.assert_array_equal(found.obs[:, 0], [0, 1, 1, 1, 1, 1])
    np.testing.assert_array_equal(in_halt(found.obs), [0, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(found.rewards, [-1, -50, 0, 0, 0])
    np.testing.assert_array_equal(found.terminated, [0, 1, 0, 0, 0])
    np.testing.assert_array_equal(found.mask, [1, 1, 0, 0, 0])


def test_halt_absorbs_whoever_goes_on_from_it():
    model, task = pessimistic_model(chain(), CHAIN), PessimisticTask(CHAIN, -9.0, -50.0)
    bound = Pessimism(jnp.zeros(()), jnp.asarray(0), jnp.asarray(jnp.inf), jnp.ones(1))
    halt = jnp.asarray([0.0, 1.0])
    after = model.step(jax.random.key(0), bound, model.start(bound, halt), jnp.asarray(0))
    np.testing.assert_array_equal(after, halt)
    assert task.reward(halt, jnp.asarray(0), after) == 0.0
    assert task.terminated(after)
    assert model.observe(after).shape == (model.num_members, 2)


@pytest.mark.parametrize("member", [0, 1])
def test_where_all_is_known_it_is_the_mdp_of_the_member_that_is_followed(member):
    found = follow(jnp.inf, member)
    # Member 1 leaps by half a step more once it has passed 1.
    positions = [0, 1, 2, 3, 3, 3] if member == 0 else [0, 1, 2.5, 4, 4, 4]
    np.testing.assert_allclose(found.obs[:, 0], positions)
    assert not np.any(in_halt(found.obs))
    np.testing.assert_allclose(found.rewards[:3], [-1, -2, -3 if member == 0 else -3.5])
    np.testing.assert_array_equal(found.terminated, [0, 0, 1, 0, 0])
    # No step outside HALT pays less than what HALT is measured against.
    np.testing.assert_allclose(follow(jnp.inf, member, lowest=-1.5).rewards[:3], [-1, -1.5, -1.5])


def test_a_member_that_leaves_the_finite_numbers_halts_whatever_the_threshold():
    found = follow(jnp.inf, 1, leap=jnp.inf)
    np.testing.assert_array_equal(in_halt(found.obs), [0, 0, 1, 1, 1, 1])
    assert np.all(np.isfinite(found.obs))
    np.testing.assert_array_equal(found.rewards, [-1, -50, 0, 0, 0])


@given(
    st.floats(-10, 10), st.floats(0, 10), st.floats(0.5, 1.0),
    st.lists(st.floats(0, 1), min_size=1, max_size=20),
)  # fmt: skip
def test_halt_pays_less_than_every_way_to_go_on(lowest, width, discount, shares):
    rewards = lowest + width * np.asarray(shares)
    total = (rewards * discount ** np.arange(len(shares))).sum()
    found = halt_reward(jnp.asarray(lowest), jnp.asarray(lowest + width), discount, 20)
    assert float(found) < total - 1e-4 * abs(total)


def test_halt_in_the_environments():
    # CartPole: an episode pays 1 at least. MountainCar: at worst -1 for ever, discounted -100.
    np.testing.assert_allclose(halt_reward(jnp.asarray(1.0), jnp.asarray(1.0), 0.99, 200), 0.0)
    values = halt_reward(jnp.asarray(-1.0), jnp.asarray(0.0), 0.99, 500)
    np.testing.assert_allclose(values, -101.0, rtol=1e-4)
    values = halt_reward(jnp.asarray(-1.0), jnp.asarray(0.0), 1.0, 500)
    np.testing.assert_allclose(values, -501.0)


def test_disagreement_is_the_largest_distance_between_two_members():
    found = jnp.asarray([[0.0, 0.0], [3.0, 4.0], [0.0, -1.0]])
    np.testing.assert_allclose(disagreement(found, jnp.ones(2)), np.sqrt(9 + 25))
    np.testing.assert_allclose(disagreement(found, jnp.asarray([3.0, 5.0])), np.sqrt(2))
    assert disagreement(found[:1], jnp.ones(2)) == 0.0


GAINS = jnp.asarray([[0.1, 0.4], [0.2, 0.2]])
"""Of two agents and two members: they disagree by 0.3 about a push of the first agent."""
DATA = Transitions(
    agent=jnp.asarray([0, 0, 1, 0], jnp.int32),
    obs=jnp.asarray([[0.0, 0.0], [0.5, 1.0], [1.0, 0.0], [0.2, 2.0]]),
    actions=jnp.asarray([1, 2, 2, 0], jnp.int32),
    rewards=jnp.zeros(4),
    next_obs=jnp.asarray([[0.1, 1.0], [0.9, 2.0], [1.2, 1.0], [0.0, 3.0]]),
    terminated=jnp.zeros(4, bool),
)


def test_the_threshold_is_the_largest_disagreement_of_the_data_by_the_coefficient():
    found = data_disagreement(
        jax.random.key(0), gains_model(2), GAINS, DATA, jnp.ones(2), batch_size=3
    )
    np.testing.assert_allclose(found, [0.0, 0.3, 0.0, 0.3], atol=1e-6)
    mask = jnp.asarray([True, True, True, False])
    np.testing.assert_allclose(unknown_threshold(found, mask, 3.0), 0.1, rtol=1e-5)
    np.testing.assert_allclose(unknown_threshold(found, ~mask, 0.5), 0.6, rtol=1e-5)
    only = jnp.asarray([True, False, True, False])
    assert unknown_threshold(found, only, 3.0) == 0.0
    assert unknown_threshold(found, mask, 0.0) == jnp.inf
    with pytest.raises(ValueError, match=r"pessimism_coef is -1\.0: it must be positive, or 0"):
        unknown_threshold(found, mask, -1.0)


def test_distances_are_raw_or_scaled_by_how_states_change():
    np.testing.assert_array_equal(distance_scale(DATA, "raw"), [1.0, 1.0])
    changes = np.asarray(DATA.next_obs - DATA.obs)[:, 0]
    # The clock always advances by 1: a coordinate that changes evenly stays as it is.
    np.testing.assert_allclose(distance_scale(DATA, "scaled"), [changes.std(), 1.0], rtol=1e-5)
    with pytest.raises(ValueError, match="distance 'l2' is unknown: use one of raw, scaled"):
        distance_scale(DATA, "l2")


def test_actions_outside_the_bounds_act_as_the_nearest_inside():
    spec = DataSpec("push", ("x",), 0, (-1.0,), (2.0,), 4)
    task = make_task(spec, lambda obs, action, next_obs: -action[0])
    model = pessimistic_model(chain(), task)
    found = model.encode_actions(None, jnp.asarray([[-5.0], [0.3], [7.0]]))
    np.testing.assert_allclose(found, [[-1.0], [0.3], [2.0]])
    known = start_obs(jnp.zeros(1))
    paid = PessimisticTask(task, -9.0, -50.0).reward(known, jnp.asarray([7.0]), known)
    assert paid == -2.0


def test_the_pessimistic_task_is_a_task_like_any_other():
    task = PessimisticTask(line_env(), -1.0, -50.0)
    assert task.spec.obs_names == ("position", "clock", "halt")
    assert (task.spec.num_actions, task.spec.max_steps) == (3, 8)
    assert hash(task) == hash(PessimisticTask(line_env(), -1.0, -50.0))
    path = start_obs(jnp.asarray([[0.5, 0.0], [0.9, 1.0]]))
    np.testing.assert_allclose(task.planning_bonus(path), 0.9)
    assert pessimistic_model(chain(), CHAIN) is pessimistic_model(chain(), CHAIN)
    with pytest.raises(TypeError, match="no weights of its own"):
        pessimistic_model(chain(), CHAIN).init(jax.random.key(0))
