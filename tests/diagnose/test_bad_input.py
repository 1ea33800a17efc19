"""Whatever a path holds: a report that names what is missing, or an error that says what it is."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mmtool.cli.app import app
from mmtool.diagnose.api import diagnose
from mmtool.diagnose.finding import Report
from mmtool.diagnose.load import open_run
from mmtool.errors import EnvironmentLacks, RequestError, RunDirectoryError, foreseen
from mmtool.runlog import collect, lines
from mmtool.runlog.reader import load_run

NOBODY = 65534


def log_of(run: Path) -> Path:
    return run / "log" / "rank0.jsonl"


def edit(run: Path, change) -> Path:
    """Pass every line of the log as an event; what `change` gives is written, None is left out."""
    log = log_of(run)
    events = [change(json.loads(line)) for line in log.read_text().splitlines()]
    log.write_text("".join(json.dumps(e) + "\n" for e in events if e is not None))
    return run


def limits(report: Report) -> str:
    return "\n".join(report.limits)


def test_an_empty_directory_is_called_one(tmp_path):
    with pytest.raises(RunDirectoryError, match="is an empty directory") as caught:
        diagnose([tmp_path])
    assert "a run directory" in caught.value.why


def test_a_missing_path_and_a_file_of_something_else_are_told_apart(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(RunDirectoryError, match="there is no run directory"):
        diagnose([tmp_path / "gone"])
    with pytest.raises(RunDirectoryError, match="is a file, but no log"):
        diagnose([tmp_path / "notes.txt"])


def test_a_run_of_a_newer_schema_is_refused_with_the_version_that_reads_it(plant):
    with pytest.raises(RunDirectoryError, match=r"mmtool-log/2\.0") as caught:
        diagnose([plant(schema="mmtool-log/2.0")])
    assert "env.json" in caught.value.fix


def test_a_run_of_a_newer_minor_schema_is_read(plant):
    run = edit(plant(schema="mmtool-log/1.9"), lambda e: {**e, "novel": [1, {"x": 2}]})
    with log_of(run).open("a") as log:
        log.write('{"k":"novelty","t":1}\n')
    report = diagnose([run])

    assert report.metrics["balance"]["n"] == 600
    assert "kind 'novelty' are ignored" in limits(report)


def test_a_torn_last_line_costs_that_line_alone(plant):
    run = plant(state="running")
    whole = len(load_run(run).steps)
    with log_of(run).open("a") as log:
        log.write('{"k":"step","t":1,"step":99')
    report = diagnose([run])

    assert len(load_run(run).steps) == whole
    assert "the last line was cut off" in limits(report)


def test_rows_of_nan_are_kept_as_missing_numbers(plant):
    run = plant()
    text = re.sub(r'"loss": 1\.79\d*', '"loss": NaN', log_of(run).read_text())
    assert text.count("NaN") > 5
    log_of(run).write_text(text.replace('"acc": 0.8', '"acc": -Infinity', 1))
    report = diagnose([run])
    steps = load_run(run).steps

    assert len(steps) == 240
    assert steps["loss"].isna().sum() > 5
    assert "bare NaN or Infinity" in limits(report)
    json.dumps(report.as_dict(), allow_nan=False)


def test_a_run_of_nothing_but_nan_has_a_report(plant):
    def spoil(event):
        if event["k"] == "step":
            return {**event, "loss": None, "gnorm": None, "bad": ["loss", "gnorm"]}
        if event["k"] == "epoch":
            m = {name: dict.fromkeys(row) for name, row in event["m"].items()}
            return {**event, "loss": None, "acc": None, "m": m}
        return event

    report = diagnose([edit(plant(), spoil)])

    assert "cannot be judged" in report.verdict
    json.dumps(report.as_dict(), allow_nan=False)


def test_binary_lines_in_a_log_are_passed_over_and_counted(plant):
    run = plant()
    parts = log_of(run).read_bytes().split(b"\n")
    junk = bytes(range(256)).replace(b"\n", b"")
    parts[10:10] = [junk, b"\x00" * 5000, b"\xff\xfe", b"[]", b'"k"', b"[" * 9000]
    log_of(run).write_bytes(b"\n".join(parts))
    report = diagnose([run])

    assert len(load_run(run).steps) == 240
    assert "6 lines that are not events were left out (line 11)" in limits(report)


def test_a_log_of_garbage_alone_is_a_run_without_a_head(plant):
    run = plant()
    log_of(run).write_bytes(os.urandom(1000).replace(b"\n", b"") + b"\n")
    report = diagnose([run])

    assert "no head line" in limits(report)
    assert "cannot be judged" in report.verdict


def test_values_of_the_wrong_kind_do_not_end_the_reading(plant):
    odd = [
        {"k": "step", "t": 1, "step": 500, "ms": 3, "m": [1], "loss": "high", "n": {"a": 1}},
        {"k": "step", "t": "noon", "step": 501, "ms": {"step": "x"}, "loss": 10**400},
        {"k": "step", "t": 1, "step": 2**70},
        {"k": "step", "t": 1, "step": "7"},
        {"k": "step", "t": 1, "step": True},
        {"k": "epoch", "t": 1, "epoch": "x", "split": 3},
        {"k": "epoch", "t": 1, "epoch": 2.5, "split": "val"},
        {"k": "event"},
        {"k": "head", "schema": "mmtool-log/1.0", "attempt": "x", "modalities": ["audio", "image"]},
    ]
    run = plant()
    with log_of(run).open("a") as log:
        log.write("".join(json.dumps(line) + "\n" for line in odd))
    steps = load_run(run).steps

    assert steps["step"].tolist()[-2:] == [500, 501]
    assert steps["loss"].iloc[-2] == "high"


def test_a_log_with_a_new_name_on_every_line_stays_bounded(plant):
    run = plant()
    with log_of(run).open("a") as log:
        for number in range(4000):
            log.write(
                json.dumps({"k": "step", "t": 1, "step": 300 + number, "ms": {f"x{number}": 1}})
            )
            log.write("\n")
    assert len(load_run(run).steps.columns) <= 2010


def test_a_run_of_one_modality_says_that_there_is_no_balance(plant):
    report = diagnose([plant(modalities={"audio": "balanced"})])

    assert "one modality" in report.verdict.lower()
    assert report.metrics["steps"]["num_steps"] > 0


def test_a_run_without_validation_names_what_is_missing(plant):
    run = edit(plant(), lambda e: None if e.get("split") == "val" else e)
    report = diagnose([run])

    assert "no per-modality validation rows" in report.verdict
    assert report.metrics["steps"]["num_steps"] > 0
    assert report.metrics["curves"]["fused"]["train"]["loss"]


def test_a_run_without_timings_names_what_is_missing(plant):
    def forget(event):
        return {k: v for k, v in event.items() if k != "ms"}

    report = diagnose([edit(plant(), forget)])

    assert report.metrics["steps"] == {}
    assert report.metrics["balance"]["n"] == 600


@pytest.mark.parametrize("name", ["status.json", "env.json", "resolved.toml"])
@pytest.mark.parametrize("content", [b"", b"\xff\x00", b"[1]", b"{"])
def test_a_damaged_file_beside_the_log_does_not_stop_the_report(plant, name, content):
    run = plant()
    (run / name).write_bytes(content)

    assert diagnose([run]).metrics["balance"]["n"] == 600


@pytest.mark.parametrize("name", ["status.json", "env.json", "resolved.toml"])
def test_a_folder_where_a_file_should_be_is_named(plant, name):
    run = plant()
    (run / name).unlink()
    (run / name).mkdir()
    report = diagnose([run])

    assert report.metrics["balance"]["n"] == 600
    assert name == "status.json" or f"{name} cannot be read" in limits(report)


def test_links_that_lead_in_a_circle_are_called_so(plant, tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(RunDirectoryError, match="a link that leads nowhere") as caught:
        diagnose([tmp_path / "a"])
    assert "leads back" in caught.value.why

    run = plant()
    (run / "log" / "again").symlink_to(run)
    log_of(run).rename(run / "kept")
    log_of(run).symlink_to(log_of(run))
    with pytest.raises(EnvironmentLacks, match="log cannot be read") as caught:
        diagnose([run])
    assert str(caught.value.where).endswith("rank0.jsonl")


def test_one_rank_of_several_that_cannot_be_read_is_named(plant):
    run = plant()
    (run / "log" / "rank1.jsonl").mkdir()
    (run / "log" / "system.rank1.jsonl").mkdir()
    report = diagnose([run])

    assert "rank1.jsonl cannot be read" in limits(report)
    assert "system.rank1.jsonl cannot be read" in limits(report)
    assert report.metrics["balance"]["n"] == 600


@contextmanager
def reading_as_nobody() -> Iterator[None]:
    """Give up the rights of root, whom no permission stops."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may enter, as those of pytest are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("forbidden", [".", "log", "log/rank0.jsonl"])
