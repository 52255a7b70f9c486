"""The shipped policies: what is read is what was written, and they earn what their sidecar says."""

import functools
import json
import shutil

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import envs
from envs import covariates
from experiments import policies
from experiments.policies import (
    POLICY_CONFIGS,
    SHIPPED,
    algorithm,
    greedy_act,
    load_policies,
    save_policies,
)
from persim_jax.learners.dqn import q_values
from persim_jax.learners.td3 import TD3Config

# The policies that are there: those of HalfCheetah join when they are trained.
ENVIRONMENTS = sorted(path.stem for path in SHIPPED.glob("*.npz"))
TARGETS = {
    "mountain_car": {"pure": -200.0, "test": -150.0},
    "cart_pole": {"pure": 120, "test": 150},
    "half_cheetah": {"pure": 3000, "test": 4000},
}
CONTINUOUS = [name for name, config in POLICY_CONFIGS.items() if isinstance(config, TD3Config)]


def test_policies_of_the_classic_environments_are_shipped():
    assert {"mountain_car", "cart_pole"} <= set(ENVIRONMENTS) <= set(POLICY_CONFIGS)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_shipped_policies_are_those_of_the_protocol(environment):
    shipped, table = load_policies(environment), covariates.get(environment)
    np.testing.assert_allclose(shipped.pure_covariates, table.training_agents, rtol=1e-6)
    spec = envs.make(environment).spec
    init = algorithm(environment).make(spec, POLICY_CONFIGS[environment]).init
    fresh = jax.eval_shape(init, jax.random.key(0)).params
    shapes = jax.tree.map(jnp.shape, fresh)
    assert jax.tree.map(jnp.shape, shipped.test) == shapes
    assert jax.tree.map(lambda leaf: leaf.shape[1:], shipped.pure) == shapes
    told = shipped.sidecar["policies"]
    assert [policy["behavior"] for policy in told] == ["pure"] * len(table.training_agents) + [
        "test"
    ]
    assert [tuple(policy["covariates"].values()) for policy in told] == [
        *table.training_agents,
        table.default,
    ]
    for policy in told:
        assert policy["target"] == TARGETS[environment][policy["behavior"]]
        assert policy["reached"]
        assert policy["return_at_stop"] >= policy["target"]
    assert len({policy["seed"] for policy in told}) == 2
    assert told[0]["seed"] != told[-1]["seed"]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_shipped_files_are_small(environment):
    limit = 2_000_000 if environment in CONTINUOUS else 150_000
    assert (SHIPPED / f"{environment}.npz").stat().st_size < limit


class Cheetah:
    """Gymnasium's HalfCheetah-v5 with an agent's covariates, our observation and our reset."""

    def __init__(self, own):
        self.env = gymnasium.make("HalfCheetah-v5").unwrapped
        self.env.model.body_mass[:] *= own["mass_scale"]
        self.env.model.dof_damping[:] *= own["damping_scale"]

    def reset(self, seed):
        noise = 0.001 * np.random.default_rng(seed).standard_normal(18)
        self.env.reset(seed=seed)
        self.env.set_state(self.env.init_qpos + noise[:9], self.env.init_qvel + noise[9:])
        return self.observe(0.0), {}

    def step(self, action):
        before = self.env.data.qpos[0]
        _, reward, terminated, truncated, info = self.env.step(action)
        return (
            self.observe((self.env.data.qpos[0] - before) / 0.05),
            reward,
            terminated,
            truncated,
            info,
        )

    def observe(self, x_velocity):
        return np.concatenate([[x_velocity], self.env.data.qpos[1:], self.env.data.qvel])


def physics_of(environment, own):
    """Gymnasium's environment, which shares no code with ours, with an agent's covariates."""
    if environment == "half_cheetah":
        return Cheetah(own)
    if environment == "mountain_car":
        env = gymnasium.make("MountainCar-v0").unwrapped
        env.gravity = own["gravity"]
    else:
        env = gymnasium.make("CartPole-v1").unwrapped
        env.force_mag, env.length = own["force"], own["length"]
        env.polemass_length = env.masspole * env.length
    return env


def numpy_policy(environment, params):
    """The networks in numpy: relu layers, then the best action, or a squashed one."""
    layers = [jax.device_get(params["params"][name]) for name in sorted(params["params"])]
    scale = np.asarray(POLICY_CONFIGS[environment].obs_scale or 1.0)

    def act(obs):
        x = obs * scale
        for layer in layers[:-1]:
            x = np.maximum(x @ layer["kernel"] + layer["bias"], 0.0)
        last = x @ layers[-1]["kernel"] + layers[-1]["bias"]
        # The bounds of every continuous action here are -1 and 1.
        return np.tanh(last) if environment in CONTINUOUS else int(np.argmax(last))

    return act


