"""A planner that remembers: what it remembers, what it makes of it, and what costs nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax.models.true_env import true_dynamics
from persim_jax.planning.config import PlannerConfig
from persim_jax.planning.history import Remembered, agent_policy, empty_history, remember
from persim_jax.planning.mpc import mpc_policy
from persim_jax.rollout import unroll
from tests.planning.continuous import spec_of
from tests.toys import gains_model, line_env, line_params, push_of

LENGTH = 3


@functools.cache
def reading_model():
    """The line, whose gain is read off the last push that is remembered; 1 before there is any."""

    def bind(params, agent, history):
        pushed = push_of(history.actions, 3)
        known = history.mask & (pushed != 0)
        gains = (history.next_obs - history.obs)[:, 0] / jnp.where(known, pushed, 1.0)
        last = jnp.where(known, jnp.arange(LENGTH), -1).max()
        return jnp.where(last >= 0, gains[last], 1.0)[None]

    return gains_model(1)._replace(bind=bind, history_length=LENGTH)


@functools.cache
def target_task():
    """Three actions move a point; the distance to 3 costs its square."""
    cost = lambda obs, action, next_obs: -jnp.square(next_obs[0] - 3.0)  # noqa: E731
    return line_env(3)._replace(reward=cost, terminated=lambda obs: obs[0] > 1e9)


CONFIG = PlannerConfig(num_candidates=300, horizon=4, chunk_size=0)


def test_the_history_is_the_last_transitions_of_the_episode():
    task, model = target_task(), reading_model()
    policy = agent_policy(model, None, jnp.asarray(0), task, CONFIG)
    act, state, obs = jax.jit(policy.act), policy.init(), jnp.asarray([0.2, 0.0])
    assert not state.history.mask.any()
    path, actions = [np.asarray(obs)], []
    for step in range(LENGTH + 3):
        action, state = act(jax.random.key(step), state, obs)
        taken = min(step, LENGTH)
        # The newest stands at the end.
        np.testing.assert_array_equal(state.history.mask, np.arange(LENGTH) >= LENGTH - taken)
        for back in range(1, taken + 1):
            np.testing.assert_allclose(state.history.obs[-back], path[-back - 1])
            np.testing.assert_allclose(state.history.next_obs[-back], path[-back])
            assert int(state.history.actions[-back]) == actions[-back]
        actions.append(int(action))
        # The truth goes the other way, by half a step.
        obs = obs + jnp.stack([-0.5 * push_of(action, 3), jnp.ones(())])
        path.append(np.asarray(obs))


def test_the_model_is_bound_to_what_was_seen():
    # The agent's gain is -1. Without a history the planner takes it for 1 and goes the wrong way
    # once, then it has seen what a push does.
    task, params = target_task(), line_params(-1.0)
    truth = true_dynamics(task)
    policy = agent_policy(reading_model(), None, jnp.asarray(0), task, CONFIG)
    blind = mpc_policy(gains_model(1), jnp.ones(1), task, CONFIG)
    run = jax.jit(
        lambda which: unroll(jax.random.key(0), truth, params, task, which, jnp.zeros(2), 7),
        static_argnums=0,
    )
    np.testing.assert_allclose(run(policy).obs[:, 0], [0, -1, 0, 1, 2, 3, 3, 3])
    assert run(blind).obs[-1, 0] < -6


def test_without_a_history_the_program_is_that_of_a_bound_model():
    task, model = target_task(), gains_model(2)
    gains = jnp.asarray([[1.0, 0.5], [2.0, -1.0]])
    ours = agent_policy(model, gains, jnp.asarray(1), task, CONFIG)
    plain = mpc_policy(model, gains[1], task, CONFIG)
    key, obs = jax.random.key(3), jnp.asarray([0.4, 0.0])
    programs = [str(jax.make_jaxpr(p.act)(key, p.init(), obs)) for p in (ours, plain)]
    assert programs[0] == programs[1]
    actions = [jax.jit(p.act)(key, p.init(), obs)[0] for p in (ours, plain)]
    assert int(actions[0]) == int(actions[1])


@pytest.mark.parametrize("discrete", [True, False])
def test_a_history_keeps_its_shapes_and_drops_the_oldest(discrete):
    spec = target_task().spec if discrete else spec_of()
    state = Remembered(
        sampler=(),
        history=empty_history(spec, LENGTH),
        obs=jnp.zeros(spec.obs_size),
        action=jnp.zeros((), jnp.int32) if discrete else jnp.zeros(spec.action_size),
        begun=jnp.asarray(False),
    )
    shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)  # noqa: E731
    before = shapes(state.history)
    for step in range(1, LENGTH + 3):
        history = remember(state, jnp.full(spec.obs_size, float(step)))
        assert shapes(history) == before
        state = state._replace(history=history, obs=history.next_obs[-1], begun=jnp.asarray(True))
    # Steps 3, 4 and 5 are what is left.
    np.testing.assert_array_equal(history.next_obs[:, 0], [3.0, 4.0, 5.0])
    np.testing.assert_array_equal(history.obs[:, 0], [2.0, 3.0, 4.0])
    assert history.mask.all()