def test_what_may_not_be_read_is_named_with_the_way_to_look(plant, open_folder, forbidden):
    run = open_folder / "run"
    shutil.copytree(plant(), run)
    (run / forbidden).chmod(0o000)
    try:
        with reading_as_nobody(), pytest.raises((EnvironmentLacks, PermissionError)) as caught:
            diagnose([run])
    finally:
        (run / forbidden).chmod(0o755)
    # What a person is shown of either.
    error = foreseen(caught.value)
    assert isinstance(error, EnvironmentLacks)
    assert str(run) in str(error)
    assert "ermission" in error.what
    assert "ls -l" in error.fix


def test_a_recipe_that_may_not_be_read_is_left_out_of_the_report(plant, open_folder):
    run = open_folder / "run"
    shutil.copytree(plant(), run)
    (run / "resolved.toml").chmod(0o000)
    with reading_as_nobody():
        report = diagnose([run])

    assert "resolved.toml cannot be read" in limits(report)
    assert report.metrics["balance"]["n"] == 600


def test_of_a_long_log_the_steps_are_thinned_alike_on_every_rank(plant, monkeypatch):
    monkeypatch.setattr(collect, "MAX_STEPS", 100)
    run = plant()
    shutil.copy(log_of(run), run / "log" / "rank1.jsonl")
    tables = load_run(run)
    by_rank = {rank: set(part["step"]) for rank, part in tables.steps.groupby("rank")}

    assert len(tables.steps) <= 100
    assert by_rank[1] == by_rank[0]
    stride = min(by_rank[0] - {0})
    assert by_rank[0] == set(range(0, 240, stride))
    assert f"divides by {stride} were read" in "\n".join(tables.warnings)
    assert set(tables.step_modalities["step"]) == by_rank[0]
    assert len(tables.step_modalities) == 2 * len(tables.steps)
    assert len(tables.epochs) == 12


