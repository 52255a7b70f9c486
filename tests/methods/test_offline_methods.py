"""BCQ and CQL as rows of a table: who sees which transitions, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs import half_cheetah
from persim_jax import collect
from persim_jax.learners.bcq_continuous import ContinuousBCQConfig
from persim_jax.learners.bcq_discrete import DiscreteBCQConfig
from persim_jax.learners.cql_discrete import DiscreteCQLConfig
from persim_jax.learners.offline import OfflineConfig
from persim_jax.methods import METHODS, Monitor, find_method, parse_name
from persim_jax.methods.offline import (
    OfflineName,
    OfflineSettings,
    fit,
    lane_transitions,
    offline_method,
)
from persim_jax.synthetic import synthetic_trajectories
from persim_jax.types import Trajectory
from tests.methods.test_methods import GAINS, TOY, make_dataset
from tests.toys import gains_model, greedy_act, line_params

pytestmark = pytest.mark.optimizes

DATA = make_dataset()
TRAIN = OfflineConfig(num_steps=20, batch_size=8, chunk=10)
SETTINGS = OfflineSettings(DiscreteCQLConfig(hidden=(4,)), TRAIN, agents=(4, 1))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bcq_p", OfflineName("bcq", "p", 0)),
        ("cql_a", OfflineName("cql", "a", 0)),
        ("persim_bcq_5", OfflineName("bcq", "k", 5)),
        ("persim_cql_100", OfflineName("cql", "k", 100)),
        ("persim", None),
        ("persim_bcq_0", None),
        ("persim_bcq_05", None),
        ("bcq_k", None),
        ("bcq_pa", None),
    ],
)
def test_a_name_says_learner_view_and_number(name, expected):
    assert parse_name(name) == expected


def test_any_number_of_synthetic_trajectories_is_a_method():
    assert find_method("persim_cql_20").name == "persim_cql_20"
    assert find_method("bcq_a") is METHODS["bcq_a"]
    for name in ("persim_bcq_0", "bcq", "perism"):
        with pytest.raises(ValueError, match=f"method '{name}' is unknown: use some of persim"):
            find_method(name)


def synthetic(num=3, agents=(4, 1), seed=2):
    """From a model that is the truth, whose physics depends on the agent."""
    model, params = gains_model(2), jnp.stack([jnp.asarray(GAINS)] * 2, axis=1)
    found = synthetic_trajectories(
        jax.random.key(seed), model, params, TOY, line_params(GAINS), greedy_act, jnp.zeros(6),
        collect.BEHAVIORS["random"], jnp.asarray(agents), num,
    )  # fmt: skip
    return jax.tree.map(np.asarray, found)


def test_synthetic_trajectories_are_of_their_agent_with_known_rewards():
    found = synthetic()
    assert isinstance(found, Trajectory)
    assert found.mask.shape == (2, 3, TOY.spec.max_steps)
    moves = np.diff(found.obs[..., 0], axis=-1)
    push = found.actions.astype(np.float32) - 1.0
    for lane, row in enumerate((4, 1)):
        taken = found.mask[lane]
        np.testing.assert_allclose(moves[lane][taken], GAINS[row] * push[lane][taken], atol=1e-5)
        np.testing.assert_allclose(
            found.rewards[lane][taken], found.obs[lane, :, 1:, 0][taken], atol=1e-6
        )
    # Begun as the environment begins, each trajectory elsewhere; all actions occur.
    starts = found.obs[:, :, 0, 0]
    assert np.all(np.abs(starts) <= 0.5)
    assert len(np.unique(starts)) == 6
    assert set(np.unique(found.actions)) == {0, 1, 2}


def test_more_synthetic_trajectories_begin_with_the_fewer():
    few, many = synthetic(1), synthetic(3)
    np.testing.assert_array_equal(many.obs[:, :1], few.obs)
    np.testing.assert_array_equal(many.actions[:, :1], few.actions)


def test_the_pooled_learner_sees_every_step_and_an_agents_own_only_its_own():
    (everything,) = lane_transitions(DATA, parse_name("bcq_p"), SETTINGS)
    assert len(everything.rewards) == DATA.mask.sum()
    own = lane_transitions(DATA, parse_name("bcq_a"), SETTINGS)
    for part, row in zip(own, SETTINGS.agents, strict=True):
        taken = DATA.mask[row]
        np.testing.assert_array_equal(part.obs, DATA.obs[row, :-1][taken])
        np.testing.assert_array_equal(part.next_obs, DATA.obs[row, 1:][taken])


def test_augmented_data_are_an_agents_own_and_its_simulators():
    found = synthetic()
    settings = SETTINGS._replace(synthetic=found)
    parts = lane_transitions(DATA, parse_name("persim_bcq_3"), settings)
    own = lane_transitions(DATA, parse_name("bcq_a"), SETTINGS)
    for lane, (part, mine) in enumerate(zip(parts, own, strict=True)):
        size = len(mine.rewards)
        np.testing.assert_array_equal(part.obs[:size], mine.obs)
        assert len(part.rewards) == size + found.mask[lane].sum()
        np.testing.assert_array_equal(part.actions[size:], found.actions[lane][found.mask[lane]])


def test_synthetic_trajectories_that_are_missing_or_too_few_are_told():
    for given, text in ((None, "None"), (synthetic(2), r"\(2, 2\)")):
        with pytest.raises(ValueError, match=f"synthetic trajectories are {text}: give 3 of each"):
            lane_transitions(DATA, parse_name("persim_bcq_3"), SETTINGS._replace(synthetic=given))


@pytest.mark.parametrize(
    ("rewards", "what"),
    [(None, "no rewards"), (np.zeros_like(DATA.rewards), "no reward but 0")],
)
def test_a_dataset_without_rewards_is_refused(rewards, what):
    with pytest.raises(ValueError, match=f"the dataset has {what}: offline learners need"):
        fit(jax.random.key(0), DATA.replace(rewards=rewards), TOY.spec, "bcq_p", SETTINGS)


def test_a_dataset_with_inputs_is_refused_as_by_all_rivals():
    inputs = np.zeros((*DATA.mask.shape, 1), np.float32)
    info = dataclasses.replace(DATA.info, input_names=("meal",))
    with pytest.raises(ValueError, match=r"exogenous inputs \(meal\), which cql does not take"):
        lane_transitions(DATA.replace(inputs=inputs, info=info), parse_name("cql_p"), SETTINGS)


@pytest.mark.parametrize(
    ("spec", "config", "message"),
    [
        (TOY.spec, ContinuousBCQConfig(), "line has discrete actions: continuous BCQ needs"),
        (half_cheetah.SPEC, DiscreteBCQConfig(), "half_cheetah has continuous actions: discrete"),
    ],
)
def test_learners_of_the_other_kind_of_action_are_refused(spec, config, message):
    with pytest.raises(ValueError, match=message):
        fit(jax.random.key(0), DATA, spec, "bcq_p", SETTINGS._replace(learner=config))


@pytest.mark.parametrize(
    ("agents", "message"),
    [
        ((), "bcq has no agents to learn for: give their rows"),
        # All agents have this number where they share a policy.
        ((4, -1), r"agents in rows \[-1\]: this dataset has rows 0 to 5"),
        ((70,), r"agents in rows \[70\]: .* rows 0 to 5, of which dataset\.row_of"),
    ],
)
def test_agents_that_are_no_rows_of_the_dataset_are_refused(agents, message):
    with pytest.raises(ValueError, match=message):
        fit(jax.random.key(0), DATA, TOY.spec, "bcq_a", SETTINGS._replace(agents=agents))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"obs_names": ("position",)}, "of an observation: line has 1, the data have 2"),
        ({"num_actions": 2}, "discrete actions: line has 2, the data have 3: give the task that"),
    ],
)
def test_data_of_another_task_are_refused(changes, message):
    spec = dataclasses.replace(TOY.spec, **changes)
    with pytest.raises(ValueError, match=message):
        fit(jax.random.key(0), DATA, spec, "bcq_p", SETTINGS)


def test_names_of_other_methods_are_refused():
    with pytest.raises(ValueError, match="'persim' is no offline learner: use bcq_p"):
        fit(jax.random.key(0), DATA, TOY.spec, "persim", SETTINGS)
    with pytest.raises(ValueError, match="'persim' is no offline learner"):
        offline_method("persim")


def test_a_trajectory_shorter_than_a_batch_is_enough():
    short = DATA.replace(mask=np.arange(40)[None] < np.full((6, 1), 3))
    short = short.replace(rewards=np.where(short.mask, DATA.rewards, 0.0).astype(np.float32))
    train = dataclasses.replace(TRAIN, batch_size=64)
    fitted = fit(jax.random.key(0), short, TOY.spec, "bcq_a", SETTINGS._replace(train=train))
    assert np.asarray(fitted.diverged_at).tolist() == [-1, -1]


def act(name, fitted, row, position):
    policy = METHODS[name].policy(fitted, jnp.asarray(row), None)
    return int(policy.act(jax.random.key(0), policy.init(), jnp.asarray([position, 0.0]))[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bcq_a", "persim_cql_3"])
def test_each_agent_learns_its_own_best_push(name):
    # Reward is the position after a step; agents 4 and 1 have gains of opposite signs.
    train = OfflineConfig(num_steps=1500, batch_size=32, chunk=1500)
    kind = DiscreteBCQConfig if "bcq" in name else DiscreteCQLConfig
    config = kind(hidden=(32,), learning_rate=3e-3, discount=0.5, target_rate=0.05)
    if "cql" in name:
        config = dataclasses.replace(config, weight=0.01)
    settings = OfflineSettings(
        config, train, (4, 1), synthetic=synthetic() if "_3" in name else None
    )
    fitted = fit(jax.random.key(3), DATA, TOY.spec, name, settings)
    method = find_method(name)
    for row, best in ((4, 2), (1, 0)):
        policy = method.policy(fitted, jnp.asarray(row), None)
        obs = jnp.asarray([0.0, 10.0])
        assert int(policy.act(jax.random.key(0), policy.init(), obs)[0]) == best


def test_the_pooled_policy_is_one_for_all_and_an_agents_own_is_its_lane():
    pooled = fit(jax.random.key(0), DATA, TOY.spec, "bcq_p", SETTINGS)
    assert pooled.agents.tolist() == [-1]
    assert len({act("bcq_p", pooled, row, 0.3) for row in range(6)}) == 1
    own = fit(jax.random.key(0), DATA, TOY.spec, "cql_a", SETTINGS)
    assert own.agents.tolist() == [4, 1]
    alone = fit(jax.random.key(0), DATA, TOY.spec, "cql_a", SETTINGS._replace(agents=(1,)))
    jax.tree.map(
        lambda both, one: np.testing.assert_allclose(both[1], one[0], rtol=1e-5, atol=1e-6),
        own.states.params,
        alone.states.params,
    )


def test_who_diverged_is_told_and_who_has_no_policy():
    rewards = np.array(DATA.rewards)
    # A sum of a few of these is infinite.
    rewards[1] = np.where(DATA.mask[1], 3e38, 0.0)
    found = synthetic(num=1, agents=(4, 1, 2))
    lost = np.array(found.obs)
    lost[2, 0, 5:] = np.nan
    settings = SETTINGS._replace(agents=(4, 1, 2), synthetic=found.replace(obs=lost))
    data = DATA.replace(rewards=rewards)
    fitted = fit(jax.random.key(0), data, TOY.spec, "persim_cql_1", settings)
    assert fitted.diverged(4) is None
    assert fitted.diverged(1) is not None
    assert fitted.diverged(2) == 1
    # It was not the learner in row 2 that left the finite numbers, but the simulator before it.
    assert [fitted.spoiled(row) for row in (4, 1, 2)] == [False, False, True]
    absent = pytest.raises(KeyError, match=r"row 3 has no policy: rows \[4, 1, 2\] have one")
    with absent:
        fitted.diverged(3)
    # Not another agent's policy in its place.
    with absent:
        find_method("cql_a").policy(fitted, jnp.asarray(3), None)


def test_fitting_goes_on_from_where_a_monitor_says():
    states = []
    keep = Monitor(on_epoch=lambda state, losses: states.append(state))
    whole = fit(jax.random.key(0), DATA, TOY.spec, "bcq_a", SETTINGS, keep)
    later = []
    back = Monitor(lambda state: states[0], lambda state, losses: later.append(int(state.step)))
    again = fit(jax.random.key(0), DATA, TOY.spec, "bcq_a", SETTINGS, back)
    jax.tree.map(np.testing.assert_array_equal, whole.states.params, again.states.params)
    assert [int(state.step) for state in states] == [10, 20]
    assert later == [20]
