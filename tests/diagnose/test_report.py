"""The renderings say the same, fit their place and survive hostile names."""

import re
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from shutil import which
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtool.diagnose.api import diagnose
from mmtool.diagnose.finding import Report
from mmtool.diagnose.report.charts import Line, line_chart, stacked_bar
from mmtool.diagnose.report.html import render_html
from mmtool.diagnose.report.svg import MAX_POINTS, thin
from mmtool.diagnose.report.terminal import bar, render, sparkline

Plant = Callable[..., Path]
HOSTILE = '<script>alert("x")</script>'
VOID = {"meta", "link", "br", "hr", "img"}


class Nesting(HTMLParser):
    """Checks that every opened element is closed by its own end tag."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def dominated(plant: Plant) -> Report:
    modalities = {"audio": "ignored", HOSTILE: "dominant"}
    return diagnose([plant(modalities=modalities, classes=[HOSTILE, "b"])])


def test_the_page_is_well_formed_needs_no_network_and_escapes_every_name(
    dominated: Report,
) -> None:
    page = render_html(dominated.as_dict())
    parser = Nesting()
    parser.feed(page)
    assert not parser.open
    assert "script" not in parser.seen
    assert not parser.addresses
    assert "&lt;script&gt;" in page
    assert "&lt;b&gt;node" in page
    assert "prefers-color-scheme:dark" in page


def test_every_chart_is_xml_with_a_role_a_title_and_a_description(dominated: Report) -> None:
    charts = re.findall(r"<svg.*?</svg>", render_html(dominated.as_dict()), re.DOTALL)
    assert len(charts) >= 8
    for chart in charts:
        root = ElementTree.fromstring(chart)
        assert root.get("role") == "img"
        assert [child.tag.rpartition("}")[2] for child in root][:2] == ["title", "desc"]
        assert root[0].text
        assert root[1].text


def test_the_page_of_a_comparison_names_every_run(plant: Plant) -> None:
    report = diagnose([plant("first"), plant("second", method="ogm")])
    page = render_html(report.as_dict())
    Nesting().feed(page)
    assert "first" in page
    assert "method.name" in page


@pytest.mark.skipif(which("chromium") is None, reason="chromium is not installed")
def test_a_browser_draws_the_page(dominated: Report, tmp_path: Path) -> None:
    page, picture = tmp_path / "report.html", tmp_path / "report.png"
    page.write_text(render_html(dominated.as_dict()), encoding="utf-8")
    subprocess.run(
        [
            str(which("chromium")),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--screenshot={picture}",
            "--window-size=960,1200",
            page.as_uri(),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    assert picture.stat().st_size > 20_000


@pytest.mark.parametrize("width", [60, 100])
def test_the_terminal_text_fits_its_width_apart_from_commands(
    dominated: Report, width: int
) -> None:
    shown = render(dominated, width=width, unicode=False)
    assert shown.isascii()
    assert "dominant-modality" in shown
    assert "try:" in shown
    prose = [line for line in shown.splitlines() if not line.strip().startswith(("mmtool", "#"))]
    # The rows of the table hold a name that is longer than any real one.
    assert all(len(line) <= width for line in prose if HOSTILE not in line)


def test_colour_is_used_only_when_asked(dominated: Report) -> None:
    assert "\x1b" not in render(dominated, colour=False)
    assert "\x1b[33m" in render(dominated, colour=True)


def test_a_comparison_is_rendered_as_text(plant: Plant) -> None:
    shown = render(diagnose([plant("first"), plant("second", method="ogm", acc=0.9)]))
    assert "method.name = none | ogm" in shown
    assert "improved" in shown


def test_control_characters_do_not_reach_the_terminal(plant: Plant) -> None:
    report = diagnose([plant(modalities={"audio\x1b[2J": "ignored", "image": "dominant"})])
    assert "\x1b" not in render(report)


@given(st.lists(st.floats(0, 1), max_size=60))
def test_a_sparkline_has_at_most_sixteen_cells(values: list[float]) -> None:
    assert len(sparkline(values, unicode=True)) == min(len(values), 16)


def test_a_bar_is_full_only_for_everything() -> None:
    assert bar(1.0, unicode=False) == "##########"
    assert bar(0.97, unicode=False) == "#########."
    assert bar(0.0, unicode=False) == ".........."


@given(st.integers(1, 5000))
def test_a_thinned_curve_keeps_its_extremes(count: int) -> None:
    points = [(float(x), float((x * 37) % 101)) for x in range(count)]
    kept = thin(points)
    assert len(kept) <= MAX_POINTS
    assert kept == sorted(kept)
    assert max(y for _, y in kept) == max(y for _, y in points)


def test_labels_at_the_ends_of_equal_curves_do_not_overlap() -> None:
    lines = [Line(f"curve {i}", [(0.0, 0.0), (9.0, 0.9)], i, i) for i in range(6)]
    drawing = line_chart("equal", lines, x_label="epoch", y_label="accuracy", y_range=(0, 1))
    ys = sorted(float(y) for y in re.findall(r'y="([\d.]+)"[^>]*>curve', drawing))
    assert len(ys) == 6
    assert min(b - a for a, b in pairwise(ys)) >= 14


def test_a_bar_without_time_is_not_drawn() -> None:
    assert stacked_bar("nothing", []) == ""
