"""Real runs with a planted bottleneck: the verdict is asserted, never the time."""

from pathlib import Path

import pytest

from mmtool.diagnose.api import diagnose
from mmtool.registry import load_file
from mmtool.testing.ranks import run_ranks

FILE = Path(__file__).with_name("bottlenecks.py")
planted = load_file(FILE)
OF_SYSTEM = {
    *("data-bound", "launch-bound", "sync-bound", "comm-bound", "memory-bound", "compute-bound"),
    *("modality-bound", "straggler", "stall", "host-contended", "throttled", "fragmented"),
    "foreign-tenant",
}


def judged(run: Path):
    """Give the warnings about the machine by rule, and the report."""
    report = diagnose([run])
    return {f.rule: f for f in report.at_least("warn") if f.rule in OF_SYSTEM}, report


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    path = tmp_path_factory.mktemp("store")
    planted.write_store(path)
    return path


def trained(tmp_path, root, recipe):
    return planted.train(planted.make_run(tmp_path / "run"), recipe, root)


def test_a_healthy_run_has_no_finding_about_the_machine(tmp_path, root):
    found, report = judged(trained(tmp_path, root, planted.recipe()))

    assert found == {}
    where = report.metrics["where"]
    assert sum(phase["share"] for phase in where["phases"]) == pytest.approx(1)
    assert set(where["encoders"]) == {"audio", "image"}
    assert where["num_operators"] > 20
    assert report.metrics["energy"]["total_j"] is None
    assert report.system == {}


def test_a_slow_loader_is_data_bound(tmp_path, root):
    with planted.slow_loader():
        recipe = planted.recipe(audio=planted.SMALL, image=planted.SMALL, epochs=1)
        found, report = judged(trained(tmp_path, root, recipe))

    finding = found["data-bound"]
    assert finding.evidence["predicted_gain"] > 1.1
    assert finding.evidence["data_share_ci95"][0] > 0.1
    assert "launch-bound" not in found
    assert report.verdict


def test_many_tiny_operators_are_launch_bound(tmp_path, root):
    fusion = tmp_path / "tiny.py"
    fusion.write_text(planted.TINY_FUSION, encoding="utf-8")
    recipe = planted.recipe(fusion=str(fusion), epochs=1)
    found, report = judged(trained(tmp_path, root, recipe))

    finding = found["launch-bound"]
    assert finding.evidence["num_operators_forward"] > planted.TINY_OPERATORS
    fusion_ms = report.metrics["where"]["fusion"]["forward_ms"]
    encoders = report.metrics["where"]["encoders"].values()
    assert fusion_ms > max(encoder["forward_ms"] for encoder in encoders)


def test_a_disk_that_holds_training_up_is_a_stall(tmp_path, root):
    small = planted.SMALL
    with planted.slow_disk():
        recipe = planted.recipe(audio=small, image=small, epochs=1, checkpoint_every_steps=10)
        found, _ = judged(trained(tmp_path, root, recipe))

    finding = found["stall"]
    assert finding.evidence["cause"] == "checkpoint"
    assert all(step % 10 == 0 for step in finding.evidence["steps"])


def test_a_heavy_encoder_that_is_not_relied_on_is_modality_bound(tmp_path):
    planted.write_store(tmp_path, image_signal=0.0)
    recipe = planted.recipe(audio=planted.SMALL, image={"name": "cnn", "width": 48})
    found, _ = judged(trained(tmp_path, tmp_path, recipe))

    finding = found["modality-bound"]
    assert finding.modality == "image"
    assert finding.evidence["gain_without_it"] > finding.evidence["gain_frozen"] > 1.1
    assert "data.modalities=audio" in finding.advice


@pytest.mark.slow
def test_two_ranks_are_told_apart_by_what_they_wait_for(tmp_path):
    planted.write_store(tmp_path)
    for name in ("healthy", "straggler", "comm"):
        planted.make_run(tmp_path / name)
    run_ranks(2, f"{FILE}:three_pairs", str(tmp_path))
    healthy, _ = judged(tmp_path / "healthy")
    straggler, report = judged(tmp_path / "straggler")
    comm, _ = judged(tmp_path / "comm")

    assert "straggler" not in healthy
    assert straggler["straggler"].evidence["rank"] == 1
    assert "comm-bound" not in straggler
    assert report.metrics["where"]["straggler"]["rank"] == 1
    assert "comm-bound" in comm
    assert "straggler" not in comm
