"""Where words go: stdout carries the result and nothing else, stderr everything for the person.

Colour never carries meaning alone, and every glyph has an ASCII form for streams that lack it.
"""

import json
import math
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Literal, TextIO, TypeAlias

import typer

from mmtool.errors import MmtoolError, RecipeError, StoppedResumable

ColorChoice: TypeAlias = Literal["auto", "always", "never"]
GLYPHS = {
    "ok": ("✓", "OK"),
    "fail": ("✗", "X"),
    "arrow": ("→", "->"),
    "block": ("█", "#"),
    "ellipsis": ("…", "..."),
    "plus_minus": ("±", "+-"),
    "times": ("×", "x"),
    "dash": ("–", "-"),
    "quote": ("’", "'"),
}
_ASCII = {ord(glyph): plain for glyph, plain in GLYPHS.values()}
_ASCII |= dict(zip(map(ord, "▁▂▃▄▅▆▇"), "__..--=", strict=True))
PAGE_WIDTH = 100
READER_GONE = 141
"""Exit code when stdout was closed by its reader: 128 + SIGPIPE."""


def wants_color(choice: ColorChoice, stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Decide whether a stream is coloured: the option, then NO_COLOR, FORCE_COLOR, the terminal."""
    if choice != "auto":
        return choice == "always"
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and environ.get("TERM") not in ("dumb", "unknown")


def _encodable(text: str, stream: TextIO) -> str:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_ASCII).encode(encoding, "backslashreplace").decode(encoding)
    return text


def plain_data(value: Any) -> Any:
    """Turn paths, dataclasses, numpy scalars and non-finite numbers into strict JSON values."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int | bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain_data(item) for key, item in value.items()}
    if isinstance(value, Sequence | set | frozenset):
        return [plain_data(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return plain_data(asdict(value))
    if hasattr(value, "item"):
        return plain_data(value.item())
    return str(value)


def align(rows: Sequence[Sequence[str]], *, width: int | None = None) -> list[str]:
    """Give rows as text with aligned columns; the last column is cut to fit `width`."""
    if not rows:
        return []
    num_columns = max(len(row) for row in rows)
    padded = [[*row, *[""] * (num_columns - len(row))] for row in rows]
    sizes = [max(len(row[column]) for row in padded) for column in range(num_columns)]
    lines = []
    for row in padded:
        cells = [cell.ljust(size) for cell, size in zip(row, sizes, strict=True)]
        line = "  ".join(cells).rstrip()
        if width is not None and len(line) > width > 3:
            line = line[: width - 3].rstrip() + "..."
        lines.append(line)
    return lines


class Output:
    """The one way a command speaks."""

    def __init__(
        self,
        *,
        as_json: bool = False,
        quiet: bool = False,
        verbose: bool = False,
        color: ColorChoice = "auto",
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.verbose = verbose
        self.color = color
        self.run_path: Path | None = None
        """Where a traceback is saved, once a run directory exists."""
        self._environ = os.environ if environ is None else environ
        self._result_written = False
        self._stdout = sys.stdout
        self.stderr = sys.stderr

    def result(self, schema: str, data: Mapping[str, Any], text: str | Sequence[str]) -> None:
        """Write the result: one JSON document under `--json`, the text otherwise."""
        if self.as_json:
            self._document({"schema": schema, "ok": True, **data})
        else:
            self.text(text)

    def text(self, text: str | Sequence[str]) -> None:
        """Write lines of the result for a person or a pipe."""
        lines = [text] if isinstance(text, str) else list(text)
        self._write(self._stdout, "".join(f"{line}\n" for line in lines))
        self._result_written = True

    def table(
        self,
        schema: str,
        data: Mapping[str, Any],
        rows: Sequence[Sequence[str]],
    ) -> None:
        """Write rows with aligned columns, cut to the width of a terminal but never in a pipe."""
        width = shutil.get_terminal_size().columns if self._stdout.isatty() else None
        self.result(schema, data, align(rows, width=width))

    def clear(self) -> None:
        """Empty the terminal before the result is drawn again."""
        self._write(self._stdout, "\x1b[2J\x1b[H")

    def _document(self, document: Mapping[str, Any]) -> None:
        text = json.dumps(plain_data(document), indent=2, ensure_ascii=False, allow_nan=False)
        if _encodable(text, self._stdout) != text:
            text = json.dumps(plain_data(document), indent=2, allow_nan=False)
        self._write(self._stdout, text + "\n")
        self._result_written = True

    def info(self, text: str) -> None:
        """Say what is going on."""
        if not self.quiet:
            self._note("", "", text)

    def detail(self, text: str) -> None:
        """Say something only `-v` asks for."""
        if self.verbose:
            self._note("", "dim", text)

    def hint(self, text: str) -> None:
        """Suggest what to do next."""
        if not self.quiet:
            self._note("hint: ", "cyan", text)

    def note(self, text: str) -> None:
        """Say what was decided on the way."""
        if not self.quiet:
            self._note("note: ", "cyan", text)

    def warning(self, text: str) -> None:
        """Say that something deserves a look although the work goes on."""
        if not self.quiet:
            self._note("warning: ", "yellow", text)

    def error(self, error: MmtoolError) -> None:
        """Explain a failure; under `--json` as the one document, unless a result was written."""
        if self.as_json and not self._result_written:
            fields: dict[str, Any] = dict(error.as_dict())
            if isinstance(error, RecipeError):
                fields["problems"] = [asdict(problem) for problem in error.problems]
                fields["rendered"] = error.rendered
            self._document(
                {
                    "schema": "mmtool.error/1",
                    "ok": False,
                    "error": fields,
                    "exit_code": error.exit_code,
                }
            )
            return
        if isinstance(error, RecipeError) and error.rendered:
            self._write(self.stderr, error.rendered.rstrip() + "\n\n")
        is_stopped = isinstance(error, StoppedResumable)
        label, color = ("stopped: ", "yellow") if is_stopped else ("error: ", "red")
        self._note(label, color, error.what)
        for label, text in (("where", error.where), ("why", error.why), ("fix", error.fix)):
            if text:
                self._note(f"  {label}: ", "bold", text.replace("\n", "\n       "))

    def glyph(self, name: str, *, stream: TextIO | None = None) -> str:
        """Give a glyph, or its ASCII form where the stream cannot show it."""
        fancy, plain = GLYPHS[name]
        stream = self._stdout if stream is None else stream
        return fancy if _encodable(fancy, stream) == fancy else plain

    def style(self, text: str, color: str, *, stream: TextIO | None = None) -> str:
        """Colour words for a stream, if it is to be coloured."""
        stream = self._stdout if stream is None else stream
        if not color or not wants_color(self.color, stream, self._environ):
            return text
        if color in ("bold", "dim"):
            return typer.style(text, bold=color == "bold", dim=color == "dim")
        return typer.style(text, fg=color, bold=True)

    def is_colored(self) -> bool:
        """Tell whether the result is to be coloured."""
        return wants_color(self.color, self._stdout, self._environ)

    def is_unicode(self) -> bool:
        """Tell whether the result may hold blocks and arrows."""
        return self.glyph("block") == GLYPHS["block"][0]

    def width(self) -> int:
        """Give the columns of the terminal, or of a page where there is none."""
        return shutil.get_terminal_size().columns if self._stdout.isatty() else PAGE_WIDTH

    def stdout_is_terminal(self) -> bool:
        """Tell whether the result is read by a person who can see it redrawn."""
        return self._stdout.isatty() and self._environ.get("TERM") != "dumb"

    def stderr_is_terminal(self) -> bool:
        """Tell whether a bar can be redrawn in place."""
        return self.stderr.isatty() and self._environ.get("TERM") != "dumb"

    def _note(self, label: str, color: str, text: str) -> None:
        styled = self.style(label, color, stream=self.stderr) if label else ""
        body = text if label else self.style(text, color, stream=self.stderr)
        self._write(self.stderr, f"{styled}{body}\n")

    def _write(self, stream: TextIO, text: str) -> None:
        try:
            stream.write(_encodable(text, stream))
            stream.flush()
        except BrokenPipeError:
            # The descriptor is pointed elsewhere so that the interpreter's last flush is quiet too.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            raise typer.Exit(READER_GONE) from None
