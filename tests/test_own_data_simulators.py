"""Simulators of users' own data: names, histories, inputs, and files of today and of before."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax.data.lags import Recent, with_lags
from persim_jax.methods.persim import PersimConfig, fit
from persim_jax.models.factor import predict_delta
from persim_jax.models.inputs import join_inputs
from persim_jax.planning.mpc import PlannerConfig
from persim_jax.simulators import PersonalizedSimulators
from persim_jax.training import TrainConfig
from tests import users
from tests.data.segmented import make_segmented
from tests.test_simulators import DISCRETE, going_right, make
from tests.toys import factor_params

SETTINGS = PersimConfig(
    rank=2, ensemble_size=2, spare_members=0, state_features=(4,), normalize_actions=True,
    train=TrainConfig(num_epochs=1, batch_size=8),
)  # fmt: skip
HISTORY = Recent(
    obs=np.float32([[9.0, 9.0], [0.1, 0.2], [0.3, -0.2]]),
    actions=np.int32([0, 1]),
    inputs=np.float32([[9.0], [0.7]]),
)
WINDOW = np.float32([0.3, -0.2, 0.1, 0.2, 0, 1, 0, 0.7])
ACTIONS, INPUTS = np.int32([2, 0, 1]), np.float32([[1.0], [-2.0], [0.5]])


def untrained(discrete=True, task=None):
    """Simulators with two lags and one input, of the agents ann, bob and cy."""
    dataset = with_lags(make_segmented(discrete), 2)
    config = SETTINGS.factor(dataset)
    return PersonalizedSimulators(
        params=factor_params(config), agent_ids=dataset.agent_ids, covariates=dataset.covariates,
        config=config, task=task, info=dataset.info,
    )  # fmt: skip


def test_a_lagged_rollout_with_inputs_is_repeated_steps():
    simulators = untrained()
    found = simulators.rollout("bob", HISTORY, ACTIONS, INPUTS)
    assert found.members.shape == (2, 3, 2)
    joined = join_inputs(simulators.config, jnp.asarray(ACTIONS), jnp.asarray(INPUTS))
    one = jax.jit(predict_delta, static_argnums=0)
    for member in range(2):
        state = WINDOW
        for t, action in enumerate(joined):
            delta = one(simulators.config, simulators.params, jnp.asarray(1), state, action)
            state = np.concatenate([state[:2] + np.asarray(delta)[member], state[:2], action])
            np.testing.assert_allclose(found.members[member, t], state[:2], rtol=1e-3, atol=1e-4)


@pytest.mark.optimizes  # as users do, with JAX's standard promotion
@pytest.mark.parametrize("discrete", [True, False], ids=["discrete", "continuous"])
def test_windows_stay_in_single_precision_where_jax_knows_more(x64, discrete):
    simulators = users.untrained(discrete, inputs=False)
    start, actions = users.window(simulators, [[100, -4], [99, -5]]), users.actions_of(discrete, 3)
    wide = actions.astype(np.int64 if discrete else np.float64)
    assert simulators.rollout("ann", np.float64(start), wide).mean.dtype == jnp.float32


def test_the_last_moments_may_be_more_than_needed_or_a_window():
    simulators = untrained()
    whole = simulators.rollout("bob", HISTORY, ACTIONS, INPUTS).members
    for history in (Recent(*(part[1:] for part in HISTORY)), WINDOW, WINDOW.tolist()):
        found = simulators.rollout("bob", history, ACTIONS, INPUTS).members
        np.testing.assert_array_equal(found, whole)
    own = simulators.for_agent("bob")
    np.testing.assert_array_equal(own.rollout(HISTORY, ACTIONS, INPUTS).members, whole)
    step = own.step(HISTORY, 2, INPUTS[0])
    np.testing.assert_allclose(step.members, whole[:, 0], rtol=1e-5)


def test_questions_that_do_not_fit_are_refused():
    simulators = untrained()
    refused = [
        (Recent(*(part[2:] for part in HISTORY)), ACTIONS, INPUTS, "2 lags need at least 2 obs"),
        (HISTORY.obs, ACTIONS, INPUTS, r"model's is \(8,\), a window of 2 lags: give the last"),
        (HISTORY._replace(actions=[0, 5]), ACTIONS, INPUTS, "reach from 0 to 5"),
        (HISTORY._replace(inputs=None), ACTIONS, INPUTS, "takes 1 inputs"),
        (HISTORY, ACTIONS, None, r"takes 1 inputs \(meal\): give them, \(3, 1\)"),
        (HISTORY, ACTIONS, INPUTS[:2], r"inputs have shape \(2, 1\).*\(3, 1\) is due"),
        (HISTORY, ACTIONS, INPUTS * np.nan, "not finite"),
        (HISTORY, ACTIONS + 1, INPUTS, "reach from 1 to 3: they must be 0 to 2"),
    ]
    for obs, actions, inputs, message in refused:
        with pytest.raises(ValueError, match=message):
            simulators.rollout("ann", obs, actions, inputs)
    with pytest.raises(ValueError, match="this model takes none"):
        make().rollout(7, np.zeros(2), [1], [[1.0]])
    with pytest.raises(KeyError, match=r"the id an:.*such as ann"):
        simulators.rollout("an", HISTORY, ACTIONS, INPUTS)


def test_a_plan_of_one_step_meets_the_inputs():
    simulators = untrained(task=going_right())
    planner = PlannerConfig(num_candidates=60, horizon=1)
    for meal in (-5.0, 5.0):
        reached = [float(simulators.step("ann", HISTORY, a, [meal]).mean[0]) for a in range(3)]
        action = simulators.plan(jax.random.key(0), "ann", HISTORY, planner, [meal])
        assert int(action) == np.argmax(reached)


@pytest.mark.parametrize("discrete", [True, False])
def test_what_is_loaded_knows_names_and_predicts_the_same_bits(tmp_path, discrete):
    simulators = untrained(discrete)
    simulators.save(tmp_path)
    loaded = PersonalizedSimulators.load(tmp_path)
    assert (loaded.info, loaded.config) == (simulators.info, simulators.config)
    assert loaded.agent_names == ("ann", "bob", "cy")
    actions = ACTIONS if discrete else np.float32([[0.1, 1e3]] * 3)
    recent = HISTORY._replace(actions=np.float32([[0.0, 1.0], [2.0, 3.0]]))
    recent = HISTORY if discrete else recent
    ours, theirs = (s.rollout("cy", recent, actions, INPUTS).mean for s in (loaded, simulators))
    np.testing.assert_array_equal(ours, theirs)


def test_files_of_the_version_before_are_read(tmp_path):
    simulators = make()
    simulators.save(tmp_path)
    sidecar = json.loads((tmp_path / "simulators.json").read_text())
    del sidecar["info"]
    for name in ("num_inputs", "normalize_actions", "lags"):
        del sidecar["config"][name]
    sidecar["format"] = "persim_jax.PersonalizedSimulators/2"
    (tmp_path / "simulators.json").write_text(json.dumps(sidecar))
    loaded = PersonalizedSimulators.load(tmp_path)
    assert loaded.config == DISCRETE
    assert loaded.info is None
    obs = np.float32([0.3, -0.2])
    np.testing.assert_array_equal(
        loaded.step(7, obs, 1).members, simulators.step(7, obs, 1).members
    )
    sidecar["format"] = "persim_jax.PersonalizedSimulators/1"
    (tmp_path / "simulators.json").write_text(json.dumps(sidecar))
    with pytest.raises(ValueError, match=r"Simulators/1': this version reads .*Fit again"):
        PersonalizedSimulators.load(tmp_path)


def test_an_angle_is_one_in_its_past_values_too():
    dataset = with_lags(make_segmented(), 2)
    assert dataclasses.replace(SETTINGS, angles=(1,)).factor(dataset).angles == (1, 3)


@pytest.mark.slow
@pytest.mark.optimizes
def test_a_fit_on_data_with_gaps_lags_and_inputs_gives_simulators_by_name():
    train = TrainConfig(num_epochs=300, batch_size=16, learning_rate=2e-2)
    settings = dataclasses.replace(SETTINGS, train=train)
    simulators = fit(jax.random.key(0), with_lags(make_segmented(), 2), config=settings)
    assert simulators.config.lags == 2
    assert simulators.config.num_inputs == 1
    # x grows and y falls by one in every step of every agent.
    recent = Recent(np.float32([[3.0, -3.0], [4.0, -4.0]]), np.int32([0]), np.float32([[0.3]]))
    path = simulators.rollout("ann", recent, [1], [[0.4]])
    np.testing.assert_allclose(path.mean[0], [5.0, -5.0], atol=0.02)
