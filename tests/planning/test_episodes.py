"""A planner's episode in a simulator: against decisions made one by one, and with inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax.planning.mpc import PlannerConfig
from persim_jax.rollout import unroll
from tests.users import inputs_of, untrained

PLANNER = PlannerConfig(num_candidates=30, horizon=3)
CEM = PlannerConfig("cem", num_candidates=20, horizon=2, num_rounds=2, num_elites=4)
STEPS = 4


def upwards(obs, action, next_obs):
    return 10.0 * next_obs[1] + 0.01 * obs[0]


def rising(obs):
    return obs[1] > -1.5


@pytest.mark.parametrize("discrete", [True, False], ids=["discrete", "continuous"])
def test_an_episode_is_the_rollout_of_its_own_actions(discrete, key):
    simulators = untrained(discrete).with_reward(upwards)
    inputs = inputs_of(STEPS)
    planner = PLANNER if discrete else CEM
    episode = simulators.plan_episode(key, "bob", planner, STEPS, inputs=inputs)
    path = simulators.rollout("bob", simulators.last_obs("bob"), episode.actions, inputs)
    np.testing.assert_allclose(episode.members[:, 1:, :2], path.members, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(episode.obs[1:, :2], path.mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(episode.obs[0], simulators.last_obs("bob"))
    members = np.asarray(episode.members)
    own = 10 * members[:, 1:, 1] + 0.01 * members[:, :-1, 0]
    np.testing.assert_allclose(episode.member_rewards, own, rtol=1e-5)
    # This reward is linear, so that the mean's is the mean of the members'.
    np.testing.assert_allclose(episode.rewards, own.mean(axis=0), rtol=1e-4)
    assert np.asarray(episode.mask).all()
    if not discrete:
        spec, actions = simulators.task.spec, np.asarray(episode.actions)
        assert np.all((spec.action_low <= actions) & (actions <= spec.action_high))


def test_without_inputs_it_is_the_policy_unrolled(key):
    simulators = untrained(inputs=False).with_reward(upwards, rising)
    start = simulators.last_obs("bob")
    episode = simulators.plan_episode(key, "bob", PLANNER, 25)
    policy = simulators.policy(jnp.asarray(1), PLANNER)
    model = simulators.model
    bound = model.bind(simulators.params, jnp.asarray(1), None)
    run = jax.jit(lambda key: unroll(key, model, bound, simulators.task, policy, start, 25))
    expected = run(key)
    for name in ("obs", "actions", "rewards", "terminated", "mask"):
        np.testing.assert_allclose(getattr(episode, name), getattr(expected, name), rtol=1e-5)
    # From -5 up by about 0.2 in each step, beyond -1.5, and not further.
    steps = int(np.asarray(episode.mask).sum())
    assert 10 < steps < 25
    assert episode.obs[steps, 1] > -1.5 > episode.obs[steps - 1, 1]
    np.testing.assert_array_equal(
        episode.obs[steps:], np.repeat(episode.obs[steps][None], 26 - steps, 0)
    )
    assert not np.asarray(episode.member_rewards)[:, steps:].any()


def test_each_decision_looks_ahead_along_the_inputs_and_repeats_the_last(key):
    """With one step to go, the best action is that of the last row alone."""
    simulators = untrained().with_reward(lambda obs, action, next_obs: next_obs[1])
    inputs, one = inputs_of(6), PlannerConfig(num_candidates=40, horizon=1)
    episode = simulators.plan_episode(key, "ann", one, 6, inputs=inputs)
    state = np.asarray(episode.members)
    for t in range(6):
        reached = [
            float(simulators.step("ann", episode.obs[t], a, inputs[t]).mean[1]) for a in range(3)
        ]
        assert reached[int(episode.actions[t])] == max(reached)
    assert state.shape == (3, 7, 8)
    # Rows past the last step are what a longer horizon sees; without them the last row stays.
    longer = np.concatenate([inputs, np.repeat(inputs[-1:], 2, axis=0)])
    ours, theirs = (
        simulators.plan_episode(key, "ann", PLANNER, 6, inputs=x).actions for x in (inputs, longer)
    )
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_steps": 0}, "num_steps is 0"),
        ({"inputs": inputs_of(3)}, "inputs have 3 rows: 4 steps need as many"),
        ({"inputs": None}, "takes 1 inputs"),
        ({"obs": np.zeros(3, np.float32)}, r"obs has shape \(3,\)"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message, key):
    simulators = untrained().with_reward(upwards)
    arguments = {"planner": PLANNER, "num_steps": STEPS, "inputs": inputs_of(STEPS)} | arguments
    with pytest.raises(ValueError, match=message):
        simulators.plan_episode(key, "ann", **arguments)
    with pytest.raises(KeyError, match="no agent has the id dora"):
        simulators.plan_episode(key, "dora", PLANNER, STEPS, inputs=[1.0])


def test_no_reward_and_rewards_that_are_no_numbers_are_told(key):
    simulators = untrained(inputs=False)
    with pytest.raises(ValueError, match="planning needs a reward"):
        simulators.plan_episode(key, "ann", PLANNER, STEPS)
    rooted = simulators.with_reward(lambda obs, action, next_obs: jnp.sqrt(next_obs[1]))
    with pytest.raises(ValueError, match="the reward function gives nan"):
        rooted.plan_episode(key, "ann", PLANNER, STEPS)
