"""Charts as files stand alone, and their colours do not depend on a page."""

import re
import sys
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import pytest

from mmtool.diagnose.report.export import chart_files
from mmtool.diagnose.report.html import all_figures
from mmtool.errors import EnvironmentLacks

Example = Callable[..., dict[str, Any]]


def test_every_chart_becomes_an_svg_file_without_variables(example: Example) -> None:
    files = chart_files(example(20), "svg")
    assert set(files) == {f"{figure.name}.svg" for figure in all_figures(example(20))}
    for content in files.values():
        root = ElementTree.fromstring(content)
        assert root.tag.endswith("}svg")
        assert b"var(" not in content
        assert b"<style>" in content


def test_file_names_hold_only_plain_characters(example: Example) -> None:
    assert all(re.fullmatch(r"[a-z_]+\.svg", name) for name in chart_files(example(3), "svg"))


def test_every_chart_becomes_a_picture_with_the_colours_of_its_curves(example: Example) -> None:
    pytest.importorskip("resvg_py", reason="the extra png is not installed")
    import cv2
    import numpy as np

    files = chart_files(example(20), "png")
    assert len(files) == len(all_figures(example(20)))
    image = cv2.imdecode(np.frombuffer(files["learning.png"], np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    assert image.shape[1] == 1120
    fused = np.array([0xAD, 0x5C, 0x0B])
    assert (np.abs(image.astype(int) - fused).sum(axis=2) < 12).sum() > 200
    assert (image.reshape(-1, 3) == 255).all(axis=1).mean() > 0.5


def test_without_the_package_a_picture_is_refused_with_the_command(
    example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(EnvironmentLacks) as refused:
        chart_files(example(3), "png")
    assert "mmtool[png]" in refused.value.fix
    assert chart_files(example(3), "svg")
