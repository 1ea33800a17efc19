import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mmtool import registry
from mmtool.cli.app import app
from mmtool.cli.output import Output
from mmtool.cli.prepare import ensure_prepared, parse_settings
from mmtool.errors import DatasetNotPrepared, RequestError


def call(*arguments):
    return CliRunner().invoke(app, ["prepare", *map(str, arguments)])


def test_prepare_prints_the_path_of_the_store_alone(preparer):
    found = call("./tiny.py", "--workers", "1")

    assert found.exit_code == 0, found.stderr
    assert found.stdout == "data/tiny\n"
    assert Path("data/tiny/manifest.json").is_file()


def test_licence_source_and_citation_are_told_before_the_work(preparer):
    told = call("./tiny.py").stderr.splitlines()

    first = [line.split(":")[0] for line in told[:4]]
    assert first == ["dataset", "licence", "source", "cite"]
    assert told[1].split()[-1] == "CC0"
    assert any(line.startswith("prepare tiny: started") for line in told[4:])


def test_json_describes_the_store(preparer):
    document = json.loads(call("./tiny.py", "--out", "store", "--json", "-q").stdout)

    assert document["schema"] == "mmtool.prepare/1"
    assert document["path"] == "store"
    assert document["report"]["clips"] == 12
    assert len(document["hash"]) >= 12


def test_options_of_the_dataset_are_passed_on(preparer):
    found = call("./tiny.py", "-s", "num_clips=8", "--json")

    assert json.loads(found.stdout)["report"]["clips"] == 8


def test_a_dry_run_writes_nothing(preparer):
    found = call("./tiny.py", "--dry-run")

    assert found.exit_code == 0, found.stderr
    assert "12 clips" in found.stderr
    assert not Path("data").exists()


def test_an_occupied_place_is_kept_unless_overwritten(preparer):
    call("./tiny.py")
    Path("tiny.py").write_text(Path("tiny.py").read_text().replace("sentence {", "word {"))

    refused = call("./tiny.py", "-s", "num_clips=8")
    replaced = call("./tiny.py", "-s", "num_clips=8", "--overwrite")

    assert refused.exit_code != 0
    assert "--overwrite" in refused.stderr
    assert replaced.exit_code == 0, replaced.stderr


def test_a_source_of_another_kind_is_refused_before_work(preparer, tmp_path):
    (tmp_path / "empty").mkdir()

    found = call("./tiny.py", "--source", tmp_path / "empty")

    assert found.exit_code == 2
    assert "this is not the tiny release" in found.stderr
    assert found.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [("--out", "x", "--data-root", "y"), ("--overwrite", "--dry-run")],
    ids=lambda pair: " ".join(pair),
)
def test_options_that_cancel_each_other_are_refused(preparer, arguments):
    found = call("./tiny.py", *arguments)

    assert found.exit_code == 2
    assert "cannot be given together" in found.stderr


def test_an_unknown_dataset_is_refused():
    assert call("no-such-dataset").exit_code == 2


def test_settings_are_split_at_the_first_equals_sign():
    assert parse_settings(["a=b=c", " d =1"]) == {"a": "b=c", "d": "1"}


@pytest.mark.parametrize("settings", [["novalue"], ["=1"], ["a=1", "a=2"]])
def test_malformed_or_double_settings_are_refused(settings):
    with pytest.raises(RequestError):
        parse_settings(settings)


def test_bundled_data_is_prepared_when_a_recipe_needs_it(
    preparer, recipe, tmp_path, monkeypatch, capsys
):
    from mmtool.config.load import load_recipe

    bundled = {"datasets": tmp_path, "data_prep": tmp_path, "recipes": tmp_path}
    monkeypatch.setattr(registry, "bundled", bundled.__getitem__)
    loaded = load_recipe(str(recipe))
    root = tmp_path / "data"

    with pytest.raises(DatasetNotPrepared) as refused:
        ensure_prepared(Output(environ={}), loaded, root, dry_run=True)
    ensure_prepared(Output(environ={}), loaded, root)
    told = capsys.readouterr()
    ensure_prepared(Output(environ={}), loaded, root)

    assert refused.value.fix == f"mmtool prepare tiny --data-root {root}"
    assert "preparing its bundled samples first" in told.err
    assert told.out == ""
    assert (root / "tiny" / "manifest.json").is_file()
    assert capsys.readouterr().err == ""
