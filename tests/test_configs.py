"""The configs: what they hold, what they refuse, and that the launchers take them as they are."""

import copy
import dataclasses
import importlib
import json
from pathlib import Path

import pytest
from ml_collections import ConfigDict

import envs
from configs.base import VARIANTS, get_base
from experiments import settings
from persim_jax.methods import METHODS
from persim_jax.training import TrainConfig

CONFIGS = sorted(p.stem for p in (Path(__file__).parents[1] / "configs").glob("*.py"))
SECTIONS = {"__init__", "base", "baselines", "cadm", "morel", "sweeps"}
ENVIRONMENTS = [name for name in CONFIGS if name not in SECTIONS]
CASES = [(name, variant) for name in ENVIRONMENTS for variant in ("", *VARIANTS)]
ALL = tuple(METHODS)


def config_of(name: str, variant: str = "smoke") -> ConfigDict:
    return importlib.import_module(f"configs.{name}").get_config(variant)


def plain(**changes: object) -> dict:
    """The smoke config of MountainCar with some fields changed, as `section__field=value`."""
    config = config_of("mountain_car").to_dict()
    for name, value in changes.items():
        section, _, field = name.partition("__")
        if field:
            config[section][field] = value
        else:
            config[section] = value
    return config


def test_every_environment_has_a_config_and_every_config_an_environment():
    assert set(ENVIRONMENTS) == set(envs.ENV_NAMES)


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_configs_build_for_their_environment_and_are_accepted(name, variant):
    config = config_of(name, variant)
    assert config.environment == name
    assert config.variant == (variant or "default")
    settings.check(config.to_dict(), ALL)
    assert settings.persim_config(config.to_dict()).rank == config.model.rank


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_sizes_are_those_of_the_contracts(name):
    # Planning, policy and prediction episodes of contracts.md; agents of protocol.md.
    sizes = {"smoke": (2, 2, 2, 20), "default": (10, 100, 200, 500), "paper": (20, 100, 200, 500)}
    if name == "half_cheetah":  # an episode of a thousand decisions takes minutes on two cores
        sizes["default"] = (1, 100, 200, 500)
    for variant, expected in sizes.items():
        config = config_of(name, variant)
        evaluation = config.evaluation
        assert (
            evaluation.planning_episodes, evaluation.policy_episodes,
            config.prediction.num_episodes, config.agents.num_agents,
        ) == expected  # fmt: skip
        assert (config.seed, config.trial, config.behavior) == (0, 0, "random")


@pytest.mark.parametrize(
    ("name", "rank", "batch_size", "bonus"),
    [("mountain_car", 3, 512, 0.5), ("cart_pole", 5, 64, 0.0)],
)
def test_the_paper_variant_is_the_authors(name, rank, batch_size, bonus):
    config = config_of(name, "paper")
    assert (config.model.rank, config.train.batch_size) == (rank, batch_size)
    assert config.model.state_features == (256,)
    assert config.model.action_features == ()
    assert (config.model.activation, config.model.ensemble_size) == ("relu", 5)
    options = ("normalize_obs", "normalize_delta", "skip", "agent_penalty", "huber")
    assert not any(config.model[name] for name in options)
    train = config.train
    assert (train.num_epochs, train.learning_rate, train.polish_rounds) == (300, 1e-3, 0)
    # Halved after half of the epochs.
    assert (train.schedule, train.halve_every) == ("halve", 150)
    planner = config.planner
    assert (planner.num_candidates, planner.horizon, planner.bonus_weight) == (1000, 50, bonus)
    prediction = config.prediction
    assert (prediction.warm_up, prediction.num_steps, prediction.combine) == (10, 50, "mean")


