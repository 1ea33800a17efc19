"""Step timing over the planted steps of one or two ranks."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mmtool.diagnose.api import diagnose
from mmtool.diagnose.metrics.system import thin

Plant = Callable[..., Path]


def second_rank(run: Path, wait_ms: float) -> None:
    """Add rank 1, which waits this long in every synchronisation while rank 0 waits 2 ms."""
    lines = []
    for text in (run / "log" / "rank0.jsonl").read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        if line["k"] == "head":
            line["rank"] = 1
        elif line["k"] == "step":
            line["ms"]["sync"] = wait_ms
        elif line["k"] == "epoch":
            continue
        lines.append(json.dumps(line))
    (run / "log" / "rank1.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_phase_shares_add_up_to_the_step_without_the_warm_up(plant: Plant) -> None:
    steps = diagnose([plant()]).metrics["steps"]
    assert sum(phase["share"] for phase in steps["phases"]) == pytest.approx(1)
    assert steps["step"]["p50_ms"] == pytest.approx(64.3, abs=0.2)
    assert steps["max_over_median"] < 1.1
    assert steps["samples_per_s"] == pytest.approx(64 / 0.0643, rel=0.01)


def test_the_rank_for_which_the_others_wait_is_named(plant: Plant) -> None:
    run = plant()
    second_rank(run, wait_ms=20.0)
    report = diagnose([run])
    finding = next(f for f in report.findings if f.rule == "straggler")
    assert finding.evidence["rank"] == 0
    assert finding.evidence["arrives_last"] == 1.0
    assert finding.evidence["wait_share"] == pytest.approx(18 / 64.3, abs=0.01)


def test_ranks_that_wait_alike_are_not_stragglers(plant: Plant) -> None:
    run = plant()
    second_rank(run, wait_ms=2.5)
    assert not diagnose([run]).at_least("warn")


def test_the_system_timeline_has_host_and_gpu_signals(plant: Plant) -> None:
    system = diagnose([plant()]).system
    assert {"cpu_percent", "gpu0_util", "gpu0_power_w"} <= set(system["timeline"])
    assert system["summary"]["rss_mb"]["max"] == 2059


def test_a_long_timeline_is_thinned_without_losing_its_mean() -> None:
    points = [(float(i), float(i % 10)) for i in range(4000)]
    thinned = thin(points)
    assert len(thinned) == 400
    assert sum(v for _, v in thinned) / 400 == pytest.approx(4.5)
