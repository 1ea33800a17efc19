"""The command line as a process: streams, exit codes, help, what it loads."""

import json
import os
import subprocess
import sys

import pytest

from mmtool.cli.app import run


def mmtool(*arguments, **environ):
    return subprocess.run(
        [sys.executable, "-m", "mmtool", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "COLUMNS": "100", **environ},
        check=False,
    )


def test_help_ends_with_the_exit_codes(capsys):
    code = run(["--help"])

    told = capsys.readouterr().out
    assert code == 0
    assert "Exit codes:" in told
    assert told.rstrip().splitlines()[-1].split()[0] == "130"


@pytest.mark.parametrize(
    "arguments", [["train"], ["prepare"], ["diagnose"], ["profile"], ["recipe", "show"]]
)
def test_help_of_a_command_keeps_brackets_and_shows_an_example(capsys, arguments):
    code = run([*arguments, "--help"])

    told = capsys.readouterr().out
    assert code == 0
    assert "[OPTIONS]" in told
    assert f"  mmtool {' '.join(arguments)} " in told


def test_the_version_is_the_package_version(capsys):
    from mmtool import __version__

    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"mmtool {__version__}\n"


def test_no_arguments_print_help_and_exit_with_two(capsys):
    code = run([])

    told = capsys.readouterr()
    assert code == 2
    assert told.out == ""
    assert "Commands:" in told.err


def test_an_unknown_command_suggests_the_nearest(capsys):
    code = run(["trian"])

    told = capsys.readouterr()
    assert code == 2
    assert told.out == ""
    assert told.err.startswith("error: no such command 'trian'")
    assert "'train'" in told.err
    assert "fix: mmtool --help" in told.err


def test_an_unknown_option_under_json_is_a_document(capsys):
    code = run(["train", "--gpuss", "3", "--json"])

    document = json.loads(capsys.readouterr().out)
    assert code == document["exit_code"] == 2
    assert document["schema"] == "mmtool.error/1"
    assert "--gpuss" in document["error"]["what"]
    assert document["error"]["fix"] == "mmtool train --help"


def test_options_that_cancel_each_other_are_refused(capsys):
    code = run(["list", "-q", "-v"])

    assert code == 2
    assert "--quiet and --verbose cannot be given together" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["list"], ["list", "datasets"], ["list", "rule", "straggler"]],
    ids=str,
)
def test_help_and_lists_load_nothing_heavy(arguments):
    code = (
        "import sys\n"
        "from mmtool.cli.app import run\n"
        "assert run(sys.argv[1:]) == 0\n"
        "heavy = {'torch', 'pandas', 'numpy', 'cv2', 'torchaudio', 'torchcodec', 'rich'}\n"
        "found = heavy & set(sys.modules)\n"
        "sys.exit(f'loaded {sorted(found)}' if found else 0)\n"
    )
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def test_completion_names_commands_without_loading_anything_heavy():
    code = (
        "import sys\n"
        "from mmtool.cli.app import run\n"
        "try:\n"
        "    run(sys.argv[1:])\n"
        "finally:\n"
        "    found = {'torch', 'pandas', 'numpy', 'cv2'} & set(sys.modules)\n"
        "    print('heavy', sorted(found), file=sys.stderr)\n"
    )
    environ = {
        **os.environ,
        "_MMTOOL_COMPLETE": "complete_bash",
        "COMP_WORDS": "mmtool list me",
        "COMP_CWORD": "2",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=False
    )

    assert done.stdout.split() == ["methods"]
    assert "heavy []" in done.stderr


def test_an_ascii_stream_is_no_reason_to_break():
    done = mmtool("list", "rules", PYTHONIOENCODING="ascii")

    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert len(done.stdout.splitlines()) >= 5


def test_colour_is_asked_for_or_left_out():
    colored = mmtool("list", "nothing", "--color", "always", NO_COLOR="1")
    plain = mmtool("list", "nothing", FORCE_COLOR="1", NO_COLOR="1")

    assert "\x1b[" in colored.stderr
    assert "\x1b[" not in plain.stderr
    assert colored.returncode == plain.returncode == 2


def test_a_reader_that_goes_away_ends_the_command_quietly():
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "mmtool", "list", "rules"],
            stdout=write_end,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(write_end)

    assert done.returncode == 141
    assert done.stderr == ""
