"""The drawings keep what they are drawn from and leave room for their words."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmtool.diagnose.report.bar_charts import Bar, bars, stacked_bar
from mmtool.diagnose.report.curve_chart import Line, line_chart
from mmtool.diagnose.report.dot_charts import Change, Mark, dot_plot, forest_plot
from mmtool.diagnose.report.figure import curve_rows
from mmtool.diagnose.report.svg import MAX_POINTS, binned, shorten


@given(st.integers(1, 5000))
def test_a_binned_curve_keeps_its_extremes_and_its_order(count: int) -> None:
    points = [(float(x), float((x * 37) % 101)) for x in range(count)]
    kept = binned(points)
    assert len(kept) <= MAX_POINTS
    assert [x for x, *_ in kept] == sorted(x for x, *_ in kept)
    assert max(high for *_, high in kept) == max(y for _, y in points)
    assert min(low for _, low, _, _ in kept) == min(y for _, y in points)


def test_a_short_curve_is_drawn_point_by_point() -> None:
    assert binned([(0, 1.0), (1, 3.0)]) == [(0, 1.0, 1.0, 1.0), (1, 3.0, 3.0, 3.0)]


def test_a_curve_of_many_points_is_drawn_with_the_range_of_each_bin() -> None:
    points = [(float(x), float(x % 2)) for x in range(1000)]
    chart = line_chart("noise", [Line("a", points)], x_label="x", y_label="y")
    assert 'class="band f0"' in chart


def test_labels_at_the_ends_of_equal_curves_do_not_overlap() -> None:
    lines = [Line(f"curve {i}", [(0.0, 0.0), (9.0, 0.9)], i, i) for i in range(6)]
    drawing = line_chart("equal", lines, x_label="epoch", y_label="accuracy", y_range=(0, 1))
    ys = sorted(float(y) for y in re.findall(r'y="([\d.]+)"[^>]*>curve', drawing))
    assert len(ys) == 6
    assert min(b - a for a, b in pairwise(ys)) >= 18


def test_many_curves_make_a_taller_chart_rather_than_names_outside_of_it() -> None:
    lines = [Line(f"curve {i}", [(0.0, 0.0), (9.0, 0.1)], i, i) for i in range(14)]
    drawing = line_chart("many", lines, x_label="epoch", y_label="accuracy", y_range=(0, 1))
    height = float(re.findall(r'height="([\d.]+)"', drawing)[0])
    ys = sorted(float(y) for y in re.findall(r'y="([\d.-]+)"[^>]*>curve', drawing))
    assert ys[0] > 14
    assert ys[-1] < height - 20
    assert min(b - a for a, b in pairwise(ys)) >= 18


def test_nothing_to_draw_is_no_drawing() -> None:
    assert stacked_bar("nothing", []) == ""
    assert bars("nothing", []) == ""
    assert dot_plot("nothing", {"audio": {}}) == ""
    assert forest_plot("nothing", []) == ""
    assert line_chart("nothing", [Line("a", ())], x_label="x", y_label="y") == ""


def test_parts_of_a_bar_that_share_a_colour_have_different_patterns() -> None:
    chart = stacked_bar("parts", [(f"part {i}", 1.0) for i in range(12)])
    looks = re.findall(r'class="f(\d) part">.*?fill="url\(#parts(\d)\)"', chart)
    assert len(looks) == len(set(looks)) == 12


@pytest.mark.parametrize("reach", [0.003, 0.04, 0.31, 4.0])
def test_a_forest_plot_has_a_number_on_both_sides_of_zero(reach: float) -> None:
    chart = forest_plot("change", [Change("a", reach / 2, -reach / 10, reach, "improved")])
    ticks = [float(v) for v in re.findall(r'class="axis">(-?[\d.e-]+)</text>', chart)]
    assert min(ticks) < 0 < max(ticks)
    assert max(ticks) >= reach / 2


def test_a_mark_outside_the_scale_stays_on_the_drawing() -> None:
    chart = dot_plot("beyond", {"a": {"informativeness": Mark(-0.4, -0.5, -0.3)}})
    xs = [float(x) for x in re.findall(r"translate\(([\d.-]+) ", chart)]
    assert min(xs) >= 0
    assert "-0.40 [-0.50, -0.30]" in chart


def test_a_bar_without_an_interval_has_no_whisker() -> None:
    assert "whisker" not in bars("bars", [Bar("a", 0.5)])
    assert "whisker" in bars("bars", [Bar("a", 0.5, 0.4, 0.6)])


def test_a_long_name_keeps_both_its_ends() -> None:
    assert shorten("a" * 30 + "z" * 30).startswith("aaa")
    assert shorten("a" * 30 + "z" * 30).endswith("zzz")
    assert len(shorten("x" * 60)) <= 14


def test_the_table_of_long_curves_gives_bins_with_their_range() -> None:
    head, rows = curve_rows({"a": [(float(x), float(x)) for x in range(1000)]}, "epoch")
    assert head == ("curve", "epoch", "mean", "smallest", "largest")
    assert len(rows) <= 100
    assert rows[0][3] == "0"
    assert rows[-1][4] == "999"


def test_the_table_of_short_curves_leaves_a_gap_where_one_has_no_value() -> None:
    head, rows = curve_rows({"a": [(0, 0.5), (1, 0.6)], "b": [(1, 0.7)]}, "epoch")
    assert head == ("epoch", "a", "b")
    assert rows == (("0", "0.5", ""), ("1", "0.6", "0.7"))
