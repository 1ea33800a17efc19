"""`mmtool diagnose`: what a run says about its modalities and its machine."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from mmtool.cli.completion import run_names
from mmtool.cli.deepen import (
    DeepDeviceOption,
    DeepOption,
    Depth,
    NoHeadroomOption,
    SamplesOption,
    SoloOption,
    SoloRunOption,
    deepen_runs,
)
from mmtool.cli.options import RunsDirOption, command, refuse_with
from mmtool.cli.output import Output
from mmtool.errors import FindingsPresent, RequestError
from mmtool.paths import runs_root
from mmtool.text import plural

if TYPE_CHECKING:
    from collections.abc import Mapping

    Plain: TypeAlias = Mapping[str, Any]

Severity: TypeAlias = Literal["info", "warn", "error"]
SEVERITIES = ("info", "warn", "error")
SCHEMA_SCHEMA = "mmtool.diagnose-schema/1"
HtmlOption: TypeAlias = Annotated[
    Path | None, typer.Option("--html", metavar="FILE", help="Write the report as a page too.")
]
SvgOption: TypeAlias = Annotated[
    Path | None, typer.Option("--svg", metavar="DIR", help="Write every chart as an SVG file.")
]
PngOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--png", metavar="DIR", help="Write every chart as a PNG file; extra png."),
]
MarkdownOption: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--markdown", metavar="FILE", help="Put a comparison into a Markdown page as a section."
    ),
]
FailOnOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--fail-on",
        metavar="WHAT",
        help="Exit with 3 on a finding of this severity (info, warn, error) or a higher, or on "
        "one of these findings, as in harmful,data-bound.",
    ),
]
WatchOption: TypeAlias = Annotated[
    bool, typer.Option("--watch", help="Draw again every second until the run ends.")
]
PlainOption: TypeAlias = Annotated[
    bool, typer.Option("--plain", help="No frames: one fact to a line, for scripts and readers.")
]
SchemaOption: TypeAlias = Annotated[
    bool, typer.Option("--schema", help="Print the JSON Schema of --json instead.")
]


@command
def diagnose(
    output: Output,
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN...",
            help="A path, a name, the start of a name, latest, a folder of runs, or a report saved "
            "by --json; several are compared.",
            autocompletion=run_names,
            show_default=False,
        ),
    ] = None,
    html: HtmlOption = None,
    svg: SvgOption = None,
    png: PngOption = None,
    markdown: MarkdownOption = None,
    fail_on: FailOnOption = None,
    watch: WatchOption = False,
    plain: PlainOption = False,
    schema: SchemaOption = False,
    deep: DeepOption = False,
    solo: SoloOption = False,
    solo_run: SoloRunOption = None,
    no_headroom: NoHeadroomOption = False,
    samples: SamplesOption = None,
    device: DeepDeviceOption = None,
    runs_dir: RunsDirOption = None,
) -> None:
    """Say which modality starves and why the GPUs wait.

    \b
    mmtool diagnose latest
    mmtool diagnose RUN OTHER-RUN --html report.html
    mmtool diagnose runs/cg_mnist --markdown RESULTS.md
    mmtool diagnose latest --fail-on warn
    mmtool diagnose latest --deep --solo
    """
    files = {"--html": html, "--svg": svg, "--png": png, "--markdown": markdown}
    others = {**files, "--fail-on": fail_on, "--deep": deep}
    if schema:
        _print_schema(output, {**others, "--watch": watch, "--plain": plain, "RUN": runs})
        return
    if not runs:
        raise RequestError("no run was given", fix="mmtool diagnose latest")
    wanted = _wanted(fail_on)
    root = runs_root(runs_dir)
    if watch:
        _check_watch(output, {**others, "--json": output.as_json})
        _watch(output, [_find(text, root) for text in runs], plain)
        return
    saved = _saved(runs)
    if saved is None:
        paths = [_find(text, root) for text in runs]
        depth = Depth(deep, solo, tuple(solo_run or ()), no_headroom, samples, device)
        deepen_runs(output, paths, root, depth)
        report = _diagnosed(paths)
    else:
        refuse_with("a saved report", {"--deep": deep}, why="it holds no checkpoint to open")
        report = saved
    _check_files(report, files)
    _show(output, report, plain)
    _write_files(output, report, files, runs)
    _fail_on(report, wanted)


def _diagnosed(paths: list[Path]) -> "Plain":
    from mmtool.diagnose.api import diagnose as read_and_diagnose

    return read_and_diagnose(paths).as_dict()


def _saved(runs: list[str]) -> "Plain | None":
    """Give the saved report that was named in the place of a run."""
    from mmtool.diagnose.report.saved import is_saved, read_saved

    named = [Path(text) for text in runs if is_saved(Path(text))]
    if not named:
        return None
    if len(runs) > 1:
        raise RequestError(
            "a saved report cannot be compared with anything",
            where=str(named[0]),
            why="what single samples were answered is in the runs, not in the report",
            fix="name the runs themselves",
        )
    return read_saved(named[0])


def _print_schema(output: Output, others: dict[str, Any]) -> None:
    from mmtool.diagnose.report.schema import report_json_schema

    refuse_with("--schema", others, why="it prints one document and opens no run")
    found = report_json_schema()
    output.result(SCHEMA_SCHEMA, {"json_schema": found}, json.dumps(found, indent=2))


def _find(text: str, root: Path) -> Path:
    """Give a run, a folder of runs by its path or its name in the folder of all runs, or a log."""
    from mmtool.runlog.rundir import is_run, resolve_run
    from mmtool.runlog.suite import is_folder_of_runs

    given = Path(text)
    for folder in (given, root / text):
        if is_folder_of_runs(folder):
            return folder
    is_there = given.exists() or given.is_symlink()
    if is_there and given.name != "latest" and not is_run(given) and not is_run(root / text):
        # What another tool wrote; the reader says so if it is nothing of the kind.
        return given
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


def _show(output: Output, report: "Plain", plain: bool) -> None:
    data = dict(report)
    schema = str(data.pop("schema"))
    text = "" if output.as_json else _text(output, report, plain)
    output.result(schema, data, text.rstrip("\n"))


def _text(output: Output, report: "Plain", plain: bool) -> str:
    width, unicode, colour = output.width(), output.is_unicode(), output.is_colored()
    if plain:
        from mmtool.diagnose.report.terminal import render

        return render(report, width=width, unicode=unicode, colour=colour)
    from mmtool.cli.report_panel import render_panel

    return render_panel(report, width=width, unicode=unicode, colour=colour)


def _check_files(report: "Plain", files: dict[str, Path | None]) -> None:
    """Refuse what cannot be made of this report before anything is written."""
    from mmtool.cli.report_files import check_comparison

    if files["--markdown"] is not None:
        check_comparison(report)


def _write_files(
    output: Output, report: "Plain", files: dict[str, Path | None], runs: list[str]
) -> None:
    """Write every file that was asked for; one that cannot be written keeps no other from it."""
    from mmtool.cli.report_files import write_charts, write_page, write_section
    from mmtool.errors import MmtoolError

    def write(name: str, path: Path) -> None:
        if name == "--html":
            write_page(output, report, path)
        elif name == "--markdown":
            again = f"mmtool diagnose {' '.join(map(shlex.quote, runs))} --markdown {path}"
            write_section(output, report, path, again)
        else:
            write_charts(output, report, path, name.removeprefix("--"))

    failed: list[MmtoolError] = []
    for name, path in files.items():
        if path is not None:
            try:
                write(name, path)
            except MmtoolError as error:
                failed.append(error)
    for other in failed[1:]:
        output.warning(str(other))
    if failed:
        raise failed[0]


def _wanted(fail_on: str | None) -> tuple[str, ...]:
    """Give what `--fail-on` names: one severity, or findings."""
    if fail_on is None:
        return ()
    named = tuple(part.strip() for part in fail_on.split(",") if part.strip())
    if len(named) == 1 and named[0] in SEVERITIES:
        return named
    from mmtool import registry
    from mmtool.diagnose.report.metric_schema import CODES
    from mmtool.text import suggestion

    known = {*CODES, "comparison", *(name.replace("_", "-") for name in registry.names("rules"))}
    unknown = [name for name in named if name not in known]
    if unknown or not named:
        raise RequestError(
            f"--fail-on knows no finding {', '.join(unknown) or fail_on!r}",
            where="--fail-on",
            why=f"a severity ({', '.join(SEVERITIES)}), or findings out of: "
            f"{', '.join(sorted(known))}",
            fix=suggestion(unknown[0], sorted(known)) if unknown else "--fail-on warn",
        )
    return named


def _fail_on(report: "Plain", wanted: tuple[str, ...]) -> None:
    if not wanted:
        return
    if wanted[0] in SEVERITIES:
        grave = SEVERITIES[SEVERITIES.index(wanted[0]) :]
        found = [f for f in report["findings"] if f.get("severity") in grave]
        kind = f" of severity {wanted[0]} or higher"
    else:
        found = [f for f in report["findings"] if f.get("rule") in wanted]
        kind = ""
    if found:
        names = ", ".join(sorted({str(finding["rule"]) for finding in found}))
        raise FindingsPresent(f"{plural(len(found), 'finding')}{kind}: {names}")


def _watch(output: Output, paths: list[Path], plain: bool) -> None:
    from mmtool.cli.report_watch import watch

    for report in watch(output, paths):
        _show(output, report, plain)
