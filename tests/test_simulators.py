"""What a user holds: predictions against steps taken by hand, files, and questions refused."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax import simulators as module
from persim_jax.files import CorruptFileError
from persim_jax.models.factor import FactorConfig, predict_delta
from persim_jax.planning.mpc import PlannerConfig
from persim_jax.simulators import PersonalizedSimulators
from persim_jax.tasks import DataSpec, make_task
from tests.toys import cache_size, factor_params, line_env

IDS = np.int32([40, 7, 300])
DISCRETE = FactorConfig(
    num_agents=3, obs_size=2, action_size=3, discrete=True, rank=2, state_features=(6,),
    activation="tanh", skip=True, ensemble_size=2, normalize_obs=True,
)  # fmt: skip
CONTINUOUS = dataclasses.replace(DISCRETE, action_size=2, discrete=False, action_features=(4,))
OBS = np.float32([0.3, -0.2])
ACTIONS = {
    DISCRETE: np.int32([2, 0, 1, 1, 2]),
    CONTINUOUS: np.float32([[0.1, 0.2], [-1.0, 1.0], [0.3, 0.0], [0.0, 0.0], [0.5, -0.5]]),
}
both = pytest.mark.parametrize("config", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])


def make(config=DISCRETE, task=None):
    """Untrained simulators of three agents."""
    return PersonalizedSimulators(
        params=factor_params(config),
        agent_ids=IDS,
        covariates=np.float32([[0.1], [0.2], [0.3]]),
        config=config,
        task=task,
    )


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.vmap, in_axes=(None, None, None, 0, None))
def deltas_of(config, params, row, obs, action):
    return predict_delta(config, params, row, obs, action)


def path_by_hand(simulators, row, actions):
    """Each member's path [M, T, D] from `OBS` by its unfolded differences."""
    states, path = np.stack([OBS] * 2), []
    for action in actions:
        deltas = deltas_of(
            simulators.config, simulators.params, jnp.asarray(row), states, action
        )  # [M starts, M members, D]
        states = states + np.asarray(deltas)[np.arange(2), np.arange(2)]
        path.append(states)
    return np.stack(path, axis=1)


