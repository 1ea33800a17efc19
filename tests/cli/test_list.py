import json

import pytest
from typer.testing import CliRunner

from mmtool import registry
from mmtool.cli.app import app
from mmtool.cli.list import options_table
from mmtool.cli.method_facts import method_facts

PLUGIN = '''
"""A plugin."""
from typing import Annotated, Literal
from pydantic import Field
from mmtool.config.schema import Options as Base

class Options(Base):
    alpha: Annotated[float, Field(gt=0)] = 0.3
    """Strength of the slow-down."""
    apply: Literal["gradient", "update"] = "gradient"
    end_epoch: int | None = None
    """Last epoch."""
    sizes: tuple[int, ...]
'''


def call(*arguments):
    return CliRunner().invoke(app, ["list", *arguments])


def test_without_arguments_every_kind_is_counted():
    found = call("--json")

    counts = json.loads(found.stdout)["kinds"]
    assert counts == {kind: len(registry.entries(kind)) for kind in registry.KINDS}
    assert counts["rules"] >= 5


def test_a_kind_lists_names_with_their_first_lines():
    found = call("rules")

    lines = found.stdout.splitlines()
    assert found.exit_code == 0
    assert [line.split()[0] for line in lines] == registry.names("rules")
    assert all(len(line.split()) > 1 for line in lines)


def test_the_singular_names_the_same_kind():
    assert call("rule").stdout == call("rules").stdout


def test_a_name_prints_its_page():
    entry = registry.get("rules", "under_trained")

    found = call("rule", "under-trained")

    assert found.exit_code == 0
    assert found.stdout.startswith(registry.docstring(entry).splitlines()[0])


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [(("mehtods",), "'methods'"), (("rules", "under_traned"), "'under_trained'")],
)
def test_a_misspelt_word_is_answered_with_the_nearest(arguments, hint):
    found = call(*arguments)

    assert found.exit_code == 2
    assert hint in found.stderr
    assert found.stdout == ""


def test_a_data_root_is_refused_where_it_means_nothing(tmp_path):
    found = call("methods", "--data-root", str(tmp_path))

    assert found.exit_code == 2
    assert "--data-root has no effect with methods" in found.stderr


def test_datasets_say_whether_they_are_prepared(tmp_path, monkeypatch):
    for name in ("alpha", "beta"):
        (tmp_path / f"{name}.py").write_text(f'"""Dataset {name}."""\n', encoding="utf-8")
    monkeypatch.setattr(registry, "bundled", lambda _: tmp_path)
    (tmp_path / "data" / "beta").mkdir(parents=True)
    (tmp_path / "data" / "beta" / "manifest.json").write_text("{}", encoding="utf-8")

    listed = call("datasets", "--data-root", str(tmp_path / "data"), "--json")

    entries = json.loads(listed.stdout)["entries"]
    assert [entry["name"] for entry in entries] == ["alpha", "beta"]
    assert entries[0]["prepared"] is None
    assert entries[1]["prepared"] == str(tmp_path / "data" / "beta")


def test_the_options_of_a_plugin_show_type_default_and_help(tmp_path):
    path = tmp_path / "plugin.py"
    path.write_text(PLUGIN, encoding="utf-8")

    rows = {row["name"]: row for row in options_table(registry.load_file(path))}

    assert rows["alpha"] == {
        "name": "alpha",
        "type": "number > 0",
        "default": "0.3",
        "help": "Strength of the slow-down.",
    }
    assert rows["apply"]["type"] == "gradient | update"
    assert rows["end_epoch"]["type"] == "whole number"
    assert rows["end_epoch"]["default"] == "unset"
    assert rows["sizes"]["default"] == "required"


def test_methods_are_listed_with_stage_cost_and_what_they_need():
    found = json.loads(call("methods", "--json").stdout)["entries"]

    for entry in found:
        assert entry["stage"] != "-", entry["name"]
        assert entry["cost"] != "-", entry["name"]
    needs = {entry["name"]: entry["constraints"] for entry in found}
    assert needs["none"] == []
    assert "M >= 2" in needs["opm"]


def test_a_methods_needs_are_read_without_importing_it(tmp_path):
    plugin = tmp_path / "narrow.py"
    plugin.write_text(
        '"""Narrow."""\n'
        'raise RuntimeError("imported")\n'
        'STAGE = "gradient"\n'
        'COST = "nothing"\n'
        "needs = Needs(min_modalities=2, max_modalities=2, held_out=True, unimodal='head',\n"
        "    fusions=frozenset({'concat', 'sum'}), tasks=frozenset({'single_label'}))\n",
        encoding="utf-8",
    )

    facts = method_facts(registry.Entry("methods", "narrow", plugin, "narrow"))

    assert facts.stage == "gradient"
    assert facts.constraints == (
        "M = 2",
        "fusion concat or sum",
        "single_label",
        "unimodal logits by head",
        "validation split",
    )
