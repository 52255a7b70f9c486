"""Who may import whom, and how long files and functions may be.

The checkers take the root of a tree, so the second half of this file shows on small trees that
each of them can fail.
"""

import ast
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE_FOLDERS = ("persim_jax", "envs", "configs", "experiments")
OURS = (*SOURCE_FOLDERS, "tests")

# A module of persim_jax imports its own layer and lower ones. A new module gets its layer here.
LAYERS = {
    "persim_jax.types": 0,
    "persim_jax.files": 0,
    "persim_jax.bounds": 0,
    "persim_jax.ranges": 0,
    "persim_jax.tasks": 1,
    "persim_jax.networks": 0,
    "persim_jax.normalizer": 0,
    "persim_jax.checkpoints": 0,
    "persim_jax.mesh": 0,
    "persim_jax.precision": 0,
    "persim_jax.models": 1,
    "persim_jax.learners": 1,
    "persim_jax.data": 1,
    "persim_jax.optimization": 2,
    "persim_jax.training": 2,
    "persim_jax.flops": 2,
    "persim_jax.rollout": 2,
    "persim_jax.planning": 3,
    "persim_jax.collect": 3,
    "persim_jax.synthetic": 4,
    "persim_jax.pessimism": 3,
    "persim_jax.simulator_files": 2,
    "persim_jax.arguments": 2,
    "persim_jax.export": 2,
    "persim_jax.calibration": 1,
    "persim_jax.uncertainty": 2,
    "persim_jax.queries": 3,
    "persim_jax.uses": 3,
    "persim_jax.simulators": 3,
    "persim_jax.personalization": 3,
    "persim_jax.evaluation": 3,
    "persim_jax.methods": 4,
    "persim_jax.gymnasium_adapter": 2,
    "persim_jax.validation": 4,
    "persim_jax.choices": 5,
}

# What each folder may import of ours.
ALLOWED = {
    "configs": {"configs"},
    "envs": {"envs"},
    "persim_jax": {"persim_jax"},
    "experiments": {"persim_jax", "envs", "configs", "experiments"},
    "tests": set(OURS),
}
# Settings stop at the entry point: library code takes plain arguments.
FORBIDDEN_IN_LIBRARY = ("absl.flags", "ml_collections")

MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 80
MAX_MEDIAN_FILE_LINES = 150


def module_files(root: Path, folders: tuple[str, ...]) -> dict[str, Path]:
    """Dotted name -> file, a package under the name of its folder."""
    files = {}
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def imported_modules(module: str, path: Path, known: dict[str, Path]) -> Iterator[tuple[str, int]]:
    """Every import of a file, wherever it stands in it, as (dotted name, line).

    `from a import b` means `a.b` where that is a module of ours, and `a` where `b` is a
    name in it. For third parties nobody knows, so it counts as the longer one.
    """
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                source = ".".join([*parents, *filter(None, [node.module])])
            ours = source.partition(".")[0] in OURS
            for alias in node.names:
                full = f"{source}.{alias.name}"
                yield (full if full in known or not ours else source), node.lineno


