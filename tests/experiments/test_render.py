import base64
import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from experiments.reporting import readme, render
from experiments.reporting.catalogue import all_tables
from experiments.reporting.model import Cell, Column, Line, Table
from experiments.reporting.page import data_uri
from tests.experiments.synthetic import returns, row

WORDS = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=12)


def table(text: str = "1.0", **fields: object) -> Table:
    cell = Cell(pieces=((text, "better"), ("[0, 2]", "")), paper="2.0 ± 1", extra="shortfall 5 %")
    parts = {"stubs": ("Data",), "columns": (Column("agent", "paper: 1"),)}
    lines = (Line(("Pure",), (cell,)),)
    made = {"name": "table_2", "environment": "cart_pole", "title": "T", "lines": lines} | parts
    return Table(**(made | fields))  # type: ignore[arg-type]


def test_markdown_by_hand() -> None:
    assert render.to_markdown(table(notes=("A note.",), missing=("x", "y"))) == (
        "### T\n\n"
        "| Data | agent<br><sub>paper: 1</sub> |\n"
        "| --- | :-: |\n"
        "| Pure | 1.0 ▲ [0, 2]<br><sub>shortfall 5 %</sub><br><sub>paper 2.0 ± 1</sub> |\n\n"
        "A note.\n\nMissing: x; y.\n"
    )
    assert render.to_markdown(table(lines=(), missing=("all",)), level=2) == (
        "## T\n\nMissing: all.\n"
    )


def test_latex_by_hand() -> None:
    body = render.to_latex(table()).split("\\midrule\n")[1].split("\n\\bottomrule")[0]
    assert body == (
        r"Pure & \begin{tabular}[c]{@{}c@{}}1.0$\uparrow$ [0, 2] \\ {\scriptsize shortfall 5 \%} "
        r"\\ {\scriptsize paper 2.0 $\pm$ 1}\end{tabular} \\"
    )
    assert r"\label{tab:table-2-cart-pole}" in render.to_latex(table())
    assert render.to_latex(table(lines=())).startswith("% T")


def test_html_by_hand() -> None:
    tree = ET.fromstring(f"<div>{render.to_html(table())}</div>")
    cell = tree.find(".//td")
    assert cell is not None
    assert cell.get("class") == "better"
    text = " ".join("".join(cell.itertext()).split())
    assert text == "1.0 ▲ [0, 2]shortfall 5 %paper 2.0 ± 1"
    heading = tree.find("h3")
    region = tree.find(".//div[@role='region']")
    assert heading is not None
    assert region is not None
    assert region.get("aria-labelledby") == heading.get("id") == "table_2-cart_pole"
    # Wide tables scroll, by keyboard too.
    assert region.get("tabindex") == "0"


@given(WORDS, WORDS)
def test_any_text_is_safe_in_html(text: str, title: str) -> None:
    tree = ET.fromstring(f"<div>{render.to_html(table(text, title=title))}</div>")
    heading = tree.find("h3")
    assert heading is not None
    assert (heading.text or "") == title
    piece = tree.find(".//td/span")
    assert piece is not None
    assert (
        (piece.text or "").replace("\N{NO-BREAK SPACE}", " ").startswith(text.replace("\xa0", " "))
    )


@given(st.text(st.sampled_from("ab&%$#_{}~^\\| −±"), max_size=20))
def test_any_text_is_safe_in_latex(text: str) -> None:
    made = render.latex(text)
    for command in (r"\textasciitilde{}", r"\textasciicircum{}", r"\textbackslash{}"):
        made = made.replace(command, "")
    for symbol in ("$-$", r"$\pm$", "$|$"):
        made = made.replace(symbol, "")
    for escaped in (r"\&", r"\%", r"\$", r"\#", r"\_", r"\{", r"\}"):
        made = made.replace(escaped, "")
    assert not set(made) - set("ab ")


def test_long_lists_of_missing_cells_are_cut_with_a_count() -> None:
    note = render.footnotes(table(missing=tuple(f"cell {i}" for i in range(20))))[-1]
    assert note.startswith("Missing: cell 0; cell 1;")
    assert note.endswith("cell 11; and 8 more.")


def test_a_bar_in_a_cell_does_not_end_it() -> None:
    line = render.to_markdown(table("a|b")).split("\n")[4]
    assert r"a\|b" in line
    assert line.replace(r"\|", "").count("|") == 3


def test_only_comparisons_need_a_legend() -> None:
    assert table().compares
    assert not table(lines=(Line(("Pure",), (Cell(),)),)).compares


def test_every_table_of_a_folder_is_in_the_list_once() -> None:
    rows = [returns([-60.0, -50.0]), returns([-70.0, -50.0], method="cql_p")]
    rows += [
        returns([-50.0, -40.0], method="true_env"),
        returns([-1.0, -2.0], method="persim_cql_5"),
    ]
    rows += [row("rmse_mean", 0.1, environment="cart_pole"), row("train_seconds", 3.0)]
    names = [(made.name, made.environment) for made in all_tables(rows)]
    assert names == [
        ("table_2", "mountain_car"),
        ("table_3", "mountain_car"),
        ("gains", "mountain_car"),
        ("differences", "mountain_car"),
        ("table_1", "cart_pole"),
        ("overview_return_mean", ""),
        ("cost", ""),
    ]


def test_readme_part_names_every_environment_and_baseline() -> None:
    rows = [row("rmse_mean", 0.001), row("rmse_mean", 0.01, environment="cart_pole")]
    rows += [returns([-60.0, -50.0]), returns([-70.0, -65.0], method="cql_p")]
    part = readme.readme_part(rows)
    assert "### Table 1, MountainCar" in part
    assert "### Table 1, CartPole" in part
    assert "- MountainCar, return against CQL-P: ahead in 1, level in 0, behind in 0 cells." in part
    # PerSim only: the baselines' lines are for the whole tables.
    assert "| CQL-P |" not in part
    assert part.endswith(f"{render.LEGEND}\n")


@pytest.mark.parametrize(
    "text",
    ["", readme.BEGIN, f"{readme.END}{readme.BEGIN}", readme.BEGIN + readme.END + readme.END],
)
def test_readme_without_both_markers_in_order_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="once each and in this order"):
        readme.splice(text, "part")


def test_splicing_twice_changes_nothing() -> None:
    text = f"a\n{readme.BEGIN}\nold\n{readme.END}\nb\n"
    once = readme.splice(text, "new\n")
    assert once == f"a\n{readme.BEGIN}\n\nnew\n\n{readme.END}\nb\n"
    assert readme.splice(once, "new\n") == once


def test_a_picture_in_the_page_is_smaller_and_looks_the_same(tmp_path):
    # Sixteen flat colours and a soft line: far fewer than 256.
    x = np.linspace(0.0, 1.0, 400)
    pixels = np.full((400, 400, 3), 255, np.uint8)
    for band in range(16):
        pixels[25 * band : 25 * band + 12] = (16 * band, 255 - 16 * band, 90)
    pixels[200, :, 0] = (255 * x).astype(np.uint8) // 4 * 4
    path = tmp_path / "drawn.png"
    noise = np.random.default_rng(0).integers(0, 2, (400, 400, 1), dtype=np.uint8)
    Image.fromarray(pixels - noise).save(path)
    uri = data_uri(path)
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    assert len(data) < path.stat().st_size
    shown = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.int64)
    assert np.abs(shown - (pixels - noise)).max() <= 8
