"""The files of a release by name, without what operating systems leave behind."""

import os
from collections.abc import Iterator
from pathlib import Path

_JUNK = frozenset({".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX", "@eaDir"})


def is_junk(name: str) -> bool:
    """Tell files that archives and file managers add: `._twin.mp4`, `.DS_Store`, `__MACOSX`."""
    return name in _JUNK or name.startswith("._")


def walk(folder: Path) -> Iterator[Path]:
    """Give all files below a folder in a fixed order, junk left out."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if is_junk(entry.name):
            continue
        if entry.is_dir():
            yield from walk(Path(entry.path))
        else:
            yield Path(entry.path)


class FileTree:
    """All files below a folder, walked once: finds one by stem whatever folder it lies in."""

    def __init__(self, folder: Path, *suffixes: str, ignore_case: bool = False) -> None:
        wanted = {suffix.lower() for suffix in suffixes}
        self.folder = folder
        self.paths = tuple(
            path for path in walk(folder) if not wanted or path.suffix.lower() in wanted
        )
        self._ignore_case = ignore_case
        self._by_stem: dict[str, Path] = {}
        for path in self.paths:
            self._by_stem.setdefault(self._key(path.stem), path)

    def find(self, stem: str) -> Path | None:
        """Give the first file of that name without its suffix; case counts unless ignored."""
        return self._by_stem.get(self._key(stem))

    def _key(self, stem: str) -> str:
        return stem.lower() if self._ignore_case else stem