def is_inside(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(f"{prefix}.")


def layer_of(module: str) -> int | None:
    return next((layer for prefix, layer in LAYERS.items() if is_inside(module, prefix)), None)


def folder_problems(root: Path) -> list[str]:
    """Imports across the folders of the repository, against `ALLOWED`."""
    known = module_files(root, OURS)
    problems = []
    for module, path in known.items():
        folder = module.partition(".")[0]
        for target, line in imported_modules(module, path, known):
            top = target.partition(".")[0]
            if top in OURS and top not in ALLOWED[folder]:
                problems.append(f"{module}:{line} imports {target}: {folder} never imports {top}")
            if folder == "persim_jax" and any(is_inside(target, p) for p in FORBIDDEN_IN_LIBRARY):
                problems.append(f"{module}:{line} imports {target}: settings stop at experiments")
            if module == "tests.oracles" and top not in {"numpy", *sys.stdlib_module_names}:
                problems.append(f"{module}:{line} imports {target}: the oracles know numpy only")
    return problems


def layer_problems(root: Path) -> list[str]:
    """Imports between the modules of persim_jax, against `LAYERS`."""
    known = module_files(root, ("persim_jax",))
    problems = []
    for module, path in known.items():
        if module == "persim_jax":  # re-exports, so it stands above all layers
            continue
        layer = layer_of(module)
        if layer is None:
            problems.append(
                f"{module} has no layer: give it one in LAYERS of {Path(__file__).name}"
            )
            continue
        for target, line in imported_modules(module, path, known):
            if target == "persim_jax":
                problems.append(
                    f"{module}:{line} imports the top of persim_jax, not a module of it"
                )
            elif is_inside(target, "persim_jax"):
                target_layer = layer_of(target)
                if target_layer is not None and target_layer > layer:
                    problems.append(
                        f"{module}:{line} (layer {layer}) imports {target} (layer {target_layer})"
                    )
    return problems


def import_cycles(root: Path, folders: tuple[str, ...] = SOURCE_FOLDERS) -> list[str]:
    """One line for each cycle that a depth-first walk over the imports meets."""
    known = module_files(root, folders)
    graph = {
        module: sorted({t for t, _ in imported_modules(module, path, known) if t in known})
        for module, path in known.items()
    }
    done: set[str] = set()
    cycles = []

    def visit(module: str, trail: list[str]) -> None:
        if module in trail:
            cycles.append(" -> ".join([*trail[trail.index(module) :], module]))
        elif module not in done:
            for target in graph[module]:
                visit(target, [*trail, module])
            done.add(module)

    for module in graph:
        visit(module, [])
    return cycles


def size_problems(root: Path) -> list[str]:
    """Files and functions that have grown too long, and a median file that has."""
    problems, lengths = [], []
    for module, path in module_files(root, SOURCE_FOLDERS).items():
        text = path.read_text(encoding="utf8")
        if not text.strip():  # an empty __init__ would only flatter the median
            continue
        lengths.append(len(text.splitlines()))
        if lengths[-1] > MAX_FILE_LINES:
            problems.append(f"{module}: {lengths[-1]} lines, over {MAX_FILE_LINES}")
        for node in ast.walk(ast.parse(text, str(path))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    problems.append(
                        f"{module}.{node.name}: {length} lines, over {MAX_FUNCTION_LINES}"
                    )
    if lengths and (median := statistics.median(lengths)) > MAX_MEDIAN_FILE_LINES:
        problems.append(f"the median file has {median} lines, over {MAX_MEDIAN_FILE_LINES}")
    return problems


@pytest.mark.parametrize("check", [folder_problems, layer_problems, import_cycles, size_problems])
def test_repository(check):
    assert check(ROOT) == []


def write_tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf8")
    return root


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("configs/a.py", "import persim_jax"),
        ("configs/a.py", "from envs.covariates import RANGES"),
        ("envs/a.py", "import persim_jax.types"),
        ("envs/a.py", "from configs import base"),
        ("persim_jax/training.py", "import envs"),
        ("persim_jax/training.py", "def f():\n    from experiments.run import run"),
        ("persim_jax/training.py", "from absl import flags"),
        ("persim_jax/training.py", "import absl.flags as flags"),
        ("persim_jax/data/storage.py", "from ml_collections.config_dict import ConfigDict"),
        ("experiments/run.py", "from tests import oracles"),
        ("tests/oracles.py", "import jax"),
        ("tests/oracles.py", "from envs import mountain_car"),
    ],
)
def test_folder_check_sees_a_wrong_arrow(tmp_path, name, line):
    assert len(folder_problems(write_tree(tmp_path, {name: line}))) == 1


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("configs/a.py", "import ml_collections\nfrom configs import base"),
        ("envs/a.py", "import jax, gymnasium\nfrom envs.base import Env"),
        ("persim_jax/training.py", "from absl import logging\nfrom persim_jax.types import Batch"),
        ("experiments/run.py", "import envs, persim_jax, configs\nfrom absl import flags"),
        ("tests/oracles.py", "import itertools\nimport numpy as np\nfrom numpy import linalg"),
        ("tests/test_run.py", "from experiments import run\nfrom tests import oracles"),
    ],
)
def test_folder_check_lets_the_right_arrows_pass(tmp_path, name, line):
    assert folder_problems(write_tree(tmp_path, {name: line})) == []


