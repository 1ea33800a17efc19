import json
import os
import shutil
import sys

import jsonschema
import pytest
from typer.testing import CliRunner

from mmtool.cli.app import app
from mmtool.cli.completion import run_names
from mmtool.cli.output import Output
from mmtool.runlog.rundir import create_run, point_latest
from mmtool.runlog.writer import EventWriter


def call(*arguments):
    return CliRunner().invoke(app, ["diagnose", *map(str, arguments)])


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A finished run of two epochs in which audio does all the work."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "runs"
    made = create_run(root, "demo")
    made.write_recipe("", "")
    point_latest(root, made)
    with EventWriter(made.log_path(0)) as log:
        facts = {"modalities": ["audio", "video"], "classes": ["a", "b"], "method": "none"}
        facts |= {"batch_size": 8, "epochs": 2, "steps_per_epoch": 4, "chance": 0.5}
        facts |= {"num_train": 32, "num_val": 400, "dataset": "demo", "dataset_hash": "d" * 16}
        log.write(
            "head", schema="mmtool-log/1.0", run=made.name, rank=0, world=1, attempt=1, **facts
        )
        for epoch in range(2):
            for step in range(4 * epoch, 4 * epoch + 4):
                log.write("step", step=step, epoch=epoch, n=8, loss=0.5, ms={"step": 10.0})
            audio = {"acc": 0.9, "alone": 0.9, "drop": 0.4, "flip": 0.45, "probe": 0.9}
            video = {"acc": 0.5, "alone": 0.5, "drop": 0.0, "flip": 0.01, "probe": 0.8}
            for split in ("train", "val"):
                log.write(
                    "epoch",
                    epoch=epoch,
                    step=4 * epoch + 4,
                    split=split,
                    n=400,
                    loss=0.4,
                    acc=0.9,
                    m={"audio": audio, "video": video},
                )
        log.write("end", status="done", reason="")
    made.write_status(state="done", reason="", step=8, epoch=2, attempt=1, resumable=False)
    return made


def test_the_report_is_the_result(run):
    found = call("latest")

    assert found.exit_code == 0, found.stderr
    assert run.name in found.stdout
    assert "audio" in found.stdout
    assert found.stderr == ""


def test_a_run_is_named_by_path_name_or_latest(run):
    told = {call(word).stdout for word in ("latest", run.name, run.path)}

    assert len(told) == 1


def test_json_is_the_report_as_data(run):
    document = json.loads(call("latest", "--json").stdout)

    assert document["schema"] == "mmtool.diagnose/1"
    assert document["ok"] is True
    assert document["run"] == run.name
    assert {"verdict", "findings", "metrics", "system", "limits", "meta"} <= set(document)


def test_the_page_is_written_beside_the_report(run, tmp_path):
    found = call("latest", "--html", tmp_path / "out" / "page.html")

    assert found.exit_code == 0, found.stderr
    assert "<html" in (tmp_path / "out" / "page.html").read_text(encoding="utf-8")
    assert "page.html" in found.stderr
    assert "page.html" not in found.stdout


def test_fail_on_exits_with_three_after_the_report(run):
    found = call("latest", "--fail-on", "info")

    assert found.exit_code == 3
    assert run.name in found.stdout
    assert "of severity info or higher" in found.stderr


def test_fail_on_under_json_leaves_one_document(run):
    found = call("latest", "--fail-on", "info", "--json")

    assert found.exit_code == 3
    assert json.loads(found.stdout)["schema"] == "mmtool.diagnose/1"


def test_nothing_that_severe_is_no_failure(run):
    report = json.loads(call("latest", "--json").stdout)
    assert not [f for f in report["findings"] if f["severity"] == "error"]

    assert call("latest", "--fail-on", "error").exit_code == 0


def test_an_unknown_run_is_a_wrong_request(run):
    found = call("no-such-run")

    assert found.exit_code == 2
    assert found.stdout == ""


def test_watching_needs_a_terminal(run):
    found = call("latest", "--watch")

    assert found.exit_code == 2
    assert "--watch needs a terminal" in found.stderr


@pytest.mark.parametrize("other", [("--html", "x.html"), ("--fail-on", "warn"), ("--json",)])
def test_watching_takes_nothing_that_it_would_not_do(run, other):
    found = call("latest", "--watch", *other)

    assert found.exit_code == 2
    assert "no effect with --watch" in found.output


def test_an_ascii_stream_gets_an_ascii_report(run):
    found = CliRunner(charset="ascii").invoke(app, ["diagnose", "latest"])

    assert found.exit_code == 0
    assert found.stdout.isascii()


