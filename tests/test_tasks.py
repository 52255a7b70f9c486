"""Tasks from users' functions: what they accept, and what they say of functions that do not fit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax import tasks
from persim_jax.tasks import DataSpec, make_task

SPEC = DataSpec("tank", ("level", "inflow"), 0, (0.0,), (2.0,), 30)
DISCRETE = DataSpec("switch", ("level",), 2, (), (), 30)


def near_one(obs, action, next_obs):
    return -jnp.square(next_obs[0] - 1.0) - 0.1 * action[0]


def full(obs):
    return obs[0] > 5.0


def test_a_task_is_the_users_functions_and_the_same_for_the_same_ones():
    task = make_task(SPEC, near_one, full)
    obs, next_obs = jnp.float32([0.0, 0.0]), jnp.float32([3.0, 0.0])
    assert float(task.reward(obs, jnp.float32([2.0]), next_obs)) == pytest.approx(-4.2)
    assert bool(task.terminated(jnp.float32([6.0, 0.0])))
    assert not bool(make_task(SPEC, near_one).terminated(jnp.float32([6.0, 0.0])))
    assert float(task.planning_bonus(obs[None])) == 0.0
    assert task == make_task(SPEC, near_one, full)
    assert hash(task) == hash(make_task(SPEC, near_one, full))
    assert task != make_task(SPEC, near_one)


@pytest.mark.parametrize(
    "reward",
    [
        lambda obs, action, next_obs: 1,
        lambda obs, action, next_obs: action,
        lambda obs, action, next_obs: obs[0] > 0,
    ],
)
def test_whole_numbers_and_truths_are_rewards_as_floats(reward):
    found = make_task(DISCRETE, reward).reward(jnp.ones(1), jnp.asarray(1), jnp.ones(1))
    assert found.dtype == jnp.float32
    assert float(found) == 1.0


def branching(obs, action, next_obs):
    return 1.0 if next_obs[0] > 0 else 0.0


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (lambda obs, action, next_obs: next_obs, r"returns float32 of shape \(2,\).* shape \(\)"),
        (lambda obs, action, next_obs: (obs - next_obs)[None], r"of shape \(1, 2\)"),
        (lambda obs, action, next_obs: 1j * obs[0], "complex"),
        (lambda obs, action: obs[0], r"cannot be traced.*\(2,\), \(1,\), \(2,\): TypeError"),
        (branching, "TracerBoolConversionError.*Write it with jax.numpy, without `if`"),
        (lambda obs, action, next_obs: float(np.asarray(obs)[0]), "cannot be traced"),
        (lambda obs, action, next_obs: None, "cannot be traced"),
        (lambda obs, action, next_obs: obs["level"], "cannot be traced"),
    ],
)
def test_rewards_that_do_not_fit_are_refused_with_a_reason(reward, message):
    with pytest.raises(ValueError, match=message):
        make_task(SPEC, reward)
    with pytest.raises(ValueError, match="the reward function"):
        make_task(SPEC, reward)


def test_a_termination_that_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"the terminated function returns bool of shape \(2,\)"):
        make_task(SPEC, near_one, lambda obs: obs > 1.0)


def test_rewards_that_are_no_numbers_are_counted_and_shown():
    task = make_task(SPEC, lambda obs, action, next_obs: jnp.log(next_obs[0]))
    obs = jnp.float32([[1.0, 0.0]] * 3)
    after = jnp.float32([[1.0, 0.0], [-1.0, 0.5], [0.0, 0.0]])
    with pytest.raises(ValueError, match=r"gives nan at .*next_obs \[-1.0, 0.5\] \(2 of 3 trans"):
        tasks.check_rewards(task, obs, jnp.ones((3, 1)), after)
    tasks.check_rewards(task, obs[:1], jnp.ones((1, 1)), after[:1])
    # Past the end of a path nothing counts.
    path, mask = jnp.concatenate([obs[:1], after]), np.bool_([True, False, False])
    tasks.check_path(task, path, jnp.ones((3, 1)), mask)
    with pytest.raises(ValueError, match="1 of 2"):
        tasks.check_path(task, path, jnp.ones((3, 1)), np.bool_([True, True, False]))


def test_a_state_that_is_no_number_is_told_though_its_reward_is_one():
    task = make_task(SPEC, lambda obs, action, next_obs: jnp.ones(()))
    path = jnp.float32([[1.0, 0.0], [2.0, 0.0], [np.inf, 0.5], [np.nan, np.nan]])
    actions, mask = jnp.ones((3, 1)), np.bool_([True, False, False])
    tasks.check_path(task, path, actions, mask)
    with pytest.raises(ValueError, match=r"state is \[inf, 0\.5\] after step 2: .* finite numbers"):
        tasks.check_path(task, path, actions, np.ones(3, bool))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_steps": 0}, "max_steps is 0"),
        ({"action_low": (3.0,)}, "bounds 3.0 to 2.0"),
        ({"action_high": (np.inf,)}, "two finite numbers"),
        ({"action_low": (np.nan,)}, "bounds nan"),
        ({"action_low": (0.0, 0.0)}, "as many lower as upper"),
    ],
)
def test_specs_that_make_no_sense_are_refused(fields, message):
    arguments = {
        "name": "tank", "obs_names": ("level",), "num_actions": 0, "action_low": (0.0,),
        "action_high": (2.0,), "max_steps": 3,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        DataSpec(**arguments | fields)


def test_one_program_serves_equal_tasks():
    traces = []

    @functools.partial(jax.jit, static_argnums=0)
    def value(task, obs):
        traces.append(None)
        return task.reward(obs, jnp.zeros(1), obs)

    for _ in range(2):
        value(make_task(SPEC, near_one), jnp.zeros(2))
    assert len(traces) == 1