def episode_return(env, act, max_steps, seed):
    obs, total = env.reset(seed=seed)[0], 0.0
    for _ in range(max_steps):
        obs, reward, terminated, _, _ = env.step(act(obs))
        total += reward
        if terminated:
            break
    return total


@pytest.mark.slow
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_shipped_policies_earn_in_gymnasium_what_their_sidecar_says(environment):
    shipped, spec = load_policies(environment), envs.make(environment).spec
    num_pure = shipped.pure_covariates.shape[0]
    pure = [jax.tree.map(lambda leaf, i=i: leaf[i], shipped.pure) for i in range(num_pure)]
    for params, told in zip([*pure, shipped.test], shipped.sidecar["policies"], strict=True):
        env = physics_of(environment, told["covariates"])
        act = numpy_policy(environment, params)
        # A thousand steps of MuJoCo take their time.
        num_episodes = 16 if environment in CONTINUOUS else 60
        returns = [episode_return(env, act, spec.max_steps, seed) for seed in range(num_episodes)]
        # Four standard errors of the difference of both means; gymnasium's reward of MountainCar
        # is -1 on the last step too, hence the one.
        error = told["return_std"] * np.sqrt(1.0 / num_episodes + 1.0 / told["num_episodes"])
        assert abs(np.mean(returns) - told["return_mean"]) < 4.0 * error + 1.5, told


DISCRETE = [name for name in ENVIRONMENTS if name not in CONTINUOUS]


@pytest.mark.parametrize("environment", DISCRETE)
def test_greedy_act_takes_the_best_action_and_keeps_its_identity(environment, key):
    act, shipped = greedy_act(environment), load_policies(environment)
    assert act is greedy_act(environment)
    spec = envs.make(environment).spec
    for obs in 0.05 * jax.random.normal(key, (5, spec.obs_size)):
        values = q_values(spec, POLICY_CONFIGS[environment], shipped.test, obs)
        action = act(key, shipped.test, obs)
        assert action.dtype == jnp.int32
        assert int(action) == int(np.argmax(values))
        assert int(action) == numpy_policy(environment, shipped.test)(np.asarray(obs))


@functools.cache
def fresh_policies(environment):
    """Untrained policies of the right sizes: two pure ones and one of the test."""
    init = (
        algorithm(environment).make(envs.make(environment).spec, POLICY_CONFIGS[environment]).init
    )
    params = jax.jit(jax.vmap(lambda key: init(key).params))(jax.random.split(jax.random.key(0), 3))
    return jax.tree.map(lambda leaf: leaf[:2], params), jax.tree.map(lambda leaf: leaf[2], params)


@pytest.mark.optimizes
@pytest.mark.parametrize("environment", CONTINUOUS)
def test_greedy_act_is_the_actor_and_keeps_its_identity(environment, key):
    act, (_, params) = greedy_act(environment), fresh_policies(environment)
    assert act is greedy_act(environment)
    params = jax.tree.map(lambda leaf: 3.0 * leaf, params)
    for obs in jax.random.normal(key, (5, envs.make(environment).spec.obs_size)):
        expected = numpy_policy(environment, params)(np.asarray(obs))
        np.testing.assert_allclose(act(key, params, obs), expected, rtol=1e-4, atol=1e-5)


ROWS = {
    "cart_pole": jnp.array([[6.0, 0.5], [10.0, 0.325]]),
    "half_cheetah": jnp.array([[1.4, 0.6], [0.6, 0.6]]),
}


def saved(tmp_path, environment="cart_pole", backend=""):
    pure, test = fresh_policies(environment)
    facts = {"train_seconds": 3.0}
    save_policies(tmp_path, environment, pure, ROWS[environment], test, facts, backend)
    return pure, ROWS[environment], test


@pytest.mark.optimizes
@pytest.mark.parametrize(
    ("environment", "backend", "method"),
    [("cart_pole", "", "dqn"), ("half_cheetah", "mujoco", "td3")],
)
def test_what_is_read_is_what_was_written(tmp_path, environment, backend, method):
    pure, rows, test = saved(tmp_path, environment, backend)
    read = load_policies(environment, tmp_path, backend)
    jax.tree.map(np.testing.assert_array_equal, read.pure, pure)
    jax.tree.map(np.testing.assert_array_equal, read.test, test)
    np.testing.assert_array_equal(read.pure_covariates, rows)
    told = read.sidecar
    assert (told["environment"], told["backend"], told["method"]) == (environment, backend, method)
    assert told[method]["hidden"] == list(POLICY_CONFIGS[environment].hidden)
    assert told[method]["learning_rate"] == POLICY_CONFIGS[environment].learning_rate
    assert told["train_seconds"] == 3.0


