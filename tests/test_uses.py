"""Simulators as environments and with users' rewards: what they hand on, and what they refuse."""

import functools

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from jax import export

from persim_jax import queries
from persim_jax.data.lags import with_lags
from persim_jax.planning.mpc import PlannerConfig
from tests.data.segmented import make_segmented
from tests.test_simulators import going_right, make
from tests.users import actions_of, inputs_of, recent, untrained, window


def upwards(obs, action, next_obs):
    return next_obs[1] - obs[1]


def rising(obs):
    return obs[1] > -1.5


@pytest.mark.parametrize("discrete", [True, False], ids=["discrete", "continuous"])
@pytest.mark.parametrize("driver", ["mean", "random_member"])
def test_an_agents_simulator_passes_gymnasiums_checker(discrete, driver):
    inputs = inputs_of(8) if driver == "mean" else None
    simulators = untrained(discrete, inputs is not None)
    limits = {} if discrete else {"action_low": -1.0, "action_high": 1.0}
    arguments = {"driver": driver, "inputs": inputs, **limits}
    check_env(simulators.to_gymnasium("bob", upwards, rising, **arguments))


def test_actions_are_in_the_datas_units_of_which_the_checker_has_an_opinion():
    simulators = untrained(discrete=False, inputs=False)
    env = simulators.to_gymnasium("bob", upwards)
    with pytest.warns(UserWarning, match="recommend using a symmetric and normalized space"):
        check_env(env)
    # Its own remedy works.
    scaled = gymnasium.wrappers.RescaleAction(env, np.float32(-1), np.float32(1))
    scaled.reset(seed=0)
    middle = np.asarray(simulators.support.action_range).mean(axis=0)
    found = scaled.step(np.zeros(2, np.float32))[0]
    env.reset(seed=0)
    np.testing.assert_allclose(found, env.step(middle)[0], rtol=1e-5)


@pytest.mark.parametrize("discrete", [True, False], ids=["discrete", "continuous"])
def test_an_episode_is_the_rollout_with_its_inputs(discrete):
    simulators = untrained(discrete)
    actions, inputs = actions_of(discrete, 5), inputs_of(5)
    start = window(simulators, [[100.1, -4.2], [100, -4]])
    env = simulators.to_gymnasium("cy", upwards, reset=start, inputs=inputs)
    obs, _ = env.reset(seed=0)
    np.testing.assert_array_equal(obs, start)
    path = simulators.rollout("cy", start, actions, inputs)
    before = start
    for t, action in enumerate(actions):
        obs, reward, terminated, truncated, info = env.step(action)
        np.testing.assert_allclose(obs[:2], path.mean[t], rtol=1e-5)
        np.testing.assert_allclose(info["member_obs"][:, :2], path.members[:, t], rtol=1e-5)
        assert reward == pytest.approx(float(obs[1] - before[1]), abs=1e-5)
        assert (terminated, truncated) == (False, t == 4)
        before = obs


def test_a_random_member_drives_an_episode_and_another_one_the_next():
    simulators = untrained(inputs=False)
    start = window(simulators, [[100.1, -4.2], [100, -4]])
    env = simulators.to_gymnasium("ann", upwards, reset=start, driver="random_member", max_steps=9)
    path = simulators.rollout("ann", start, [1, 2])
    drivers, before = set(), start
    env.reset(seed=1)
    for _ in range(12):
        _, info = env.reset()
        drivers.add(info["member"])
        before = start
        for t, action in enumerate((1, 2)):
            obs, reward, _, _, info = env.step(action)
            np.testing.assert_allclose(obs[:2], path.members[info["member"], t], rtol=1e-5)
            assert reward == pytest.approx(float(obs[1] - before[1]), abs=1e-5)
            before = obs
    assert drivers == {0, 1, 2}
    with pytest.raises(
        ValueError, match=r"driver 'median' is unknown: use one of .*'random_member'"
    ):
        simulators.to_gymnasium("ann", upwards, driver="median")


