"""What the files around the code promise to each other."""

import ast
import configparser
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ("py311", "py312")
# Where the name of a distribution is not that of its module.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "absl": "absl-py",
    "orbax": "orbax-checkpoint",
    "sklearn": "scikit-learn",
}
OURS = {"persim_jax", "envs", "configs", "experiments"}
# What .gitignore leaves out, and git itself.
UNTRACKED = {"runs", "build", "dist", "site", "__pycache__"}
# The first letter stands in brackets so that this file does not find itself.
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:[w]ork|[h]ome|[r]oot|[U]sers)/|[f]ile:///")


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf8")
    return parser


def requirements(*extras: str) -> list[Requirement]:
    cfg = setup_cfg()
    blocks = [cfg["options"]["install_requires"]]
    blocks += [cfg["options.extras_require"][extra] for extra in extras]
    return [Requirement(line) for block in blocks for line in block.split("\n") if line.strip()]


def constraint_lines(name: str) -> list[str]:
    return (ROOT / "constraints" / f"{name}.txt").read_text(encoding="utf8").splitlines()


def text_files() -> Iterator[tuple[Path, str]]:
    """Files that a commit would hold, as far as they are text."""
    for top in sorted(ROOT.iterdir()):
        hidden = top.name.startswith(".") and top.name not in {".ci", ".github", ".gitignore"}
        if hidden or top.name in UNTRACKED or top.suffix == ".egg-info":
            continue
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and not UNTRACKED.intersection(path.relative_to(ROOT).parts):
                try:
                    yield path, path.read_text(encoding="utf8")
                except UnicodeDecodeError:
                    continue


def test_no_file_names_a_folder_of_one_machine():
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path, text in text_files()
        for number, line in enumerate(text.splitlines(), start=1)
        if MACHINE_PATH.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [("see /" + "work/main", True), ("cd /" + "home/me/x", True), ("a/" + "work/b", False)],
)
def test_machine_paths_are_told_from_relative_ones(text, expected):
    assert bool(MACHINE_PATH.search(text)) is expected


def test_one_version_everywhere():
    version = setup_cfg()["metadata"]["version"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf8")
    assert re.findall(r"^version: (\S+)$", citation, flags=re.MULTILINE) == [version]
    assert re.findall(r"^## (\S+)", changelog, flags=re.MULTILINE)[0] == version


def test_requirements_have_lower_bounds_only():
    cfg = setup_cfg()
    for requirement in requirements(*cfg["options.extras_require"]):
        operators = [specifier.operator for specifier in requirement.specifier]
        assert operators == [">="], f"{requirement} should be a lower bound"


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_constraints_are_exact_versions_and_nothing_else(name):
    assert [
        line for line in constraint_lines(name) if not re.fullmatch(r"[\w.-]+==[\w.]+", line)
    ] == []


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_constraints_hold_every_requirement_within_its_bound(name):
    tested = dict(line.split("==") for line in constraint_lines(name))
    tested = {canonicalize_name(package): version for package, version in tested.items()}
    for requirement in requirements("test", "half-cheetah"):
        version = tested.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is missing in constraints/{name}.txt"
        assert version in requirement.specifier, f"{requirement} is not met by {version}"


def third_party_imports(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """(distribution, whether the import stands at the top level and so always runs)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules = [node.module]
        else:
            continue
        for top in {module.partition(".")[0] for module in modules} - OURS:
            if top not in sys.stdlib_module_names:
                yield canonicalize_name(DISTRIBUTIONS.get(top, top)), node in tree.body


def test_source_imports_only_what_setup_cfg_asks_for():
    cfg = setup_cfg()
    base = {canonicalize_name(r.name) for r in requirements()}
    optional = {canonicalize_name(r.name) for r in requirements(*cfg["options.extras_require"])}
    problems = []
    for path, text in text_files():
        name = path.relative_to(ROOT)
        if path.suffix == ".py" and name.parts[0] in OURS:
            for distribution, always in third_party_imports(ast.parse(text, str(path))):
                if distribution not in (base if always else optional):
                    problems.append(f"{name} imports {distribution}")
    assert problems == []


def test_an_import_inside_a_function_is_told_from_one_at_the_top():
    tree = ast.parse("import os, jax.numpy\nfrom sklearn import manifold\nfrom . import x\n")
    assert set(third_party_imports(tree)) == {("jax", True), ("scikit-learn", True)}
    tree = ast.parse("def f():\n    from brax.base import State\n    import envs")
    assert set(third_party_imports(tree)) == {("brax", False)}
