"""The program of docs/extending.md runs, and what it prints is what its tanks say by hand."""

import os
import re
import subprocess
import sys

import pytest

from experiments.stamps import ROOT

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_an_own_environment_and_an_own_method_pass_through_the_papers_tests(tmp_path):
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf8")
    script = tmp_path / "own.py"
    script.write_text("\n".join(BLOCK.findall(text)), encoding="utf8")
    # A process of its own: what a reader types runs without the strictness of this suite.
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found = {name: (float(e), float(r)) for name, e, r in map(str.split, done.stdout.splitlines())}
    assert list(found) == ["persim", "least_squares"]
    # The tank is linear, so that least squares are exact; factors of rank 2 are close.
    assert found["least_squares"][0] < 1e-5
    assert found["persim"][0] < 0.03
    # From 0.2 or 0.8 the goal, 0.5, is at most a dozen steps of 0.025 away, and a push is 0.05: on
    # average of 60 steps a planner is less than a push off; who idles runs empty, half a unit off.
    for _, returns in found.values():
        assert -60 * 0.05 < returns < 0.0
