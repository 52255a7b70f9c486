"""What is done: by the index, by rows of the sweep, by accepted rows."""

import dataclasses
import itertools

import pytest

from configs.sweeps import Job
from experiments.baseline_settings import method_digest
from experiments.records import RowContext, append_rows, make_row
from experiments.sweeping.done import identities, what_is_left
from experiments.sweeping.index import DONE, FAILED, RUNNING, Index
from experiments.sweeping.launchers import RUN, UNSEEN
from experiments.sweeping.plan import build_config, make_plan

JOB = Job("configs/cart_pole.py", (("trial", 1),), ("persim", "bcq_a"), ("prediction", "returns"))
MINE = "abc123"


def plan_of(*jobs):
    return make_plan(jobs or [JOB], "smoke")


def row_of(planned, method, identity, version=MINE):
    stamp = {"code_version": version, "jax": "1", "device": "cpu"}
    context = RowContext.from_config(planned.config, stamp)
    context = dataclasses.replace(context, config_digest=method_digest(planned.config, method))
    agent, metric = identity[3], identity[5]
    return make_row(context, method=method, metric=metric, value=1.0, agent_id=agent)


def rows_of(planned, method, version=MINE):
    return [row_of(planned, method, i, version) for i in identities(planned, method)]


def left(plan, folder, retry=False, results=None):
    results = folder / "results" if results is None else results
    return what_is_left(plan, folder, Index(folder), results, MINE, retry)


def test_identities_are_those_of_the_numbers_that_the_tables_show():
    (planned,) = plan_of()
    both = identities(planned, "persim")
    assert len(both) == 10
    assert {i[:3] for i in both} == {("cart_pole", "random", "persim")}
    assert {(i[4], i[6]) for i in both} == {(1, method_digest(planned.config, "persim"))}
    # A method without a model has no prediction test, and its settings in its digest.
    (digest,) = {i[6] for i in identities(planned, "bcq_a")}
    assert digest == method_digest(planned.config, "bcq_a") != both[0][6]
    assert {i[5] for i in identities(planned, "bcq_a")} == {"return_mean"}


def test_the_truth_has_no_behavior_and_no_prediction_test():
    (planned,) = plan_of(dataclasses.replace(JOB, methods=("true_env",)))
    assert {(i[1], i[5]) for i in identities(planned, "true_env")} == {("any", "return_mean")}


def test_the_agents_are_those_that_are_evaluated():
    config = build_config(Job("configs/half_cheetah.py"), "default")
    returns, errors = (len(RUN.numbers(config, "persim", (m,))) for m in ("returns", "prediction"))
    assert (returns, errors) == (3, 5)
    assert len(RUN.numbers(config, "bcq_p", ("returns", "prediction"))) == 5


def test_newcomers_are_the_launchers(tmp_path):
    from experiments import unseen
    from experiments.sweeping import launchers

    assert tuple(unseen.NUM_TRANSITIONS) == launchers.SHOWN
    names = {metric for metric, _ in UNSEEN.numbers({}, "persim", ())}
    assert len(names) == 2 * (2 + 2 * 2 * len(launchers.SHOWN))
    # A name of each kind, as the accepted rows have them.
    for name in ("rmse_known_agents_behavior", "r2_newcomers_test_policy_5_transitions"):
        assert name in names
    assert "rmse_newcomers_behavior_0_transitions_and_covariates" in names


def test_nothing_is_done_at_first(tmp_path):
    plan = plan_of()
    todo = left(plan, tmp_path)
    assert (todo.jobs, todo.done, todo.failed, todo.notes) == (plan, [], [], [])


def test_accepted_rows_are_done_in_a_new_workdir(tmp_path):
    (planned,) = plan_of()
    append_rows(tmp_path / "results" / "a.jsonl", rows_of(planned, "bcq_a"))
    todo = left([planned], tmp_path)
    (rest,) = todo.jobs
    assert rest.job.methods == ("persim",)
    append_rows(tmp_path / "results" / "b" / "c.jsonl", rows_of(planned, "persim"))
    todo = left([planned], tmp_path)
    assert (todo.jobs, todo.done, todo.notes) == ([], [planned], [])


@pytest.mark.parametrize("change", ["environment", "behavior", "trial", "config_digest", "metric"])
def test_a_row_of_another_identity_is_another_number(tmp_path, change):
    (planned,) = plan_of(dataclasses.replace(JOB, methods=("persim",)))
    rows = rows_of(planned, "persim")
    rows[3] = rows[3] | {change: "other"}
    append_rows(tmp_path / "results" / "a.jsonl", rows)
    assert left([planned], tmp_path).jobs == [planned]


def test_rows_of_other_code_count_and_are_said(tmp_path):
    (planned,) = plan_of()
    rows = rows_of(planned, "persim", "old1") + rows_of(planned, "bcq_a")
    append_rows(tmp_path / "results" / "a.jsonl", rows)
    todo = left([planned], tmp_path)
    assert (todo.jobs, todo.done) == ([], [planned])
    (text,) = todo.notes
    assert "1 of 1 jobs have numbers of other code versions (old1; this is abc123)" in text
    # Measured by this code, too: no news.
    append_rows(tmp_path / "results" / "a.jsonl", rows_of(planned, "persim"))
    assert left([planned], tmp_path).notes == []


