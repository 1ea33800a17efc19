"""The forms of a report's metrics in the published JSON Schema."""

from __future__ import annotations

from mmtool.diagnose.report.schema_words import (
    COUNT,
    ESTIMATE,
    NUMBER,
    POINTS,
    SHARE,
    TEXT,
    Schema,
    by_name,
    known,
    list_of,
    object_of,
    or_empty,
    or_null,
)

CODES = (
    "balanced", "balanced-redundant", "balanced-complementary", "under-trained", "neglected",
    "low-information", "uninformative", "dead-encoder", "overfit", "harmful", "synergy",
    "class-specific", "no-signal", "cause-unknown", "held-back", "inconclusive", "one-modality",
)  # fmt: skip


def metrics() -> Schema:
    """Give the form of everything under `metrics`."""
    return object_of(
        {
            "verdict": or_empty(_verdict()),
            "answers": by_name(_answer()),
            "bias": _bias(),
            "shapley": by_name(by_name(by_name(or_null(ESTIMATE)))),
            "emap": or_empty(ESTIMATE),
            "calibration": by_name(by_name(known())),
            "balance": _balance(),
            "curves": _curves(),
            "steps": _steps(),
            "where": _where(),
            "plateau": by_name({"type": "object"}),
            "energy": _energy(),
            "overhead": object_of({"share": or_null(NUMBER), "parts": {"type": "object"}}),
            "comparison": _comparison(),
            "runs": list_of({"type": "object"}),
        }
    )


def _verdict() -> Schema:
    runner_up = object_of(
        {"code": {"enum": list(CODES)}, "modalities": list_of(TEXT), "confidence": or_null(SHARE)},
        optional=("modalities", "confidence"),
    )
    names = ("code", "modalities", "sentence")
    properties = {
        "code": {"enum": list(CODES)},
        "modalities": list_of(TEXT),
        "sentence": TEXT,
        "confidence": or_null(SHARE),
        "runner_up": or_null(runner_up),
        "tally": {**by_name(SHARE), "description": "Share of resamples by verdict."},
        "stake": object_of(
            {"accuracy": or_null(ESTIMATE), "robustness": by_name(or_null(ESTIMATE))}
        ),
        "notes": list_of(TEXT),
        "since_epoch": or_null(COUNT),
        "advice": list_of({"$ref": "#/$defs/advice"}),
        "basis": {"anyOf": [TEXT, list_of(TEXT)]},
        "clusters": or_null(object_of({"kind": {"enum": ["group", "sample"]}, "n": COUNT})),
    }
    return object_of(properties, optional=tuple(key for key in properties if key not in names))


def _answer() -> Schema:
    informativeness = {
        "allOf": [
            ESTIMATE,
            object_of({key: known() for key in ("floor", "probe", "headroom", "solo")}),
        ]
    }
    return object_of(
        {
            "reliance": or_empty(ESTIMATE),
            "availability": or_empty(ESTIMATE),
            "informativeness": or_empty(informativeness),
        }
    )


def _bias() -> Schema:
    share = by_name(known())

    def row(key: str) -> Schema:
        return object_of(
            {key: {}, "n": COUNT, "share": share, "owned_by": or_null(TEXT)},
            optional=("owned_by", "n"),
        )

    return object_of(
        {
            "conflicts": or_empty(object_of({"n": COUNT, "share": share}, optional=())),
            "per_class": list_of(row("class")),
            "per_group": list_of(row("group")),
            "robustness": by_name(by_name(or_empty(ESTIMATE))),
        }
    )


def _balance() -> Schema:
    row = object_of({"modality": TEXT, "how": TEXT}, optional=("how",))
    return object_of(
        {
            "epoch": COUNT,
            "split": TEXT,
            "n": COUNT,
            "metric": TEXT,
            "chance": or_null(NUMBER),
            "fused": or_null(ESTIMATE),
            "dominance": or_null(NUMBER),
            "since_epoch": or_null(COUNT),
            "modalities": list_of(row),
        }
    )


def _curves() -> Schema:
    by_split = by_name(by_name(POINTS))
    return object_of({"fused": by_split, "modalities": by_name(by_split)})


def _steps() -> Schema:
    phase = object_of({"name": TEXT, "share": NUMBER}, optional=("share",))
    return object_of(
        {
            "num_steps": COUNT,
            "num_warmup_dropped": COUNT,
            "num_ranks": COUNT,
            "samples_per_s": or_null(NUMBER),
            "max_over_median": NUMBER,
            "step": phase,
            "phases": list_of(phase),
            "straggler": or_null({"type": "object"}),
            "series": {
                **list_of({"type": "object"}),
                "description": "Median and 95th percentile of parts of the run.",
            },
        }
    )


def _where() -> Schema:
    return object_of(
        {
            "phases": list_of(object_of({"name": TEXT}, optional=())),
            "encoders": by_name({"type": "object"}),
            "other_share": or_null(NUMBER),
            "straggler": or_null({"type": "object"}),
        }
    )


def _energy() -> Schema:
    return object_of(
        {
            "total_j": or_null(NUMBER),
            "per_phase": or_null({"type": "object"}),
            "per_modality": or_null({"type": "object"}),
        }
    )


def _comparison() -> Schema:
    change = object_of({"baseline": TEXT, "group": TEXT, "num_seeds": list_of(COUNT)}, optional=())
    return object_of(
        {
            "baseline": TEXT,
            "differing": by_name({"type": "array"}),
            "runs": list_of(object_of({"run": TEXT, "method": TEXT}, optional=())),
            "groups": list_of(object_of({"label": TEXT, "num_seeds": COUNT}, optional=())),
            "changes": list_of(change),
            "bootstrap": {"type": "object"},
        },
        optional=("bootstrap",),
    )
