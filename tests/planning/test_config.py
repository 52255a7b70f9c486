"""The planner's settings: what they refuse, and that the configs hold all of them."""

import dataclasses

import pytest

from configs.base import get_base
from envs import base
from persim_jax.planning.config import SAMPLERS, PlannerConfig, make_sampler
from tests.planning.continuous import spec_of

DISCRETE = base.EnvSpec("cart", ("x",), (), 2, (), (), 10, 1.0)
CONTINUOUS = ("cem", "icem", "mppi")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sampler": "gemm"}, "'gemm' is unknown: use one of .*'random_shooting', 'cem', 'icem'"),
        ({"propagate": "median"}, "'median' is unknown: use one of .*'members', 'mean'"),
        ({"num_rounds": 0}, "num_rounds is 0"),
        ({"sampler": "cem", "num_elites": 1}, "num_elites is 1: cem needs from 2"),
        ({"sampler": "icem", "num_candidates": 9, "num_elites": 10}, "10: icem .* the 9 cand"),
        ({"smoothing": 1.0}, "smoothing is 1.0"),
        ({"smoothing": -0.1}, "smoothing is -0.1"),
        ({"smoothing": float("nan")}, "smoothing is nan"),
        ({"init_std": (0.0, 0.5)}, r"init_std is \(0.0, 0.5\)"),
        ({"init_std": (0.6, 0.5)}, r"init_std is \(0.6, 0.5\)"),
        ({"init_std": (0.5,)}, r"init_std is \(0.5,\): give two"),
        ({"init_std": (0.5, float("inf"))}, "init_std is"),
        ({"noise_beta": -1.0}, "noise_beta is -1.0"),
        ({"keep_fraction": 1.5}, "keep_fraction is 1.5"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"risk": "best"}, "'best' is unknown: use one of .*'mean', 'worst', 'cvar'"),
        ({"risk_level": 0.0}, "risk_level is 0.0"),
        ({"risk_level": 1.5}, "risk_level is 1.5"),
    ],
)
def test_settings_that_cannot_work_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        PlannerConfig(**fields)


def test_elites_are_no_matter_for_samplers_without():
    PlannerConfig(num_candidates=6)
    PlannerConfig("mppi", num_candidates=6)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_samplers_of_continuous_actions_refuse_discrete_ones_and_say_what_to_use(name):
    with pytest.raises(ValueError, match=f"'{name}' draws cont.*cart has disc.*'random_shooting'"):
        make_sampler(DISCRETE, PlannerConfig(name))


def test_random_shooting_refuses_continuous_actions_and_names_the_others():
    with pytest.raises(ValueError, match=r"plane has continuous.*'cem', 'icem' or 'mppi'"):
        make_sampler(spec_of(), PlannerConfig())


@pytest.mark.parametrize("name", SAMPLERS)
def test_rounds_are_those_of_the_config_and_one_for_random_shooting(name):
    spec = DISCRETE if name == "random_shooting" else spec_of()
    sampler = make_sampler(spec, PlannerConfig(name, num_rounds=4))
    assert sampler.num_rounds == (1 if name == "random_shooting" else 4)
    assert make_sampler(spec, PlannerConfig(name, num_rounds=4)) is sampler


@pytest.mark.parametrize("variant", ["smoke", "default", "paper"])
def test_the_configs_have_every_field_at_its_default(variant):
    block = get_base("mountain_car", variant).planner.to_dict()
    # The paper's planner takes no view of risk: the benchmarks do not ask for one.
    fields = {field.name for field in dataclasses.fields(PlannerConfig)} - {"risk", "risk_level"}
    assert set(block) == fields
    for name in CONTINUOUS:
        PlannerConfig(**block | {"sampler": name})
    if variant != "smoke":
        assert PlannerConfig(**block) == PlannerConfig()


def test_the_protocols_cem_is_the_default():
    # 1 + 5 rounds, 50 elites, smoothing 0.1, 0.3 + 0.3 U(0, 1), members on their own states.
    c = PlannerConfig("cem", num_candidates=200, horizon=30)
    assert (c.num_rounds, c.num_elites, c.smoothing) == (1 + 5, 50, 0.1)
    assert c.init_std == (0.3, 0.3 + 0.3)
    assert c.propagate == "members"


def test_the_chunk_suits_the_device_and_divides_the_candidates():
    chunks = {k: PlannerConfig(num_candidates=k).resolved_chunk() for k in (1000, 200, 96, 101, 20)}
    assert chunks == {1000: 100, 200: 100, 96: 96, 101: 1, 20: 20}
    assert PlannerConfig(chunk_size=0).resolved_chunk() == 0
    assert PlannerConfig(chunk_size=50).resolved_chunk() == 50
