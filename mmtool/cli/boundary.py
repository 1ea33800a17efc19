"""What becomes of an exception: a sentence, an exit code, and for a bug a saved traceback."""

import logging
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import typer

from mmtool.cli.output import Output
from mmtool.errors import Bug, MmtoolError, foreseen

EXIT_CODES = (
    ("0", "done"),
    ("1", "the work failed; what was made so far is kept"),
    ("2", "the request is wrong; nothing was started"),
    ("3", "diagnose --fail-on found something"),
    ("4", "the environment lacks something: data, a GPU, a package"),
    ("65", "no checkpoint is left that could be continued from"),
    ("70", "a bug in mmtool, or ranks that drifted apart; the traceback was saved"),
    ("74", "results cannot be written: the disk is full, read-only or gone"),
    ("75", "stopped after saving; continue with train --resume"),
    ("76", "diverged: loss or gradients stayed not finite"),
    ("77", "out of memory"),
    ("79", "a rank hung"),
    ("130", "killed by a second Ctrl-C; 128 + n: ended by signal n"),
)
INTERRUPTED = 130


@contextmanager
def error_boundary(output: Output) -> Iterator[None]:
    """Turn whatever a command raises into words on the right stream and an exit code."""
    try:
        with _log_shown(output):
            yield
    except (typer.Exit, typer.Abort, typer.TyperException):
        raise
    except KeyboardInterrupt:
        output.info("interrupted")
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:  # noqa: BLE001 - the outermost boundary explains every failure
        raise typer.Exit(report(error, output)) from None


def report(error: Exception, output: Output) -> int:
    """Explain an exception to the user and give the exit code."""
    known = explain(error)
    if known.exit_code == Bug.exit_code:
        saved = _save_traceback(error, output.run_path)
        known = Bug(
            known.what,
            where=known.where or f"traceback saved to {saved}",
            why=known.why,
            fix=known.fix or f"report it to the authors of mmtool together with {saved}",
        )
    if output.verbose:
        output.detail("".join(traceback.format_exception(error)).rstrip())
    output.error(known)
    return known.exit_code


def explain(error: Exception) -> MmtoolError:
    """Find the words for an exception; what nobody foresaw is a bug."""
    words = f"mmtool met a case it does not handle: {type(error).__name__}: {error}"
    return foreseen(error) or Bug(words)


def _save_traceback(error: Exception, folder: Path | None) -> Path:
    text = "".join(traceback.format_exception(error))
    if folder is not None:
        with suppress(OSError):
            path = folder / "traceback.txt"
            path.write_text(text, encoding="utf-8")
            return path
    with tempfile.NamedTemporaryFile(
        "w", prefix="mmtool-traceback-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        file.write(text)
    return Path(file.name)


class _ShownLog(logging.Handler):
    """Hands log records to the person in the voice of the command line."""

    def __init__(self, output: Output) -> None:
        super().__init__(logging.DEBUG if output.verbose else logging.WARNING)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            self._output.warning(text)
        else:
            self._output.detail(text)


@contextmanager
def _log_shown(output: Output) -> Iterator[None]:
    logger = logging.getLogger("mmtool")
    before = logger.level
    handler = _ShownLog(output)
    logger.addHandler(handler)
    logger.setLevel(handler.level)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
