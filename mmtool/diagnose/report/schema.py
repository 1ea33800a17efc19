"""The published JSON Schema of a report, as `mmtool diagnose --json` writes it.

A report may lack any metric; what it has is of the form given here. Minor additions keep the schema
id, and a reader passes over keys that it does not know.
"""

from __future__ import annotations

from mmtool.diagnose.finding import REPORT_SCHEMA, SEVERITIES
from mmtool.diagnose.report.metric_schema import metrics
from mmtool.diagnose.report.schema_words import (
    COUNT,
    NUMBER,
    POINTS,
    SHARE,
    TEXT,
    TRUTH,
    Schema,
    by_name,
    list_of,
    object_of,
    or_null,
)

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def report_json_schema() -> Schema:
    """Give the schema of a report."""
    return {
        "$schema": DIALECT,
        "$id": f"https://mmtool.invalid/{REPORT_SCHEMA}",
        "title": "mmtool diagnose",
        "description": "What mmtool diagnose says about a run, or about several side by side.",
        **object_of(
            {
                "schema": {"const": REPORT_SCHEMA},
                "ok": {"const": True, "description": "Only on the command line's output."},
                "run": TEXT,
                "verdict": {**TEXT, "description": "One or a few sentences."},
                "findings": list_of({"$ref": "#/$defs/finding"}),
                "metrics": metrics(),
                "system": _system(),
                "limits": list_of(TEXT),
                "meta": _meta(),
            },
            optional=("ok",),
        ),
        "$defs": {"estimate": _estimate(), "finding": _finding(), "advice": _advice()},
    }


def _estimate() -> Schema:
    return {
        "description": "A value with its 95 % interval, n samples, and how it was obtained.",
        **object_of(
            {
                "value": or_null(NUMBER),
                "low": or_null(NUMBER),
                "high": or_null(NUMBER),
                "n": or_null(NUMBER),
                "source": or_null(TEXT),
            },
            optional=("low", "high", "n", "source"),
        ),
    }


def _finding() -> Schema:
    return object_of(
        {
            "rule": TEXT,
            "severity": {"enum": list(SEVERITIES)},
            "what": TEXT,
            "modality": or_null(TEXT),
            "evidence": {
                "type": "object",
                "description": "Numbers by name; an interval is [low, high] under <name>_ci95.",
            },
            "advice": TEXT,
            "confidence": or_null(SHARE),
        },
        optional=(),
    )


def _advice() -> Schema:
    return object_of(
        {
            "text": TEXT,
            "recipe_patch": {"type": ["string", "object", "array", "null"]},
            "command": or_null(TEXT),
            "preconditions": list_of(TEXT),
            "method": or_null(TEXT),
        },
        optional=("recipe_patch", "command", "preconditions", "method"),
    )


def _system() -> Schema:
    return object_of(
        {
            "num_samples": COUNT,
            "summary": by_name({"type": "object"}),
            "timeline": by_name(POINTS),
        }
    )


def _meta() -> Schema:
    return object_of(
        {
            "modalities": list_of(TEXT),
            "status": {"type": "object"},
            "finished": TRUTH,
            "thresholds": {"type": "object"},
            "recipe": TEXT,
            "environment": {"type": "object"},
        }
    )
