"""README's commands are the ones that are run, and its table says what exists."""

import re
import shlex
from pathlib import Path

from mmtool import registry
from mmtool.cli.app import run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_two_commands_are_there_and_the_gate_runs_the_second():
    assert "python -m pip install -e . && mmtool train quickstart" in README
    assert "python -m pip install -e '.[dev]' && pytest" in README
    gate = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "python -m pip install -q -e '.[dev]'" in gate
    assert re.search(r"^\s*(time )?pytest", gate, re.MULTILINE)


def test_every_command_it_shows_exists(capsys):
    shown = re.findall(r"^(?:\$ )?(mmtool [a-z]+[^\n]*)$", README, re.MULTILINE)
    assert len(shown) >= 8
    for line in shown:
        words = shlex.split(line.split("    ")[0].split("  #")[0], comments=True)
        assert run([*words[1:2], "--help"]) == 0
        text = capsys.readouterr().out
        for option in (w for w in words if w.startswith("--")):
            assert option in text, f"{line}: {option}"


def test_recipes_it_names_exist():
    named = set(re.findall(r"\b(?:avdigits_\w+|quickstart)\b", README))

    assert named <= set(registry.names("recipes"))


def test_its_table_lists_what_exists():
    for kind in ("methods", "encoders", "fusion", "datasets"):
        rows = re.findall(rf"^\| {kind}(?:: [\w ]+)? \| (.*) \|$", README, re.MULTILINE)
        assert set(re.findall(r"`(\w+)`", " ".join(rows))) == set(registry.names(kind))
