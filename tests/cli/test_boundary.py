import errno
import json
import logging
from pathlib import Path

import pytest
import typer

from mmtool.cli.boundary import error_boundary, explain
from mmtool.cli.output import Output
from mmtool.errors import (
    Bug,
    EnvironmentLacks,
    FindingsPresent,
    RequestError,
    StoppedResumable,
    WorkFailed,
)


def code_of(error, **manner):
    with pytest.raises(typer.Exit) as ending, error_boundary(Output(environ={}, **manner)):
        raise error
    return ending.value.exit_code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WorkFailed("w"), 1),
        (RequestError("r"), 2),
        (FindingsPresent("f"), 3),
        (EnvironmentLacks("e"), 4),
        (StoppedResumable("s"), 75),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_failure_has_its_exit_code(error, code):
    assert code_of(error) == code


def test_a_bug_saves_its_traceback_and_says_where(capsys):
    code = code_of(ZeroDivisionError("one over zero"))

    told = capsys.readouterr().err
    where = next(line for line in told.splitlines() if line.startswith("  where: "))
    saved = Path(where.removeprefix("  where: traceback saved to "))
    assert code == 70
    assert "ZeroDivisionError: one over zero" in told
    assert "raise error" in saved.read_text(encoding="utf-8")
    saved.unlink()


def test_a_bug_in_a_run_saves_its_traceback_in_the_run_directory(tmp_path):
    output = Output(environ={})
    output.run_path = tmp_path

    with pytest.raises(typer.Exit) as ending, error_boundary(output):
        raise Bug("an invariant does not hold")

    assert ending.value.exit_code == 70
    assert "an invariant" in (tmp_path / "traceback.txt").read_text(encoding="utf-8")


def test_json_errors_are_documents(capsys):
    code = code_of(RequestError("r", where="here", why="because", fix="do"), as_json=True)

    document = json.loads(capsys.readouterr().out)
    assert document == {
        "schema": "mmtool.error/1",
        "ok": False,
        "error": {
            "kind": "RequestError",
            "what": "r",
            "where": "here",
            "why": "because",
            "fix": "do",
        },
        "exit_code": code,
    }


def test_verbose_shows_the_traceback(capsys):
    code_of(RequestError("r"), verbose=True)

    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_a_missing_package_is_named_with_what_to_install():
    found = explain(ModuleNotFoundError("No module named 'wandb.sdk'", name="wandb.sdk"))

    assert isinstance(found, EnvironmentLacks)
    assert found.fix == "pip install wandb"


def test_a_missing_module_of_mmtool_itself_is_a_bug():
    found = explain(ModuleNotFoundError("No module named 'mmtool.gone'", name="mmtool.gone"))

    assert isinstance(found, Bug)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_full_or_forbidden_disk_is_the_environment(number):
    found = explain(OSError(number, "told by the system", "/some/file"))

    assert isinstance(found, EnvironmentLacks)
    assert found.where == "/some/file"


def test_log_records_are_spoken_only_inside_the_command(capsys):
    logger = logging.getLogger("mmtool.prepare")
    with error_boundary(Output(environ={})):
        logger.warning("skipped %d clips", 3)
        logger.info("not worth a line")

    logger.warning("later")
    told = capsys.readouterr().err
    assert told.splitlines()[0] == "warning: skipped 3 clips"
    assert "not worth a line" not in told
    assert "warning: later" not in told
