"""MLP ensembles: against numpy, bound against unbound, and who may influence whom."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from persim_jax.models.base import ModelParams
from persim_jax.models.mlp import MLPConfig, mlp_model, per_agent_transitions, predict_delta
from persim_jax.types import Transitions

POOLED = MLPConfig(
    num_agents=4, obs_size=3, action_size=2, discrete=True, hidden=(5, 4), ensemble_size=2,
    skip=True, target="auto",
)  # fmt: skip
CONCAT = dataclasses.replace(POOLED, agents="embedding", embedding_size=2)
SEPARATE = dataclasses.replace(POOLED, agents="separate", networks=(2, 0))


def transitions(size=12, seed=0, agents=4):
    """Random transitions; the last coordinate does not carry over, so "auto" predicts it itself."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    obs = draw(size, 3) * np.float32([1, 2, 3])
    next_obs = obs + 0.1 * draw(size, 3)
    next_obs[:, 2] = draw(size)
    return Transitions(
        agent=np.arange(size, dtype=np.int32) % agents, obs=obs,
        actions=rng.integers(2, size=size).astype(np.int32), rewards=draw(size),
        next_obs=next_obs, terminated=np.zeros(size, bool),
    )  # fmt: skip


def data_of(config):
    found = transitions()
    separate = config.agents == "separate"
    return per_agent_transitions(found, config.rows) if separate else found


def params_of(config, seed=3):
    """Random weights of the right sizes, and the normalizer of the data."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(mlp_model(config).init, jax.random.key(0))
    draw = lambda leaf: jnp.asarray(rng.normal(0, 0.5, leaf.shape), jnp.float32)  # noqa: E731
    return ModelParams(jax.tree.map(draw, shapes), normalizer_of(config, data_of(config)))


def normalizer_of(config, data):
    return jax.jit(mlp_model(config).fit_normalizer)(jax.tree.map(jnp.asarray, data))


@functools.partial(jax.jit, static_argnums=0)
def one_step(config, params, agent, obs, action):
    model = mlp_model(config)
    bound = model.bind(params, agent, None)
    encoded = model.encode_actions(bound, action)
    state = model.step(jax.random.key(0), bound, model.start(bound, obs), encoded)
    return model.observe(state)


def by_numpy(weights, norm, obs, action, vector=()):
    """One member's next state: dense, relu, dense, relu, linear with the inputs beside."""
    inputs = np.concatenate([(obs - norm.obs.mean) / norm.obs.std, np.eye(2)[action], vector])
    x = inputs
    for name in ("dense_0", "dense_1"):
        layer = weights["trunk"][name]
        x = np.maximum(x @ np.asarray(layer["kernel"]) + layer["bias"], 0)
    head = weights["head"]
    found = np.concatenate([x, inputs]) @ np.asarray(head["kernel"]) + head["bias"]
    return norm.carry * obs + found * norm.delta.std + norm.delta.mean


@pytest.mark.parametrize("config", [POOLED, CONCAT, SEPARATE], ids=lambda c: c.agents)
def test_bound_unbound_and_numpy_agree(config):
    params, agent, action = params_of(config), 2, 1
    obs = np.float32([0.3, -1.0, 2.0])
    arguments = (jnp.int32(agent), jnp.asarray(obs), jnp.int32(action))
    bound = one_step(config, params, *arguments)
    unbound = jax.jit(lambda p, *a: predict_delta(config, p, *a))(params, *arguments)
    weights, norm = jax.tree.map(np.asarray, (params.weights, params.normalizer))
    vector = [()] * 2
    if config.agents == "separate":  # row 2 is the first that has a network
        weights = jax.tree.map(lambda leaf: leaf[:, 0], weights)
        norm = jax.tree.map(lambda leaf: leaf[0], norm)
    if config.agents == "embedding":
        vector = weights["embedding"][:, agent]
    members = [jax.tree.map(lambda leaf, m=m: leaf[m], weights) for m in range(2)]
    expected = [by_numpy(w, norm, obs, action, v) for w, v in zip(members, vector, strict=True)]
    np.testing.assert_allclose(bound, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(unbound + obs[None], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(norm.carry, [1, 1, 0])


def test_a_vector_of_zeros_makes_the_pooled_model():
    concat, data = params_of(CONCAT), jax.tree.map(jnp.asarray, transitions())
    weights = jax.tree.map(jnp.asarray, concat.weights)
    trunk, split = weights["trunk"], POOLED.obs_size + POOLED.action_size
    first = trunk["dense_0"] | {"kernel": trunk["dense_0"]["kernel"][:, :split]}
    head = weights["head"] | {"kernel": weights["head"]["kernel"][:, : 4 + split]}
    pooled = ModelParams({"trunk": trunk | {"dense_0": first}, "head": head}, concat.normalizer)
    weights["embedding"] = jnp.zeros_like(weights["embedding"])
    concat = concat._replace(weights=weights)
    arguments = (jnp.int32(1), data.obs[0], data.actions[0])
    np.testing.assert_allclose(
        one_step(CONCAT, concat, *arguments), one_step(POOLED, pooled, *arguments), rtol=1e-6
    )
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), data)
    losses = [
        jax.jit(mlp_model(config).loss)(params, batch, jax.random.key(0))[0]
        for config, params in ((CONCAT, concat), (POOLED, pooled))
    ]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_the_vectors_are_those_of_the_agents_in_the_batch():
    params, data = params_of(CONCAT), jax.tree.map(jnp.asarray, transitions(agents=3))
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), data)
    loss = lambda w: mlp_model(CONCAT).loss(params._replace(weights=w), batch, None)[0].sum()  # noqa: E731
    moved = np.abs(jax.jit(jax.grad(loss))(params.weights)["embedding"]).sum(axis=(0, 2))
    assert np.all(moved[:3] > 0)
    assert moved[3] == 0


