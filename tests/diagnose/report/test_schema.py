"""Every report is of the published form, and a saved one is read back or refused with a reason."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from mmtool import registry
from mmtool.diagnose.api import diagnose
from mmtool.diagnose.finding import Finding, Report
from mmtool.diagnose.report.html import render_html
from mmtool.diagnose.report.metric_schema import CODES
from mmtool.diagnose.report.saved import is_saved, read_saved
from mmtool.diagnose.report.schema import report_json_schema
from mmtool.diagnose.rules._runner import rule_id
from mmtool.errors import RequestError

Plant = Callable[..., Path]
Example = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def published() -> jsonschema.Draft202012Validator:
    schema = report_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_schema_names_exactly_the_parts_of_a_report() -> None:
    schema = report_json_schema()
    parts = {field.name for field in dataclasses.fields(Report)}
    assert set(schema["properties"]) == parts | {"ok"}
    assert set(schema["required"]) == parts
    finding = {field.name for field in dataclasses.fields(Finding)}
    assert set(schema["$defs"]["finding"]["properties"]) == finding


def test_the_schema_knows_every_verdict_that_a_rule_can_give() -> None:
    rules = [(name, registry.load("rules", name)) for name in registry.names("rules")]
    assert set(CODES) == {rule_id(name) for name, rule in rules if hasattr(rule, "applies")}


def test_a_whole_report_is_of_the_published_form(
    published: jsonschema.Draft202012Validator, example: Example
) -> None:
    published.validate(example(5))


@pytest.mark.parametrize(
    "manner",
    [
        {},
        {"modalities": {"audio": "ignored", "image": "dominant"}},
        {"modalities": {"audio": "balanced"}},
        {"omit": ("probe", "flip", "alone")},
        {"epochs": 1, "state": "running"},
        {"num_val": 20, "state": "failed"},
        {"modalities": {"a": "balanced", "b": "poor", "c": "dominant"}, "overfit": "c"},
    ],
    ids=["healthy", "dominated", "one", "bare", "running", "failed", "three"],
)
def test_the_report_of_a_run_is_of_the_published_form(
    published: jsonschema.Draft202012Validator, plant: Plant, manner: dict[str, Any]
) -> None:
    report = diagnose([plant(**manner)]).as_dict()
    published.validate(report)
    verdict = report["metrics"].get("verdict") or {}
    assert verdict.get("code") in (*CODES, None)


def test_a_comparison_is_of_the_published_form(
    published: jsonschema.Draft202012Validator, plant: Plant
) -> None:
    report = diagnose([plant("a"), plant("b", method="ogm")])
    published.validate(report.as_dict())


@pytest.mark.parametrize(
    "damage",
    [
        lambda r: r["metrics"]["verdict"].update(code="wonderful"),
        lambda r: r["metrics"]["verdict"].update(confidence=1.5),
        lambda r: r["findings"][0].pop("what"),
        lambda r: r["metrics"]["curves"]["fused"]["val"].update(acc=[[1.0]]),
        lambda r: r.update(schema="mmtool.diagnose/2"),
        lambda r: r["metrics"]["answers"]["audio"].update(reliance={"low": 0.1}),
    ],
)
def test_what_is_not_of_the_published_form_is_found(
    published: jsonschema.Draft202012Validator, example: Example, damage: Callable[..., Any]
) -> None:
    report = example(3)
    damage(report)
    assert not published.is_valid(report)


def test_a_saved_report_draws_the_same_page(example: Example, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"ok": True, **example(5)}), encoding="utf-8")
    assert render_html(read_saved(path)) == render_html(example(5))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "no JSON"),
        ("[]", "schema is None"),
        ('{"schema": "mmtool.diagnose/9"}', "mmtool.diagnose/9"),
        ('{"schema": "mmtool.diagnose/1", "run": "x"}', "verdict"),
    ],
)
def test_what_is_no_saved_report_is_refused(tmp_path: Path, content: str, why: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(RequestError) as refused:
        read_saved(path)
    assert why in refused.value.why


def test_other_json_is_not_taken_for_a_saved_report(tmp_path: Path, example: Example) -> None:
    def saved(content: object, **manner: Any) -> Path:
        path = tmp_path / "file.json"
        path.write_text(json.dumps(content, **manner), encoding="utf-8")
        return path

    assert not is_saved(saved({"traceEvents": [{"name": "mmtool.fwd.audio"}]}))
    assert not is_saved(saved({"log_history": [], "global_step": 4}))
    assert is_saved(saved(example(3)))
    assert is_saved(saved(example(3), sort_keys=True, indent=1))
    assert not is_saved(tmp_path)