def test_watching_draws_until_the_run_has_ended(run, monkeypatch):
    run.write_status(state="running", pid=os.getpid(), host=os.uname().nodename)
    waits = []

    def end_the_run(seconds):
        waits.append(seconds)
        run.write_status(state="done")

    monkeypatch.setattr("mmtool.cli.report_watch.time.sleep", end_the_run)
    monkeypatch.setattr(Output, "stdout_is_terminal", lambda _: True)

    found = call("latest", "--watch")

    assert found.exit_code == 0, found.stderr
    assert waits == [1.0]
    assert f"{run.name}: done" in found.stdout
    assert found.stdout.rstrip().endswith("800 samples/s")


def test_plain_text_has_no_frames_and_says_the_same(run):
    plain, framed = call("latest", "--plain").stdout, call("latest").stdout

    assert "╭" in framed
    assert "╭" not in plain
    sentence = json.loads(call("latest", "--json").stdout)["metrics"]["verdict"]["sentence"]
    assert sentence[1:] in " ".join(plain.split())
    assert sentence[1:] in " ".join(framed.replace("│", " ").split())


def test_no_color_is_respected_and_colour_can_be_forced(run, monkeypatch):
    assert "\x1b" in call("latest", "--color", "always").stdout
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" in call("latest").stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in call("latest").stdout


def test_the_schema_is_printed_and_the_report_is_of_it(run):
    schema = json.loads(call("--schema").stdout)
    document = json.loads(call("latest", "--json").stdout)

    jsonschema.Draft202012Validator(schema).validate(document)
    assert json.loads(call("--schema", "--json").stdout)["json_schema"] == schema


def test_the_schema_opens_no_run(run):
    found = call("latest", "--schema")

    assert found.exit_code == 2
    assert "no effect with --schema" in found.output


def test_without_a_run_nothing_is_done(run):
    found = call()

    assert found.exit_code == 2
    assert "no run was given" in found.stderr


def test_a_saved_report_is_shown_and_drawn_without_its_run(run, tmp_path):
    saved = tmp_path / "report.json"
    saved.write_text(call("latest", "--json").stdout, encoding="utf-8")
    shown = call("latest").stdout
    shutil.rmtree(run.path)
    found = call(saved, "--html", tmp_path / "page.html", "--svg", tmp_path / "charts")

    assert found.exit_code == 0, found.stderr
    assert found.stdout == shown
    assert "<svg" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert (tmp_path / "charts" / "learning.svg").is_file()


def test_a_saved_report_cannot_be_compared(run, tmp_path):
    saved = tmp_path / "report.json"
    saved.write_text(call("latest", "--json").stdout, encoding="utf-8")
    found = call(saved, "latest")

    assert found.exit_code == 2
    assert "cannot be compared" in found.stderr


@pytest.mark.parametrize("option", ["--html", "--svg"])
def test_a_file_that_cannot_be_written_does_not_cost_the_report(run, tmp_path, option):
    (tmp_path / "way").write_text("in the way", encoding="utf-8")
    found = call("latest", option, tmp_path / "way" / "out")

    assert found.exit_code == 74
    assert run.name in found.stdout
    assert "cannot be written" in found.stderr
    assert (tmp_path / "way").read_text(encoding="utf-8") == "in the way"


def test_one_file_that_cannot_be_written_keeps_no_other_from_it(run, tmp_path):
    (tmp_path / "way").write_text("in the way", encoding="utf-8")
    found = call("latest", "--html", tmp_path / "way" / "x.html", "--svg", tmp_path / "charts")

    assert found.exit_code == 74
    assert (tmp_path / "charts" / "learning.svg").is_file()


def test_a_picture_without_its_package_says_what_to_install(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    found = call("latest", "--png", tmp_path / "charts")

    assert found.exit_code == 4
    assert "pip install 'mmtool[png]'" in found.stderr
    assert run.name in found.stdout
    assert not (tmp_path / "charts").exists()


def test_fail_on_names_findings(run):
    code = json.loads(call("latest", "--json").stdout)["metrics"]["verdict"]["code"]

    assert call("latest", "--fail-on", f"straggler,{code}").exit_code == 3
    assert call("latest", "--fail-on", "straggler").exit_code == 0


def test_fail_on_refuses_a_finding_that_does_not_exist(run):
    found = call("latest", "--fail-on", "stragler")

    assert found.exit_code == 2
    assert "straggler" in found.stderr
    assert found.stdout == ""


def test_completion_offers_the_latest_run_first(run):
    assert run_names("") == ["latest", run.name]
    assert run_names("runs/la") == ["runs/latest"]
    assert run_names("x") == []
