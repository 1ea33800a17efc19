"""Raw sources before decoding: their bytes, what they really are, and their fingerprint."""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeAlias

from mmtool.media.container import FileKey, blocks, file_key, read_head
from mmtool.media.container import read_bytes as read_bytes
from mmtool.media.failure import MediaError
from mmtool.media.folder import pictures_in
from mmtool.media.kinds import WRITTEN
from mmtool.media.kinds import recognise as recognise
from mmtool.media.kinds import sniff as sniff
from mmtool.media.records import read_record
from mmtool.media.spec import Source

Glance: TypeAlias = Literal["found", "missing", "empty", "lfs-pointer", "not-media"]

# What is never text, so that words at its begin are the answer of a server.
_BINARY_SUFFIXES = (
    ".wav", ".mp3", ".flac", ".ogg", ".m4a", ".mp4", ".flv", ".avi", ".mkv", ".mov", ".mpg",
    ".webm", ".jpg", ".jpeg", ".png", ".gif", ".bmp", ".npy", ".gz", ".zip",
)  # fmt: skip


def glance(source: Source) -> Glance:
    """Say from the first bytes whether a source can be what its name promises; never raises."""
    if source.text is not None:
        return "found"
    try:
        if source.member is None and source.path.is_dir():
            return "found" if source.read is not None or pictures_in(source.path) else "empty"
        head = read_head(source)
    except MediaError as error:
        return "missing" if error.reason == "missing" else "not-media"
    if not head:
        return "empty"
    kind = sniff(head)
    if kind == "lfs-pointer":
        return "lfs-pointer"
    suffix = Path(source.member or source.path).suffix.lower()
    wrong = kind == "html" or (kind in (*WRITTEN, "pdf") and suffix in _BINARY_SUFFIXES)
    return "not-media" if wrong else "found"


def fingerprint(source: Source) -> str:
    """Give the sha256 of what a source holds: its text, its record, or the content of its files.

    A folder is told apart by the names and sizes of its pictures and the content of three.
    """
    if source.text is not None:
        return hashlib.sha256(source.text.encode("utf-8", "surrogatepass")).hexdigest()
    paths = (source.path, *source.parts)
    found = [_one_fingerprint(source, path) for path in paths]
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()


def _one_fingerprint(source: Source, path: Path) -> str:
    if source.read is None and (source.row is not None or source.key is not None):
        record = read_record(Source(path, source.member, source.row, key=source.key))
        return hashlib.sha256(record.tobytes()).hexdigest()
    if source.member is None and path.is_dir():
        return _folder_hash(path)
    return _content_hash(file_key(path), source.member)


def _folder_hash(folder: Path) -> str:
    pictures = pictures_in(folder)
    if not pictures:
        raise MediaError("not-media", f"{folder}: is a folder without pictures")
    digest = hashlib.sha256()
    for path in pictures:
        digest.update(f"{path.name}:{path.stat().st_size}\n".encode())
    for path in (*pictures[:1], *pictures[len(pictures) // 2 :][:1], *pictures[-1:]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


# Several clips are often cut from one long file, which should be hashed once.
@lru_cache(maxsize=4096)
def _content_hash(key: FileKey, member: str | None) -> str:
    digest = hashlib.sha256()
    for block in blocks(Source(Path(key[0]), member)):
        digest.update(block)
    return digest.hexdigest()
