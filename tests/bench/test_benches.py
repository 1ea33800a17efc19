"""Benches that nobody runs every day start, finish and leave their figures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
FOLDER = Path(__file__).parent


def bench(name, out, *options):
    """Run a bench on one thread, without a GPU, and give the one JSON document it wrote."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(
        [sys.executable, str(FOLDER / name), "--out", str(out), *options],
        env=env,
        check=True,
        capture_output=True,
        text=True,
        timeout=280,
    )
    (path,) = out.glob("*.json")
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_gpu_bench_has_a_form_for_any_machine(tmp_path):
    found = bench("gpu.py", tmp_path, "--smoke")
    rows = found["measured"]

    assert [(r["engine"], r["precision"]) for r in rows] == [
        ("reference", "fp32"),
        ("mmtool", "fp32"),
        ("mmtool", "bf16"),
    ]
    assert not [row["error"] for row in rows if "error" in row]
    assert [row["waits"] for row in rows[1:]] == [0, 0]
    assert all(row["over_reference"] > 0 for row in rows[1:])
    assert found["environment"]["versions"]["torch"]


def test_the_bench_of_a_run_measures_all_its_parts(tmp_path):
    options = ("--batch-size", "1", "--repeats", "1", "--rank-repeats", "0")
    found = bench("running.py", tmp_path, *options)

    assert {"checkpoint", "logging", "epoch", "goals", "date", "environment"} <= set(found)
    assert found["checkpoint"]["stall_ms"] > 0
    assert 0 < found["logging"]["share"] < 1
    assert found["epoch"]["seconds"] > 0


def test_the_bench_of_reading_measures_the_whole_command(tmp_path):
    found = bench("reading.py", tmp_path, "--steps", "2000", "--repeats", "1")

    assert found["steps"] == 2000
    assert found["import"]["processor_s"] < found["diagnose"]["processor_s"]
    assert 20 < found["import"]["memory_mb"] <= found["diagnose"]["memory_mb"]
    assert found["met"].keys() == found["goals"].keys()


def test_the_bench_of_measuring_accounts_for_every_part(tmp_path):
    options = ("--batch-size", "2", "--repeats", "1", "--large-repeats", "1")
    found = bench("measuring.py", tmp_path, *options)

    assert {"probes", "norms", "log"} <= found["steps"]["parts"].keys()
    assert found["epoch"]["parts"].keys() == {"modalities", "train_sample", "system"}
    parts = [*found["steps"]["parts"].values(), *found["epoch"]["parts"].values()]
    assert found["share"] == pytest.approx(sum(parts))
    assert all(part > 0 for part in parts)
    assert len(found["small"]["side_by_side_all"]) == 1
