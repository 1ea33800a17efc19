"""`mmtool doctor`: is this machine able to do the work, and what to type if not."""

from collections.abc import Callable

import typer

from mmtool.cli.checks import Check, all_checks
from mmtool.cli.options import DataRootOption, RunsDirOption, command
from mmtool.cli.output import Output, align
from mmtool.errors import EnvironmentLacks
from mmtool.paths import data_root as find_data_root
from mmtool.paths import runs_root

SCHEMA = "mmtool.doctor/1"
_COLORS = {"ok": "green", "warn": "yellow", "fail": "red"}


@command
def doctor(
    output: Output, data_root: DataRootOption = None, runs_dir: RunsDirOption = None
) -> None:
    """Check Python, torch, GPUs, decoders, disk.

    \b
    mmtool doctor
    mmtool doctor --json
    """
    checks = all_checks(find_data_root(data_root), runs_root(runs_dir))
    failed = [check for check in checks if check.state == "fail"]
    data = {"able": not failed, "checks": [check.as_dict() for check in checks]}
    output.result(SCHEMA, data, _lines(checks, output.style))
    if failed and not output.as_json:
        output.error(
            EnvironmentLacks(
                f"required and missing: {', '.join(check.name for check in failed)}",
                fix=failed[0].fix,
            )
        )
    if failed:
        raise typer.Exit(EnvironmentLacks.exit_code)


def _lines(checks: list[Check], style: Callable[[str, str], str]) -> list[str]:
    lines = align([(check.state.upper(), check.name, check.text) for check in checks])
    shown = []
    for check, line in zip(checks, lines, strict=True):
        word = check.state.upper()
        shown.append(style(word, _COLORS[check.state]) + line.removeprefix(word))
        if check.fix and check.state != "ok":
            shown.append(f"      fix: {check.fix}")
    return shown
