"""A report that has everything a report can have, of three modalities with hostile names."""

import math
from collections.abc import Callable
from typing import Any

import pytest

HOSTILE = '<script>alert("x")</script>'
CLASSES = [f"class {i}" for i in range(11)] + [HOSTILE]
MODALITIES = ("audio", "video", "<text & 'co'>")
Example = Callable[..., dict[str, Any]]


def known(value: float, half: float = 0.03, **more: Any) -> dict[str, Any]:
    return {"value": value, "low": value - half, "high": value + half, "n": 1000, **more}


def curve(end: float, epochs: int, pace: float) -> list[list[float]]:
    return [
        [e, round(end - (end - 0.1) * math.exp(-pace * e) + 0.01 * math.sin(7 * e), 6)]
        for e in range(epochs)
    ]


def curves(epochs: int) -> dict[str, Any]:
    ends = dict(zip(MODALITIES, (0.78, 0.61, 0.34), strict=True))
    per_modality: dict[str, Any] = {}
    for i, (name, end) in enumerate(ends.items(), start=1):
        val = {k: curve(end - 0.02 * j, epochs, 0.2 / i) for j, k in enumerate(("acc", "probe"))}
        for key, scale in (("nll", 2.0), ("probe_nll", 1.9), ("alone", 0.5), ("drop", 0.3)):
            val[key] = curve(end * scale, epochs, 0.1)
        val |= {"flip": curve(end / 2, epochs, 0.3), "share": curve(end / 1.73, epochs, 0.4)}
        train = {"acc": curve(end + 0.1, epochs, 0.2), "nll": curve(end, epochs, 0.2)}
        per_modality[name] = {"val": val, "train": train}
    fused = {
        split: {k: curve(0.85 - gap, epochs, 0.2) for k in ("acc", "loss", "f1_macro")}
        for split, gap in (("train", -0.1), ("val", 0.0), ("test", 0.01))
    }
    return {"fused": fused, "modalities": per_modality}


def verdict() -> dict[str, Any]:
    second = MODALITIES[1]
    return {
        "code": "under-trained",
        "modalities": [second],
        "sentence": f"{second} is under-trained: it could reach 0.74 and its encoder gives 0.61.",
        "confidence": 0.93,
        "runner_up": {"code": "low-information", "modalities": [second], "confidence": 0.05},
        "tally": {f"under-trained:{second}": 0.93, f"low-information:{second}": 0.05, "x": 0.02},
        "stake": {"accuracy": known(0.04), "robustness": {second: known(0.2)}},
        "notes": [f"{HOSTILE} is rare"],
        "since_epoch": 7,
        "advice": [
            {
                "text": "Slow the modality that is ahead.",
                "recipe_patch": '[method]\nname = "ogm"\nalpha = 0.8',
                "preconditions": ["the fusion is a concatenation"],
                "method": "ogm",
            },
            {"text": "Warm it up.", "recipe_patch": "", "preconditions": [], "method": None},
        ],
        "basis": ["deep", "log"],
        "clusters": {"kind": "group", "n": 91},
    }


def answers() -> dict[str, Any]:
    shares = dict(zip(MODALITIES, (0.81, 0.14, 0.05), strict=True))
    return {
        name: {
            "reliance": known(share, source="permutation, 5 draws"),
            "availability": known(0.3 + share / 2, source="the others as their mean"),
            "informativeness": known(
                0.6,
                source="refitted probe",
                floor=known(0.22),
                probe=known(0.6),
                headroom=known(0.7),
                solo=known(0.74),
            ),
        }
        for name, share in shares.items()
    }


def bias() -> dict[str, Any]:
    def share(at: int) -> dict[str, Any]:
        first = 0.95 - 0.07 * at
        return {
            m: known(s, 0.05) for m, s in zip(MODALITIES, (first, 0.9 - first, 0.1), strict=True)
        }

    kinds = ("missing", "noise", "blank", "swapped")
    return {
        "conflicts": {"n": 210, "share": share(3)},
        "per_class": [
            {
                "class": name,
                "n": 80,
                "share": share(i),
                "owned_by": MODALITIES[0] if i < 3 else None,
            }
            for i, name in enumerate(CLASSES)
        ],
        "per_group": [
            {"group": f"speaker {HOSTILE}", "n": 40, "share": share(2), "owned_by": None}
        ],
        "robustness": {
            m: {k: known(0.7 - 0.1 * i, drop=0.1 * i) for i, k in enumerate(kinds)}
            for m in MODALITIES
        },
    }


