"""Estimates: measured ones where there are rows, else the table, and how large a job is."""

import pytest

from configs.sweeps import Job
from experiments.baseline_settings import method_digest
from experiments.sweeping import costs as costs_module
from experiments.sweeping.costs import DEFAULTS, START_SECONDS, Costs, calibration, estimates
from experiments.sweeping.index import DONE, FAILED, Entry
from experiments.sweeping.plan import make_plan
from persim_jax.methods import METHODS

START = START_SECONDS["cart_pole"]


def job_of(*changes, methods=("persim",), measures=("prediction", "returns"), file="cart_pole"):
    return Job(f"configs/{file}.py", changes, methods, measures)


def planned(*changes, variant="default", **about):
    (found,) = make_plan([job_of(*changes, **about)], variant)
    return found


def row(metric, seconds, digest="d", behavior="random", at="2026-01-01", method="persim", **more):
    return {
        "environment": "cart_pole", "variant": "default", "method": method, "metric": metric,
        "behavior": behavior, "config_digest": digest, "trial": 0, "code_version": "a",
        "wall_s": seconds, "value": 1.0, "measured_at": at, **more,
    }  # fmt: skip


def measured(train, prediction, returns, **about):
    """Three agents each of the prediction test and of returns."""
    return [
        row("train_seconds", train, **about),
        *(row("rmse_mean", prediction / 3, agent_id=n, **about) for n in range(3)),
        *(row("return_mean", returns / 3, agent_id=n, **about) for n in range(3)),
        # Another number of the same episodes: its seconds are those of the mean.
        row("return_std", returns, **about),
    ]


def test_without_rows_the_table_counts():
    job = planned()
    assert Costs([]).of(job) == pytest.approx(START + sum(DEFAULTS["cart_pole"]["persim"]))
    train, test, _ = DEFAULTS["cart_pole"]["persim"]
    only = planned(measures=("prediction",))
    assert Costs([]).of(only) == pytest.approx(START + train + test)


def test_rows_of_the_method_count_more_and_of_the_data_and_the_config_more_still():
    job = planned(("behavior", "pure"))
    rows = measured(100, 3, 200, behavior="random")
    assert Costs(rows).of(job) == pytest.approx(START + 303)
    rows += measured(50, 3, 100, behavior="pure", at="2025-01-01")
    assert Costs(rows).of(job) == pytest.approx(START + 153)
    digest = method_digest(job.config, "persim")
    rows += measured(10, 3, 20, behavior="pure", digest=digest, at="2024-01-01")
    assert Costs(rows).of(job) == pytest.approx(START + 33)


def test_the_newest_measurement_counts():
    rows = measured(10, 1, 1, at="2026-02-01") + measured(99, 1, 1, at="2026-01-01", digest="e")
    for order in (rows, rows[::-1]):
        assert Costs(order).of(planned()) == pytest.approx(START + 12)


def test_what_a_row_does_not_know_is_taken_from_the_table():
    rows = [row("train_seconds", 7.0)]
    _, test, returns = DEFAULTS["cart_pole"]["persim"]
    assert Costs(rows).of(planned()) == pytest.approx(START + 7 + test + returns)


def test_smoke_rows_teach_nothing_about_other_variants():
    rows = [r | {"variant": "smoke"} for r in measured(1, 1, 1)]
    assert Costs(rows).of(planned()) == Costs([]).of(planned())


def test_fewer_agents_and_members_are_cheaper():
    rows = measured(100, 3, 200)
    few = planned(("agents.num_agents", 50))
    assert Costs(rows).of(few) == pytest.approx(START + 10 + 3 + 200)
    one = planned(("model.ensemble_size", 1))
    assert Costs(rows).of(one) == pytest.approx(START + 20 + 3 + 40)
    own = planned(("agents.num_agents", 50), methods=("bcq_a",))
    assert Costs([]).of(own) == Costs([]).of(planned(methods=("bcq_a",)))


def test_jobs_of_one_config_train_once():
    jobs = [job_of(measures=("prediction",)), job_of(measures=("returns",))]
    plan = make_plan(jobs, "default")
    found = estimates(plan, Costs(measured(100, 3, 200)))
    assert [found[p.key] for p in plan] == pytest.approx([START + 103, START + 200])


def test_the_machine_at_hand_is_learnt_from_jobs_that_are_done():
    def entry(state, seconds, estimate):
        return Entry("k", "n", "f", state, seconds=seconds, estimate=estimate)

    assert calibration([]) == 1.0
    entries = [entry(DONE, 30.0, 10.0), entry(DONE, 10.0, 10.0), entry(FAILED, 999.0, 1.0)]
    assert calibration([*entries, entry(DONE, None, 5.0)]) == 2.0


def test_every_method_and_environment_has_an_estimate():
    for file in DEFAULTS:
        for variant in ("smoke", "default", "paper"):
            for name in METHODS:
                assert Costs([]).of(planned(methods=(name,), variant=variant, file=file)) > 0
    paper, ours = (planned(variant=variant) for variant in ("paper", "default"))
    assert Costs([]).of(paper) > Costs([]).of(ours)


def test_methods_are_told_apart_by_the_start_of_their_names():
    table = DEFAULTS["cart_pole"]
    assert costs_module._default("cart_pole", "cadm_pets") == table["cadm"]
    assert costs_module._default("cart_pole", "cql_p") == table["cql"]
    assert costs_module._default("cart_pole", "something_new") == table[""]
    # A learner on top of the simulators.
    assert costs_module._default("cart_pole", "persim_bcq_5") == (
        table["persim"][0] + table["bcq"][0], *table["bcq"][1:],
    )  # fmt: skip
