"""Where every key and value of a TOML text stands, so that a problem can point at it.

`tomllib` decides what is valid and what it means; this scanner reads valid text only and gives the
positions that `tomllib` does not keep. Paths are tuples of text: `("data", "modalities", "0")` is
the first element of a list, `("table", "1", "key")` a key of the second `[[table]]`.
"""

import re
import tomllib
from bisect import bisect_right
from dataclasses import dataclass

KeyPath = tuple[str, ...]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BASIC = re.compile(r'"(?:[^"\\\n]|\\.)*"')
_LITERAL = re.compile(r"'[^'\n]*'")
_LONG_BASIC = re.compile(r'"""(?:[^\\]|\\.)*?"""(?:""|"|)(?!")', re.DOTALL)
_LONG_LITERAL = re.compile(r"'''.*?'''(?:''|'|)(?!')", re.DOTALL)
_SCALAR = re.compile(r"[^,\]}#\r\n]+")
_BLANK = re.compile(r"[ \t]*")
_GAP = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of one line; line and column count from one, a longer value ends with its line."""

    line: int
    column: int
    length: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where a key and its value stand; an element of a list has no key of its own."""

    key: Span
    value: Span


def locate(text: str) -> dict[KeyPath, Place]:
    """Give the place of every key and value of a valid TOML text."""
    scanner = _Scanner(text)
    scanner.document()
    return scanner.places


def parse_key(text: str) -> KeyPath:
    """Split a dotted key into its parts; raises `ValueError` when it is not one."""
    scanner = _Scanner(text)
    parts = scanner.key()
    if scanner.at != len(text):
        raise ValueError(f"{text!r} is not a dotted key")
    return tuple(name for name, _, _ in parts)


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.places: dict[KeyPath, Place] = {}
        self._by_header: set[KeyPath] = set()
        self._num_tables: dict[KeyPath, int] = {}
        self._line_starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def document(self) -> None:
        table: KeyPath = ()
        while True:
            self._skip(_GAP)
            if self.at == len(self.text):
                return
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table)

    def key(self) -> list[tuple[str, int, int]]:
        """Read a dotted key: the name, start and end of each part."""
        parts = []
        while True:
            self._skip(_BLANK)
            start = self.at
            for pattern in (_BARE_KEY, _BASIC, _LITERAL):
                if self._skip(pattern):
                    break
            else:
                raise ValueError(f"no key at {start}")
            raw = self.text[start : self.at]
            name = tomllib.loads(f"key = {raw}")["key"] if raw[0] in "\"'" else raw
            parts.append((name, start, self.at))
            self._skip(_BLANK)
            if self.text[self.at : self.at + 1] != ".":
                return parts
            self.at += 1

    def _header(self) -> KeyPath:
        of_array = self.text.startswith("[[", self.at)
        start = self.at
        self.at += 2 if of_array else 1
        parts = self.key()
        self.at += 2 if of_array else 1
        whole = self._span(start, self.at)
        path: KeyPath = ()
        for depth, (name, begin, end) in enumerate(parts, start=1):
            path = (*path, name)
            last = depth == len(parts)
            # An explicit header says more about a table than a passing mention in a longer one.
            if path not in self.places or (last and path in self._by_header):
                self.places[path] = Place(self._span(begin, end), whole)
                self._by_header.add(path)
            if last and of_array:
                self._num_tables[path] = self._num_tables.get(path, 0) + 1
            if path in self._num_tables:
                path = (*path, str(self._num_tables[path] - 1))
                self.places.setdefault(path, Place(self._span(begin, end), whole))
        return path

    def _pair(self, table: KeyPath) -> None:
        parts = self.key()
        self.at += 1  # the equals sign
        self._skip(_BLANK)
        path = (*table, *(name for name, _, _ in parts))
        value = self._value(path)
        for depth, (_, begin, end) in enumerate(parts, start=1):
            here = path[: len(table) + depth]
            if here == path or here not in self.places:
                self.places[here] = Place(self._span(begin, end), value)

    def _value(self, path: KeyPath) -> Span:
        start = self.at
        opening = self.text[start]
        if opening == "[":
            self._list(path)
        elif opening == "{":
            self._inline_table(path)
        elif opening in "\"'":
            for pattern in (_LONG_BASIC, _LONG_LITERAL, _BASIC, _LITERAL):
                if self._skip(pattern):
                    break
        else:
            self._skip(_SCALAR)
            self.at = start + len(self.text[start : self.at].rstrip())
        return self._span(start, self.at)

    def _list(self, path: KeyPath) -> None:
        self.at += 1
        position = 0
        while True:
            self._skip(_GAP)
            if self.text[self.at] == "]":
                self.at += 1
                return
            here = (*path, str(position))
            span = self._value(here)
            self.places[here] = Place(span, span)
            position += 1
            self._comma()

    def _inline_table(self, path: KeyPath) -> None:
        self.at += 1
        while True:
            self._skip(_GAP)
            if self.text[self.at] == "}":
                self.at += 1
                return
            self._pair(path)
            self._comma()

    def _comma(self) -> None:
        self._skip(_GAP)
        if self.text[self.at] == ",":
            self.at += 1

    def _skip(self, pattern: re.Pattern[str]) -> bool:
        match = pattern.match(self.text, self.at)
        if match is None:
            return False
        self.at = match.end()
        return True

    def _span(self, start: int, end: int) -> Span:
        line = bisect_right(self._line_starts, start) - 1
        line_end = self.text.find("\n", start)
        if line_end != -1 and line_end < end:
            end = start + len(self.text[start:line_end].rstrip("\r"))
        return Span(line + 1, start - self._line_starts[line] + 1, end - start)