@both
def test_a_rollout_is_repeated_steps_of_members_that_never_meet(config):
    simulators = make(config)
    for row, agent_id in enumerate(IDS.tolist()):
        found = simulators.rollout(agent_id, OBS, ACTIONS[config])
        expected = path_by_hand(simulators, row, ACTIONS[config])
        np.testing.assert_allclose(found.members, expected, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found.mean, expected.mean(axis=0), rtol=1e-3, atol=1e-4)
        step = simulators.step(agent_id, OBS, ACTIONS[config][0])
        np.testing.assert_allclose(step.members, expected[:, 0], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(step.mean, expected[:, 0].mean(axis=0), rtol=1e-3, atol=1e-4)


def test_one_agent_is_the_same_under_its_id_and_as_its_own_simulator():
    simulators = make()
    own = simulators.for_agent(300)
    assert (own.agent_id, own.row) == (300, 2)
    actions = ACTIONS[DISCRETE]
    for ours, theirs in (
        (own.rollout(OBS, actions), simulators.rollout(300, OBS, actions)),
        (own.step(OBS, 1), simulators.step(300, OBS, 1)),
    ):
        np.testing.assert_array_equal(ours.members, theirs.members)
    others = simulators.rollout(40, OBS, actions).mean
    assert np.abs(others - own.rollout(OBS, actions).mean).max() > 1e-3
    assert simulators.num_agents == 3
    assert simulators.agent_factors().shape == (2, 3, 2)


def test_no_actions_are_no_steps():
    found = make().rollout(7, OBS, np.int32([]))
    assert found.mean.shape == (0, 2)
    assert found.members.shape == (2, 0, 2)


def test_whole_numbers_are_a_state_too():
    simulators = make()
    as_floats = simulators.step(7, np.float32([0.0, 1.0]), 1)
    np.testing.assert_array_equal(simulators.step(7, [0, 1], 1).members, as_floats.members)
    wide = simulators.step(7, np.float64([0.0, 1.0]), np.int64(1))
    np.testing.assert_array_equal(wide.members, as_floats.members)
    assert wide.mean.dtype == jnp.float32


def test_questions_that_make_no_sense_are_refused():
    simulators, continuous = make(), make(CONTINUOUS)
    for ask in (simulators.for_agent, lambda agent_id: simulators.step(agent_id, OBS, 1)):
        with pytest.raises(KeyError, match="no agent has the id 1:"):
            ask(1)
    refused = [
        (simulators, np.zeros(3), [0, 1], r"obs has shape \(3,\): this model's is \(2,\)"),
        (simulators, OBS[None], [0, 1], r"obs has shape \(1, 2\)"),
        (simulators, OBS, [0, 3], "reach from 0 to 3: they must be 0 to 2"),
        (simulators, OBS, [-1, 2], "reach from -1 to 2"),
        (simulators, OBS, [0.0, 1.0], "float32 of shape"),
        (simulators, OBS, [[0], [1]], r"int32 of shape \(2, 1\)"),
        (continuous, OBS, [0.1, 0.2], r"actions have shape \(2,\): \(T, 2\) is due"),
        (continuous, OBS, np.zeros((4, 3)), r"actions have shape \(4, 3\)"),
    ]
    for asked, obs, actions, message in refused:
        with pytest.raises(ValueError, match=message):
            asked.rollout(7, obs, actions)


def test_a_rollout_is_the_same_inside_a_compiled_program():
    simulators, actions = make(), ACTIONS[DISCRETE]
    expected = simulators.rollout(7, OBS, actions).members
    inside = jax.jit(lambda own, obs, actions: own.rollout(7, obs, actions).members)
    np.testing.assert_allclose(inside(simulators, OBS, actions), expected, rtol=1e-5)
    first = jax.jit(lambda action: simulators.step(7, OBS, action).members)(actions[0])
    np.testing.assert_allclose(first, expected[:, 0], rtol=1e-5)
    # What is not traced is looked at all the same.
    with pytest.raises(ValueError, match="actions reach from -3 to -1"):
        jax.jit(lambda obs: simulators.rollout(7, obs, -1 - actions).members)(OBS)


def test_agents_are_mapped_over_by_their_ids_and_nobody_answers_for_one_that_there_is_not():
    simulators, actions = make(), ACTIONS[DISCRETE]
    ids = jnp.asarray([300, 8, 40])
    paths = jax.vmap(lambda agent_id: simulators.rollout(agent_id, OBS, actions).mean)(ids)
    for agent_id, path in zip(ids.tolist(), paths, strict=True):
        if agent_id in IDS:
            expected = simulators.rollout(agent_id, OBS, actions).mean
            np.testing.assert_allclose(path, expected, rtol=1e-5)
        else:
            assert np.isnan(path).all()
    with pytest.raises(TypeError, match=r"look up rows outside of it \(simulators\.row_of\)"):
        jax.vmap(simulators.row_of)(ids)


def test_a_path_has_a_gradient_in_its_actions_also_where_a_task_clips_them():
    spec = DataSpec("toy", ("x", "y"), 0, (-1.0, -1.0), (1.0, 0.75), 9)
    task = make_task(spec, lambda obs, action, next_obs: next_obs[0])
    actions = jnp.asarray(ACTIONS[CONTINUOUS])

    def end(simulators, actions):
        return simulators.rollout(7, OBS, actions).mean[-1, 0]

    plain = jax.grad(functools.partial(end, make(CONTINUOUS)))(actions)
    clipped = jax.grad(functools.partial(end, make(CONTINUOUS, task)))(actions)
    assert np.abs(plain).min() > 1e-6
    # The second action's second coordinate is 1, beyond its bound.
    np.testing.assert_allclose(clipped[1, 1], 0.0)
    ends = [end(make(CONTINUOUS), actions.at[3, 0].add(change)) for change in (0.01, -0.01)]
    np.testing.assert_allclose(plain[3, 0], (ends[0] - ends[1]) / 0.02, rtol=1e-2)


def test_whole_actions_are_clipped_to_bounds_that_are_none():
    spec = DataSpec("toy", ("x", "y"), 0, (-1.0, 0.25), (1.0, 0.75), 9)
    simulators = make(CONTINUOUS, make_task(spec, lambda obs, action, next_obs: next_obs[0]))
    for actions in ([[0, 0]], [[0.0, 0.0]]):
        with pytest.warns(UserWarning, match="1 of 1 actions were outside"):
            found = simulators.rollout(7, OBS, actions)
        expected = make(CONTINUOUS).rollout(7, OBS, [[0.0, 0.25]])
        np.testing.assert_array_equal(found.mean, expected.mean)


def going_right():
    """A task that pays for the first coordinate, without an end."""
    return line_env()._replace(
        reward=lambda obs, action, next_obs: next_obs[0], terminated=lambda obs: obs[0] > 1e9
    )


def test_a_plan_of_one_step_is_the_best_single_step():
    simulators, planner = make(task=going_right()), PlannerConfig(num_candidates=60, horizon=1)
    for agent_id in IDS.tolist():
        reached = [float(simulators.step(agent_id, OBS, a).mean[0]) for a in range(3)]
        action = simulators.plan(jax.random.key(2), agent_id, OBS, planner)
        assert int(action) == np.argmax(reached)
        own = simulators.for_agent(agent_id).plan(jax.random.key(2), OBS, planner)
        assert int(own) == int(action)


def test_planning_needs_a_task():
    with pytest.raises(ValueError, match="planning needs a reward"):
        make().plan(jax.random.key(0), 7, OBS, PlannerConfig(num_candidates=4, horizon=2))


def test_no_plan_is_made_where_none_is_worth_a_number():
    planner = PlannerConfig(num_candidates=6, horizon=3)
    # The first step's reward is a number, those of later ones are not.
    rooted = line_env()._replace(
        reward=lambda obs, action, next_obs: jnp.where(obs[0] == OBS[0], 1.0, jnp.sqrt(-1.0)),
        terminated=lambda obs: obs[0] > 1e9,
    )
    with pytest.raises(ValueError, match=r"best of all plans is worth -inf.*make the reward fin"):
        make(task=rooted).plan(jax.random.key(0), 7, OBS, planner)


@pytest.mark.parametrize(
    ("obs", "message"),
    [
        ([0.3], r"obs has shape \(1,\): this model's is \(2,\)"),
        ([0.3, np.nan], r"obs holds nan at \(1,\)"),
    ],
)
def test_no_plan_is_made_from_what_is_no_state(obs, message):
    # Of no number all plans are worth -inf, and an action would come back as if it meant something.
    simulators, planner = make(task=going_right()), PlannerConfig(num_candidates=4, horizon=2)
    with pytest.raises(ValueError, match=message):
        simulators.plan(jax.random.key(0), 7, obs, planner)
    with pytest.raises(ValueError, match=message):
        simulators.plan_episode(jax.random.key(0), 7, planner, 2, obs=obs)
    action = jax.jit(lambda obs: simulators.plan(jax.random.key(0), 7, obs, planner))(OBS)
    assert int(action) == int(simulators.plan(jax.random.key(0), 7, OBS, planner))


@both
def test_what_is_loaded_predicts_the_same_bits(tmp_path, config):
    simulators = make(config)
    simulators.save(tmp_path / "new" / "folder")
    loaded = PersonalizedSimulators.load(tmp_path / "new" / "folder")
    assert loaded.config == config
    assert loaded.task is None
    np.testing.assert_array_equal(loaded.agent_ids, IDS)
    np.testing.assert_array_equal(loaded.covariates, simulators.covariates)
    for ours, theirs in zip(jax.tree.leaves(loaded), jax.tree.leaves(simulators), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype
    found, expected = (s.rollout(300, OBS, ACTIONS[config]).members for s in (loaded, simulators))
    np.testing.assert_array_equal(found, expected)


def test_a_loaded_simulator_plans_with_the_task_it_is_given(tmp_path):
    task, planner = going_right(), PlannerConfig(num_candidates=60, horizon=1)
    make(task=task).save(tmp_path)
    assert json.loads((tmp_path / "simulators.json").read_text())["task"] == "line"
    loaded = PersonalizedSimulators.load(tmp_path, task)
    expected = make(task=task).plan(jax.random.key(1), 40, OBS, planner)
    assert int(loaded.plan(jax.random.key(1), 40, OBS, planner)) == int(expected)


@pytest.mark.parametrize("name", ["simulators.npz", "simulators.json"])
def test_a_file_that_was_cut_short_or_altered_is_named(tmp_path, name):
    make().save(tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(CorruptFileError, match=name):
        PersonalizedSimulators.load(tmp_path)


def test_missing_files_and_other_formats_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"simulators\.json is missing"):
        PersonalizedSimulators.load(tmp_path)
    make().save(tmp_path)
    sidecar = tmp_path / "simulators.json"
    other = json.loads(sidecar.read_text()) | {"format": "something/2"}
    sidecar.write_text(json.dumps(other))
    with pytest.raises(ValueError, match="'something/2': this version reads"):
        PersonalizedSimulators.load(tmp_path)
    make().save(tmp_path)
    (tmp_path / "simulators.npz").unlink()
    with pytest.raises(CorruptFileError, match=r"simulators\.npz"):
        PersonalizedSimulators.load(tmp_path)


def test_other_agents_and_states_are_not_compiled_again():
    simulators = make()
    simulators.rollout(40, OBS, ACTIONS[DISCRETE])
    before = cache_size(module._rollout)
    simulators.rollout(300, OBS + 1, ACTIONS[DISCRETE][::-1])
    make().rollout(7, OBS, ACTIONS[DISCRETE])
    assert cache_size(module._rollout) == before