@pytest.mark.parametrize(
    "line",
    [
        "from persim_jax.rollout import unroll",
        "import persim_jax.rollout",
        "from persim_jax import rollout",
        "from .. import rollout",
        "from ..rollout import unroll",
    ],
)
def test_layer_check_sees_an_upward_import_in_every_spelling(tmp_path, line):
    write_tree(tmp_path, {"persim_jax/rollout.py": "", "persim_jax/models/factor.py": line})
    (problem,) = layer_problems(tmp_path)
    assert "factor:1 (layer 1) imports persim_jax.rollout (layer 2)" in problem


def test_layer_check_lets_own_and_lower_layers_pass(tmp_path):
    lines = "from . import base\nfrom persim_jax.networks import MLP\nfrom persim_jax import data"
    files = {"models/__init__": "", "models/base": "", "models/factor": lines, "networks": ""}
    files |= {"data/__init__": "", "__init__": "from persim_jax.models.factor import factor_model"}
    write_tree(tmp_path, {f"persim_jax/{name}.py": text for name, text in files.items()})
    assert layer_problems(tmp_path) == []


def test_layer_check_asks_for_the_layer_of_a_new_module(tmp_path):
    (problem,) = layer_problems(write_tree(tmp_path, {"persim_jax/modelsurgery.py": ""}))
    assert "persim_jax.modelsurgery has no layer" in problem


def test_layer_check_sees_an_import_through_the_top(tmp_path):
    files = {
        "persim_jax/__init__.py": "",
        "persim_jax/training.py": "from persim_jax import Dataset",
    }
    (problem,) = layer_problems(write_tree(tmp_path, files))
    assert "imports the top of persim_jax" in problem


def test_cycle_check_names_the_cycle_once(tmp_path):
    files = {"a": "import envs.b", "b": "from envs.c import x", "c": "from . import a", "d": ""}
    write_tree(tmp_path, {f"envs/{name}.py": text for name, text in files.items()})
    assert import_cycles(tmp_path) == ["envs.a -> envs.b -> envs.c -> envs.a"]


def test_cycle_check_lets_a_diamond_pass(tmp_path):
    files = {"a": "import envs.b, envs.c", "b": "import envs.d", "c": "import envs.d", "d": ""}
    write_tree(tmp_path, {f"envs/{name}.py": text for name, text in files.items()})
    assert import_cycles(tmp_path) == []


def function_of(lines: int) -> str:
    return "def f():\n" + "    pass\n" * (lines - 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1\n" * MAX_MEDIAN_FILE_LINES, 0),
        ("x = 1\n" * (MAX_MEDIAN_FILE_LINES + 1), 1),  # the median of one file
        ("x = 1\n" * (MAX_FILE_LINES + 1), 2),  # that and the file itself
        (function_of(MAX_FUNCTION_LINES), 0),
        (function_of(MAX_FUNCTION_LINES + 1), 1),
    ],
)
def test_size_check_counts(tmp_path, text, expected):
    assert len(size_problems(write_tree(tmp_path, {"envs/a.py": text}))) == expected


def test_size_check_leaves_tests_and_empty_files_out(tmp_path):
    files = {"tests/test_a.py": "x = 1\n" * (MAX_FILE_LINES + 1), "envs/__init__.py": ""}
    files |= {"envs/a.py": "x = 1\n" * (MAX_MEDIAN_FILE_LINES + 1)}
    assert len(size_problems(write_tree(tmp_path, files))) == 1
