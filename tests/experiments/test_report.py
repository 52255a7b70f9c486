import base64
import html.parser
import itertools
import json
import pathlib
import re
import subprocess
import sys

import pytest

from experiments.records import Row, append_rows, read_rows
from experiments.report import build_report
from experiments.reporting.accept import accept_rows
from experiments.reporting.workdir import read_workdir
from experiments.stamps import ROOT
from tests.experiments import synthetic
from tests.experiments.synthetic import returns, row


class Page(html.parser.HTMLParser):
    """Collects what a browser would load and what a reader who cannot see would hear."""

    VOID = frozenset({"meta", "img", "br", "link"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(values)
        self.links += [v for k, v in attrs if k in ("href", "src") and v is not None]
        if values.get("id"):
            assert values["id"] not in self.ids
            self.ids.add(str(values["id"]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = synthetic.write_workdir(tmp_path_factory.mktemp("runs") / "run")
    assert build_report(path, path / "none") == path / "report.html"
    return path


@pytest.fixture(scope="module")
def page(workdir: pathlib.Path) -> Page:
    return Page((workdir / "report.html").read_text(encoding="utf8"))


def test_the_page_needs_nothing_beside_it(page: Page) -> None:
    assert page.open == []
    assert len(page.images) == 6
    for link in page.links:
        assert link.startswith(("#", "data:image/"))
        if link.startswith("#"):
            assert link[1:] in page.ids
    kinds = [str(image["src"]).partition(";")[0] for image in page.images]
    assert kinds.count("data:image/gif") == 1
    for image in page.images:
        data = base64.b64decode(str(image["src"]).partition(",")[2])
        assert data.startswith((b"\x89PNG", b"GIF89a"))
        assert len(str(image["alt"])) > 20


def test_the_page_says_verdict_numbers_and_conditions(page: Page) -> None:
    for words in (
        "MountainCar: prediction error ahead of the paper; return",
        "PerSim's RMSE is at or below the paper's in 3 of 3 cells, at or below half of it in 3.",
        # Pairs (-95, -100) and (-105, -110): behind by 5 of 100.
        "mean shortfall against True env + MPC 5.0 %",
        "Table 1, MountainCar",
        "paper 0.04 (1.00)",
        "python -m experiments.run --config=configs/mountain_car.py",
        "abc123def0",
        '"rank": 3',
        "Missing: returns of the behavior and test policies.",
    ):
        assert words in page.text
    assert "Not there yet" not in page.text


def test_markdown_and_latex_show_the_same_figures(workdir: pathlib.Path) -> None:
    markdown = (workdir / "report.md").read_text(encoding="utf8")
    images = re.findall(r"!\[[^]]+\]\(([^)]+)\)", markdown)
    assert len(images) == 6
    latex = (workdir / "report.tex").read_text(encoding="utf8")
    included = re.findall(r"\\includegraphics\[[^]]*\]\{([^}]+)\}", latex)
    assert included == [image for image in images if not image.endswith(".gif")]
    assert all((workdir / image).exists() for image in images)
    assert latex.isascii()
    begun, ended = (re.findall(rf"\\{word}\{{(\w+)\}}", latex) for word in ("begin", "end"))
    assert sorted(begun) == sorted(ended)
    assert (workdir / "report.csv").read_text().count("table_1,mountain_car,random,persim") == 10


@pytest.mark.parametrize(
    ("absent", "words"),
    [
        ("environment.json", "environment.json"),
        ("rows.jsonl", "No verdict yet"),
        ("arrays/factors.npz", "Figure 1, agent factors"),
        ("arrays/predictions.npz", "error over the horizon"),
        ("timings.json", "time by stage"),
    ],
)
def test_half_finished_runs_say_what_is_missing(
    tmp_path: pathlib.Path, absent: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # t-SNE is slow and not what this is about.
    monkeypatch.setattr("experiments.figures.factors.tsne_embedding", lambda own: own[:, :2])
    path = synthetic.write_workdir(tmp_path / "run")
    (path / absent).unlink()
    text = Page(build_report(path, tmp_path / "none").read_text(encoding="utf8")).text
    assert "Not there yet" in text
    assert words in text


def test_an_empty_folder_gets_a_page_and_no_folder_an_error(tmp_path: pathlib.Path) -> None:
    text = Page(build_report(tmp_path, tmp_path / "none").read_text(encoding="utf8")).text
    assert "config.json" in text
    assert "rows.jsonl (no results yet)" in text
    with pytest.raises(FileNotFoundError, match="give the --workdir of a run or a sweep"):
        build_report(tmp_path / "absent")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not JSON"):
        build_report(tmp_path)


def test_text_from_files_is_escaped(tmp_path: pathlib.Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(synthetic.config(variant="<script>$x")))
    page = build_report(tmp_path, tmp_path / "none").read_text(encoding="utf8")
    assert "<script" not in page
    assert "&lt;script&gt;$x" in page


def test_a_sweep_gets_one_page_over_its_runs(tmp_path: pathlib.Path) -> None:
    for trial in (0, 1):
        folder = tmp_path / f"job_{trial}"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(synthetic.config(trial=trial)))
        append_rows(folder / "rows.jsonl", [returns([-60.0 - trial, -58.0], trial=trial)])
    found = read_workdir(tmp_path)
    assert found.jobs == ("job_0", "job_1")
    assert found.missing == ()
    text = Page(build_report(tmp_path, tmp_path / "none").read_text(encoding="utf8")).text
    assert "Sweep of 2 runs" in text
    assert "−59.2 ± 0.4" in text
    assert "job_1" in text


def test_a_half_finished_sweep_says_what_is_missing_and_what_makes_it(
    tmp_path: pathlib.Path,
) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(synthetic.config()))
    errors = [row("rmse_mean", value, agent) for agent, value in ((0, 0.9), (3, 0.001))]
    rows = [*errors, returns([-60.0, -58.0]), returns([-70.0, -75.0], method="bcq_p")]
    append_rows(folder / "rows.jsonl", rows)
    path = build_report(tmp_path, tmp_path / "none")
    page = Page(path.read_text(encoding="utf8"))
    for words in (
        "Of 3 errors and returns of PerSim, alone or behind an offline learner, 1 are better than",
        # Behind: 0.9 instead of 0.04, beside the verdict and its command.
        "2150 % Table 1, RMSE: MountainCar, Random, PerSim, gravity 0.0001",
        "PerSim: Table 1 (gravity 0.0035), Table 2 (gravity 0.0025; gravity 0.0035)",
        f"--methods=true_env,persim,bcq_p --workdir={folder}",
        "Figures 1 and 2: no run of the sweep has left arrays for them yet",
        "PerSim against other methods: return",
        "Code, versions and devices behind the rows",
    ):
        assert words in page.text
    command = "python -m experiments.run --config=configs/mountain_car.py"
    assert page.text.count(command) >= 3
    for suffix in ("md", "tex", "csv"):
        assert command in path.with_suffix(f".{suffix}").read_text().replace(r"\_", "_")
    # Section after section: where we stand comes first, what is missing before the tables.
    heads = re.findall(r'<section id="(\w+)"', path.read_text(encoding="utf8"))
    assert heads[:4] == ["verdict", "overview", "missing", "tables"]


def test_the_page_of_kept_results(tmp_path: pathlib.Path) -> None:
    kept = tmp_path / "mountain_car" / "random.jsonl"
    append_rows(kept, [row("rmse_mean", 0.001, agent) for agent in range(5)])
    page = Page(build_report(tmp_path, tmp_path / "none").read_text(encoding="utf8"))
    assert "Report: Kept results" in page.text
    assert "Done: 3 of 2650 cells of the paper's tables, all trials (0 %)." in page.text
    # The figures of the documents, as rows hold no arrays.
    assert [str(image["alt"])[:13] for image in page.images] == ["Scatter plots", "Drawing of tr"]
    assert not any(link.startswith("http") for link in page.links)


def test_policies_come_from_accepted_rows(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    append_rows(path / "rows.jsonl", [row("rmse_mean", 0.01)])
    about = {"method": "dqn", "scope": "own_agent", "target": -200.0, "behavior": "pure"}
    accepted = [returns([-181.0, -183.0], 3, **about), returns([-1.0, -1.0], 0)]
    append_rows(tmp_path / "results" / "p.jsonl", accepted)
    text = Page(build_report(path, tmp_path / "results").read_text(encoding="utf8")).text
    assert "−182.0" in text
    # Nothing else of other runs enters this one's page.
    assert "−1.0" not in text


def test_accepted_rows_replace_by_identity(tmp_path: pathlib.Path) -> None:
    rows = [returns([1.0, 2.0]), returns([3.0, 4.0], method="true_env")]
    written = accept_rows(rows, tmp_path).files
    assert [path.relative_to(tmp_path).as_posix() for path in written] == [
        "mountain_car/any.jsonl",
        "mountain_car/random.jsonl",
    ]
    accept_rows([returns([5.0, 7.0])], tmp_path)
    assert [r["value"] for r in read_rows(tmp_path)] == [3.5, 6.0]


@pytest.mark.parametrize("field", ["code_version", "config_digest", "device"])
def test_rows_that_nobody_could_repeat_are_refused_all(tmp_path: pathlib.Path, field: str) -> None:
    bad: Row = row("rmse_mean", 1.0, 2) | {field: None}
    with pytest.raises(ValueError, match=rf"rmse_mean of agent 2, trial 0 lacks {field}"):
        accept_rows([row("rmse_mean", 1.0), bad], tmp_path)
    assert not list(tmp_path.iterdir())


def test_dirty_rows_need_leave(tmp_path: pathlib.Path) -> None:
    dirty = row("rmse_mean", 1.0, code_version="abc-dirty")
    with pytest.raises(ValueError, match="Commit and run again, or pass --allow_dirty"):
        accept_rows([dirty], tmp_path)
    assert accept_rows([dirty], tmp_path, allow_dirty=True).num_taken == 1
    with pytest.raises(ValueError, match="no rows to accept"):
        accept_rows([], tmp_path)


@pytest.mark.parametrize("version", ["0.1.0", "unversioned", "2026.10.1", "20261001", "main"])
def test_rows_measured_without_git_need_leave(tmp_path: pathlib.Path, version: str) -> None:
    loose = row("rmse_mean", 1.0, code_version=version)
    with pytest.raises(ValueError, match="measured outside a git checkout: run from a clone"):
        accept_rows([loose], tmp_path)
    assert not list(tmp_path.iterdir())
    assert accept_rows([loose], tmp_path, allow_dirty=True).num_taken == 1
    # Longer where ten digits name two commits.
    for commit in ("2f24df6d02", "2f24df6d02a", "2f24df6d02" * 4):
        assert accept_rows([row("rmse_mean", 1.0, 1, code_version=commit)], tmp_path).num_taken == 1


@pytest.mark.slow
def test_command_line(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    append_rows(path / "rows.jsonl", [row("rmse_mean", 0.01, code_version="abc-dirty")])

    def command(*flags: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "experiments.report", f"--workdir={path}"]
        flags = (f"--results={tmp_path / 'results'}", *flags)
        return subprocess.run([*line, *flags], cwd=ROOT, capture_output=True, text=True)

    refused = command("--accept")
    assert refused.returncode == 1
    assert "abc-dirty" in refused.stderr
    assert "Traceback" not in refused.stderr
    accepted = command("--accept", "--allow_dirty")
    assert accepted.returncode == 0
    assert "accepted 1 rows into" in accepted.stdout
    assert len(read_rows(tmp_path / "results")) == 1


def test_rows_of_the_run_s_own_policies_are_read(tmp_path: pathlib.Path) -> None:
    about = {"method": "dqn", "scope": "all_agents", "behavior": "test"}
    policy = returns([-150.0, -160.0], 3, **about) | {"covariates": {}, "agent_id": None}
    append_rows(tmp_path / "policies" / "mountain_car.jsonl", [policy])
    append_rows(tmp_path / "rows.jsonl", [row("rmse_mean", 0.01)])
    (tmp_path / "config.json").write_text(json.dumps(synthetic.config()))
    assert len(read_workdir(tmp_path).rows) == 2
    markdown = build_report(tmp_path, tmp_path / "none").with_suffix(".md").read_text()
    assert "| MountainCar | test | DQN | all agents | – | −155.0 | 2 |" in markdown


def test_a_config_that_is_a_list_is_named(tmp_path: pathlib.Path) -> None:
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"config\.json holds list instead of named fields"):
        read_workdir(tmp_path)


def test_a_broken_row_is_told_with_its_place_and_the_report_is_made(tmp_path: pathlib.Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    with pytest.warns(UserWarning, match=r"rows\.jsonl, line 1, is not a result row"):
        assert build_report(tmp_path).exists()


def test_broken_arrays_do_not_hide_the_tables(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.figures.factors.tsne_embedding", lambda own: own[:, :2])
    path = synthetic.write_workdir(tmp_path / "run")
    (path / "arrays" / "predictions.npz").write_bytes(b"PK\x03\x04 cut off")
    (path / "metrics.jsonl").write_text('{"epoch": 0, "loss": [1.0\n')
    text = Page(build_report(path, tmp_path / "none").read_text(encoding="utf8")).text
    assert "Figure 2, predicted states: arrays/predictions.npz cannot be drawn" in text
    assert "learning curves: metrics.jsonl cannot be drawn" in text
    assert "paper 0.04 (1.00)" in text


def test_building_again_changes_nothing(workdir: pathlib.Path) -> None:
    names = ("report.html", "report.md", "report.tex", "report.csv")
    before = {name: (workdir / name).read_bytes() for name in names}
    build_report(workdir, workdir / "none")
    assert {name: (workdir / name).read_bytes() for name in names} == before


def test_the_page_can_be_heard_and_used_by_keyboard(workdir: pathlib.Path) -> None:
    text = (workdir / "report.html").read_text(encoding="utf8")
    assert '<html lang="en">' in text
    assert 'name="viewport"' in text
    levels = [int(level) for level in re.findall(r"<h([1-6])", text)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    # No level is skipped on the way down.
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert text.count("<th ") == len(re.findall(r'<th [^>]*scope="(?:col|row)"', text))
    assert len(re.findall(r'role="region"', text)) == text.count("<table ")
    labelled = re.findall(r'aria-labelledby="([^"]+)"', text)
    assert set(labelled) <= set(re.findall(r'id="([^"]+)"', text))
    # A moving picture that can be closed, and that paper does not show.
    assert re.search(r'<figure class="motion"><details open>', text)
    assert "@media print" in text