def machine() -> dict[str, Any]:
    phases = ("data", "transfer", "forward", "backward", "sync", "optimizer", "other")
    return {
        "steps": {
            "num_steps": 4000,
            "num_warmup_dropped": 5,
            "num_ranks": 1,
            "samples_per_s": 812.0,
            "max_over_median": 3.1,
            "step": {"name": "step", "mean_ms": 63.0, "p50_ms": 61.0, "p95_ms": 80.0, "share": 1.0},
            "phases": [
                {"name": p, "mean_ms": 9.0, "p50_ms": 8.5, "p95_ms": 14.0, "share": 1 / 7}
                for p in phases
            ],
            "straggler": None,
            "series": [
                {"step": 100 * i, "p50_ms": 60.0 + i % 5, "p95_ms": 75.0 + i % 9} for i in range(40)
            ],
        },
        "where": {
            "phases": [{"name": p, "ms_p50": 8.5, "ms_p95": 14.0, "share": 1 / 7} for p in phases],
            "encoders": {
                m: {"forward_ms": 4.0 + i, "backward_ms": 8.0 + i, "share": 0.2}
                for i, m in enumerate(MODALITIES)
            },
            "other_share": 0.1,
            "straggler": None,
        },
        "plateau": {
            m: {
                "epoch": 20 * i,
                "share_of_run": 0.2 * i,
                "wasted_share": 0.3 * i,
                "gpu_hours": None,
                "joules": None,
                "how": "probe loss",
            }
            for i, m in enumerate(MODALITIES)
        },
        "energy": {
            "total_j": 12345.0,
            "per_phase": {"train": 12000.0, "evaluate": 345.0},
            "per_modality": {m: 4000.0 + i for i, m in enumerate(MODALITIES)},
        },
        "overhead": {"share": 0.0061, "parts": {"probe": 0.004}},
    }


def deep() -> dict[str, Any]:
    split = {m: {"acc": known(0.5 - 0.1 * i), "gain": known(0.9)} for i, m in enumerate(MODALITIES)}
    return {
        "shapley": {"val": split, "train": split},
        "emap": known(0.02, 0.01, how="exact"),
        "calibration": {k: {"ece": 0.04, "nll": 0.7, "brier": 0.2, "n": 1000}
                        for k in ("fused", *MODALITIES)},
    }  # fmt: skip


@pytest.fixture
def example() -> Example:
    """Give a whole report as plain data, of so many epochs."""

    def build(epochs: int = 100, *, samples: int = 400) -> dict[str, Any]:
        rows = [
            {
                "modality": m,
                "how": "decompose",
                "drop_share": 0.3,
                **{k: known(0.5) for k in ("flip", "share", "drop", "alone", "probe", "unimodal")},
                "reference": None,
                "gap": None,
                "reference_run": None,
            }
            for m in MODALITIES
        ]
        signals = ("cpu_percent", "rss_mb", "load1", "gpu0_util", "gpu0_mem_mb", "gpu0_power_w")
        return {
            "schema": "mmtool.diagnose/1",
            "run": f"run {HOSTILE}",
            "verdict": verdict()["sentence"],
            "findings": [
                {
                    "rule": "under-trained",
                    "severity": "warn",
                    "what": verdict()["sentence"],
                    "modality": MODALITIES[1],
                    "evidence": {"probe": 0.61, "probe_ci95": [0.58, 0.64], "share": 0.14},
                    "advice": "",
                    "confidence": 0.93,
                },
                {
                    "rule": "data-bound",
                    "severity": "warn",
                    "what": "a seventh of every step waits for data",
                    "modality": None,
                    "evidence": {"data_share": 0.14},
                    "advice": "mmtool train RECIPE -s data.workers=2",
                    "confidence": None,
                },
            ],
            "metrics": {
                "balance": {
                    "epoch": epochs - 1,
                    "split": "val",
                    "n": 1000,
                    "metric": "accuracy",
                    "chance": 0.12,
                    "fused": known(0.85),
                    "dominance": 0.7,
                    "since_epoch": 7,
                    "modalities": rows,
                },
                "curves": curves(epochs),
                "verdict": verdict(),
                "answers": answers(),
                "bias": bias(),
                **machine(),
                **deep(),
            },
            "system": {
                "num_samples": samples,
                "summary": {s: {"mean": 50.0, "max": 90.0} for s in signals},
                "timeline": {
                    s: [[float(i), round(50 + 30 * math.sin(i / 9 + j), 3)] for i in range(samples)]
                    for j, s in enumerate(signals)
                },
            },
            "limits": ["A shortcut that also holds in validation cannot be told from information."],
            "meta": {
                "path": "/runs/x",
                "modalities": list(MODALITIES),
                "method": "none",
                "fusion": "concat",
                "dataset": "planted",
                "dataset_hash": "abc",
                "classes": CLASSES,
                "batch_size": 64,
                "epochs": epochs,
                "steps_per_epoch": 40,
                "num_val": 1000,
                "task": "single_label",
                "metric": "accuracy",
                "parameters": dict.fromkeys(MODALITIES, 1000),
                "log_schema": "mmtool-log/1.0",
                "seed": 0,
                "status": {"state": "done", "reason": ""},
                "finished": True,
                "thresholds": {"version": "1", "dominance": 0.44},
                "recipe": f"# {HOSTILE}\n[method]\nname = 'none'\n",
                "environment": {"host": "<b>node</b>", "torch": "2.14"},
            },
        }

    return build
