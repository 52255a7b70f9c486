"""README.md and docs/ keep their word: the code runs, commands, flags and files exist."""

import functools
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from configs.base import VARIANTS
from configs.cart_pole import get_config as cart_pole
from configs.half_cheetah import get_config as half_cheetah
from configs.mountain_car import get_config as mountain_car
from experiments.records import read_rows
from experiments.tables import update_readme

ROOT = Path(__file__).parents[1]
DOCUMENTS = (
    "README.md", "CONTRIBUTING.md", "docs/index.md", "docs/method.md", "docs/own_data.md",
    "docs/simulators.md", "docs/unseen_agents.md", "docs/validation.md", "docs/baselines.md",
    "docs/half_cheetah.md", "docs/model_baselines.md", "docs/extending.md", "docs/sweeps.md",
    "docs/report.md", "docs/api.md", "benchmarks/d3rlpy.md",
)  # fmt: skip
FOLDERS = ("persim_jax", "envs", "configs", "experiments", "tests", "docs", "notebooks", "results")
CONFIGS = {"mountain_car": mountain_car, "cart_pole": cart_pole, "half_cheetah": half_cheetah}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Appended to the tour, so that what it has found can be held against the truth outside.
EPILOGUE = """
import json
print(json.dumps({
    "start": float(obs[7, -1, 0]), "gain": gain[7], "loss": loss[7],
    "mean": path.mean[:, 0].tolist(),
    "loaded": simulators.rollout(107, obs[7, -1], four_hours_on).mean[:, 0].tolist(),
    "cold": int(cold), "warm": int(warm),
}))
"""


def blocks(text: str, language: str) -> list[str]:
    return [body for found, body in FENCE.findall(text) if found == language]


@functools.cache
def tour() -> str:
    return "\n".join(blocks((ROOT / "README.md").read_text(encoding="utf8"), "python"))


@pytest.mark.slow
def test_tour_runs_and_its_simulator_follows_the_room(tmp_path):
    script = tmp_path / "tour.py"
    script.write_text(tour() + EPILOGUE, encoding="utf8")
    # A process of its own: what a reader types runs without the strictness of this suite.
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    # A heated room approaches its limit by a fixed share of the distance per step.
    limit = 5.0 + found["gain"] / found["loss"]
    distance = (found["start"] - limit) * (1.0 - found["loss"]) ** np.arange(1, 17)
    truth = limit + distance
    assert truth[-1] - found["start"] > 2.0
    np.testing.assert_allclose(found["mean"], truth, atol=0.2)
    assert found["loaded"] == found["mean"]
    assert (found["cold"], found["warm"]) == (1, 0)


def code_of(text: str) -> Iterator[str]:
    """Shell blocks line by line, and inline code; what follows a `#` is a comment."""
    for language, body in FENCE.findall(text):
        if language in ("", "bash"):
            yield from (line.partition("#")[0] for line in body.replace("\\\n", " ").splitlines())
    yield from re.findall(r"`([^`]+)`", FENCE.sub("", text))


def environments_in(code: str) -> list[str]:
    """A line with the placeholder ENV stands for a line for each environment."""
    code = re.sub(r"\bBEHAVIOR\b", "random", code)
    return [re.sub(r"\bENV\b", name, code) for name in CONFIGS] if "ENV" in code else [code]


def config_problems(name: str, value: str, config_path: str) -> Iterator[str]:
    """A flag `--config=FILE[:variant]`, or `--config.FIELD=value` of that file's config."""
    file, _, variant = (value if name == "config" else config_path).partition(":")
    if not (ROOT / file).is_file():
        yield f"there is no {file}"
    elif variant and variant not in VARIANTS:
        yield f"{file} has no variant {variant}"
    elif name != "config":
        node = CONFIGS[Path(file).stem](variant)
        for field in name.split(".")[1:]:
            if field not in node:
                yield f"{file} has no field {name}"
                return
            node = node[field]


