"""Each planted truth is named, with its evidence, and nothing is named that was not planted."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mmtool import registry
from mmtool.diagnose.api import closing_line, diagnose
from mmtool.diagnose.finding import Finding, Report
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


def test_an_audio_that_is_held_back_is_named_with_evidence_and_with_what_leads(
    plant: Plant,
) -> None:
    report = diagnose([plant(modalities=DOMINATED)])
    found = report.findings[0]
    assert (found.rule, found.modality, found.severity) == ("inconclusive", "audio", "warn")
    assert found.evidence["share_ci95"][1] < 0.22
    assert found.evidence["n"] == 600
    assert found.evidence["split"] == "val"
    assert found.evidence["basis"] == "log"
    assert found.evidence["since_epoch"] == 1
    assert found.evidence["probe"] > 0.55 > found.evidence["alone"]
    assert found.confidence is not None
    assert found.confidence > 0.8
    assert "--deep" in found.advice
    assert "held back while image leads since epoch 1" in found.what
    assert report.metrics["verdict"]["runner_up"]["code"] == "neglected"
    line = closing_line(report)
    assert line.startswith("audio is held back")
    assert "try: mmtool diagnose" in line
    assert "\n" not in line


def test_a_probe_as_good_as_the_leader_shows_that_the_fusion_neglects_it(plant: Plant) -> None:
    run = plant(modalities=DOMINATED)
    log = run / "log" / "rank0.jsonl"
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        if line["k"] == "epoch" and line["split"] == "val":
            line["m"]["audio"]["probe"] = line["m"]["image"]["probe"] - 0.01
    log.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    report = diagnose([run])
    assert only(report, "neglected").modality == "audio"
    assert any("solo run" in note for note in report.metrics["verdict"]["notes"])


def test_balanced_modalities_give_no_warning_and_say_no_imbalance_found(plant: Plant) -> None:
    report = diagnose([plant()])
    assert "no imbalance found" in report.findings[0].what
    assert not report.at_least("warn")
    assert report.verdict.startswith("No imbalance found")


def test_three_balanced_modalities_give_no_warning(plant: Plant) -> None:
    report = diagnose([plant(modalities=dict.fromkeys(("audio", "image", "text"), "balanced"))])
    assert rules(report) == {"balanced-complementary"}


def test_a_poor_weak_modality_is_inconclusive_and_the_deciding_commands_are_given(
    plant: Plant,
) -> None:
    report = diagnose([plant(modalities={"audio": "poor", "image": "dominant"})])
    found = only(report, "inconclusive")
    assert (found.severity, found.modality) == ("info", "audio")
    assert "--deep" in found.advice
    assert "data.modalities=audio" in found.advice
    runner_up = report.metrics["verdict"]["runner_up"]
    assert (runner_up["code"], runner_up["modalities"]) == ("low-information", ["audio"])
    assert not report.at_least("warn")


def test_a_run_of_the_modality_alone_turns_inconclusive_into_under_trained(plant: Plant) -> None:
    joint = plant("joint", modalities={"audio": "poor", "image": "dominant"})
    solo = plant("solo", modalities={"audio": "balanced"}, acc=0.6)
    report = diagnose([joint, solo])
    found = only(report, "under-trained")
    assert (found.severity, found.modality) == ("warn", "audio")
    assert found.evidence["gap_ci95"][0] > 0.02
    assert found.evidence["reference_run"] == "solo"
    assert report.metrics["answers"]["audio"]["informativeness"]["source"] == "solo"


def test_a_run_alone_that_is_no_better_shows_that_little_is_there(plant: Plant) -> None:
    joint = plant("joint", modalities={"audio": "poor", "image": "dominant"})
    solo = plant("solo", modalities={"audio": "poor"}, acc=0.24)
    report = diagnose([joint, solo])
    found = only(report, "low-information")
    assert (found.severity, found.modality) == ("info", "audio")
    assert found.advice.startswith("do not balance")
    assert "no failure" in report.verdict


def test_a_reference_from_another_dataset_is_refused_with_a_note(plant: Plant) -> None:
    joint = plant("joint", modalities={"audio": "poor", "image": "dominant"})
    solo = plant("solo", modalities={"audio": "balanced"}, acc=0.6, dataset_hash="other")
    report = diagnose([joint, solo])
    assert report.findings[0].rule == "inconclusive"
    assert any("another dataset" in limit for limit in report.limits)


def test_one_of_three_modalities_leads_and_both_others_are_held_back(plant: Plant) -> None:
    report = diagnose([plant(modalities={**DOMINATED, "text": "ignored"})])
    assert report.metrics["verdict"]["code"] == "inconclusive"
    assert "are held back" in report.metrics["verdict"]["sentence"]
    assert report.metrics["verdict"]["modalities"] == ["audio", "text"]


@pytest.mark.parametrize("scenario", ["image_dominant", "balanced", "overfit", "data_bound"])
@pytest.mark.parametrize("seed", [0, 1])
def test_recorded_scenarios_give_exactly_the_warnings_they_were_recorded_for(
    tmp_path: Path, scenario: Scenario, seed: int
) -> None:
    expected = {
        "image_dominant": {"inconclusive"},
        "balanced": set(),
        "overfit": {"overfit"},
        "data_bound": {"data-bound"},
    }
    report = diagnose([write_run(tmp_path / "run", scenario=scenario, epochs=6, seed=seed)])
    assert {finding.rule for finding in report.at_least("warn")} == expected[scenario]


def test_without_probes_the_logits_of_a_modality_stand_for_what_is_learnt(plant: Plant) -> None:
    run = plant(modalities=DOMINATED, omit=["probe", "probe_nll"])
    told = diagnose([run]).metrics["answers"]["audio"]["informativeness"]
    assert told["probe"]["source"] == "own logits"


def test_balance_can_be_judged_at_an_earlier_epoch_but_not_at_one_that_is_missing(
    plant: Plant,
) -> None:
    run = plant(modalities=DOMINATED)
    assert diagnose([run], epoch=3).metrics["balance"]["epoch"] == 3
    with pytest.raises(RequestError, match="no validation of epoch 99"):
        diagnose([run], epoch=99)


def test_memorising_the_modality_that_leads_is_named(plant: Plant) -> None:
    run = plant(modalities=DOMINATED, overfit="image")
    finding = only(diagnose([run]), "overfit")
    assert finding.modality == "image"
    assert "lowest at epoch 2" in finding.what


@pytest.mark.parametrize(("data_ms", "fires"), [(60.0, True), (2.0, False)])
def test_waiting_for_data_is_named_only_when_it_matters(
    plant: Plant, data_ms: float, fires: bool
) -> None:
    report = diagnose([plant(data_ms=data_ms)])
    assert ("data-bound" in rules(report)) is fires
    if fires:
        finding = only(report, "data-bound")
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
    assert only(report, "inconclusive").modality == "audio"


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
    assert rules(report) == {"no-signal"}


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
    assert rules(report) == {"one-modality"}


def test_every_report_is_strict_json_and_carries_its_thresholds(plant: Plant) -> None:
    report = diagnose([plant(modalities=DOMINATED)])
    again = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert again["schema"] == "mmtool.diagnose/1"
    assert again["meta"]["thresholds"]["version"]
    assert again["findings"][0]["evidence"]


def test_every_rule_has_a_page_and_either_checks_or_ends_in_a_verdict() -> None:
    names = registry.names("rules")
    assert len(names) >= 15
    for name in names:
        entry = registry.get("rules", name)
        assert len(registry.docstring(entry).splitlines()) >= 3
        module = registry.load("rules", name)
        assert hasattr(module, "check") != hasattr(module, "applies")
        assert all(need.count(".") == 1 for need in getattr(module, "NEEDS", ()))
        if hasattr(module, "applies"):
            assert {"CODE", "ORDER", "SEVERITY", "sentence"} <= set(dir(module))


def test_a_rule_that_the_log_cannot_carry_says_what_it_lacks(plant: Plant) -> None:
    run = plant()
    log = run / "log" / "rank0.jsonl"
    log.write_text(log.read_text(encoding="utf-8").replace('"skipped"', '"left"'), encoding="utf-8")
    found = only(diagnose([run]), "not-checked")
    assert "nonfinite was not checked" in found.what
    assert "needed: " in found.advice
