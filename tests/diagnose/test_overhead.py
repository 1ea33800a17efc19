"""What measuring cost, as the report tells it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmtool.diagnose.api import diagnose
from mmtool.diagnose.load import open_run
from mmtool.diagnose.metrics.overhead import overhead_table

Plant = Callable[..., Path]


def event(epoch: Any, share: Any, **fields: Any) -> dict[str, Any]:
    return {
        "k": "event", "t": 1e9 + 1000 + len(fields), "what": "overhead", "epoch": epoch,
        "share": share, "step": 40, **fields,
    }  # fmt: skip


def with_events(run: Path, *events: dict[str, Any]) -> Path:
    with (run / "log" / "rank0.jsonl").open("a", encoding="utf-8") as log:
        for given in events:
            log.write(json.dumps(given) + "\n")
    return run


def test_epochs_weigh_by_their_time(plant: Plant) -> None:
    run = with_events(
        plant(state="running"),
        event(0, 0.02, wall_s=102.0, parts={"norms": 0.015, "log": 0.005}, norms_every_steps=10),
        event(1, 0.01, wall_s=303.0, parts={"norms": 0.005, "log": 0.005}, norms_every_steps=20),
    )
    found = diagnose([run]).metrics["overhead"]

    assert found["share"] == pytest.approx((100 * 0.02 + 300 * 0.01) / 400)
    assert found["parts"] == pytest.approx({"norms": (1.5 + 1.5) / 400, "log": 2 / 400})
    assert found["by_epoch"] == [(0, 0.02), (1, 0.01)]
    assert found["norms_every_steps"] == 20


def test_an_epoch_told_twice_counts_as_it_was_told_last(plant: Plant) -> None:
    run = with_events(
        plant(state="running"),
        event(0, 0.5, t=1e9 + 1, wall_s=100.0),
        event(0, 0.01, t=1e9 + 2, wall_s=100.0),
    )

    assert overhead_table(open_run(run))["share"] == pytest.approx(0.01)


@pytest.mark.parametrize(
    "bad",
    [
        event(0, None, wall_s=3.0),
        event(None, 0.5),
        event(0, 0.01, parts="many"),
        event(0, 0.01, parts={"norms": None}),
        event(0, 0.01, wall_s=None),
        event(0, 0.01, wall_s=0.0),
    ],
)
def test_events_with_holes_leave_what_is_known(bad: dict[str, Any], plant: Plant) -> None:
    good = event(1, 0.01, wall_s=10.0, parts={"norms": 0.01})
    found = overhead_table(open_run(with_events(plant(state="running"), good, bad)))

    assert found["share"] == pytest.approx(0.01)
    assert found["norms_every_steps"] is None


def test_a_log_without_such_events_has_no_overhead(plant: Plant) -> None:
    assert overhead_table(open_run(plant())) == {}


def rates(run: Path, **changed: Any) -> dict[str, Any]:
    log = run / "log" / "rank0.jsonl"
    lines = [json.loads(text) for text in log.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        if line["k"] == "epoch" and line["split"] == "val":
            for row in line["m"].values():
                row.update(changed)
    log.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (audio, _) = diagnose([run]).metrics["balance"]["modalities"]
    return audio


def test_intervals_of_flips_are_of_the_samples_that_were_permuted(plant: Plant) -> None:
    all_of_them, some = rates(plant("all")), rates(plant("some"), flip_n=100)

    for key in ("flip", "share", "drop"):
        widths = [row[key]["high"] - row[key]["low"] for row in (all_of_them, some)]
        assert widths[1] > 2 * widths[0], key
        assert (all_of_them[key]["n"], some[key]["n"]) == (600, 100)
    assert all_of_them["probe"] == some["probe"]
