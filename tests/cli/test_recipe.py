import json

import pytest
from typer.testing import CliRunner

from mmtool import registry
from mmtool.cli.app import app


def call(*arguments):
    return CliRunner().invoke(app, ["recipe", *map(str, arguments)])


@pytest.fixture
def bundled(tmp_path, monkeypatch):
    """A folder of bundled recipes with one recipe."""
    folder = tmp_path / "bundled"
    folder.mkdir()
    (folder / "tiny_none.toml").write_text("# A tiny recipe.\ndata.dataset = 'tiny'\n")
    monkeypatch.setattr(registry, "bundled", lambda _: folder)
    monkeypatch.chdir(tmp_path)
    return folder


def test_show_prints_every_value_with_its_origin_in_columns(recipe):
    found = call("show", recipe, "-s", "train.lr=0.5")

    rows = {line.split()[0]: line for line in found.stdout.splitlines()}
    assert found.exit_code == 0, found.stderr
    assert rows["train.lr"].split()[1] == "0.5"
    assert "-s" in rows["train.lr"]
    assert "demo.toml:" in rows["train.epochs"]
    assert rows["train.seed"].rstrip().endswith("default")
    assert rows["method.width"].split()[1] == "8"


def test_show_as_json_gives_values_and_origins(recipe):
    document = json.loads(call("show", recipe, "--json").stdout)

    assert document["schema"] == "mmtool.recipe/1"
    assert document["values"]["train"]["epochs"] == 2
    assert document["origins"]["train.seed"] == "default"


def test_check_says_valid_on_stdout(recipe):
    found = call("check", recipe)

    assert found.exit_code == 0
    assert found.stdout == "demo.toml: valid\n"


def test_check_shows_every_problem_with_its_place_and_starts_nothing(recipe):
    recipe.write_text(recipe.read_text() + "lr = '0.1'\nepoch = 3\n")

    found = call("check", recipe)

    assert found.exit_code == 2
    assert found.stdout == ""
    assert "demo.toml:14:" in found.stderr
    assert "demo.toml:15:" in found.stderr
    assert "did you mean 'epochs'?" in found.stderr
    assert "error: 2 problems in demo.toml; nothing was started" in found.stderr


def test_check_of_several_recipes_reports_all_bad_ones(recipe):
    bad = recipe.with_name("bad.toml")
    bad.write_text(recipe.read_text() + "epoch = 3\n")

    found = call("check", recipe, bad, "absent.toml")

    assert found.exit_code == 2
    assert "bad.toml:14:" in found.stderr
    assert "\nerror: there is no recipe" in found.stderr
    assert "2 of 3 recipes have problems" in found.stderr


def test_check_as_json_lists_the_problems(recipe):
    recipe.write_text(recipe.read_text() + "epoch = 3\n")

    found = call("check", recipe, "--json")

    document = json.loads(found.stdout)
    assert found.exit_code == document["exit_code"] == 2
    assert document["error"]["problems"][0]["path"] == ["train", "epoch"]


def test_copy_prints_the_path_of_a_copy_to_edit(bundled, tmp_path):
    found = call("copy", "tiny_none")

    assert found.exit_code == 0
    assert found.stdout == "tiny_none.toml\n"
    copied = tmp_path / "tiny_none.toml"
    assert copied.read_text() == (bundled / "tiny_none.toml").read_text()
    assert "mmtool train tiny_none.toml" in found.stderr


def test_copy_never_replaces_a_file_unless_forced(bundled, tmp_path):
    mine = tmp_path / "mine.toml"
    mine.write_text("my changes")

    refused = call("copy", "tiny_none", mine)
    kept = mine.read_text()
    forced = call("copy", "tiny_none", mine, "--force")

    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert kept == "my changes"
    assert forced.exit_code == 0
    assert mine.read_text() != "my changes"


def test_copy_into_a_folder_keeps_the_name(bundled, tmp_path):
    (tmp_path / "here").mkdir()

    found = call("copy", "tiny_none.toml", tmp_path / "here")

    assert found.stdout.strip() == str(tmp_path / "here" / "tiny_none.toml")


def test_copy_of_an_unknown_recipe_suggests_a_known_one(bundled):
    found = call("copy", "tiny_non")

    assert found.exit_code == 2
    assert "'tiny_none'" in found.stderr


def test_schema_is_json_on_stdout_or_in_a_file(tmp_path):
    printed = call("schema")
    written = call("schema", "--out", tmp_path / "recipe.schema.json")

    assert printed.exit_code == written.exit_code == 0, printed.stderr
    assert "train" in json.loads(printed.stdout)["properties"]
    assert json.loads((tmp_path / "recipe.schema.json").read_text()) == json.loads(printed.stdout)
    assert written.stdout.strip() == str(tmp_path / "recipe.schema.json")
