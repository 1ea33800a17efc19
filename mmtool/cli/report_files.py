"""A report as files: the page, charts as SVG and PNG, a section of Markdown; each whole or not."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmtool.cli.output import Output
from mmtool.errors import NotWritable, RequestError
from mmtool.runlog.whole import replace_whole
from mmtool.text import plural

Plain = Mapping[str, Any]


def write_page(output: Output, report: Plain, path: Path) -> None:
    """Write the report as one HTML file."""
    from mmtool.diagnose.report.html import render_html

    write_whole(path, render_html(report).encode())
    output.info(f"page: {path}")


def write_charts(output: Output, report: Plain, folder: Path, kind: str) -> None:
    """Write every chart as a file of its own; `kind` is svg or png."""
    from mmtool.diagnose.report.export import chart_files

    files = chart_files(report, kind)
    if not files:
        output.warning(f"this report has no charts; nothing was written to {folder}")
        return
    for name, content in files.items():
        write_whole(folder / name, content)
    output.info(f"{plural(len(files), 'chart')}: {folder}")


def write_section(output: Output, report: Plain, path: Path, command: str) -> None:
    """Put a comparison into a Markdown page, in place of the section of the same name."""
    from mmtool.diagnose.report.markdown import render_markdown, replaced
    from mmtool.diagnose.report.overview import with_overview

    page = path.read_text(encoding="utf-8") if path.is_file() else ""
    section = render_markdown(report, command=command)
    write_whole(path, with_overview(replaced(page, section)).encode())
    output.info(f"section: {path}")


def check_comparison(report: Plain) -> None:
    """Refuse a Markdown section of a single run."""
    if "comparison" not in report["metrics"]:
        raise RequestError(
            "--markdown writes a comparison, and this is one run",
            where="command line",
            fix="name several runs or a folder of runs, or use --html",
        )


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is whole or not there, and what stood there stays until then."""
    try:
        if path.is_dir():
            raise IsADirectoryError(None, "it is a folder", str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_whole(path, content)
    except OSError as error:
        raise NotWritable(
            f"{path.name} cannot be written: {error.strerror or error}",
            where=str(path),
            why="the report itself is above; nothing half-written was left behind",
            fix=f"df -h {_existing(path.parent)}    # make room, or choose another folder",
        ) from error


def _existing(folder: Path) -> Path:
    """Give the nearest folder that is there."""
    return next((place for place in (folder, *folder.parents) if place.is_dir()), Path())
