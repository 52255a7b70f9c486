"""A sweep on a two-node cluster, one node of which is lost in mid-job; run by `test_ray.py`."""

import json
import sys
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from experiments.sweep import make_order
from experiments.sweeping.plan import make_plan
from experiments.sweeping.ray_cluster import RayExecutor
from tests.experiments.sweep_jobs import counting_job


def main(folder: Path) -> None:
    fast = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500,
            "health_check_failure_threshold": 2}  # fmt: skip
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "_system_config": fast})
    other = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    plan = make_plan([counting_job(rank=r, behavior=b) for b in ("random", "pure_eps20")
                      for r in (1, 2)], "smoke")  # fmt: skip
    executor = RayExecutor(cluster.address)
    outcomes, waiting, slots = [], list(plan), executor.slots
    lost = False
    try:
        end = time.monotonic() + 400
        while len(outcomes) < len(plan) and time.monotonic() < end:
            running = len(plan) - len(waiting) - len(outcomes)
            while waiting and running < slots:
                executor.submit(make_order(waiting.pop(0), folder))
                running += 1
            outcomes += executor.wait(0.2)
            if not lost and began_on_both(folder):
                cluster.remove_node(other, allow_graceful=False)
                lost = True
    finally:
        executor.close()
        cluster.shutdown()
    found = {"slots": slots, "lost": lost, "outcomes": [o._asdict() for o in outcomes]}
    (folder / "found.json").write_text(json.dumps(found))


def began_on_both(folder: Path) -> bool:
    """Whether two jobs have rows, neither all of them."""
    files = list(folder.glob("jobs/*/rows.jsonl"))
    return len(files) >= 2 and all(2 <= len(f.read_text().splitlines()) <= 5 for f in files)


if __name__ == "__main__":
    assert ray.__version__
    main(Path(sys.argv[1]))