def launcher_problems(words: list[str]) -> Iterator[str]:
    """A command `python -m experiments.NAME --flag=...`."""
    path = ROOT / f"{words[2].replace('.', '/')}.py"
    source = path.read_text(encoding="utf8") if path.is_file() else ""
    if '__name__ == "__main__"' not in source:
        yield f"{words[2]} is no launcher"
        return
    config_path = next((w[9:] for w in words if w.startswith("--config=")), "")
    for word in words[3:]:
        name, _, value = word.removeprefix("--").partition("=")
        if name.partition(".")[0] == "config":
            yield from config_problems(name, value, config_path)
        elif not re.search(rf'DEFINE_\w+\(\s*"{name}"', source):
            yield f"{words[2]} has no flag --{name}"


def code_problems(code: str) -> Iterator[str]:
    words = code.split()
    if words[1:2] == ["-m"] and words[2].startswith("experiments."):
        yield from launcher_problems(words)
    elif words[1:3] == ["-m", "pytest"]:
        yield from (f"there is no {w}" for w in words[3:] if not (ROOT / w).exists())
    elif words[:1] == ["make"]:
        makefile = (ROOT / "Makefile").read_text(encoding="utf8")
        targets = re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE)
        yield from (f"make has no {w}" for w in words[1:] if w not in targets and "=" not in w)
    elif words[:1] == ["pip"]:
        extras = re.findall(r"\[([\w,]+)\]", code)
        known = (ROOT / "setup.cfg").read_text(encoding="utf8")
        yield from (f"no extra {e}" for e in extras if not re.search(rf"^{e} =$", known, re.M))
    elif code.startswith("--config."):
        for word in words:
            name, _, value = word.removeprefix("--").partition("=")
            yield from config_problems(name, value, "configs/mountain_car.py")
    elif len(words) == 1 and words[0].partition("/")[0] in FOLDERS and "/" in words[0]:
        file, _, variant = words[0].partition(":")
        if not (ROOT / file).exists() or (variant and variant not in VARIANTS):
            yield f"there is no {words[0]}"


def document_problems(text: str, folder: Path) -> list[str]:
    problems = [
        problem
        for code in code_of(text)
        for line in environments_in(code.strip())
        for problem in code_problems(line)
    ]
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text)):
        if not re.match(r"https?://|#", target) and not (folder / target).exists():
            problems.append(f"there is no {target}")
    return problems


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_flags_and_files_exist(name):
    path = ROOT / name
    assert document_problems(path.read_text(encoding="utf8"), path.parent) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[a](docs/none.md)", "docs/none.md"),
        ("![a\nb](docs/none.png)", "docs/none.png"),
        ("`persim_jax/none.py`", "persim_jax/none.py"),
        ("`configs/ENV.py:large`", "configs/mountain_car.py:large"),
        ("`make none`", "make has no none"),
        ("```bash\nmake test none  # comment\n```", "make has no none"),
        ("`pip install '.[none]'`", "no extra none"),
        ("`python -m pytest tests/none.py`", "tests/none.py"),
        ("`python -m experiments.none`", "experiments.none is no launcher"),
        ("`python -m experiments.records`", "experiments.records is no launcher"),
        ("`python -m experiments.report --none`", "no flag --none"),
        ("```bash\npython -m experiments.run \\\n  --workdirs=x\n```", "no flag --workdirs"),
        ("`python -m experiments.run --config=configs/none.py`", "configs/none.py"),
        ("`python -m experiments.run --config=configs/ENV.py:large`", "no variant large"),
        (
            "`python -m experiments.run --config=configs/ENV.py --config.model.none=1`",
            "configs/cart_pole.py has no field config.model.none",
        ),
        ("`--config.none=0`", "no field config.none"),
    ],
)
def test_what_does_not_exist_is_found(text, problem):
    assert any(problem in found for found in document_problems(text, ROOT))


def test_results_stand_between_the_markers():
    text = (ROOT / "README.md").read_text(encoding="utf8")
    begin, end = (text.index(f"<!-- results:{word} -->") for word in ("begin", "end"))
    assert 0 < begin < end


def test_results_of_the_readme_are_those_of_the_rows():
    rows = [row for row in read_rows(ROOT / "results") if row["variant"] == "default"]
    assert rows
    assert update_readme(rows, ROOT / "README.md", check=True)
