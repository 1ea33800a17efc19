"""Logs of named situations on GPUs, read as if they had just been written.

Each file of `replays/` is one log of all ranks, its lines as the run log holds them; the first line
says what is true. They were constructed, no GPU wrote them.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from mmtool.diagnose.api import diagnose
from mmtool.diagnose.finding import Report

FOLDER = Path(__file__).parent / "replays"
NAMES = sorted(path.stem for path in FOLDER.glob("*.jsonl"))
OF_BALANCE = {"inconclusive", "not-checked", "one-modality"}


def replayed(name: str, folder: Path) -> tuple[dict[str, Any], Report]:
    """Lay a replay out as a run directory and diagnose it; give what is true of it, and that."""
    about, *lines = map(json.loads, (FOLDER / f"{name}.jsonl").read_text().splitlines())
    log = folder / name / "log"
    log.mkdir(parents=True)
    files: dict[str, list[str]] = {}
    for line in lines:
        stem = "system.rank" if line["k"] == "sys" else "rank"
        number = line.get("rank", 0)
        files.setdefault(f"{stem}{number}.jsonl", []).append(json.dumps(line) + "\n")
    for file, texts in files.items():
        (log / file).write_text("".join(texts))
    (folder / name / "status.json").write_text('{"state": "done"}')
    return about, diagnose([folder / name])


def of_system(report: Report, *severities: str) -> set[str]:
    found = (f for f in report.findings if f.severity in severities)
    return {f.rule for f in found} - OF_BALANCE


def test_there_are_replays_of_every_verdict_that_needs_a_gpu() -> None:
    about = [json.loads((FOLDER / f"{n}.jsonl").read_text().splitlines()[0]) for n in NAMES]
    told = {verdict for a in about for verdict in (*a["warn"], *a["info"])}
    assert told == {
        *("compute-bound", "memory-bound", "launch-bound", "sync-bound", "data-bound"),
        *("comm-bound", "straggler", "throttled", "fragmented", "foreign-tenant"),
        "host-contended",
    }
    assert all("constructed" in a for a in about)


@pytest.mark.parametrize("name", NAMES)
def test_a_replay_is_judged_as_what_it_is_and_as_nothing_else(name: str, tmp_path: Path) -> None:
    about, report = replayed(name, tmp_path)

    assert of_system(report, "warn", "error") == set(about["warn"])
    assert of_system(report, "info") == set(about["info"])
    unknown = {entry["verdict"] for entry in report.metrics["where"]["not_known"]}
    assert set(about["unknown"]) <= unknown
    assert not unknown & {*about["warn"], *about["info"]}
    for finding in report.findings:
        if finding.rule in {*about["warn"], *about["info"]}:
            assert finding.evidence["n"] >= 10
            assert finding.advice
    plain = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    said = " ".join(plain["limits"])
    assert all(verdict in said for verdict in unknown)


def test_energy_is_counted_and_apportioned(tmp_path: Path) -> None:
    _, report = replayed("h100_healthy", tmp_path)
    energy = report.metrics["energy"]

    assert energy["how"] == "counter"
    assert energy["total_low_j"] < energy["total_j"] < energy["total_high_j"]
    mean_power = report.system["summary"]["gpu0_power_w"]["mean"]
    assert energy["total_j"] / energy["seconds"] == pytest.approx(mean_power, rel=0.1)
    of_encoders = energy["per_modality"]
    assert of_encoders["video"] == pytest.approx(2 * of_encoders["audio"], rel=0.05)
    assert sum(of_encoders.values()) < energy["total_j"]
    assert set(energy["apportioned"]) == {"per_step_phase", "per_modality"}


def test_energy_is_summed_from_power_where_there_is_no_counter(tmp_path: Path) -> None:
    counter = replayed("h100_healthy", tmp_path / "counter")[1].metrics["energy"]
    path = tmp_path / "power"
    replayed("h100_healthy", path)
    log = path / "h100_healthy" / "log" / "system.rank0.jsonl"
    lines = [json.loads(text) for text in log.read_text().splitlines()]
    for line in lines:
        line["gpus"][0]["energy_j"] = None
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    energy = diagnose([path / "h100_healthy"]).metrics["energy"]

    assert energy["how"] == "power"
    assert energy["total_j"] == pytest.approx(counter["total_j"], rel=0.05)


def test_without_a_gpu_energy_is_unknown_and_says_why(tmp_path: Path) -> None:
    for name in ("cpu_contended", "gpu_without_samples"):
        energy = replayed(name, tmp_path)[1].metrics["energy"]
        assert energy["total_j"] is None
        assert "no GPU" in energy["why"]


def test_shares_of_the_loop_add_up_to_one(tmp_path: Path) -> None:
    where = replayed("h100_data_bound", tmp_path)[1].metrics["where"]

    assert sum(phase["share"] for phase in where["phases"]) == pytest.approx(1)
    assert where["exposed"]["data"]["low"] > 0.3
    assert set(where["encoders"]) == {"audio", "video"}


def test_the_gain_that_is_predicted_is_that_without_the_wait(tmp_path: Path) -> None:
    _, report = replayed("h100_data_bound", tmp_path)
    finding = next(f for f in report.findings if f.rule == "data-bound")

    assert finding.evidence["predicted_gain"] == pytest.approx(
        finding.evidence["step_mean_ms"] / finding.evidence["step_without_wait_ms"], rel=0.02
    )


def test_limits_name_what_this_hardware_cannot_tell(tmp_path: Path) -> None:
    _, report = replayed("a100_hot", tmp_path)

    (said,) = (limit for limit in report.limits if "memory-bound" in limit)
    assert said.startswith("Not known: memory-bound, compute-bound; the GPU has no counters")
