"""The shipped sweeps: which runs they ask for."""

import dataclasses
from collections import Counter

import pytest

from configs import sweeps
from configs.sweeps import Job, Request
from experiments.sweeping.plan import make_plan, make_request
from persim_jax.methods import METHODS

SHIPPED = (
    "table_1", "table_2", "table_3", "unseen", "data_scarcity", "rank", "ensemble_size",
    "behavior_quality", "ablations", "paper",
)  # fmt: skip
CLASSIC = ("mountain_car", "cart_pole")
LANDED = ("persim", "true_env", "cadm_vanilla", "bcq_p", "bcq_a", "persim_bcq_5", "concat_mlp")


def request(variant: str = "default", trials: int = 1, **changes: object) -> Request:
    made = Request(
        variant=variant,
        environments=CLASSIC,
        trials=tuple(range(trials)),
        methods=LANDED,
        predictors=("persim", "cadm_vanilla", "concat_mlp"),
        simulating=("persim_bcq_5",),
    )
    return dataclasses.replace(made, **changes)


def field(job: Job, name: str) -> object:
    return dict(job.overrides).get(name)


@pytest.mark.parametrize("variant", ["smoke", "default", "paper"])
@pytest.mark.parametrize("name", SHIPPED)
def test_every_sweep_is_a_plan_without_twins(name, variant):
    landed = make_request(variant, (*CLASSIC, "half_cheetah"), (0, 1))
    plan = make_plan(getattr(sweeps, name)(landed), variant)
    assert plan
    assert len({planned.key for planned in plan}) == len(plan)
    assert {planned.config["variant"] for planned in plan} == {variant}
    assert all(set(planned.job.methods) <= set(METHODS) for planned in plan)
    # First one trial of everything, then the next.
    trials = [planned.trial for planned in plan]
    assert trials == sorted(trials)
    assert set(Counter(trials)) == {0, 1}


def test_table_1_has_one_job_for_each_environment_and_behavior():
    jobs = list(sweeps.table_1(request("smoke")))
    cells = [(job.config, field(job, "behavior")) for job in jobs]
    assert len(jobs) == len(set(cells)) == 8
    assert {job.methods for job in jobs} == {("persim", "cadm_vanilla", "concat_mlp")}
    assert {job.measures for job in jobs} == {("prediction",)}


def test_table_2_has_the_truth_once_and_neither_ablations_nor_synthetic_data():
    jobs = list(sweeps.table_2(request()))
    assert Counter(m for job in jobs for m in job.methods) == {
        "persim": 8, "cadm_vanilla": 8, "bcq_p": 8, "bcq_a": 8, "true_env": 2,
    }  # fmt: skip
    assert {field(job, "behavior") for job in jobs if "true_env" in job.methods} == {"random"}
    assert {job.measures for job in jobs} == {("returns",)}


def test_table_3_compares_an_agents_own_data_with_synthetic_ones():
    jobs = list(sweeps.table_3(request()))
    assert [job.methods for job in jobs] == [("bcq_a", "persim_bcq_5")] * 2


def test_ablations_have_errors_and_returns_beside_persims():
    jobs = list(sweeps.ablations(request()))
    assert [job.methods for job in jobs] == [("persim", "concat_mlp")] * 8
    assert {job.measures for job in jobs} == {("prediction", "returns")}
    # Of all the paper's jobs, those alone let ablations plan.
    planning = [j for j in sweeps.paper(request()) if "returns" in j.measures]
    assert [j.methods for j in planning if "concat_mlp" in j.methods] == [("concat_mlp",)] * 8


def test_data_scarcity_is_that_of_the_paper():
    jobs = [job for job in sweeps.data_scarcity(request()) if "cart_pole" in job.config]
    assert [field(job, "agents.num_agents") for job in jobs] == [25, 50, 100, 250, 500]
    assert {job.methods for job in jobs} == {("persim", "cadm_vanilla", "bcq_p", "bcq_a")}


def test_ranks_include_each_environments_own():
    for environment, own in (("mountain_car", 3), ("cart_pole", 5)):
        jobs = [j for j in sweeps.rank(request("smoke")) if environment in j.config]
        assert [field(job, "model.rank") for job in jobs] == [1, own]


def test_a_method_that_lands_appears_by_itself():
    before = list(sweeps.table_1(request(predictors=("persim",))))
    after = list(sweeps.table_1(request(predictors=("persim", "cadm_pets"))))
    assert [j.methods for j in before] == [("persim",)] * 8
    assert [j.methods for j in after] == [("persim", "cadm_pets")] * 8


def test_the_paper_is_all_of_it():
    """Every number of every part, by config, method and measure, once; the order trial by trial."""
    parts = [getattr(sweeps, name) for name in SHIPPED if name != "paper"]
    asked = request(trials=2)
    numbers: Counter = Counter()
    for planned in make_plan(sweeps.paper(asked), "default"):
        for method in planned.job.methods:
            for measure in planned.job.measures:
                numbers[planned.folder, method, measure] += 1
    wanted = {
        (planned.folder, method, measure)
        for part in parts
        for planned in make_plan(part(asked), "default")
        for method in planned.job.methods
        for measure in planned.job.measures
        # A learner without a model has no prediction test.
        if measure != "prediction" or method in asked.predictors
    }
    assert wanted <= set(numbers)


def test_the_paper_runs_no_job_all_of_whose_numbers_others_measure():
    asked = request()
    full = [job for job in sweeps.paper(asked) if field(job, "agents.num_agents") == 500]
    assert full == []
    few = [job for job in sweeps.paper(asked) if field(job, "agents.num_agents") == 50]
    assert [job.methods for job in few] == [("persim", "cadm_vanilla", "bcq_p", "bcq_a")] * 2
    # The default number of members is the table's run, in smoke runs another one is.
    sizes = {field(job, "model.ensemble_size") for job in sweeps.paper(asked)}
    assert sizes == {None, 1, 2, 3, 8}
