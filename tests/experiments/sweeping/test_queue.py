"""The order of jobs, and how far it is from the best."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from configs.sweeps import Job
from experiments.sweeping.plan import make_plan
from experiments.sweeping.queue import Queue

BEHAVIORS = ("random", "pure", "pure_eps20", "pure_eps40")


def plan_of(trials: int = 1, ranks=(1, 2)):
    return make_plan(
        [
            Job("configs/cart_pole.py", (("behavior", b), ("trial", t), ("model.rank", r)))
            for t in range(trials)
            for b in BEHAVIORS
            for r in ranks
        ],
        "smoke",
    )


PLAN = plan_of(2)


@given(st.lists(st.floats(1, 100), min_size=len(PLAN), max_size=len(PLAN)), st.integers(1, 5))
def test_all_jobs_run_once_trial_by_trial_and_never_two_in_one_folder(seconds, workers):
    estimates = {planned.key: s for planned, s in zip(PLAN, seconds, strict=True)}
    queue, running, order = Queue(PLAN, estimates), [], []
    while queue or running:
        while len(running) < workers and (planned := queue.next(running)):
            assert planned.folder not in {p.folder for p in running}
            running.append(planned)
            order.append(planned)
        running.pop(0)
    assert sorted(p.key for p in order) == sorted(p.key for p in PLAN)
    assert [p.trial for p in order] == sorted(p.trial for p in order)


def test_the_longest_comes_first():
    estimates = {planned.key: float(n) for n, planned in enumerate(PLAN)}
    queue, order = Queue(PLAN, estimates), []
    while queue:
        order.append(queue.next([]))
    assert [estimates[p.key] for p in order] == [*range(7, -1, -1), *range(15, 7, -1)]


def test_two_that_need_the_same_data_do_not_start_together_if_others_can():
    queue = Queue(PLAN, dict.fromkeys((p.key for p in PLAN), 1.0))
    running = [queue.next([])]
    for _ in range(3):
        running.append(queue.next(running))
    assert {p.config["behavior"] for p in running} == set(BEHAVIORS)
    # Then there is nothing else to do in this trial.
    more = queue.next(running)
    assert (more.trial, more.config["behavior"]) == (0, "random")


def test_jobs_of_one_config_come_one_after_the_other():
    from dataclasses import replace

    job = Job("configs/cart_pole.py")
    plan = make_plan([replace(job, measures=(m,)) for m in ("prediction", "returns")], "smoke")
    queue = Queue(plan, dict.fromkeys((p.key for p in plan), 1.0))
    first = queue.next([])
    assert queue.next([first]) is None
    assert len(queue) == 1
    assert queue.next([]) in plan


def test_two_workers_are_busy_until_the_end():
    """Longest first: the makespan is within a job's share of the ideal."""
    rng, plan = np.random.default_rng(3), plan_of(1, ranks=range(1, 5))
    seconds = dict(zip((p.key for p in plan), rng.uniform(5, 20, len(plan)), strict=True))
    queue, running, clock = Queue(plan, seconds), [], 0.0
    while queue or running:
        while len(running) < 2 and (planned := queue.next([p for _, p in running])):
            running.append((clock + seconds[planned.key], planned))
        running.sort(key=lambda pair: pair[0])
        clock = running.pop(0)[0]
    assert clock <= 1.05 * sum(seconds.values()) / 2