def test_the_index_says_what_is_done_while_its_rows_are_there(tmp_path):
    (planned,) = plan_of()
    path = tmp_path / "jobs" / planned.folder / "rows.jsonl"
    # A learner that diverged has no rows, and is not tried again.
    append_rows(path, rows_of(planned, "persim"))
    Index(tmp_path).add(planned, DONE, rows=10, code_version=MINE)
    assert left([planned], tmp_path).done == [planned]
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1]))
    todo = left([planned], tmp_path)
    assert todo.jobs == [planned]
    assert "are gone: what is missing is measured again" in todo.notes[0]


def test_a_job_done_by_other_code_is_said(tmp_path):
    (planned,) = plan_of()
    append_rows(tmp_path / "jobs" / planned.folder / "rows.jsonl", rows_of(planned, "persim"))
    Index(tmp_path).add(planned, DONE, rows=10, code_version="old2")
    todo = left([planned], tmp_path)
    assert todo.done == [planned]
    assert "(old2; this is abc123)" in todo.notes[0]


def test_a_corrupt_line_is_named_and_the_rest_is_used(tmp_path):
    (planned,) = plan_of()
    path = tmp_path / "jobs" / planned.folder / "rows.jsonl"
    append_rows(path, rows_of(planned, "persim"))
    Index(tmp_path).add(planned, DONE, rows=10, code_version=MINE)
    lines = path.read_text().splitlines()
    lines[4] = lines[4][:40]
    path.write_text("\n".join(lines))
    todo = left([planned], tmp_path)
    assert todo.jobs == [planned]
    assert any(f"{path}, line 5, is not a result row" in note for note in todo.notes)


def test_a_failed_job_waits_until_it_is_asked_for(tmp_path):
    (planned,) = plan_of()
    Index(tmp_path).add(planned, FAILED, error="no")
    assert left([planned], tmp_path).failed == [planned]
    again = left([planned], tmp_path, retry=True)
    assert (again.jobs, again.failed) == ([planned], [])


def test_rows_of_a_sweeps_other_jobs_count_once_those_are_done(tmp_path):
    # Since the first sweep a method has landed: the same config, another job.
    narrow = dataclasses.replace(JOB, methods=("persim",))
    before, after = make_plan([narrow], "smoke") + make_plan([JOB], "smoke")
    assert before.folder == after.folder
    append_rows(tmp_path / "jobs" / before.folder / "rows.jsonl", rows_of(before, "persim"))
    for state, expected in ((RUNNING, ("persim", "bcq_a")), (DONE, ("bcq_a",))):
        # Cut off, the method may lack rows that no table shows.
        Index(tmp_path).add(before, state, rows=10, code_version=MINE)
        (rest,) = left([after], tmp_path).jobs
        assert rest.job.methods == expected


def test_every_state_has_its_place(tmp_path):
    jobs = [dataclasses.replace(JOB, overrides=(("trial", n),)) for n in range(4)]
    plan = plan_of(*jobs)
    index = Index(tmp_path)
    for planned, state in zip(plan, (DONE, FAILED, RUNNING), strict=False):
        append_rows(tmp_path / "jobs" / planned.folder / "rows.jsonl", rows_of(planned, "persim"))
        index.add(planned, state, rows=10, code_version=MINE)
    todo = left(plan, tmp_path)
    places = (todo.done, todo.failed, todo.jobs)
    assert [[p.trial for p in place] for place in places] == [[0], [1], [2, 3]]
    assert sorted(itertools.chain(*places), key=lambda p: p.trial) == plan


def test_a_lost_number_puts_its_own_job_to_do(tmp_path):
    """Two jobs share a folder: the first ended when it had fewer rows than there are now."""
    first, second = plan = plan_of(
        dataclasses.replace(JOB, methods=("persim",)), dataclasses.replace(JOB, methods=("bcq_a",))
    )
    assert first.folder == second.folder
    path, index = tmp_path / "jobs" / first.folder / "rows.jsonl", Index(tmp_path)
    append_rows(path, rows_of(first, "persim"))
    index.add(first, DONE, rows=10, code_version=MINE, lacks=[])
    append_rows(path, rows_of(second, "bcq_a"))
    index.add(second, DONE, rows=15, code_version=MINE, lacks=[])
    assert left(plan, tmp_path).done == plan
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0][:40], *lines[1:]]))
    todo = left(plan, tmp_path)
    assert (todo.jobs, todo.done) == ([first], [second])
    # The number is found where it was accepted, too.
    append_rows(tmp_path / "results" / "a.jsonl", rows_of(first, "persim")[:1])
    assert left(plan, tmp_path).jobs == []


def test_what_a_job_ended_without_is_not_lost(tmp_path):
    """A learner diverged for one agent: that number is not tried again, the others are."""
    (planned,) = plan_of()
    path = tmp_path / "jobs" / planned.folder / "rows.jsonl"
    learnt = rows_of(planned, "bcq_a")
    lacks = [["bcq_a", learnt[0]["metric"], learnt[0]["agent_id"]]]
    append_rows(path, [*rows_of(planned, "persim"), *learnt[1:]])
    Index(tmp_path).add(planned, DONE, rows=14, code_version=MINE, lacks=lacks)
    assert left([planned], tmp_path).done == [planned]
    # Another method is run again: what is known of this one stays.
    Index(tmp_path).add(planned.only(["persim"]), RUNNING)
    Index(tmp_path).add(planned.only(["persim"]), DONE, rows=14, code_version=MINE, lacks=[])
    assert left([planned], tmp_path).done == [planned]
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1]))
    (rest,) = left([planned], tmp_path).jobs
    assert rest.job.methods == ("bcq_a",)
