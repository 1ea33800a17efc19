"""Each planted truth is named, with its evidence, and nothing is named that was not planted."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mmtool import registry
from mmtool.diagnose.api import closing_line, diagnose
from mmtool.diagnose.finding import Finding, Report
from mmtool.diagnose.rules._advice import SCALING_METHODS
from mmtool.errors import MmtoolError, RequestError
from mmtool.testing.recorded import Scenario, write_run

Plant = Callable[..., Path]
DOMINATED = {"audio": "ignored", "image": "dominant"}


def only(report: Report, rule: str) -> Finding:
    found = [finding for finding in report.findings if finding.rule == rule]
    assert len(found) == 1, [finding.rule for finding in report.findings]
    return found[0]


def rules(report: Report) -> set[str]:
    return {finding.rule for finding in report.findings}


def test_a_dominant_image_and_a_neglected_audio_are_named_with_evidence(plant: Plant) -> None:
    report = diagnose([plant(modalities=DOMINATED)])
    dominant = only(report, "dominant-modality")
    assert (dominant.modality, dominant.severity) == ("image", "warn")
    assert dominant.evidence["share_ci95"][0] > 0.72
    assert dominant.evidence["n"] == 600
    assert dominant.evidence["split"] == "val"
    assert dominant.evidence["since_epoch"] == 1
    assert dominant.confidence is not None
    assert dominant.confidence > 0.95
    starved = only(report, "starved-modality")
    assert (starved.modality, starved.severity) == ("audio", "warn")
    assert starved.evidence["cause"] == "neglected"
    assert starved.evidence["probe"] > 0.55 > starved.evidence["alone"]
    assert "mmtool train" in starved.advice
    line = closing_line(report)
    assert line.startswith("image dominates")
    assert "try: mmtool diagnose" in line
    assert "\n" not in line


def test_balanced_modalities_give_no_warning_and_say_no_imbalance_found(plant: Plant) -> None:
    report = diagnose([plant()])
    assert "no imbalance found" in only(report, "no-imbalance").what
    assert not report.at_least("warn")
    assert report.verdict.startswith("No imbalance found")


def test_three_balanced_modalities_give_no_warning(plant: Plant) -> None:
    report = diagnose([plant(modalities=dict.fromkeys(("audio", "image", "text"), "balanced"))])
    assert rules(report) == {"no-imbalance"}


def test_a_poor_weak_modality_is_called_undecided_and_the_deciding_command_is_given(
    plant: Plant,
) -> None:
    report = diagnose([plant(modalities={"audio": "poor", "image": "dominant"})])
    starved = only(report, "starved-modality")
    assert starved.severity == "info"
    assert starved.evidence["cause"] == "undecided"
    assert "data.modalities" in starved.advice
    assert "mmtool diagnose" in starved.advice
    assert not report.at_least("warn")
    assert "no-imbalance" not in rules(report)


def test_a_run_of_the_modality_alone_turns_undecided_into_starved(plant: Plant) -> None:
    joint = plant("joint", modalities={"audio": "poor", "image": "dominant"})
    solo = plant("solo", modalities={"audio": "balanced"}, acc=0.6)
    report = diagnose([joint, solo])
    starved = only(report, "starved-modality")
    assert starved.severity == "warn"
    assert starved.evidence["cause"] == "undertrained"
    assert starved.evidence["gap_ci95"][0] > 0.02
    assert starved.evidence["reference_run"] == "solo"
    assert only(report, "dominant-modality").severity == "warn"


def test_a_run_alone_that_is_no_better_clears_the_dominant_modality(plant: Plant) -> None:
    joint = plant("joint", modalities={"audio": "poor", "image": "dominant"})
    solo = plant("solo", modalities={"audio": "poor"}, acc=0.24)
    report = diagnose([joint, solo])
    assert "starved-modality" not in rules(report)
    assert only(report, "dominant-modality").severity == "info"
    assert "not a failure" in report.verdict


def test_a_reference_from_another_dataset_is_refused_with_a_note(plant: Plant) -> None:
    joint = plant("joint", modalities={"audio": "poor", "image": "dominant"})
    solo = plant("solo", modalities={"audio": "balanced"}, acc=0.6, dataset_hash="other")
    report = diagnose([joint, solo])
    assert only(report, "starved-modality").severity == "info"
    assert any("another dataset" in limit for limit in report.limits)


def test_one_of_three_modalities_dominates_and_both_others_are_starved(plant: Plant) -> None:
    report = diagnose([plant(modalities={**DOMINATED, "text": "ignored"})])
    assert only(report, "dominant-modality").modality == "image"
    starved = {f.modality for f in report.findings if f.rule == "starved-modality"}
    assert starved == {"audio", "text"}


@pytest.mark.parametrize("scenario", ["image_dominant", "balanced", "overfit", "loader_bound"])
@pytest.mark.parametrize("seed", [0, 1])
def test_recorded_scenarios_give_exactly_the_warnings_they_were_recorded_for(
    tmp_path: Path, scenario: Scenario, seed: int
) -> None:
    expected = {
        "image_dominant": {"dominant-modality", "starved-modality"},
        "balanced": set(),
        "overfit": {"unimodal-overfit"},
        "loader_bound": {"loader-bound"},
    }
    report = diagnose([write_run(tmp_path / "run", scenario=scenario, epochs=6, seed=seed)])
    assert {finding.rule for finding in report.at_least("warn")} == expected[scenario]


def test_without_probes_the_sentence_says_that_no_probe_was_logged(plant: Plant) -> None:
    run = plant(modalities=DOMINATED, omit=["probe", "probe_nll"])
    assert "no probe was logged" in only(diagnose([run]), "starved-modality").what


def test_balance_can_be_judged_at_an_earlier_epoch_but_not_at_one_that_is_missing(
    plant: Plant,
) -> None:
    run = plant(modalities=DOMINATED)
    assert diagnose([run], epoch=3).metrics["balance"]["epoch"] == 3
    with pytest.raises(RequestError, match="no validation of epoch 99"):
        diagnose([run], epoch=99)


def test_scaling_gradients_is_not_advised_under_adam_without_a_warning(plant: Plant) -> None:
    advice = only(diagnose([plant(modalities=DOMINATED)]), "starved-modality").advice
    scales = any(f"method={name}" in advice for name in SCALING_METHODS)
    assert ("adamw largely cancels" in advice) is scales


def test_memorising_one_modality_is_named(plant: Plant) -> None:
    finding = only(diagnose([plant(overfit="image")]), "unimodal-overfit")
    assert finding.modality == "image"
    assert finding.evidence["nll_val_min_epoch"] == 2
    assert finding.evidence["nll_val"] > finding.evidence["nll_val_min"]


@pytest.mark.parametrize(("data_ms", "fires"), [(60.0, True), (2.0, False)])
def test_waiting_for_data_is_named_only_when_it_matters(
    plant: Plant, data_ms: float, fires: bool
) -> None:
    report = diagnose([plant(data_ms=data_ms)])
    assert ("loader-bound" in rules(report)) is fires
    if fires:
        finding = only(report, "loader-bound")
        assert finding.evidence["data_share"] == pytest.approx(60 / 123.3, abs=0.01)
        assert finding.evidence["num_warmup_dropped"] == 5


def test_a_truncated_log_of_a_killed_run_is_still_read(plant: Plant) -> None:
    run = plant(modalities=DOMINATED, state="running")
    log = run / "log" / "rank0.jsonl"
    log.write_bytes(log.read_bytes()[:-37])
    report = diagnose([run])
    unfinished = only(report, "unfinished")
    assert "still going or was killed" in unfinished.what
    assert "--resume" in unfinished.advice
    assert only(report, "dominant-modality").modality == "image"


def test_missing_columns_are_inconclusive_and_say_what_would_supply_them(plant: Plant) -> None:
    report = diagnose([plant(modalities=DOMINATED, omit=["flip"])])
    finding = only(report, "inconclusive")
    assert "flip" in finding.what
    assert finding.advice
    assert rules(report) == {"inconclusive"}


@pytest.mark.parametrize(
    ("change", "words"),
    [({"epochs": 2}, "2 of at least 3 epochs"), ({"num_val": 60}, "60 of at least 200")],
)
def test_too_little_data_is_inconclusive(plant: Plant, change: dict[str, int], words: str) -> None:
    report = diagnose([plant(modalities=DOMINATED, **change)])
    assert words in only(report, "inconclusive").what
    assert not report.at_least("warn")


def test_accuracy_at_chance_is_no_signal_and_silences_the_balance_rules(plant: Plant) -> None:
    report = diagnose([plant(modalities=DOMINATED, acc=0.19)])
    assert only(report, "no-signal").severity == "warn"
    assert not rules(report) & {"dominant-modality", "starved-modality", "no-imbalance"}


def test_skipped_updates_are_counted(plant: Plant) -> None:
    finding = only(diagnose([plant(skipped_steps=[7, 9, 11, 13])]), "nonfinite")
    assert finding.evidence["num_skipped"] == 4
    assert finding.evidence["first_step"] == 7
    assert finding.severity == "warn"


def test_a_newer_log_schema_is_refused(plant: Plant) -> None:
    with pytest.raises(MmtoolError, match=r"schema|version"):
        diagnose([plant(schema="mmtool-log/2.0")])


def test_a_run_of_one_modality_has_no_balance_to_judge(plant: Plant) -> None:
    report = diagnose([plant(modalities={"audio": "balanced"})])
    assert "no balance to judge" in report.verdict
    assert not report.findings


def test_every_report_is_strict_json_and_carries_its_thresholds(plant: Plant) -> None:
    report = diagnose([plant(modalities=DOMINATED)])
    again = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert again["schema"] == "mmtool.diagnose/1"
    assert again["meta"]["thresholds"]["version"]
    assert again["findings"][0]["evidence"]


def test_every_rule_has_a_page_and_names_the_columns_it_needs() -> None:
    names = registry.names("rules")
    assert len(names) >= 9
    for name in names:
        entry = registry.get("rules", name)
        assert len(registry.docstring(entry).splitlines()) >= 3
        needs = getattr(registry.load("rules", name), "NEEDS", ())
        assert all(need.count(".") == 1 for need in needs)