def test_episodes_begin_where_agents_did_or_where_they_are_told_to():
    simulators = untrained(inputs=False)
    firsts = {tuple(row) for row in np.asarray(simulators.support.first_obs).tolist()}
    env = simulators.to_gymnasium("ann", upwards)
    env.reset(seed=0)
    assert {tuple(env.reset()[0].tolist()) for _ in range(30)} == firsts
    assert env.spec.kwargs["task"].spec.max_steps == int(simulators.support.longest)
    rows = np.stack([window(simulators, [[x, -3]] * 2) for x in (10, 20)])
    given = simulators.to_gymnasium("ann", upwards, reset=rows)
    given.reset(seed=0)
    assert {given.reset()[0][0] for _ in range(20)} == {10.0, 20.0}
    own = simulators.to_gymnasium("ann", upwards, reset=lambda key: jnp.full(7, -2.0))
    assert own.reset(seed=0)[0].tolist() == [-2.0] * 7


def test_an_episode_that_begins_at_whole_numbers_goes_on_in_floats():
    simulators = untrained(inputs=False, lags=1)
    paths = []
    for reset in (lambda key: [100, -4], lambda key: np.array([100.0, -4.0]), [100, -4]):
        env = simulators.to_gymnasium("ann", upwards, reset=reset)
        env.reset(seed=0)
        paths.append([env.step(1)[0].tolist() for _ in range(3)])
    assert paths[0] == paths[1] == paths[2]
    assert paths[0][0] == pytest.approx(
        simulators.step("ann", [100, -4], 1).mean.tolist(), rel=1e-6
    )
    assert not np.array_equal(paths[0], np.round(paths[0]))


def test_an_option_that_would_change_nothing_is_refused():
    goal = untrained(inputs=False).with_reward(upwards)
    for option in ({"max_steps": 2}, {"terminated": rising}, {"action_low": 0.0}):
        with pytest.raises(ValueError, match=f"{next(iter(option))} without a reward would change"):
            goal.to_gymnasium("ann", **option)
    assert goal.to_gymnasium("ann", upwards, max_steps=2).spec.kwargs["task"].spec.max_steps == 2


def test_gymnasiums_tools_make_it_again():
    env = untrained().to_gymnasium("bob", upwards, inputs=inputs_of(6))
    again = gymnasium.make(env.spec)
    first = env.reset(seed=4)[0]
    np.testing.assert_array_equal(again.reset(seed=4)[0], first)
    np.testing.assert_array_equal(again.step(1)[0], env.step(1)[0])


def test_what_cannot_become_an_environment_is_refused():
    simulators = untrained()
    inputs = inputs_of(4)
    refused = [
        ({}, "an environment needs a reward"),
        ({"reward": upwards}, "takes 1 inputs"),
        ({"reward": upwards, "inputs": inputs, "max_steps": 9}, r"inputs have shape \(4, 1\)"),
        ({"reward": upwards, "inputs": inputs, "reset": [1.0]}, r"reset has shape \(1,\)"),
        ({"reward": upwards, "inputs": inputs, "reset": [np.nan] * 8}, "finite states are due"),
        (
            {"reward": upwards, "inputs": inputs, "reset": lambda key: jnp.zeros(2)},
            r"the reset function returns an observation of shape \(2,\): \(8,\) is due",
        ),
        ({"reward": lambda o, a, n: o, "inputs": inputs}, r"float32 of shape \(8,\)"),
        ({"reward": lambda o, a, n: jnp.log(o[1]), "inputs": inputs}, "gives nan at obs"),
    ]
    for arguments, message in refused:
        with pytest.raises(ValueError, match=message):
            simulators.to_gymnasium("ann", **arguments)
    with pytest.raises(KeyError, match="no agent has the id dora"):
        simulators.to_gymnasium("dora", upwards, inputs=inputs)
    older = make(task=going_right())
    with pytest.raises(ValueError, match="where episodes begin is not known"):
        older.to_gymnasium(7)
    with pytest.raises(ValueError, match="length of an episode is not known: give max_steps"):
        older.to_gymnasium(7, upwards)
    assert older.to_gymnasium(7, reset=[0.3, -0.2]).reset(seed=0)[0].shape == (2,)


