"""Planted runs: a run directory written line by line to the log schema, with a known truth."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

CLASSES = ["angry", "disgusted", "fearful", "happy", "neutral", "sad"]
NUM_VAL = 600
Plant = Callable[..., Path]


def approach(start: float, end: float, epoch: int, pace: float = 0.5) -> float:
    return end - (end - start) * math.exp(-pace * epoch)


MODALITY = {
    "balanced": {"flip": 0.35, "drop": 0.30, "alone": 0.62, "probe": 0.70},
    "dominant": {"flip": 0.62, "drop": 0.55, "alone": 0.74, "probe": 0.76},
    "ignored": {"flip": 0.02, "drop": 0.005, "alone": 0.22, "probe": 0.66},
    "poor": {"flip": 0.02, "drop": 0.005, "alone": 0.20, "probe": 0.22},
}


def epoch_lines(
    epoch: int, modalities: dict[str, str], acc: float, omit: Sequence[str], overfit: str
) -> list[dict[str, Any]]:
    val: dict[str, Any] = {}
    train: dict[str, Any] = {}
    for name, kind in modalities.items():
        ends = MODALITY[kind]
        probe = approach(1 / 6, ends["probe"], epoch)
        nll = 1.79 * (1 - 0.5 * probe)
        row: dict[str, Any] = {
            k: approach(0.2, ends[k], epoch, 2.0) for k in ("flip", "drop", "alone")
        }
        row |= {"probe": probe, "probe_nll": nll, "acc": probe, "nll": nll, "how": "decompose"}
        fit = {"acc": probe + 0.03, "nll": nll - 0.05, "how": "decompose"}
        if name == overfit:
            row["nll"] = 0.9 + 0.12 * abs(epoch - 2)
            fit = {"acc": 0.99, "nll": 0.6 * math.exp(-epoch), "how": "decompose"}
        val[name] = {k: v for k, v in row.items() if k not in omit}
        train[name] = fit
    fused = approach(1 / 6, acc, epoch)
    common = {"k": "epoch", "t": 1e9 + 10 * epoch, "epoch": epoch, "step": 40 * (epoch + 1)}
    return [
        {**common, "split": "train", "n": 512, "loss": 1.2, "acc": fused + 0.03, "m": train},
        {**common, "split": "val", "n": NUM_VAL, "loss": 1.3, "acc": fused, "m": val},
    ]


def step_line(
    step: int, data_ms: float, skipped: bool, modalities: Sequence[str]
) -> dict[str, Any]:
    ms = {"data": data_ms, "transfer": 1.0, "forward": 20.0, "backward": 35.0}
    ms |= {"sync": 2.0, "optimizer": 4.0}
    ms["step"] = sum(ms.values()) + 1.0 + (200.0 if step < 3 else 0.1 * (step % 7))
    return {
        "k": "step",
        "t": 1e9 + step * 0.1,
        "step": step,
        "epoch": step // 40,
        "n": 64,
        "loss": 1.8 - 0.001 * step,
        "lr": 1e-3,
        "gnorm": 1.0,
        "skipped": skipped,
        "terms": {"joint": 1.0},
        "ms": ms,
        "m": {m: {"score": 0.5, "coef": 1.0} for m in modalities},
    }


def sys_line(second: int) -> dict[str, Any]:
    gpu = {"util": 60 + second % 20, "mem_mb": 4000, "power_w": 200 + second % 9, "temp_c": 60}
    return {
        "k": "sys",
        "t": 1e9 + second,
        "cpu_percent": 150 + second % 30,
        "rss_mb": 2000 + second,
        "load1": 1.5,
        "gpus": [gpu],
    }


def write(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    """Write a run directory whose truth is known."""

    def build(
        name: str = "run",
        *,
        modalities: dict[str, str] | None = None,
        epochs: int = 6,
        acc: float = 0.80,
        data_ms: float = 1.0,
        omit: Sequence[str] = (),
        overfit: str = "",
        num_val: int = NUM_VAL,
        skipped_steps: Sequence[int] = (),
        classes: Sequence[str] = CLASSES,
        state: str = "done",
        method: str = "none",
        seed: int = 0,
        schema: str = "mmtool-log/1.0",
        dataset_hash: str = "abc123",
    ) -> Path:
        chosen = modalities or {"audio": "balanced", "image": "balanced"}
        run = tmp_path / name
        (run / "log").mkdir(parents=True)
        head = {
            "k": "head",
            "t": 1e9,
            "schema": schema,
            "run": name,
            "rank": 0,
            "world": 1,
            "attempt": 0,
            "modalities": sorted(chosen),
            "classes": list(classes),
            "dataset": "planted",
            "dataset_hash": dataset_hash,
            "method": method,
            "batch_size": 64,
            "epochs": epochs,
            "steps_per_epoch": 40,
            "num_val": num_val,
            "chance": 0.18,
        }
        lines: list[dict[str, Any]] = [head]
        for epoch in range(epochs):
            for step in range(40 * epoch, 40 * epoch + 40):
                lines.append(step_line(step, data_ms, step in skipped_steps, sorted(chosen)))
            for line in epoch_lines(epoch, chosen, acc, omit, overfit):
                lines.append({**line, "n": num_val} if line["split"] == "val" else line)
        if state != "running":
            lines.append({"k": "end", "t": 2e9, "status": state, "reason": ""})
        write(run / "log" / "rank0.jsonl", lines)
        write(run / "log" / "system.rank0.jsonl", [sys_line(s) for s in range(60)])
        status = {"state": state, "reason": "", "step": 40 * epochs, "epoch": epochs, "attempt": 0}
        (run / "status.json").write_text(json.dumps(status), encoding="utf-8")
        (run / "env.json").write_text('{"torch": "2.14", "host": "<b>node</b>"}', encoding="utf-8")
        (run / "resolved.toml").write_text(
            f'[data]\ndataset = "planted"\n[method]\nname = "{method}"\n'
            f'[model.fusion]\nname = "concat"\n[train]\nepochs = {epochs}\nseed = {seed}\n'
            f'optimizer = "adamw"\n',
            encoding="utf-8",
        )
        return run

    return build
