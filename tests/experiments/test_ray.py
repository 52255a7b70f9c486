"""A sweep on a cluster: a job whose host is lost ends elsewhere, and no row is lost or doubled."""

import json
import subprocess
import sys

import pytest

from experiments.stamps import ROOT
from tests.experiments.jobs import environment
from tests.experiments.sweep_jobs import STEPS, rows_of_sweep


@pytest.mark.slow
def test_jobs_of_a_lost_host_end_elsewhere(tmp_path):
    notes = tmp_path / "notes.txt"
    changes = {
        "SWEEP_TEST_PACE": "1.0", "SWEEP_TEST_NOTES": str(notes), "PYTHONPATH": str(ROOT),
        "RAY_DISABLE_IMPORT_WARNING": "1", "JAX_PLATFORMS": "cpu",
    }  # fmt: skip
    script = ROOT / "tests" / "experiments" / "ray_cluster_script.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], cwd=ROOT, env=environment(**changes),
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["slots"] == 2
    assert found["lost"]
    assert [outcome["state"] for outcome in found["outcomes"]] == ["done"] * 4
    rows = rows_of_sweep(tmp_path)
    assert len(rows) == 4 * (STEPS + 1)
    # The job that was on the lost host began twice, in two processes.
    began = [line.split()[1:] for line in notes.read_text().splitlines() if "began" in line]
    folders = [folder for folder, _ in began]
    assert len(set(folders)) == 4
    again = [folder for folder in set(folders) if folders.count(folder) > 1]
    assert len(again) == 1
    assert len({pid for folder, pid in began if folder == again[0]}) == 2
