"""`mmtool diagnose`: what a run says about its modalities and its machine."""

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from mmtool.cli.completion import run_names
from mmtool.cli.options import RunsDirOption, command, refuse_with
from mmtool.cli.output import Output
from mmtool.errors import FindingsPresent, RequestError
from mmtool.paths import runs_root
from mmtool.text import plural

if TYPE_CHECKING:
    from mmtool.diagnose.finding import Report

Severity: TypeAlias = Literal["info", "warn", "error"]
WATCH_EVERY_S = 2.0


@command
def diagnose(
    output: Output,
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="A path, a name, the start of a name, latest, or a folder of runs; several are "
            "compared.",
            autocompletion=run_names,
            show_default=False,
        ),
    ],
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the report as a page too.")
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(
            "--markdown", metavar="FILE", help="Put a comparison into a Markdown page as a section."
        ),
    ] = None,
    fail_on: Annotated[
        Severity | None,
        typer.Option("--fail-on", help="Exit with 3 on a finding of this severity or a higher."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Draw again every 2 s until the run ends.")
    ] = False,
    runs_dir: RunsDirOption = None,
) -> None:
    """Say which modality starves and why the GPUs wait.

    \b
    mmtool diagnose latest
    mmtool diagnose RUN OTHER-RUN --html report.html
    mmtool diagnose runs/cg_mnist --markdown RESULTS.md
    mmtool diagnose latest --fail-on warn
    """
    from mmtool.diagnose.api import diagnose as read_and_diagnose

    if watch:
        drawn = {"--html": html, "--markdown": markdown, "--fail-on": fail_on}
        _check_watch(output, {**drawn, "--json": output.as_json})
    root = runs_root(runs_dir)
    paths = [_find(text, root) for text in runs]
    if watch:
        _watch(output, paths)
        return
    report = read_and_diagnose(paths)
    _show(output, report)
    if html is not None:
        _write_page(output, report, html)
    if markdown is not None:
        _write_section(output, report, runs, markdown)
    if fail_on is not None:
        _fail_on(report, fail_on)


def _find(text: str, root: Path) -> Path:
    """Give a run, or a folder of runs by its path or its name in the folder of all runs."""
    from mmtool.runlog.rundir import resolve_run
    from mmtool.runlog.suite import is_folder_of_runs

    for folder in (Path(text), root / text):
        if is_folder_of_runs(folder):
            return folder
    return resolve_run(text, root).path


def _check_watch(output: Output, others: dict[str, Any]) -> None:
    refuse_with("--watch", others, why="it draws on the terminal until the run ends")
    if not output.stdout_is_terminal():
        raise RequestError(
            "--watch needs a terminal",
            where="command line",
            why="stdout goes to a file or a pipe",
            fix="drop --watch",
        )


def _show(output: Output, report: "Report") -> None:
    from mmtool.diagnose.report.terminal import render

    data = report.as_dict()
    schema = str(data.pop("schema"))
    text = render(
        report, width=output.width(), unicode=output.is_unicode(), colour=output.is_colored()
    )
    output.result(schema, data, text.rstrip("\n"))


def _write_page(output: Output, report: "Report", path: Path) -> None:
    from mmtool.diagnose.report.html import render_html

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render_html(report.as_dict()), encoding="utf-8")
    output.info(f"page: {path}")


def _write_section(output: Output, report: "Report", runs: list[str], path: Path) -> None:
    from mmtool.diagnose.report.markdown import render_markdown, replaced

    if "comparison" not in report.metrics:
        raise RequestError(
            "--markdown writes a comparison, and this is one run",
            where="command line",
            fix="name several runs or a folder of runs, or use --html",
        )
    command = f"mmtool diagnose {' '.join(map(shlex.quote, runs))} --markdown {path}"
    page = path.read_text(encoding="utf-8") if path.is_file() else ""
    path.parent.mkdir(parents=True, exist_ok=True)
    section = render_markdown(report, command=command)
    path.write_text(replaced(page, section), encoding="utf-8")
    output.info(f"section: {path}")


def _fail_on(report: "Report", severity: Severity) -> None:
    found = report.at_least(severity)
    if found:
        names = ", ".join(sorted({finding.rule for finding in found}))
        raise FindingsPresent(
            f"{plural(len(found), 'finding')} of severity {severity} or higher: {names}"
        )


def _watch(output: Output, paths: list[Path]) -> None:
    from mmtool.diagnose.api import diagnose as read_and_diagnose
    from mmtool.runlog.rundir import RunDir

    while True:
        is_running = any(RunDir(path).read_status().get("state") == "running" for path in paths)
        report = read_and_diagnose(paths)
        output.clear()
        _show(output, report)
        if not is_running:
            return
        time.sleep(WATCH_EVERY_S)
