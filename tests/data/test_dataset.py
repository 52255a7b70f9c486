"""Every number of these datasets says which agent and which step it belongs to."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from persim_jax.data.dataset import DatasetInfo, OfflineDataset, row_of, validate

IDS = (70, 3, 512, 11)
LENGTHS = (2, 5, 1, 4)
STEPS = 5


def make_dataset(discrete=True, ids=IDS, lengths=LENGTHS):
    """Step t of agent i: obs [i + t / 10, -i], reward 100 i + t; agents other than 3 terminate."""
    ids, lengths = np.asarray(ids), np.asarray(lengths)
    num_agents = len(ids)
    step = np.arange(STEPS)
    mask = step < lengths[:, None]
    reached = np.minimum(np.arange(STEPS + 1), lengths[:, None])
    obs = np.stack(
        [ids[:, None] + reached / 10, np.broadcast_to(-ids[:, None], reached.shape)], axis=-1
    )
    if discrete:
        actions = ((ids[:, None] + step) % 3).astype(np.int32)
    else:
        actions = (ids[:, None, None] + step[:, None] / 10 + np.asarray([0.0, 0.5])) / 1000
    ends = (step == lengths[:, None] - 1) & (ids != 3)[:, None]
    return OfflineDataset(
        obs=obs.astype(np.float32),
        actions=actions if discrete else actions.astype(np.float32),
        rewards=np.where(mask, 100.0 * ids[:, None] + step, 0.0).astype(np.float32),
        terminated=ends,
        mask=mask,
        agent_ids=ids.astype(np.int32),
        covariates=(ids[:, None] / 7).astype(np.float32).reshape(num_agents, 1),
        info=DatasetInfo(
            environment="toy",
            behavior="random",
            obs_names=("clock", "minus_id"),
            covariate_names=("sevenths",),
            num_actions=3 if discrete else 0,
            action_size=3 if discrete else 2,
        ),
    )


def changed(dataset, field, index, value):
    """Returns the dataset with one number changed."""
    array = np.array(getattr(dataset, field))
    array[index] = value
    return dataset.replace(**{field: array})


@pytest.mark.parametrize("discrete", [True, False])
def test_a_good_dataset_is_valid(discrete):
    dataset = make_dataset(discrete)
    validate(dataset)
    assert dataset.num_agents == 4
    np.testing.assert_array_equal(dataset.lengths, LENGTHS)
    assert dataset.info.discrete is discrete
    assert dataset.info.obs_size == 2


def test_rows_are_found_by_id():
    dataset = make_dataset()
    assert [dataset.row_of(agent_id) for agent_id in IDS] == [0, 1, 2, 3]
    with pytest.raises(KeyError, match="no agent has the id 0"):
        dataset.row_of(0)


@pytest.mark.parametrize("discrete", [True, False])
@pytest.mark.parametrize("agent_id", IDS)
def test_the_view_of_one_agent_holds_that_agent_and_no_other(discrete, agent_id):
    dataset = make_dataset(discrete)
    one = dataset.for_agent(agent_id)
    validate(one)
    assert one.num_agents == 1
    assert one.info == dataset.info
    assert one.agent_ids.tolist() == [agent_id]
    np.testing.assert_array_equal(one.obs[..., 1], -agent_id)
    np.testing.assert_array_equal(one.covariates, np.float32([[agent_id / 7]]))
    transitions = one.transitions()
    assert len(transitions.rewards) == LENGTHS[IDS.index(agent_id)]
    np.testing.assert_array_equal(transitions.rewards // 100, agent_id)
    np.testing.assert_array_equal(transitions.agent, 0)


def test_a_number_that_is_one_agents_name_and_anothers_place_is_refused():
    # As of a table: ids are places wherever one name is no plain number.
    ids, names = np.arange(4), ("-1", "01", "1", "9999999999")
    assert row_of(ids, "1", names) == 2
    assert row_of(ids, 2, names) == 2  # nobody is called 2
    assert row_of(ids, 9999999999, names) == 3
    with pytest.raises(KeyError, match=r"1 may be the agent called '01' or an id in .*as text"):
        row_of(ids, 1, names)
    assert row_of(ids, 1, ("x", "1", "y", "z")) == 1
    assert row_of(ids, np.int64(0), ("0", "1", "2", "z")) == 0


def test_the_view_of_an_unknown_agent_is_refused():
    with pytest.raises(KeyError, match="id 4"):
        make_dataset().for_agent(4)


@given(lengths=st.tuples(*[st.integers(1, STEPS)] * 4), discrete=st.booleans())
def test_transitions_are_the_steps_that_were_taken(lengths, discrete):
    dataset = make_dataset(discrete, lengths=lengths)
    flat = dataset.transitions()
    expected = [(i, t) for i, length in zip(IDS, lengths, strict=True) for t in range(length)]
    ids = np.asarray([i for i, _ in expected])
    steps = np.asarray([t for _, t in expected])
    assert flat.agent.dtype == np.int32
    np.testing.assert_array_equal(dataset.agent_ids[flat.agent], ids)
    np.testing.assert_array_equal(flat.rewards, 100.0 * ids + steps)
    np.testing.assert_array_equal(flat.obs[:, 0], (ids + steps / 10).astype(np.float32))
    np.testing.assert_array_equal(flat.next_obs[:, 0], (ids + (steps + 1) / 10).astype(np.float32))
    if discrete:
        np.testing.assert_array_equal(flat.actions, (ids + steps) % 3)
    else:
        np.testing.assert_allclose(flat.actions[:, 0], (ids + steps / 10) / 1000, rtol=1e-6)
        np.testing.assert_allclose(flat.actions[:, 1] - flat.actions[:, 0], 5e-4, rtol=1e-3)
    last = np.asarray([t == lengths[IDS.index(i)] - 1 for i, t in expected])
    np.testing.assert_array_equal(flat.terminated, last & (ids != 3))


def test_a_dataset_passes_through_jit_with_its_info_static():
    dataset = make_dataset()

    @jax.jit
    def total_reward(data):
        assert data.info.environment == "toy"
        return data.rewards.sum(axis=1)

    expected = [sum(100 * i + t for t in range(n)) for i, n in zip(IDS, LENGTHS, strict=True)]
    np.testing.assert_array_equal(total_reward(dataset), expected)
    assert len(jax.tree.leaves(dataset)) == 7


@pytest.mark.parametrize(
    ("field", "index", "value", "message"),
    [
        ("obs", (2, 1, 0), np.nan, r"obs of agent 512 at step 1, clock is nan"),
        ("obs", (0, 5, 1), np.inf, r"obs of agent 70 at step 5, minus_id is inf"),
        ("rewards", (1, 3), -np.inf, r"rewards of agent 3 at step 3 is -inf"),
        ("covariates", (3, 0), np.nan, r"covariates of agent 11, sevenths is nan"),
        ("mask", (2, 0), False, r"agent 512 has an empty trajectory"),
        ("mask", (1, 2), False, r"mask of agent 3 has a hole at step 2"),
        ("terminated", (3, 1), True, r"agent 11 has terminated at step 1.*last step, 3"),
        ("actions", (1, 4), 3, r"agent 3 takes action 3 at step 4.*0 to 2"),
        ("actions", (0, 0), -1, r"agent 70 takes action -1 at step 0.*0 to 2"),
        ("agent_ids", 0, 11, r"agent id 11 occurs 2 times"),
    ],
)
def test_a_bad_number_is_named_with_its_agent_and_step(field, index, value, message):
    dataset = changed(make_dataset(), field, index, value)
    with pytest.raises(ValueError, match=message):
        validate(dataset)


def test_a_bad_continuous_action_is_named():
    dataset = changed(make_dataset(discrete=False), "actions", (1, 2, 1), np.nan)
    with pytest.raises(ValueError, match="actions of agent 3 at step 2, column 1 is nan"):
        validate(dataset)


@pytest.mark.parametrize(
    "field", ["actions", "rewards", "terminated", "mask", "agent_ids", "covariates"]
)
def test_a_field_of_the_wrong_shape_is_named(field):
    dataset = make_dataset()
    short = dataset.replace(**{field: getattr(dataset, field)[:-1]})
    with pytest.raises(ValueError, match=f"^{field} has shape"):
        validate(short)


def test_obs_of_the_wrong_shape_are_named():
    dataset = make_dataset()
    with pytest.raises(ValueError, match=r"obs has shape \(4, 6\)"):
        validate(dataset.replace(obs=dataset.obs[..., 0]))
    with pytest.raises(ValueError, match=r"obs has shape \(4, 6, 1\), but \(4, 6, 2\)"):
        validate(dataset.replace(obs=dataset.obs[..., :1]))


@pytest.mark.parametrize(
    ("field", "dtype"),
    [("mask", np.float32), ("actions", np.float32), ("agent_ids", np.float32), ("obs", np.int32)],
)
def test_a_field_of_the_wrong_kind_is_named(field, dtype):
    dataset = make_dataset()
    wrong = dataset.replace(**{field: getattr(dataset, field).astype(dtype)})
    with pytest.raises(ValueError, match=f"^{field} is of dtype {np.dtype(dtype)}"):
        validate(wrong)


@given(
    field=st.sampled_from(["obs", "rewards", "actions"]),
    row=st.integers(0, 3),
    step=st.integers(0, STEPS - 1),
)
def test_any_nan_is_found_where_it_is_padding_included(field, row, step):
    dataset = make_dataset(discrete=False)
    bad = changed(dataset, field, (row, step), np.nan)
    with pytest.raises(ValueError, match=f"{field} of agent {IDS[row]} at step {step}"):
        validate(bad)


def test_what_single_precision_cannot_hold_is_refused_and_not_rounded_away():
    dataset = make_dataset()
    wide = np.float64(dataset.obs)
    validate(dataset.replace(obs=wide))
    # Of a state that changes by 0.1 in a step, metres from a far origin.
    far = np.array([1.0, 0.0])
    validate(dataset.replace(obs=wide + 1e4 * far))
    with pytest.raises(ValueError, match=r"lies around 1e\+08 and changes by 0\.1 in a step, of w"):
        validate(dataset.replace(obs=wide + 1e8 * far))
    # A constant that double precision has rounded is none the less one.
    noise = 1e-16 * np.random.default_rng(0).normal(size=wide.shape)
    validate(dataset.replace(obs=wide * far + 0.3 + noise))
    with pytest.raises(ValueError, match=r"obs of agent 70 at step 0, .* is 7e\+40"):
        validate(dataset.replace(obs=wide * [1e39, 1.0]))
    with pytest.raises(ValueError, match="obs is of dtype float16, too coarse to learn from"):
        validate(dataset.replace(obs=np.float16(dataset.obs)))
