"""The page says what the report's data say, whatever is in them and whatever is missing."""

import copy
import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmtool.diagnose.api import diagnose
from mmtool.diagnose.report.html import all_figures, render_html
from mmtool.diagnose.report.style import DARK, LIGHT

Plant = Callable[..., Path]
Example = Callable[..., dict[str, Any]]
HOSTILE = '<script>alert("x")</script>'
VOID = {"meta", "link", "br", "hr", "img"}
MAY_STAY_OPEN = {"td", "th", "tr"}
SECTIONS = (
    "Verdict and evidence",
    "Learning curves",
    "Reliance, availability, informativeness",
    "Classes and groups",
    "Bias and robustness",
    "Where a step goes",
    "GPU and host over time",
    "Energy and cost by modality",
    "Limits and method",
    "Recipe and environment",
    "Raw tables",
)


class Nesting(HTMLParser):
    """Checks that every element that needs an end tag has its own."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "href")]
        self.handlers += [k for k, _ in attrs if k.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        while self.open[-1] != tag and self.open[-1] in MAY_STAY_OPEN:
            self.open.pop()
        assert self.open.pop() == tag


def parsed(page: str) -> Nesting:
    parser = Nesting()
    parser.feed(page)
    assert not parser.open
    return parser


def charts_of(page: str) -> list[str]:
    return re.findall(r"<svg.*?</svg>", page, re.DOTALL)


def test_the_page_is_well_formed_needs_no_network_and_escapes_every_name(example: Example) -> None:
    page = render_html(example())
    found = parsed(page)
    assert "script" not in found.seen
    assert not found.addresses
    assert not found.handlers
    assert page.count("&lt;script&gt;") >= 8
    assert "<b>node" not in page
    assert "prefers-color-scheme:dark" in page
    assert "@media print" in page


def test_sections_stand_in_the_order_of_the_questions(example: Example) -> None:
    assert tuple(re.findall(r"<h2>(.*?)</h2>", render_html(example()))) == SECTIONS


def test_a_hundred_epochs_of_three_modalities_stay_below_150_kb(example: Example) -> None:
    assert len(render_html(example(100)).encode()) < 150_000


def test_a_very_long_run_has_no_longer_a_page_than_a_long_one(example: Example) -> None:
    page = render_html(example(20_000, samples=20_000))
    assert len(page.encode()) < 250_000
    for line in re.findall(r'<polyline points="(.*?)"', page):
        assert len(line.split()) <= 400


def test_of_thousands_of_classes_the_least_even_are_shown(example: Example) -> None:
    report = example(4)
    rows = report["metrics"]["bias"]["per_class"]
    even = {m: {"value": 0.33, "low": 0.3, "high": 0.4} for m in rows[0]["share"]}
    rows += [{"class": f"even {i}", "n": 9, "share": even, "owned_by": None} for i in range(5000)]
    figure = next(f for f in all_figures(report) if f.name == "by_class")
    assert figure.drawing.count("<rect") == 40 * 3
    assert len(figure.rows) == 200
    assert {"class 0", "class 10", HOSTILE} <= {row[0] for row in figure.rows}
    assert "least even of 5012 classes" in figure.caption
    assert len(render_html(report).encode()) < 200_000


def test_every_chart_is_xml_with_a_role_a_title_and_a_description(example: Example) -> None:
    charts = charts_of(render_html(example()))
    assert len(charts) >= 20
    for chart in charts:
        root = ElementTree.fromstring(chart)
        assert root.get("role") == "img"
        assert [child.tag.rpartition("}")[2] for child in root][:2] == ["title", "desc"]
        assert root[0].text
        assert root[1].text


def test_every_chart_stands_beside_the_table_it_was_drawn_from(example: Example) -> None:
    page = render_html(example())
    figures = re.findall(r"<figure>.*?</figure>", page, re.DOTALL)
    assert len(figures) == len(charts_of(page)) == len(all_figures(example()))
    for figure in figures:
        assert figure.index("<svg") < figure.index("<details>") < figure.index("<table>")
        assert figure.count("<tr>") >= 2


def test_every_number_of_the_class_chart_can_be_read_without_its_shade(example: Example) -> None:
    chart = next(f.drawing for f in all_figures(example()) if f.name == "by_class")
    cells = [float(v) for v in re.findall(r">(-?\d\.\d\d)</text>", chart)]
    assert len(cells) == 12 * 3
    assert max(cells) == 0.95


def test_curves_of_one_chart_differ_in_more_than_colour(example: Example) -> None:
    chart = next(f.drawing for f in all_figures(example()) if f.name == "learning")
    styles = re.findall(r'<polyline [^>]*class="line s(\d)"(?: stroke-dasharray="(.*?)")?', chart)
    assert len(styles) == 5
    assert len({dash for _, dash in styles}) == 5


def test_the_page_of_a_saved_report_is_the_same(example: Example) -> None:
    report = example(12)
    assert render_html(json.loads(json.dumps(report))) == render_html(report)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Give the way to every key of nested mappings."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield (*path, key)
            if len(path) < 2:
                yield from places(entry, (*path, key))


def without(report: dict[str, Any], path: tuple[Any, ...], *, empty: bool) -> dict[str, Any]:
    found = copy.deepcopy(report)
    inside = found
    for key in path[:-1]:
        inside = inside[key]
    if empty:
        inside[path[-1]] = None
    else:
        del inside[path[-1]]
    return found


def test_every_metric_may_be_absent(example: Example) -> None:
    report = example(4, samples=5)
    optional = [p for p in places(report["metrics"]) if p[0] not in ("steps", "balance")]
    assert len(optional) > 50
    for path in optional:
        page = render_html(without(report, ("metrics", *path), empty=len(path) == 1))
        assert parsed(page).seen
        for chart in charts_of(page):
            ElementTree.fromstring(chart)


def test_a_report_without_anything_is_still_a_page() -> None:
    page = render_html({"run": "empty", "verdict": "nothing is known"})
    parsed(page)
    assert "Nothing is known" in page
    assert not charts_of(page)


@given(name=st.text(max_size=40))
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_name_of_any_characters_leaves_the_charts_well_formed(
    example: Example, name: str
) -> None:
    report = example(3, samples=3)
    report["run"] = name
    for part in ("answers", "plateau"):
        found = report["metrics"][part]
        found[name] = found.pop("audio")
    report["metrics"]["bias"]["per_class"][0]["class"] = name
    page = render_html(report)
    parsed(page)
    for chart in charts_of(page):
        ElementTree.fromstring(chart)


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("running", "still going or was killed"),
        ("failed", "The run failed"),
        ("stopped", "stopped"),
    ],
)
def test_a_run_that_did_not_finish_says_so_before_its_verdict(
    plant: Plant, state: str, said: str
) -> None:
    page = render_html(diagnose([plant(state=state)]).as_dict())
    condition = page.index('class="condition"')
    assert condition < page.index('class="verdict')
    assert said in page[condition : page.index('class="verdict')]


def test_a_foreign_log_says_so_before_its_verdict(tmp_path: Path) -> None:
    history = [{"step": s, "epoch": s / 10, "loss": 1 / s} for s in range(1, 41)]
    history += [
        {"step": s, "epoch": s / 10, "eval_loss": 0.5, "eval_accuracy": 0.6} for s in (20, 40)
    ]
    state = {"log_history": history, "global_step": 40, "max_steps": 40, "epoch": 4.0}
    path = tmp_path / "trainer_state.json"
    path.write_text(json.dumps(state), encoding="utf-8")
    page = render_html(diagnose([path]).as_dict())
    parsed(page)
    condition, verdict = page.index('class="condition"'), page.index('class="verdict')
    assert condition < verdict
    assert "Hugging Face" in page[condition:verdict]
    assert "What the log lacks is left out." in page[condition:verdict]


def test_a_comparison_has_its_charts_and_the_verdicts_of_both_sides(plant: Plant) -> None:
    unbalanced = {"audio": "ignored", "image": "dominant"}
    paths = [plant(f"none{i}", seed=i, modalities=unbalanced, acc=0.7) for i in range(2)]
    paths += [plant(f"{HOSTILE[1:7]}{i}", method="ogm", seed=i, acc=0.9) for i in range(2)]
    report = diagnose(paths).as_dict()
    page = render_html(report)
    parsed(page)
    named = {figure.name for figure in all_figures(report)}
    assert {"changes", "learning_by_recipe", "runs", "changes_reliance"} <= named
    assert "improved" in page
    assert "Verdicts before and after" in page
    assert "method.name" in page


def test_the_page_of_a_planted_run_has_its_charts(plant: Plant) -> None:
    report = diagnose([plant(modalities={"audio": "ignored", HOSTILE: "dominant"})]).as_dict()
    page = render_html(report)
    assert "script" not in parsed(page).seen
    named = {figure.name for figure in all_figures(report)}
    assert {"learning", "loss", "reliance", "answers", "step", "step_time"} <= named


def test_both_palettes_keep_text_and_curves_readable() -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for palette in (LIGHT, DARK):
        for name in ("ink", "soft", "warn", "error", "info", *(f"s{i}" for i in range(6))):
            for ground in ("ground", "panel"):
                pair = sorted((luminance(palette[name]), luminance(palette[ground])))
                contrast = (pair[1] + 0.05) / (pair[0] + 0.05)
                assert contrast >= 4.5, (name, ground, contrast)