def test_the_paper_variant_of_half_cheetah_is_the_authors():
    config = config_of("half_cheetah", "paper")
    assert (config.model.rank, config.train.batch_size) == (15, 1024)
    assert config.model.state_features == (512,) * 4
    assert config.model.action_features == (512, 512)
    assert (config.model.activation, config.model.ensemble_size) == ("relu", 5)
    assert config.model.normalize_obs
    assert config.model.normalize_delta
    assert not any(config.model[name] for name in ("skip", "layer_norm", "angles", "huber"))
    assert (config.model.target, config.evaluation.planning_agents) == ("delta", "all")
    train, planner = config.train, config.planner
    assert (train.num_epochs, train.learning_rate, train.schedule) == (300, 1e-3, "halve")
    assert (planner.sampler, planner.num_candidates, planner.horizon) == ("cem", 200, 30)
    assert (planner.num_rounds, planner.num_elites, planner.smoothing) == (6, 50, 0.1)
    assert planner.init_std == (0.3, 0.6)


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_a_typo_is_no_new_field(name, variant):
    config = config_of(name, variant).lock()
    with pytest.raises(AttributeError, match="behavior"):
        config.behaviour = "pure"
    with pytest.raises(AttributeError, match="num_epochs"):
        config.train.num_epoch = 3
    with pytest.raises(TypeError, match="trial"):
        config.trial = "second"


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_unknown_variants_are_told_the_known_ones(name):
    with pytest.raises(ValueError, match="'tiny' is unknown: use one of smoke, default, paper"):
        config_of(name, "tiny")
    with pytest.raises(ValueError, match="'tiny' is unknown"):
        get_base(name, "tiny")


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_tuples_stay_tuples_also_through_a_workdirs_json(name, variant):
    config = config_of(name, variant).to_dict()
    read = json.loads(json.dumps(config))
    for found in (config, read):
        typed = settings.persim_config(found)
        assert isinstance(typed.state_features, tuple)
        assert isinstance(typed.action_features, tuple)
        hash((typed, settings.planner_config(found)))
    assert settings.persim_config(config) == settings.persim_config(read)


def test_each_call_makes_a_new_config():
    first, second = config_of("cart_pole"), config_of("cart_pole")
    first.train.num_epochs = 99
    assert second.train.num_epochs != 99
    assert config_of("cart_pole").train.num_epochs == second.train.num_epochs


def test_checking_and_typing_change_nothing():
    config = plain(model__agent_start=-1.0)
    before = copy.deepcopy(config)
    settings.check(config, ALL)
    assert settings.persim_config(config).agent_start is None
    assert settings.planner_config(config).horizon == config["planner"]["horizon"]
    assert config == before


def test_the_fields_of_a_section_are_those_of_its_dataclass():
    config = plain()
    # What only other models' training needs is no field of PerSim's: its digests stay as they are.
    others = {"max_epoch_steps", "bootstrap"}
    assert set(config["train"]) | others == {f.name for f in dataclasses.fields(TrainConfig)}
    typed = settings.persim_config(config)
    for name, value in config["train"].items():
        assert getattr(typed.train, name) == value
    # What only users' own data need is no field of the benchmarks: their digests stay as they are.
    elsewhere = {"train", "mesh", "normalize_actions"}
    assert set(config["model"]) | elsewhere == set(typed.__dataclass_fields__)
    assert config["mesh"] == dataclasses.asdict(typed.mesh) == {"member": -1, "batch": -1}


