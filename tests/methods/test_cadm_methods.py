"""CaDM as methods: from data to policies, with agents that have little to go by."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax.evaluation.prediction import open_loop
from persim_jax.methods import METHODS, MODEL_BASED, Monitor
from persim_jax.methods.cadm import PETS, VANILLA, CadmSettings, training_of
from persim_jax.methods.model_based import ModelSettings
from persim_jax.models.true_env import true_dynamics
from persim_jax.planning.config import PlannerConfig
from persim_jax.rollout import unroll
from persim_jax.training import DivergedError, TrainConfig
from persim_jax.types import Trajectory
from tests.methods.test_methods import GAINS, TOY, make_dataset
from tests.toys import line_params

NETWORK = CadmSettings(
    num_steps=600, features=(16,), activation="tanh", context_features=(16,), context_size=3,
    history_length=4, future_length=4, decays=(0.0, 0.0), context_decays=(0.0,),
    normalize_context=True,
)  # fmt: skip
SETTINGS = ModelSettings(
    network=NETWORK,
    train=TrainConfig(num_epochs=1, batch_size=32, learning_rate=2e-2, max_epoch_steps=200),
    ensemble_size=1,
)


def fit(name, settings, dataset=None, monitor=None):
    key, params = jax.random.key(1), line_params(GAINS)
    dataset = make_dataset() if dataset is None else dataset
    return METHODS[name].fit(key, dataset, TOY, params, settings, monitor or Monitor())


@functools.cache
def fitted():
    """Vanilla CaDM on six agents, and every state of its training."""
    states = []
    monitor = Monitor(on_epoch=lambda state, losses: states.append(state))
    return fit(VANILLA, SETTINGS, monitor=monitor), states


def test_inputs_that_are_not_taken_are_named():
    dataset = make_dataset()
    given = dataset.replace(
        inputs=np.zeros((*dataset.actions.shape, 1), np.float32),
        info=dataclasses.replace(dataset.info, input_names=("meal",)),
    )
    with pytest.raises(ValueError, match=r"exogenous inputs \(meal\), which cadm_vanilla does not"):
        fit(VANILLA, SETTINGS, given)


def test_as_many_epochs_as_the_steps_take():
    dataset = make_dataset()  # 240 steps, seven minibatches of 32
    assert training_of(dataset, SETTINGS).num_epochs == -(-600 // 7)
    short = dataclasses.replace(SETTINGS.train, max_epoch_steps=5)
    assert training_of(dataset, dataclasses.replace(SETTINGS, train=short)).num_epochs == 120
    huge = dataclasses.replace(SETTINGS.train, batch_size=999)
    assert training_of(dataset, dataclasses.replace(SETTINGS, train=huge)).num_epochs == 600
    for field in ("num_steps", "test_particles"):
        with pytest.raises(ValueError, match=f"{field} is 0"):
            CadmSettings(**{field: 0})


def test_pe_ts_is_tested_with_twenty_particles_and_plans_with_five():
    recipe, settings = MODEL_BASED[PETS], dataclasses.replace(SETTINGS, ensemble_size=5)
    dataset = make_dataset()
    tested, planned = recipe.predictor(dataset, settings), recipe.model(dataset, settings, 5)
    assert (tested.num_members, tested.num_paths, planned.num_paths) == (5, 20, 5)
    assert MODEL_BASED[VANILLA].predictor(dataset, SETTINGS).num_paths == 1
    # A particle more is no weight more.
    shapes = [jax.eval_shape(model.init, jax.random.key(0)) for model in (tested, planned)]
    assert shapes[0] == shapes[1]


def test_the_warm_up_of_the_prediction_test_tells_the_agents_apart():
    model, params = METHODS[VANILLA].model(fitted()[0])
    fresh, agent = make_dataset(seed=8), jnp.asarray(0)

    def episodes(first):
        """Steps from `first` to 12 of each agent."""
        steps = slice(first, 12)
        return Trajectory(
            obs=fresh.obs[:, first:13], actions=fresh.actions[:, steps],
            rewards=fresh.rewards[:, steps], terminated=fresh.terminated[:, steps],
            mask=fresh.mask[:, steps],
        )  # fmt: skip

    # Both predict steps 6 to 12; one has seen those before.
    informed = open_loop(jax.random.key(0), model, params, agent, episodes(0), 6)
    blind = open_loop(jax.random.key(0), model, params, agent, episodes(6), 0)
    np.testing.assert_array_equal(informed.true, blind.true)
    error = lambda paths: np.abs(paths.predicted - paths.true)[:, -1, 0].mean()  # noqa: E731
    moved = np.abs(informed.true[:, -1] - informed.true[:, 0])[:, 0].mean()
    assert error(informed) < moved / 3
    assert error(blind) > 2 * error(informed)


def test_a_planner_finds_out_whose_agent_it_has():
    """Whoever acts without a history pushes both kinds of agents the same way at first."""
    method, planner = METHODS[VANILLA], PlannerConfig(num_candidates=60, horizon=3)

    @jax.jit
    @jax.vmap
    def episode(agent, gain):
        policy = method.policy(fitted()[0], agent, planner)
        model, params = true_dynamics(TOY), {"gain": gain, "noise": 0.0 * gain}
        return unroll(jax.random.key(2), model, params, TOY, policy, jnp.zeros(2), 12)

    paths = episode(jnp.arange(6), jnp.asarray(GAINS))
    towards = (np.asarray(paths.actions) - 1) * np.sign(GAINS)[:, None]
    assert len(set(np.asarray(paths.actions[:, 0]).tolist())) == 1
    assert np.all(towards[:, 6:].mean(axis=1) > 0.6)
    assert np.all(np.asarray(paths.obs[:, -1, 0]) > 0.3)


def test_training_that_was_cut_goes_on_bit_for_bit():
    whole, states = fitted()
    middle = jax.tree.map(lambda x: x, states[len(states) // 2])
    resumed = fit(VANILLA, SETTINGS, monitor=Monitor(restore=lambda state: middle))
    jax.tree.map(np.testing.assert_array_equal, resumed.params, whole.params)


def test_a_handful_of_steps_is_enough_to_be_trained_on():
    # Fewer steps than a minibatch takes and than a history has.
    one = make_dataset().for_agent(9)
    few = one.replace(
        obs=one.obs[:, :4], actions=one.actions[:, :3], rewards=one.rewards[:, :3],
        terminated=one.terminated[:, :3], mask=one.mask[:, :3],
    )  # fmt: skip
    settings = dataclasses.replace(SETTINGS, network=dataclasses.replace(NETWORK, num_steps=3))
    losses = []
    found = fit(VANILLA, settings, few, Monitor(on_epoch=lambda s, loss: losses.append(loss)))
    assert len(losses) == 3
    assert np.isfinite(losses).all()
    assert found.params.normalizer.items_per_step == 2.0  # 3, 2 and 1 steps ahead


def test_a_member_that_diverges_is_named():
    # The first state of the training above, thrown out of the finite numbers.
    state = fitted()[1][0]
    head = state.params.weights["forward"]["mean_head"]["dense_0"]
    spoilt = jax.tree.map(lambda leaf: leaf, state.params.weights)
    spoilt["forward"]["mean_head"]["dense_0"] = head | {"bias": head["bias"] + 1e30}
    state = state._replace(params=state.params._replace(weights=spoilt))
    with pytest.raises(DivergedError, match=r"member\(s\) \[0\] is not finite in epoch 2"):
        fit(VANILLA, SETTINGS, monitor=Monitor(restore=lambda _: state))
