"""Charts as files that stand alone: SVG with colours in place of variables, PNG drawn from it.

PNG is drawn by resvg, a package of a few megabytes in the extra `png`; SVG needs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mmtool.diagnose.report.html import all_figures
from mmtool.diagnose.report.style import CHART, LIGHT, resolved
from mmtool.diagnose.report.views import Plain
from mmtool.errors import EnvironmentLacks

PNG_ZOOM = 2
_FONT = "DejaVu Sans"


def chart_files(report: Plain, kind: str) -> dict[str, bytes]:
    """Give every chart of a report by file name; `kind` is svg or png."""
    drawn = {figure.name: standalone(figure.drawing) for figure in all_figures(report)}
    if kind == "svg":
        return {f"{name}.svg": drawing.encode() for name, drawing in drawn.items()}
    draw = _painter()
    return {f"{name}.png": draw(drawing) for name, drawing in drawn.items()}


def standalone(drawing: str) -> str:
    """Give a chart of the page as a file of its own, on a ground of its own."""
    style = resolved(CHART, LIGHT).strip()
    ground = f'<rect width="100%" height="100%" fill="{LIGHT["ground"]}"/>'
    head, mark, rest = drawing.partition("</desc>")
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f"{head}{mark}<style>{style}</style>{ground}{rest}\n"
    )


def _painter() -> Any:
    try:
        resvg: Any = import_module("resvg_py")
    except ImportError as error:
        raise EnvironmentLacks(
            "charts cannot be drawn as PNG: the package resvg_py is missing",
            why="it is an extra, as nothing else needs it",
            fix="python -m pip install 'mmtool[png]'    # or use --svg",
        ) from error

    def draw(drawing: str) -> bytes:
        return bytes(
            resvg.svg_to_bytes(
                svg_string=drawing, zoom=PNG_ZOOM, font_family=_FONT, sans_serif_family=_FONT
            )
        )

    return draw
