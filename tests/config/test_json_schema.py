"""The schema for editors knows every key, every plugin and every plugin's options."""

from collections.abc import Iterator
from typing import Any

from mmtool import registry
from mmtool.config.json_schema import recipe_json_schema


def nodes(node: Any) -> Iterator[Any]:
    yield node
    for member in node.values() if isinstance(node, dict) else node:
        if isinstance(member, (dict, list)):
            yield from nodes(member)


def test_the_schema_refers_only_to_what_it_defines():
    schema = recipe_json_schema()
    refers = [n["$ref"] for n in nodes(schema) if isinstance(n, dict) and "$ref" in n]
    assert len(refers) >= 8
    assert {ref.removeprefix("#/$defs/") for ref in refers} <= set(schema["$defs"])


def test_sections_have_descriptions_and_extends_is_a_key():
    schema = recipe_json_schema()
    assert set(schema["properties"]) == {
        *("extends", "suite", "data", "model", "method", "train", "launch", "log")
    }
    train = schema["$defs"]["TrainConfig"]
    assert "over all ranks" in train["properties"]["batch_size"]["description"]
    assert train["additionalProperties"] is False


def test_only_a_recipe_that_extends_nothing_must_be_complete():
    schema = recipe_json_schema()
    assert "required" not in schema
    assert "required" not in schema["$defs"]["TrainConfig"]
    assert schema["if"] == {"not": {"required": ["extends"]}}
    assert schema["then"]["required"] == ["data", "model", "train"]
    assert schema["then"]["properties"]["train"]["required"] == ["epochs", "batch_size"]


def test_toml_has_no_null_so_an_optional_key_takes_unset():
    schema = recipe_json_schema()
    assert not any(isinstance(n, dict) and n.get("type") == "null" for n in nodes(schema))
    clip_norm = schema["$defs"]["TrainConfig"]["properties"]["clip_norm"]
    assert {"const": "unset"} in clip_norm["anyOf"]
    assert "default" not in clip_norm


def test_a_plugin_is_one_of_the_known_names_a_table_or_a_file(monkeypatch, tmp_path):
    folder = tmp_path / "methods"
    folder.mkdir()
    (folder / "tried.py").write_text(
        '"""Tried method."""\n'
        "from mmtool.config.schema import Options as Base, Section\n"
        "class Inner(Section):\n    depth: int\n"
        "class Options(Base):\n"
        '    alpha: float\n    """How strong."""\n    inner: Inner = Inner(depth=1)\n'
    )
    (folder / "broken.py").write_text('"""Broken."""\nraise RuntimeError\n')
    entry = {
        stem: registry.Entry("methods", stem, folder / f"{stem}.py", f"{folder / stem}.py")
        for stem in ("broken", "tried")
    }
    known = registry.entries
    monkeypatch.setattr(
        "mmtool.registry.entries", lambda kind: entry if kind == "methods" else known(kind)
    )
    monkeypatch.setattr("importlib.import_module", lambda t: registry.load_file(type(folder)(t)))
    definitions = recipe_json_schema()["$defs"]
    assert definitions["methods"]["oneOf"][0]["enum"] == ["broken", "tried"]
    tried = definitions["methods.tried"]
    assert tried["description"] == "Tried method."
    assert tried["required"] == ["name", "alpha"]
    assert tried["properties"]["name"] == {"const": "tried"}
    assert tried["properties"]["alpha"]["description"] == "How strong."
    assert tried["properties"]["inner"]["$ref"] == "#/$defs/methods.tried.Inner"
    assert definitions["methods.tried.Inner"]["required"] == ["depth"]
    assert tried["additionalProperties"] is False
    assert "additionalProperties" not in definitions["methods.broken"]