def test_no_agents_transitions_reach_the_network_of_another():
    params, data = params_of(SEPARATE), jax.tree.map(jnp.asarray, data_of(SEPARATE))
    np.testing.assert_array_equal(data.agent, np.tile([2, 0], (3, 1)))
    batch = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), data)

    @jax.jit
    @jax.grad
    def grads(weights, batch):
        return mlp_model(SEPARATE).loss(params._replace(weights=weights), batch, None)[0].sum()

    before = grads(params.weights, batch)
    other = batch.replace(next_obs=batch.next_obs.at[:, :, 1].add(5.0))  # of the agent in row 0
    after = grads(params.weights, other)
    for old, new in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        np.testing.assert_array_equal(old[:, 0], new[:, 0])
    kernel = lambda tree: np.asarray(tree["head"]["kernel"])  # noqa: E731
    assert np.abs(kernel(before)[:, 1] - kernel(after)[:, 1]).max() > 0.1
    # The loss is the mean over the networks' own losses.
    losses, _ = jax.jit(mlp_model(SEPARATE).loss)(params, batch, None)
    own = []
    for column in range(2):
        take = lambda leaf, column=column: leaf[:, column]  # noqa: E731
        norm = jax.tree.map(lambda leaf, column=column: leaf[column], params.normalizer)
        alone = ModelParams(jax.tree.map(take, params.weights), norm)
        mine = jax.tree.map(lambda leaf, column=column: leaf[:, :, column], batch)
        own.append(jax.jit(mlp_model(POOLED).loss)(alone, mine, None)[0])
    np.testing.assert_allclose(losses, np.mean(own, axis=0), rtol=1e-5)


def test_a_network_starts_alike_whichever_others_there_are_and_others_have_none():
    small = dataclasses.replace(SEPARATE, hidden=(2,), ensemble_size=1)
    init = lambda config: jax.jit(mlp_model(config).init)(jax.random.key(3))  # noqa: E731
    every, some = init(dataclasses.replace(small, networks=())), init(small)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[:, [2, 0]], b), every, some)
    found = one_step(SEPARATE, params_of(SEPARATE), jnp.int32(1), jnp.ones(3), jnp.int32(0))
    assert np.isnan(found).all()


def test_each_network_sees_all_its_transitions_and_the_shorter_ones_in_turn():
    data = transitions(7, agents=2)  # four of the first, three of the second
    arranged = per_agent_transitions(data, (1, 0))
    np.testing.assert_array_equal(arranged.obs[:, 1], data.obs[[0, 2, 4, 6]])
    np.testing.assert_array_equal(arranged.obs[:, 0], data.obs[[1, 3, 5, 1]])
    with pytest.raises(ValueError, match=r"rows \[3\] have no transition"):
        per_agent_transitions(data, (0, 3))


def test_a_model_without_hidden_layers_is_linear():
    config = dataclasses.replace(CONCAT, hidden=(), discrete=False, target="delta")
    data = transitions().replace(actions=np.ones((12, 2), np.float32))
    weights = params_of(dataclasses.replace(config, discrete=True)).weights
    params = ModelParams(weights, normalizer_of(config, data))
    predict = lambda obs: one_step(config, params, jnp.int32(0), obs, jnp.ones(2))  # noqa: E731
    a, b = jnp.ones(3), jnp.float32([0.5, 2.0, -1.0])
    np.testing.assert_allclose(
        predict((a + b) / 2), (predict(a) + predict(b)) / 2, rtol=1e-5, atol=1e-5
    )
    unbound = predict_delta(config, params, jnp.int32(0), a, jnp.ones(2))
    np.testing.assert_allclose(unbound + a[None], predict(a), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"agents": "some"}, "agents 'some' is unknown: use one of .*separate"),
        ({"embedding_size": 2}, "embedding_size is 2 with agents 'none'"),
        ({"agents": "embedding"}, "embedding_size is 0 with agents 'embedding'"),
        ({"agents": "separate", "networks": (1, 1)}, r"networks are \(1, 1\): name each .* 3"),
        ({"networks": (1,)}, "with agents 'none'"),
        ({"activation": "gelu"}, "activation 'gelu' is unknown"),
    ],
)
def test_choices_that_contradict_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(POOLED, **changes)
