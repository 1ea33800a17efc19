"""Every verdict is given where it was planted, on both sides of its border, and not elsewhere."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmtool.diagnose.api import diagnose
from mmtool.runlog.deep import DeepRecord

Make = Callable[..., DeepRecord]
DeepRun = Callable[..., Path]
STRONG = {"audio": 0.9, "image": 0.85}


def verdict(run: Path) -> dict[str, Any]:
    """Give the verdict of a report that survived strict JSON."""
    report = diagnose([run]).as_dict()
    found: dict[str, Any] = report["metrics"]["verdict"]
    assert report["findings"][0]["rule"] == found["code"]
    return found


def code(run: Path) -> tuple[str, list[str]]:
    found = verdict(run)
    return found["code"], found["modalities"]


def test_equal_shares_that_add_up_are_balanced_and_complementary(
    make: Make, deep_run: DeepRun
) -> None:
    potential = {"audio": 0.6, "image": 0.6}
    found = verdict(deep_run(make({"audio": 0.4, "image": 0.4}, probe=potential)))
    assert (found["code"], found["modalities"]) == ("balanced-complementary", [])
    assert found["confidence"] > 0.99
    assert found["basis"] == "deep"


@pytest.mark.parametrize(
    ("best", "expected"),
    [(0.925, "balanced-redundant"), (0.89, "balanced"), (0.86, "balanced-complementary")],
)
def test_what_both_gain_over_the_best_alone_names_the_kind_of_balance(
    make: Make, deep_run: DeepRun, best: float, expected: str
) -> None:
    record = make({"audio": 0.4, "image": 0.4}, probe={"audio": 0.7, "image": best})
    assert code(deep_run(record))[0] == expected


@pytest.mark.parametrize(
    ("audio", "expected"),
    [(0.04, ("neglected", ["audio"])), (0.28, ("balanced", []))],
)
def test_the_share_decides_whether_a_modality_is_weak(
    make: Make, deep_run: DeepRun, audio: float, expected: tuple[str, list[str]]
) -> None:
    record = make(
        {"audio": audio, "image": 0.5},
        probe={"audio": 0.6, "image": 0.6},
        headroom={"audio": 0.6, "image": 0.6},
    )
    found, names = code(deep_run(record))
    assert (found.split("-")[0], names) == expected


@pytest.mark.parametrize(("headroom", "expected"), [(0.80, "under-trained"), (0.605, "neglected")])
def test_what_an_encoder_could_still_learn_tells_under_trained_from_neglected(
    make: Make, deep_run: DeepRun, headroom: float, expected: str
) -> None:
    record = make(
        {"audio": 0.03, "image": 0.8},
        probe={"audio": 0.6, "image": 0.85},
        headroom={"audio": headroom, "image": 0.85},
    )
    assert code(deep_run(record)) == (expected, ["audio"])


@pytest.mark.parametrize(("probe", "expected"), [(0.50, "low-information"), (0.64, "neglected")])
def test_what_a_modality_could_reach_tells_little_information_from_a_held_back_one(
    make: Make, deep_run: DeepRun, probe: float, expected: str
) -> None:
    # The border is chance + 0.6 (0.9 - chance) = 0.59.
    both = {"audio": probe, "image": 0.9}
    record = make({"audio": 0.03, "image": 0.8}, probe=both, headroom=both)
    assert code(deep_run(record)) == (expected, ["audio"])


@pytest.mark.parametrize(("solo", "is_told"), [(0.80, True), (0.61, False)])
def test_an_encoder_short_of_its_solo_run_is_told_even_where_nobody_dominates(
    make: Make, deep_run: DeepRun, solo: float, is_told: bool
) -> None:
    record = make(
        {"audio": 0.4, "image": 0.4},
        probe={"audio": 0.6, "image": 0.6},
        solo={"audio": solo, "image": 0.6},
    )
    found = diagnose([deep_run(record)]).metrics["verdict"]

    assert found["code"].startswith("balanced")
    assert any(n.startswith("The encoder of audio falls 0.") for n in found["notes"]) is is_told
    assert not any("encoder of image" in note for note in found["notes"])


def test_a_modality_without_anything_to_read_is_uninformative(
    make: Make, deep_run: DeepRun
) -> None:
    both = {"audio": 0.12, "image": 0.9}
    record = make({"audio": 0.0, "image": 0.8}, probe=both, headroom=both)
    assert code(deep_run(record)) == ("uninformative", ["audio"])


def test_a_modality_that_is_missed_when_permuted_is_not_uninformative(
    make: Make, deep_run: DeepRun
) -> None:
    both = {"audio": 0.12, "image": 0.9}
    record = make({"audio": 0.05, "image": 0.75}, probe=both, headroom=both)
    assert code(deep_run(record)) == ("low-information", ["audio"])


@pytest.mark.parametrize(
    "change",
    [
        {"effective_rank": {"audio": 1.0, "image": 9.0}},
        {"update_norm": {"audio": 0.0, "image": 0.3}},
    ],
)
def test_an_encoder_that_does_not_respond_or_does_not_move_is_dead(
    make: Make, deep_run: DeepRun, change: dict[str, Any]
) -> None:
    record = make({"audio": 0.0, "image": 0.8}, probe={"audio": 0.12, "image": 0.9}, **change)
    assert code(deep_run(record)) == ("dead-encoder", ["audio"])


def test_a_frozen_encoder_and_one_collapsed_to_its_classes_are_not_dead(
    make: Make, deep_run: DeepRun
) -> None:
    record = make(
        {"audio": 0.4, "image": 0.4},
        probe={"audio": 0.7, "image": 0.7},
        effective_rank={"audio": 1.0, "image": 9.0},
        update_norm={"audio": 0.4, "image": 0.0},
        trainable={"audio": True, "image": False},
    )
    assert code(deep_run(record))[0] == "balanced-complementary"


def test_a_fused_score_at_chance_is_no_signal(make: Make, deep_run: DeepRun) -> None:
    record = make({"audio": 0.005, "image": 0.005}, probe={"audio": 0.13, "image": 0.12})
    found = verdict(deep_run(record))
    assert found["code"] == "no-signal"
    assert any("gated" in one["command"] for one in found["advice"])


def test_an_answer_that_is_in_the_interaction_alone_is_synergy(
    make: Make, deep_run: DeepRun
) -> None:
    both = {"audio": 0.12, "image": 0.13}
    record = make({"audio": 0.4, "image": 0.4}, probe=both, headroom=both, synergy=0.3)
    found = verdict(deep_run(record))
    assert (found["code"], found["modalities"]) == ("synergy", [])
    assert found["advice"][0]["text"].startswith("do not balance")


def test_modalities_at_chance_without_a_look_at_the_interaction_are_inconclusive(
    make: Make, deep_run: DeepRun
) -> None:
    both = {"audio": 0.12, "image": 0.13}
    record = make({"audio": 0.4, "image": 0.4}, probe=both, headroom=both, synergy=None)
    found = verdict(deep_run(record))
    assert found["code"] == "inconclusive"
    assert "--deep" in found["advice"][0]["command"]


@pytest.mark.parametrize(("probe", "expected"), [(0.76, "harmful"), (0.66, "balanced-redundant")])
def test_one_encoder_ahead_of_the_fused_answer_names_what_train_rests_on(
    make: Make, deep_run: DeepRun, probe: float, expected: str
) -> None:
    val = make({"audio": 0.26, "image": 0.26}, probe={"audio": 0.4, "image": probe})
    train = make({"audio": 0.75, "image": 0.1}, split="train")
    found, names = code(deep_run(val, train))
    assert found == expected
    assert names == (["audio"] if expected == "harmful" else [])


def test_a_misled_model_at_chance_is_harmful_where_the_training_samples_are_learnt(
    make: Make, deep_run: DeepRun
) -> None:
    val = make({"audio": 0.0, "image": 0.01}, probe={"audio": 0.2, "image": 0.8})
    learnt = make({"audio": 0.8, "image": 0.05}, split="train")
    assert code(deep_run(val, learnt)) == ("harmful", ["audio"])
    not_learnt = make({"audio": 0.01, "image": 0.01}, split="train")
    assert code(deep_run(val, not_learnt, name="other")) == ("no-signal", [])


def test_memorising_counts_only_where_the_decision_rests_on_it(
    make: Make, deep_run: DeepRun
) -> None:
    val = make(
        {"audio": 0.05, "image": 0.6},
        probe={"audio": 0.5, "image": 0.6},
        headroom={"audio": 0.5, "image": 0.6},
    )
    assert code(deep_run(val, overfit="image")) == ("overfit", ["image"])
    assert code(deep_run(val, overfit="audio", name="other"))[0] == "neglected"


def test_what_is_dominant_on_train_only_counts_as_memorised(make: Make, deep_run: DeepRun) -> None:
    val = make({"audio": 0.25, "image": 0.5}, probe={"audio": 0.5, "image": 0.6})
    train = make({"audio": 0.08, "image": 0.78}, split="train")
    assert code(deep_run(val, train, overfit="image")) == ("overfit", ["image"])
    assert code(deep_run(val, val, overfit="image", name="other"))[0].startswith("balanced")


def by_class(record: DeepRecord, knows: Callable[[int, str], float]) -> DeepRecord:
    """Give the record with probes that are right in so many samples of each class."""
    label, arrays = record.arrays["label"], dict(record.arrays)
    place = np.zeros(record.n)
    for c in np.unique(label):
        rows = label == c
        place[rows] = (np.arange(rows.sum()) + 0.5) / rows.sum()
    for m in record.modalities:
        score = np.array([knows(int(c), m) for c in label])
        arrays[f"probe/{m}.right"] = (place < score).astype(np.float32)
    return DeepRecord(record.head, arrays)


@pytest.mark.parametrize(
    ("other", "expected"), [(0.3, "class-specific"), (0.7, "balanced-redundant")]
)
def test_classes_that_one_modality_knows_and_decides_are_class_specific(
    make: Make, deep_run: DeepRun, other: float, expected: str
) -> None:
    def is_its_own(c: int, m: str) -> bool:
        return (c < 4) == (m == "audio")

    record = make(
        {"audio": 0.3, "image": 0.3},
        probe={"audio": 0.7, "image": 0.7},
        classwise=lambda c, m: 0.6 if is_its_own(c, m) else 0.02,
    )
    record = by_class(record, lambda c, m: 0.76 if is_its_own(c, m) else other)
    run = deep_run(record)
    found = verdict(run)
    assert found["code"] == expected
    assert found["modalities"] == (["audio", "image"] if expected == "class-specific" else [])
    # Who decides is listed by class in either case.
    owners = [row["owned_by"] for row in diagnose([run]).metrics["bias"]["per_class"]]
    assert owners == ["audio"] * 4 + ["image"] * 4


def test_two_of_three_modalities_can_be_held_back(make: Make, deep_run: DeepRun) -> None:
    probe, headroom = {"a": 0.9, "t": 0.5, "v": 0.5}, {"a": 0.9, "t": 0.8, "v": 0.8}
    record = make({"a": 0.8, "t": 0.01, "v": 0.01}, probe=probe, headroom=headroom)
    assert code(deep_run(record)) == ("under-trained", ["t", "v"])


def test_a_weak_third_is_named_though_none_of_the_others_dominates(
    make: Make, deep_run: DeepRun
) -> None:
    probe, headroom = {"a": 0.6, "t": 0.3, "v": 0.6}, {"a": 0.6, "t": 0.6, "v": 0.6}
    record = make({"a": 0.4, "t": 0.01, "v": 0.4}, probe=probe, headroom=headroom)
    assert code(deep_run(record)) == ("under-trained", ["t"])


def test_what_is_true_of_another_modality_becomes_a_note(make: Make, deep_run: DeepRun) -> None:
    probe, headroom = {"a": 0.9, "t": 0.5, "v": 0.2}, {"a": 0.9, "t": 0.8, "v": 0.2}
    record = make({"a": 0.8, "t": 0.01, "v": 0.01}, probe=probe, headroom=headroom)
    found = verdict(deep_run(record))
    assert (found["code"], found["modalities"]) == ("under-trained", ["t"])
    assert any(note.startswith("v: low-information") for note in found["notes"])


def test_six_modalities_are_judged_from_some_of_their_subsets(
    make: Make, deep_run: DeepRun
) -> None:
    names = list("abcdef")
    phi = dict.fromkeys(names, 0.15) | {"f": 0.002}
    rng = np.random.default_rng(0)
    rows = [[True] * 6, *(~np.eye(6, dtype=bool)).tolist(), *np.eye(6, dtype=bool).tolist()]
    rows += (rng.random((12, 6)) < 0.5).tolist()
    kept = np.unique([*rows, [False] * 6], axis=0)[::-1]
    order = np.argsort(-kept.sum(axis=1), kind="stable")
    both = dict.fromkeys(names, 0.5)
    record = make(phi, probe=both, headroom=both, kept=kept[order])
    assert len(kept) < 40
    assert code(deep_run(record)) == ("neglected", ["f"])


@pytest.mark.parametrize(
    ("change", "words"),
    [({"epochs": 2}, "2 of at least 3 epochs"), ({}, "150 of at least 200 validation samples")],
)
def test_too_little_is_inconclusive_and_the_runner_up_says_what_it_looks_like(
    make: Make, deep_run: DeepRun, change: dict[str, int], words: str
) -> None:
    record = make(
        {"audio": 0.03, "image": 0.8},
        n=150 if not change else 1000,
        probe={"audio": 0.7, "image": 0.9},
        headroom={"audio": 0.7, "image": 0.9},
    )
    found = verdict(deep_run(record, **change))
    assert found["code"] == "inconclusive"
    assert words in found["sentence"]
    assert found["runner_up"]["code"] == "neglected"
    assert found["advice"]


def test_a_regression_is_judged_by_r2(make: Make, deep_run: DeepRun, regression: Any) -> None:
    record = make(
        {"audio": 0.03, "image": 0.8},
        chance=0.0,
        probe={"audio": 0.3, "image": 0.8},
        headroom={"audio": 0.7, "image": 0.8},
    )
    run = deep_run(regression.record(record))
    regression.mark(run)
    report = diagnose([run])
    found = report.metrics["verdict"]
    assert (found["code"], found["modalities"]) == ("under-trained", ["audio"])
    assert report.metrics["calibration"] == {}
    assert report.metrics["answers"]["image"]["availability"]["value"] == pytest.approx(0.8)


def test_several_labels_are_judged_by_the_share_of_right_answers(
    make: Make, deep_run: DeepRun
) -> None:
    record = make(
        {"audio": 0.02, "image": 0.35},
        chance=0.6,
        probe={"audio": 0.8, "image": 0.9},
        headroom={"audio": 0.9, "image": 0.95},
    )
    arrays = {k: v for k, v in record.arrays.items() if not k.endswith("answer")}
    arrays["label"] = (np.arange(record.n)[:, None] % np.array([2, 3, 5]) == 0).astype(np.float32)
    head = {**record.head, "task": "multi_label", "metric": "label_accuracy"}
    run = deep_run(DeepRecord(head, arrays))
    assert code(run) == ("under-trained", ["audio"])


def test_samples_without_a_modality_are_left_out_of_what_is_about_it_alone(
    make: Make, deep_run: DeepRun
) -> None:
    record = make({"audio": 0.4, "image": 0.4}, probe={"audio": 0.7, "image": 0.7})
    arrays = dict(record.arrays)
    arrays["present"] = arrays["present"].copy()
    arrays["present"][:300, 0] = False
    for name in ("probe/audio.right", "probe/audio.gain", "probe/audio.conf"):
        arrays[name] = np.where(np.arange(record.n) < 300, np.nan, arrays[name])
    report = diagnose([deep_run(DeepRecord(record.head, arrays))])
    told = report.metrics["answers"]["audio"]["informativeness"]["probe"]
    assert told["n"] == 700
    assert told["value"] == pytest.approx(np.nanmean(arrays["probe/audio.right"]))
    assert report.metrics["verdict"]["code"] == "balanced-complementary"


def test_names_and_order_of_modalities_change_nothing(make: Make, deep_run: DeepRun) -> None:
    found = []
    for weak, strong in (("audio", "image"), ("zebra", "ant")):
        record = make(
            {weak: 0.03, strong: 0.8},
            probe={weak: 0.5, strong: 0.9},
            headroom={weak: 0.8, strong: 0.9},
        )
        told = verdict(deep_run(record, name=weak))
        assert told["modalities"] == [weak]
        found.append((told["code"], round(told["confidence"], 1)))
    assert found[0] == found[1]


def test_nothing_at_stake_is_no_warning(make: Make, deep_run: DeepRun) -> None:
    def report(alone: float) -> Any:
        record = make(
            {"audio": 0.03, "image": 0.8},
            probe={"audio": 0.7, "image": 0.9},
            alone={"audio": alone, "image": 0.9},
        )
        return diagnose([deep_run(record, name=f"run{alone}")])

    assert report(0.2).findings[0].severity == "warn"
    calm = report(0.695)
    assert calm.findings[0].severity == "info"
    assert any("no alarm" in note for note in calm.metrics["verdict"]["notes"])
    stake = calm.metrics["verdict"]["stake"]
    assert stake["accuracy"]["source"] == "best probe"
    assert stake["robustness"]["audio"]["value"] == pytest.approx(0.005, abs=1e-6)


def test_a_deep_record_of_another_epoch_gives_way_to_the_log(make: Make, deep_run: DeepRun) -> None:
    run = deep_run(make({"audio": 0.4, "image": 0.4}, probe={"audio": 0.7, "image": 0.7}))
    assert diagnose([run]).metrics["verdict"]["basis"] == "deep"
    assert diagnose([run], epoch=3).metrics["verdict"]["basis"] == "log"


@pytest.mark.parametrize("missing", ["acc", "flip"])
def test_a_log_without_a_number_that_every_verdict_needs_is_inconclusive(
    plant: Callable[..., Path], missing: str
) -> None:
    run = plant()
    log = run / "log" / "rank0.jsonl"
    text = log.read_text(encoding="utf-8").replace(f'"{missing}"', '"other"')
    log.write_text(text, encoding="utf-8")
    found = verdict(run)
    assert found["code"] == "inconclusive"
    assert missing in found["sentence"] + found["advice"][0]["text"]
    assert found["runner_up"] is None


def test_a_run_that_has_not_finished_an_epoch_is_inconclusive(plant: Callable[..., Path]) -> None:
    found = verdict(plant(epochs=0, state="running"))
    assert found["code"] == "inconclusive"
    assert found["confidence"] is None
    assert "no per-modality validation rows" in found["sentence"]


def test_subsets_that_determine_no_share_are_inconclusive(make: Make, deep_run: DeepRun) -> None:
    names = dict.fromkeys("abcdef", 0.1)
    kept = np.array([[True] * 6, [True] + [False] * 5, [False] * 6])
    found = verdict(deep_run(make(names, probe=dict.fromkeys(names, 0.5), kept=kept)))
    assert found["code"] == "inconclusive"
    assert "enough subsets" in found["sentence"]
    assert "--deep" in found["advice"][0]["text"]


def test_a_deep_record_of_one_modality_has_no_balance_to_judge(
    make: Make, deep_run: DeepRun
) -> None:
    found = verdict(deep_run(make({"audio": 0.8}, probe={"audio": 0.9}, synergy=None)))
    assert (found["code"], found["modalities"]) == ("one-modality", ["audio"])
    assert found["advice"] == []


def test_a_solo_run_counts_before_headroom(make: Make, deep_run: DeepRun) -> None:
    record = make(
        {"audio": 0.03, "image": 0.8},
        probe={"audio": 0.6, "image": 0.9},
        headroom={"audio": 0.605, "image": 0.9},
        solo={"audio": 0.85, "image": 0.9},
    )
    run = deep_run(record)
    assert code(run) == ("under-trained", ["audio"])
    told = diagnose([run]).metrics["answers"]["audio"]["informativeness"]
    assert told["source"] == "solo"
    assert told["headroom"]["value"] == pytest.approx(0.605)


def test_a_tie_of_both_modalities_is_balanced(make: Make, deep_run: DeepRun) -> None:
    record = make({"audio": 0.4, "image": 0.4}, probe={"audio": 0.6, "image": 0.6})
    arrays = dict(record.arrays)
    for name in ("permute.right", "permute.gain", "permute.answer"):
        arrays[name] = arrays[name].copy()
        arrays[name][2] = arrays[name][1]
    report = diagnose([deep_run(DeepRecord(record.head, arrays))])
    shares = [report.metrics["answers"][m]["reliance"]["share"] for m in ("audio", "image")]
    assert [share["value"] for share in shares] == [0.5, 0.5]
    assert report.metrics["verdict"]["code"] == "balanced-complementary"