def test_thinning_takes_back_what_a_resume_took_back(plant, monkeypatch):
    expected = plant("expected")
    resumed = plant("resumed")
    text = log_of(resumed).read_text().splitlines()
    steps = [line for line in text if '"k": "step"' in line]
    again = '{"k": "event", "what": "resume", "step": 50}'
    head = text[0].replace('"attempt": 0', '"attempt": 2')
    log_of(resumed).write_text(
        "\n".join([text[0].replace('"attempt": 0', '"attempt": 1'), *steps[:150], head, again])
        + "\n" + "\n".join(steps[50:]) + "\n"
    )  # fmt: skip
    monkeypatch.setattr(collect, "MAX_STEPS", 100)
    first, second = load_run(expected).steps, load_run(resumed).steps

    assert second["step"].tolist() == first["step"].tolist()
    assert set(second[second["step"] >= 50]["attempt"]) == {2}


def test_a_line_without_an_end_is_passed_over_without_being_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 1000)
    path = tmp_path / "rank0.jsonl"
    path.write_bytes(b'{"k":"event"}\n' + b"x" * 50_000 + b"\n" + b'{"k":"end"}\n' + b"y" * 3000)
    found = lines.read_events(path)

    assert [event["k"] for event in found.events] == ["event", "end"]
    assert "2 lines that are not events" in found.warnings[0]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("empty", "is an empty directory"),
        ("notes.txt", "is a file, but no log"),
        ("circle", "a link that leads nowhere"),
        ("gone", "there is no run 'gone'"),
    ],
)
def test_the_command_says_what_a_path_is_and_ends_with_2(tmp_path, monkeypatch, name, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "circle").symlink_to("circle")
    done = CliRunner().invoke(app, ["diagnose", name])

    assert done.exit_code == 2
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_a_foreign_folder_and_a_run_are_compared_only_if_both_can_be(plant, tmp_path):
    with pytest.raises(RequestError):
        diagnose([plant(), tmp_path / "gone"])
    assert open_run(plant("other")).foreign == ""
