"""From run directories in every state to tables."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmtool.errors import RunDirectoryError
from mmtool.runlog import reader
from mmtool.runlog.events import SCHEMA
from mmtool.runlog.reader import load_run
from mmtool.runlog.rundir import RunDir, create_run
from mmtool.runlog.writer import EventWriter
from mmtool.testing.recorded import STEPS_PER_EPOCH, write_run

Line = tuple[str, dict[str, Any]]


def head(attempt: int = 1) -> Line:
    return "head", {"schema": SCHEMA, "attempt": attempt, "modalities": ["audio", "image"]}


def step(number: int, loss: float = 1.0) -> Line:
    return "step", {"step": number, "epoch": 0, "n": 4, "loss": loss}


def resume(number: int) -> Line:
    return "event", {"what": "resume", "step": number}


def run_of(root: Path, *ranks: Iterable[Line]) -> Path:
    run = create_run(root, "test")
    run.write_status(state="running")
    for rank, lines in enumerate(ranks):
        with EventWriter(run.log_path(rank), fsync_kinds=()) as writer:
            for kind, fields in lines:
                writer.write(kind, **fields)
    return run.path


def steps_of(path: Path, rank: int = 0) -> list[tuple[int, int]]:
    """Give (step, attempt) of a rank."""
    frame = load_run(path).steps
    frame = frame[frame["rank"] == rank]
    return list(zip(frame["step"].tolist(), frame["attempt"].tolist(), strict=True))


def test_a_finished_run_gives_every_table(tmp_path: Path) -> None:
    tables = load_run(write_run(tmp_path / "run", scenario="balanced", epochs=3, num_ranks=2))
    assert len(tables.steps) == 2 * 3 * STEPS_PER_EPOCH
    assert list(tables.steps.columns[: len(reader.STEP_COLUMNS)]) == list(reader.STEP_COLUMNS)
    assert "term_fused" in tables.steps
    assert len(tables.step_modalities) == 3 * STEPS_PER_EPOCH * 2
    assert len(tables.epochs) == 3 * 2 + 1
    assert len(tables.epoch_modalities) == 2 * (3 * 2 + 1)
    assert set(tables.epoch_modalities["modality"]) == {"audio", "image"}
    assert set(tables.system["rank"]) == {0, 1}
    assert tables.events["what"].tolist() == ["checkpoint"] * 3
    assert tables.head["dataset"] == "recorded"
    assert tables.status["state"] == "done"
    assert tables.end is not None
    assert tables.end["status"] == "done"
    assert tables.warnings == ()


def test_rows_come_sorted_by_rank_and_step(tmp_path: Path) -> None:
    path = run_of(tmp_path, [head(), step(10), step(2)], [head(), step(2), step(10)])
    frame = load_run(path).steps
    assert frame[["rank", "step"]].to_numpy().tolist() == [[0, 2], [0, 10], [1, 2], [1, 10]]


@pytest.mark.parametrize("lines", [[], [head()]])
def test_empty_tables_have_their_columns_and_number_types(
    tmp_path: Path, lines: list[Line]
) -> None:
    tables = load_run(run_of(tmp_path, lines))
    expected = {
        "steps": reader.STEP_COLUMNS,
        "step_modalities": reader.STEP_MODALITY_COLUMNS,
        "epochs": reader.EPOCH_COLUMNS,
        "epoch_modalities": reader.EPOCH_MODALITY_COLUMNS,
        "system": reader.SYSTEM_COLUMNS,
        "events": reader.EVENT_COLUMNS,
    }
    for name, columns in expected.items():
        frame = getattr(tables, name)
        assert frame.empty
        assert tuple(frame.columns) == columns
    assert pd.isna(tables.steps["loss"].mean())
    assert tables.end is None


def test_a_repeated_step_counts_once_with_the_highest_attempt(tmp_path: Path) -> None:
    first = [head(1), *(step(n, loss=1.0) for n in range(6))]
    second = [head(2), resume(4), *(step(n, loss=2.0) for n in range(4, 8))]
    path = run_of(tmp_path, first + second)
    assert steps_of(path) == [(n, 1) for n in range(4)] + [(n, 2) for n in range(4, 8)]
    assert load_run(path).steps["loss"].tolist() == [1.0] * 4 + [2.0] * 4


def test_steps_beyond_the_resume_point_are_taken_back_even_if_not_repeated_yet(
    tmp_path: Path,
) -> None:
    lines = [head(1), *(step(n) for n in range(6)), head(2), resume(3)]
    assert steps_of(run_of(tmp_path, lines)) == [(0, 1), (1, 1), (2, 1)]


def test_an_attempt_that_died_before_it_began_takes_nothing_back(tmp_path: Path) -> None:
    lines = [head(1), *(step(n) for n in range(3)), head(2)]
    path = run_of(tmp_path, lines)
    assert steps_of(path) == [(0, 1), (1, 1), (2, 1)]
    assert [h["attempt"] for h in load_run(path).attempts] == [1, 2]
    assert load_run(path).head["attempt"] == 2


def test_a_restart_from_nothing_takes_everything_back(tmp_path: Path) -> None:
    lines = [head(1), *(step(n) for n in range(5)), head(2), step(0)]
    assert steps_of(run_of(tmp_path, lines)) == [(0, 2)]


def test_the_resume_point_of_the_first_rank_holds_for_all_ranks(tmp_path: Path) -> None:
    first = [head(1), *(step(n) for n in range(4)), head(2), resume(2), step(2)]
    other = [head(1), *(step(n) for n in range(4)), head(2)]
    path = run_of(tmp_path, first, other)
    assert steps_of(path, rank=1) == [(0, 1), (1, 1)]


def test_an_epoch_that_ended_where_the_run_resumed_still_counts(tmp_path: Path) -> None:
    def epoch(number: int, done: int, acc: float) -> Line:
        m = {"audio": {"acc": acc}}
        return "epoch", {"epoch": number, "step": done, "split": "val", "acc": acc, "m": m}

    first = [head(1), epoch(0, 10, 0.1), epoch(1, 20, 0.2)]
    path = run_of(tmp_path, [*first, head(2), resume(10), step(10), epoch(1, 20, 0.3)])
    tables = load_run(path)
    assert tables.epochs["acc"].tolist() == [0.1, 0.3]
    assert tables.epoch_modalities["acc"].tolist() == [0.1, 0.3]


def test_an_evaluation_repeated_after_a_resume_counts_once_with_the_later_result(
    tmp_path: Path,
) -> None:
    def test_split(acc: float) -> Line:
        return "epoch", {"epoch": 4, "step": 10, "split": "test", "acc": acc}

    lines = [head(1), step(9), test_split(0.1), head(2), resume(10), test_split(0.2)]
    assert load_run(run_of(tmp_path, lines)).epochs["acc"].tolist() == [0.2]


def test_an_epoch_logged_by_every_rank_counts_once_as_the_first_rank_saw_it(
    tmp_path: Path,
) -> None:
    def epoch(acc: float) -> Line:
        return "epoch", {"epoch": 0, "step": 1, "split": "val", "acc": acc}

    path = run_of(tmp_path, [head(), epoch(0.1)], [head(), epoch(0.2)])
    assert load_run(path).epochs["acc"].tolist() == [0.1]


def test_the_end_of_an_earlier_attempt_is_not_the_end_of_the_run(tmp_path: Path) -> None:
    lines = [head(1), step(0), ("end", {"status": "stopped"}), head(2), resume(1)]
    assert load_run(run_of(tmp_path, lines)).end is None


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=5))
def test_after_any_chain_of_resumes_the_steps_are_those_of_one_uninterrupted_run(
    tmp_path_factory: pytest.TempPathFactory, plan: list[tuple[int, int]]
) -> None:
    lines: list[Line] = []
    done = 0
    for attempt, (saved, num_steps) in enumerate(plan, start=1):
        start = min(saved, done)
        lines += [head(attempt), resume(start)]
        lines += [step(n, loss=float(attempt)) for n in range(start, start + num_steps)]
        done = start + num_steps
    frame = load_run(run_of(tmp_path_factory.mktemp("runs"), lines)).steps
    assert frame["step"].tolist() == list(range(done))
    assert frame["attempt"].is_monotonic_increasing


def test_a_torn_last_line_is_dropped_and_said(tmp_path: Path) -> None:
    path = run_of(tmp_path, [head(), step(0), step(1)])
    log = RunDir(path).log_path(0)
    log.write_bytes(log.read_bytes()[:-5])
    tables = load_run(path)
    assert tables.steps["step"].tolist() == [0]
    assert len(tables.warnings) == 1
    assert "rank0.jsonl: the last line was cut off" in tables.warnings[0]


def test_unknown_kinds_and_keys_are_ignored_and_kinds_are_said_once(tmp_path: Path) -> None:
    kind, fields = step(0)
    lines = [head(), (kind, {**fields, "novel": 3}), ("novelty", {}), ("novelty", {})]
    tables = load_run(run_of(tmp_path, lines))
    assert len(tables.steps) == 1
    assert tables.warnings == ("2 lines of kind 'novelty' are ignored",)


def test_a_loss_that_was_not_finite_is_missing_and_stays_a_number_column(tmp_path: Path) -> None:
    path = run_of(tmp_path, [head(), step(0, loss=float("nan"))])
    losses = load_run(path).steps["loss"]
    assert losses.isna().all()
    assert losses.dtype == "float64"


def test_gpu_samples_are_flattened_by_their_index(tmp_path: Path) -> None:
    path = run_of(tmp_path, [head()])
    gpus = [{"util": 90.0, "power_w": 250.0}, {"util": 10.0, "power_w": None}]
    with EventWriter(RunDir(path).system_log_path(0)) as writer:
        writer.write("sys", cpu_percent=50.0, gpus=gpus)
    row = load_run(path).system.iloc[0]
    assert (row["gpu_util_0"], row["gpu_util_1"], row["gpu_power_w_0"]) == (90.0, 10.0, 250.0)
    assert pd.isna(row["gpu_power_w_1"])
    assert row["gpus"] == gpus


def test_ranks_are_ordered_as_numbers_not_as_words(tmp_path: Path) -> None:
    path = run_of(tmp_path, *([head(), step(0)] for _ in range(11)))
    assert load_run(path).steps["rank"].tolist() == list(range(11))


def test_a_run_that_has_logged_nothing_yet_is_a_run(tmp_path: Path) -> None:
    run = create_run(tmp_path, "ogm")
    run.write_status(state="running")
    tables = load_run(run.path)
    assert tables.head == {}
    assert any("no head line" in warning for warning in tables.warnings)


def test_another_schema_is_refused(tmp_path: Path) -> None:
    path = run_of(tmp_path, [("head", {"schema": "mmtool-log/2.0"})])
    with pytest.raises(RunDirectoryError, match=r"mmtool-log/2\.0"):
        load_run(path)


def test_a_directory_that_is_not_a_run_is_refused_saying_what_was_looked_for(
    tmp_path: Path,
) -> None:
    with pytest.raises(RunDirectoryError, match="is not a run directory") as caught:
        load_run(tmp_path)
    assert "status.json" in caught.value.why
    with pytest.raises(RunDirectoryError, match="there is no directory"):
        load_run(tmp_path / "missing")
