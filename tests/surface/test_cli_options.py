"""The commands and options are a promise: a change edits the snapshot and CHANGELOG.md together."""

import json
from pathlib import Path
from typing import Any

from typer.main import get_command

from mmtool.cli.app import app

SNAPSHOT = Path(__file__).with_name("cli_options.json")


def surface() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}

    def walk(name: str, command: Any) -> None:
        found[name] = sorted(
            parameter.metavar.strip("[]")
            if parameter.param_type_name == "argument"
            else ", ".join(sorted(parameter.opts, key=len, reverse=True))
            for parameter in command.params
        )
        for child, inner in getattr(command, "commands", {}).items():
            walk(f"{name} {child}", inner)

    walk("mmtool", get_command(app))
    return dict(sorted(found.items()))


def test_commands_and_options_are_the_ones_promised():
    promised = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    found = surface()

    assert len(found) >= 10
    assert found == promised, f"if this is meant: python {__file__}, and say so in CHANGELOG.md"


def test_every_command_accepts_the_manners():
    leaves = [name for name in surface() if name not in ("mmtool", "mmtool recipe")]

    for name in leaves:
        assert {"--json", "--quiet, -q", "--verbose, -v", "--color"} <= set(surface()[name]), name


def test_every_command_and_option_has_a_help_text():
    def walk(name: str, command: Any) -> None:
        assert command.help, name
        for parameter in command.params:
            assert parameter.help, f"{name} {parameter.name}"
        for child, inner in getattr(command, "commands", {}).items():
            assert len(inner.help.partition("\n")[0]) <= 60, f"{name} {child}"
            walk(f"{name} {child}", inner)

    walk("mmtool", get_command(app))


if __name__ == "__main__":
    SNAPSHOT.write_text(json.dumps(surface(), indent=2) + "\n", encoding="utf-8")
