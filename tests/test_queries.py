"""Counterfactual queries: against rollouts, intervals by hand, and what they warn about."""

import dataclasses

import jax
import numpy as np
import pytest
import scipy.stats

from persim_jax import queries
from persim_jax.data.lags import Recent
from persim_jax.queries import intervals
from persim_jax.simulators import PersonalizedSimulators
from tests.test_simulators import make
from tests.users import actions_of, inputs_of, recent, untrained, window

STEPS = 5
both = pytest.mark.parametrize("discrete", [True, False], ids=["discrete", "continuous"])


def test_intervals_are_scipys():
    mean, std = np.float64([[1.0, -2.0]]), np.float64([[0.5, 3.0]])
    lower, upper = intervals(mean, std, (0.5, 0.95))
    for row, level in enumerate((0.5, 0.95)):
        expected = scipy.stats.norm.interval(level, loc=mean, scale=std)
        np.testing.assert_allclose((lower[row], upper[row]), expected, rtol=1e-9)
    for level in (0.0, 1.0, 95, float("nan")):
        with pytest.raises(ValueError, match=f"level {level} is no coverage"):
            intervals(mean, std, (0.5, level))


@both
def test_an_answer_is_the_rollout_with_the_spread_of_its_members(discrete):
    simulators = untrained(discrete)
    history = recent(simulators, [[3.0, -2.0], [3.5, -2.5]])
    actions, inputs = actions_of(discrete, STEPS), inputs_of(STEPS)
    answer = simulators.query("bob", actions, history, inputs, levels=(0.8,))
    path = simulators.rollout("bob", history, actions, inputs)
    np.testing.assert_array_equal(answer.members, path.members)
    np.testing.assert_allclose(answer.mean, path.mean, rtol=1e-5)
    spread = np.std(np.asarray(path.members, np.float64), axis=0)
    np.testing.assert_allclose(answer.std, spread, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(answer.upper[0] - answer.mean, 1.2816 * answer.std, rtol=1e-3)
    np.testing.assert_allclose(answer.mean - answer.lower[0], 1.2816 * answer.std, rtol=1e-3)
    assert answer.names == ("x", "y")
    assert (answer.num_steps, answer.notes) == (STEPS, ())
    assert not answer.outside.any()


def test_without_a_state_it_starts_where_the_agent_was_last_seen():
    simulators, actions, inputs = untrained(), actions_of(True, STEPS), inputs_of(STEPS)
    # bob's last two rows, and what he did in between: action 4 mod 3, input 104 / 10.
    history = Recent(np.float32([[104, -4], [105, -5]]), np.int32([1]), np.float32([[10.4]]))
    given = simulators.query("bob", actions, history, inputs)
    np.testing.assert_array_equal(simulators.query("bob", actions, None, inputs).mean, given.mean)
    np.testing.assert_allclose(
        simulators.last_obs("bob"), [105, -5, 104, -4, 0, 1, 0, 10.4], rtol=1e-6
    )


def test_files_keep_where_agents_were_last_seen_and_older_ones_ask_for_a_state(tmp_path):
    simulators, actions, inputs = untrained(), actions_of(True, 2), inputs_of(2)
    simulators.save(tmp_path)
    loaded = PersonalizedSimulators.load(tmp_path)
    for agent in ("ann", "cy"):
        ours, theirs = (s.query(agent, actions, None, inputs).mean for s in (loaded, simulators))
        np.testing.assert_array_equal(ours, theirs)
    older = simulators.replace(support=None)
    with pytest.raises(ValueError, match="where agent ann was last seen is not known: give a st"):
        older.query("ann", actions, None, inputs)
    assert older.query("ann", actions, window(older, [[1, 0], [2, 0]]), inputs).notes == ()
    assert make().query(7, [0, 1], [0.3, -0.2]).names == ("obs_0", "obs_1")


def test_a_task_does_not_clip_what_is_asked():
    plain = untrained(discrete=False, inputs=False)
    simulators = plain.with_reward(lambda obs, action, next_obs: obs[0])
    actions = actions_of(False, 3) + np.float32([10.0, 0.0])
    answer = queries.ask(simulators, "cy", actions)
    assert answer.notes[0].startswith("3 of 3 actions are outside the range of the data (dose")
    np.testing.assert_array_equal(
        answer.members, plain.rollout("cy", plain.last_obs("cy"), actions).members
    )


def test_a_path_that_leaves_the_data_is_told_once_with_its_first_step():
    simulators, actions, inputs = untrained(), actions_of(True, STEPS), inputs_of(STEPS)
    far = recent(simulators, [[300, -3], [300, -3]])
    with pytest.warns(UserWarning, match=r"the start is outside the range of the data \(x from 1"):
        answer = simulators.query("ann", actions, far, inputs)
    assert answer.outside.all()
    # y grows by about 0.2 in each step, and the data end at -1.
    near = recent(simulators, [[100, -2.3], [100, -2.1]])
    answer = queries.ask(simulators, "ann", actions_of(True, 12), near, inputs_of(12))
    first = int(np.argmax(answer.mean[:, 1] > -1))
    assert 1 < first < 11
    np.testing.assert_array_equal(answer.outside, np.arange(12) >= first)
    (note,) = answer.notes
    assert note.startswith(f"from step {first + 1} on the prediction is outside")


def test_one_member_has_no_spread():
    simulators = untrained(inputs=False, lags=1)
    weights = jax.tree.map(lambda leaf: leaf[:1], simulators.params.weights)
    one = simulators.replace(
        params=simulators.params._replace(weights=weights),
        config=dataclasses.replace(simulators.config, ensemble_size=1),
    )
    answer = one.query("ann", [0, 1])
    np.testing.assert_array_equal(answer.std, np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"agent_id": "anne"}, KeyError, "no agent has the id anne.*such as ann"),
        (
            {"obs": Recent([[1.0, 2.0]], np.int32([]), np.ones((0, 1)))},
            ValueError,
            "2 lags need at",
        ),
        ({"obs": [1.0, 2.0]}, ValueError, r"obs has shape \(2,\): this model's is \(8,\)"),
        ({"obs": [1.0, 2.0, np.nan, 0.0, 0, 1, 0, 3]}, ValueError, r"obs holds nan at \(2,\)"),
        ({"actions": [0, 3]}, ValueError, "reach from 0 to 3"),
        ({"actions": [[0], [1]]}, ValueError, r"int32 of shape \(2, 1\)"),
        ({"inputs": None}, ValueError, r"takes 1 inputs \(meal\)"),
        ({"inputs": [[1.0]] * 3}, ValueError, r"inputs have shape \(3, 1\)"),
        ({"levels": (1.5,)}, ValueError, "level 1.5 is no coverage"),
    ],
)
def test_questions_that_make_no_sense_have_their_own_answer(change, error, message):
    arguments = {"agent_id": "ann", "actions": [0, 1], "inputs": [[1.0], [2.0]]}
    with pytest.raises(error, match=message):
        untrained().query(**arguments | change)


def test_continuous_actions_that_are_no_numbers_are_refused():
    actions = actions_of(False, 3)
    actions[1, 0] = np.inf
    with pytest.raises(ValueError, match=r"actions holds inf at \(1, 0\)"):
        untrained(discrete=False).query("ann", actions, None, [1.0])