REFUSED = {
    "behavior": (
        plain(behavior="noisy"),
        r"config\.behavior is 'noisy': use one of random, pure, pure_eps20, pure_eps40",
    ),
    "environment": (
        plain(environment="acrobot"),
        r"config\.environment is 'acrobot': use one of mountain_car, cart_pole",
    ),
    "precision": (plain(matmul_precision="fast"), r"config\.matmul_precision is 'fast': use one"),
    "negative trial": (plain(trial=-1), r"config\.trial is -1: it must not be negative"),
    "negative seed": (plain(seed=-3), r"config\.seed is -3: it must not be negative"),
    "field of train": (
        plain(train__epochs=3),
        r"config\.train has no field epochs: it has .*num_epochs",
    ),
    "field of model": (plain(model__width=3), r"config\.model has no field width: it has .*rank"),
    "field of planner": (
        plain(planner__candidates=3),
        r"config\.planner has no field candidates: it has .*num_candidates",
    ),
    "field of agents": (
        plain(agents__number=3),
        r"config\.agents has no field number: it has num_agents, seed",
    ),
    "field of prediction": (
        plain(prediction__steps=3),
        r"config\.prediction has no field steps: it has .*num_steps",
    ),
    "field of evaluation": (
        plain(evaluation__episodes=3),
        r"config\.evaluation has no field episodes: it has episodes_per_call, planning_agents, ",
    ),
    "combine": (
        plain(prediction__combine="mode"),
        r"config\.prediction\.combine is 'mode': use one of mean, median",
    ),
    "one scored step": (
        plain(prediction__num_steps=1),
        r"config\.prediction\.num_steps is 1: it must be at least 2",
    ),
    "longer than an episode": (
        plain(prediction__num_steps=491),
        r"config\.prediction asks for 10 \+ 491 steps: an episode of mountain_car has at most 500",
    ),
    "no episodes": (
        plain(evaluation__planning_episodes=0),
        r"config\.evaluation\.planning_episodes is 0: it must be at least 1",
    ),
    "field of mesh": (plain(mesh__size=3), r"config\.mesh has no field size: it has batch, member"),
    "no devices": (plain(mesh__batch=0), r"config\.mesh: batch is 0: give a number of devices"),
    "too many devices": (
        plain(mesh__batch=512),
        r"mesh\.member 1 x mesh\.batch 512 asks for 512 devices and there are",
    ),
    "precision of training": (
        plain(train__precision="fp8"),
        r"config\.train: precision 'fp8' is unknown: use one of highest, tf32, bf16",
    ),
    "member chunk": (plain(train__member_chunk=-2), r"config\.train: member_chunk is -2: give"),
    "schedule": (plain(train__schedule="linear"), r"config\.train: schedule 'linear' is unknown"),
    "no epochs": (plain(train__num_epochs=0), r"config\.train: num_epochs is 0"),
    "activation": (
        plain(model__activation="gelu"),
        r"config\.model\.activation is 'gelu': use one of relu, swish, tanh",
    ),
    "no hidden layer": (plain(model__state_features=()), r"config\.model\.state_features is \(\)"),
    "no members": (plain(model__ensemble_size=0), r"config\.model\.ensemble_size is 0: sizes must"),
    "spares": (plain(model__spare_members=-1), "config.model: spare_members is -1"),
    "sampler": (plain(planner__sampler="cem?"), r"config\.planner: sampler 'cem\?' is unknown"),
    "episodes that do not divide": (
        plain(evaluation__episodes_per_call=3, evaluation__planning_episodes=10),
        r"config\.evaluation\.episodes_per_call is 3: it must divide planning_episodes, 10",
    ),
    "planning agents": (
        plain(evaluation__planning_agents="some"),
        r"config\.evaluation\.planning_agents is 'some': use one of all, printed",
    ),
    "backend": (plain(environment="half_cheetah", backend="spring"), "ignores joint damping"),
    "target": (plain(model__target="next"), r"config\.model\.target is .next.: use one of delta"),
    "chunks": (plain(planner__chunk_size=7), r"config\.planner: chunk_size 7 must divide"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_run_is_refused_by_name(case):
    config, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        settings.check(config, ALL)


@pytest.mark.parametrize("name", ["train", "mesh", "model", "planner", "prediction", "trial"])
def test_a_missing_field_is_named(name):
    config = plain()
    del config[name]
    with pytest.raises(ValueError, match=f"config lacks {name}: configs/base.py has every field"):
        settings.check(config, ALL)


@pytest.mark.parametrize(("section", "field"), [("prediction", "warm_up"), ("train", "batch_size")])
def test_a_missing_nested_field_is_named(section, field):
    config = plain()
    del config[section][field]
    with pytest.raises(ValueError, match=rf"config\.{section}.* {field}|'{field}'"):
        settings.check(config, ALL)


def test_methods_are_refused_by_name():
    with pytest.raises(ValueError, match="method 'perism' is unknown: use some of persim, true_en"):
        settings.check(plain(), ("true_env", "perism"))
    with pytest.raises(ValueError, match="no method: use some of persim, true_env"):
        settings.check(plain(), ())
    with pytest.raises(ValueError, match="'persim' is named twice"):
        settings.check(plain(), ("persim", "true_env", "persim"))
