"""The tables beside the verdict: conflicts, classes, groups, robustness, calibration."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmtool.diagnose.api import diagnose
from mmtool.diagnose.verdict.bias import discoveries
from mmtool.diagnose.verdict.calibration import calibration_error
from mmtool.runlog.deep import DeepRecord

Make = Callable[..., DeepRecord]
DeepRun = Callable[..., Path]
HALF = {"audio": 0.7, "image": 0.7}


def metrics(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = diagnose([run]).as_dict()["metrics"]
    return found


def test_in_a_conflict_the_modality_with_which_the_answer_goes_is_counted(
    make: Make, deep_run: DeepRun
) -> None:
    record = make({"audio": 0.4, "image": 0.4}, probe=HALF)
    arrays = dict(record.arrays)
    label = arrays["label"]
    arrays["probe/audio.answer"] = np.where(np.arange(1000) < 900, label, (label + 1) % 8)
    arrays["probe/image.answer"] = np.where(np.arange(1000) < 800, label, (label + 2) % 8)
    # Where they differ, the fused answer is the image's 150 times of 200, else a third one.
    fused = arrays["mean.answer"].copy()
    fused[0] = (label + 3) % 8
    fused[0, 800:900] = arrays["probe/image.answer"][800:900]
    fused[0, 900:950] = arrays["probe/image.answer"][900:950]
    arrays["mean.answer"] = fused
    found = metrics(deep_run(DeepRecord(record.head, arrays)))["bias"]["conflicts"]
    assert found["n"] == 200
    assert found["share"]["image"]["value"] == pytest.approx(0.75)
    assert found["share"]["audio"]["value"] == 0.0
    assert 0.6 < found["share"]["image"]["low"] < 0.75


def test_small_classes_are_pooled_and_ownership_survives_many_comparisons(
    make: Make, deep_run: DeepRun
) -> None:
    record = make({"audio": 0.4, "image": 0.4}, probe=HALF)
    arrays = dict(record.arrays)
    label = arrays["label"].copy()
    label[np.flatnonzero(label == 7)[20:]] = 6
    label[np.flatnonzero(label == 5)[25:]] = 6
    arrays["label"] = label
    rows = metrics(deep_run(DeepRecord(record.head, arrays)))["bias"]["per_class"]
    assert [row["class"] for row in rows][:2] == ["class 0", "class 1"]
    assert rows[-1] == rows[-1] | {"class": "others, pooled", "n": 45}
    assert sum(row["n"] for row in rows) == 1000
    assert all(row["owned_by"] is None for row in rows)


def test_a_group_that_only_one_modality_serves_is_named(make: Make, deep_run: DeepRun) -> None:
    group = np.arange(1000) % 10
    record = make(
        {"audio": 0.4, "image": 0.4},
        probe=HALF,
        group=group,
        classes=10,
        classwise=lambda c, m: (0.7 if m == "audio" else 0.01) if c == 3 else 0.4,
    )
    report = diagnose([deep_run(record)])
    rows = report.metrics["bias"]["per_group"]
    assert [row["owned_by"] for row in rows] == [None] * 3 + ["audio"] + [None] * 6
    assert report.metrics["verdict"]["clusters"] == {"kind": "group", "n": 10}
    assert not any("treat samples as independent" in limit for limit in report.limits)


def test_what_is_left_without_a_modality_or_with_a_damaged_one_is_told_with_its_loss(
    make: Make, deep_run: DeepRun
) -> None:
    record = make({"audio": 0.3, "image": 0.5}, probe=HALF)
    arrays = record.arrays | {"noise/audio.right": (np.arange(1000) < 800).astype(np.float32)}
    found = metrics(deep_run(DeepRecord(record.head, arrays)))["bias"]["robustness"]
    assert set(found["audio"]) == {"missing", "noise"}
    assert set(found["image"]) == {"missing"}
    assert found["audio"]["noise"]["value"] == pytest.approx(0.8)
    assert found["audio"]["noise"]["drop"]["value"] == pytest.approx(0.125, abs=1e-3)
    assert found["image"]["missing"]["drop"]["value"] == pytest.approx(0.5, abs=1e-3)


def test_shapley_values_add_up_to_what_the_modalities_are_worth_together(
    make: Make, deep_run: DeepRun
) -> None:
    train = make({"audio": 0.5, "image": 0.3}, split="train")
    found = metrics(deep_run(make({"audio": 0.3, "image": 0.5}, probe=HALF), train))["shapley"]
    assert set(found) == {"val", "train"}
    assert found["val"]["audio"]["acc"]["value"] == pytest.approx(0.3, abs=5e-3)
    assert found["train"]["audio"]["acc"]["value"] == pytest.approx(0.5, abs=5e-3)
    assert found["val"]["image"]["gain"]["value"] > found["val"]["audio"]["gain"]["value"]


def test_three_answers_are_three_columns_with_source_count_and_floor(
    make: Make, deep_run: DeepRun
) -> None:
    record = make({"audio": 0.3, "image": 0.5}, probe=HALF, headroom={"audio": 0.8, "image": 0.7})
    told = metrics(deep_run(record))["answers"]["audio"]
    assert set(told) == {"reliance", "availability", "informativeness"}
    assert (told["reliance"]["source"], told["reliance"]["n"]) == ("permutation", 1000)
    assert told["availability"]["source"] == "mean feature"
    assert told["informativeness"]["source"] == "headroom"
    assert told["informativeness"]["floor"] is None
    assert told["informativeness"]["gap"]["value"] == pytest.approx(0.1)


def test_false_discoveries_are_kept_below_the_level() -> None:
    # Benjamini and Hochberg's own example: 4 of 15 pass at 0.05.
    given = [
        0.0001,
        0.0004,
        0.0019,
        0.0095,
        0.0201,
        0.0278,
        0.0298,
        0.0344,
        0.0459,
        0.3240,
        0.4262,
        0.5719,
        0.6528,
        0.7590,
        1.0,
    ]
    assert discoveries(given, 0.05) == [True] * 4 + [False] * 11
    assert discoveries(given[::-1], 0.05) == [False] * 11 + [True] * 4
    assert discoveries([], 0.05) == []


def test_confidence_that_fits_has_hardly_any_error_and_confidence_that_does_not_has() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 1.0, 1000)
    fits = (rng.random(1000) < confidence).astype(float)
    boasts = (rng.random(1000) < confidence - 0.25).astype(float)
    small, large = calibration_error(confidence, fits), calibration_error(confidence, boasts)
    assert small is not None
    assert large is not None
    assert small < 0.05
    assert large == pytest.approx(0.25, abs=0.03)
    assert calibration_error(confidence[:30], fits[:30]) is None


def test_the_debiased_error_does_not_grow_when_samples_are_few() -> None:
    rng = np.random.default_rng(1)
    found = []
    for _ in range(40):
        confidence = rng.uniform(0.3, 1.0, 200)
        error = calibration_error(confidence, (rng.random(200) < confidence).astype(float))
        assert error is not None
        found.append(error)
    # Fifteen plain bins of 200 samples would give about 0.1 on the mean.
    assert np.mean(found) < 0.05


def test_calibration_is_told_of_the_fused_answer_and_of_every_probe(
    make: Make, deep_run: DeepRun
) -> None:
    record = make({"audio": 0.3, "image": 0.5}, probe=HALF)
    found = metrics(deep_run(record))["calibration"]
    assert set(found) == {"fused", "audio", "image"}
    assert found["audio"]["ece"] == pytest.approx(0.0, abs=0.02)
    assert found["audio"]["brier"] == pytest.approx(0.7 * 0.09 + 0.3 * 0.49, abs=1e-3)
    assert found["fused"]["n"] == 1000


def test_from_the_log_what_needs_the_checkpoint_is_left_open(plant: Callable[..., Path]) -> None:
    found = metrics(plant())
    assert found["bias"]["conflicts"] is None
    assert "emap" not in found
    assert "shapley" not in found
    assert found["verdict"]["basis"] == "log"