@pytest.mark.optimizes
@pytest.mark.parametrize("trained", ["mujoco", "mjx"])
def test_backends_of_the_same_physics_are_interchangeable(tmp_path, trained):
    saved(tmp_path, "half_cheetah", trained)
    for backend in ("mujoco", "mjx", None):
        load_policies("half_cheetah", tmp_path, backend)
    with pytest.raises(
        ValueError, match=f"backend '{trained}' of half_cheetah.* not those of 'generalized'"
    ):
        load_policies("half_cheetah", tmp_path, "generalized")


@pytest.mark.optimizes
def test_policies_trained_on_other_physics_are_refused(tmp_path):
    saved(tmp_path, "half_cheetah", "generalized")
    load_policies("half_cheetah", tmp_path, "generalized")
    with pytest.raises(ValueError, match=r"backend 'generalized'.* --backend=mujoco --out"):
        load_policies("half_cheetah", tmp_path, "mujoco")


@pytest.mark.optimizes
def test_policies_of_another_environment_are_refused_by_name(tmp_path):
    saved(tmp_path)
    for ending in ("npz", "json"):
        shutil.copy(tmp_path / f"cart_pole.{ending}", tmp_path / f"mountain_car.{ending}")
    with pytest.raises(
        ValueError, match=r"mountain_car\.npz holds policies for cart_pole, not for mountain_car"
    ):
        load_policies("mountain_car", tmp_path)


@pytest.mark.optimizes
def test_policies_from_before_there_were_backends_are_read(tmp_path):
    saved(tmp_path)
    path = tmp_path / "cart_pole.json"
    sidecar = json.loads(path.read_text("utf8"))
    del sidecar["backend"]
    path.write_text(json.dumps(sidecar), "utf8")
    load_policies("cart_pole", tmp_path)


@pytest.mark.optimizes
def test_policies_of_another_learner_are_refused(tmp_path, monkeypatch):
    saved(tmp_path)
    changed = POLICY_CONFIGS | {"cart_pole": TD3Config(hidden=(32, 32))}
    monkeypatch.setattr(policies, "POLICY_CONFIGS", changed)
    with pytest.raises(ValueError, match=r"was trained by dqn, the code now has td3"):
        load_policies("cart_pole", tmp_path)


@pytest.mark.optimizes
def test_the_same_policies_have_the_same_checksum(tmp_path):
    for name in ("a", "b"):
        saved(tmp_path / name)
    sums = [load_policies("cart_pole", tmp_path / name).sidecar["sha256"] for name in ("a", "b")]
    assert sums[0] == sums[1]


@pytest.mark.optimizes
def test_a_changed_file_is_refused(tmp_path):
    saved(tmp_path)
    path = tmp_path / "cart_pole.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"cart_pole\.npz has the checksum .* restore both or train"
    ):
        load_policies("cart_pole", tmp_path)


@pytest.mark.optimizes
def test_policies_of_another_network_are_refused(tmp_path, monkeypatch):
    saved(tmp_path)
    changed = POLICY_CONFIGS | {"cart_pole": policies.DQNConfig(hidden=(7,))}
    monkeypatch.setattr(policies, "POLICY_CONFIGS", changed)
    with pytest.raises(ValueError, match=r"hidden=\[32, 32\], the code now has \[7\]"):
        load_policies("cart_pole", tmp_path)


@pytest.mark.optimizes
@pytest.mark.parametrize("absent", ["cart_pole.npz", "cart_pole.json"])
def test_absent_policies_say_how_to_make_them(tmp_path, absent):
    saved(tmp_path)
    (tmp_path / absent).unlink()
    with pytest.raises(FileNotFoundError, match=r"train_policies --environment=cart_pole"):
        load_policies("cart_pole", tmp_path)


def test_unknown_environments_are_refused():
    with pytest.raises(ValueError, match="no policy settings for 'hopper'"):
        policies.policy_config("hopper")


def test_the_sidecar_is_plain_json():
    for environment in ENVIRONMENTS:
        json.loads((SHIPPED / f"{environment}.json").read_text(encoding="utf8"))