def test_a_reward_that_stops_being_a_number_is_told_in_the_step():
    simulators = untrained(inputs=False)
    # y rises by about 0.2 in a step, from -1 through zero.
    start = window(simulators, [[100, -0.7], [100, -0.5]])
    env = simulators.to_gymnasium("ann", lambda o, a, n: jnp.sqrt(-n[1]), reset=start, max_steps=9)
    env.reset(seed=0)
    for _ in range(2):
        env.step(0)
    with pytest.raises(FloatingPointError, match="the reward is nan in step 3 at obs"):
        env.step(0)


def test_a_task_has_the_datas_bounds_or_given_ones():
    simulators = untrained(discrete=False, inputs=False)
    spec = simulators.with_reward(upwards).task.spec
    np.testing.assert_allclose(spec.action_low, [2 / 7, 1001], rtol=0.5)
    np.testing.assert_array_equal(spec.action_low, np.asarray(simulators.support.action_range)[0])
    assert (spec.name, spec.max_steps) == ("toy", int(simulators.support.longest))
    given = simulators.with_reward(upwards, action_low=0.0, action_high=[1.0, 2e3]).task.spec
    assert (given.action_low, given.action_high) == ((0.0, 0.0), (1.0, 2000.0))
    with pytest.raises(ValueError, match=r"action_low has shape \(3,\): one number, or 2, are due"):
        simulators.with_reward(upwards, action_low=[0.0] * 3)
    with pytest.raises(ValueError, match=r"action_high 2\.0, but.* one of a few.* leave both out"):
        untrained().with_reward(upwards, action_high=2.0)
    with pytest.raises(ValueError, match="range of actions is not known: give action_low"):
        simulators.replace(support=None).with_reward(upwards, max_steps=3)
    assert untrained().with_reward(upwards).task.spec.num_actions == 3


@functools.cache
def newcomer(count, inputs=False):
    """dora, of whom so many transitions of bob are known."""
    dataset = with_lags(make_segmented(inputs=inputs), 2)
    data = jax.tree.map(lambda leaf: leaf[:count], dataset.for_agent("bob").transitions())
    simulators = untrained(inputs=inputs).replace(noise=np.full((3, 2), 1e-3, np.float32))
    return simulators.personalize(data, agent_id="dora").simulator


def test_a_newcomer_is_asked_planned_for_and_trained_in_like_any_other(tmp_path, key):
    dora = newcomer(3)
    start = recent(dora.simulators, [[103, -3], [104, -4]])
    ask = functools.partial(queries.ask, agent_id="dora", actions=[0, 1, 2], obs=start)
    answer = ask(dora.simulators)
    np.testing.assert_array_equal(answer.members, dora.rollout(start, [0, 1, 2]).members)
    assert len(answer.members) == 3 * 4  # members and guesses of the factors
    # Less is known from one transition than from three.
    np.testing.assert_array_less(answer.std, ask(newcomer(1).simulators).std)
    with pytest.raises(ValueError, match="where agent dora was last seen is not known: give a st"):
        dora.query([0, 1])
    check_env(dora.to_gymnasium(upwards, driver="random_member"))
    planned = dora.simulators.with_reward(upwards).for_agent("dora")
    episode = planned.plan_episode(key, PlannerConfig(num_candidates=20, horizon=2), 3, obs=start)
    path = dora.rollout(start, episode.actions)
    np.testing.assert_allclose(episode.members[:, 1:, :2], path.members, rtol=1e-5)
    dora.export_rollout(tmp_path / "dora")
    call = export.deserialize(bytearray((tmp_path / "dora").read_bytes())).call
    mean, _ = call(
        np.int32([0]), np.asarray(dora.simulators.as_obs(start))[None], np.int32([[0, 1, 2]])
    )
    np.testing.assert_allclose(mean[0], answer.mean, rtol=1e-5)
