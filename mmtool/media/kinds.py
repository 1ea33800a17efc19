"""What a file really is, seen from its first bytes, whatever its name says."""

from collections.abc import Collection

from mmtool.media.container import read_head, where
from mmtool.media.failure import MediaError
from mmtool.media.spec import Source

NPY_MAGIC = b"\x93NUMPY"
IMAGES = frozenset({"jpeg", "png", "bmp", "webp", "gif"})
NOT_MEDIA = frozenset({"html", "xml", "text", "pdf", "zip", "gzip", "pickle"})
WRITTEN = ("text", "xml")
"""What a reader of texts and tables takes."""

_LFS_POINTER = b"version https://git-lfs"
_PREFIXES = (
    (_LFS_POINTER, "lfs-pointer"),
    (b"fLaC", "flac"),
    (b"OggS", "ogg"),
    (b"ID3", "mp3"),
    (b"FLV\x01", "flv"),
    (b"\x1aE\xdf\xa3", "mkv"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (NPY_MAGIC, "npy"),
    (b"%PDF", "pdf"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"\x1f\x8b", "gzip"),
    (b"\x00\x00\x01\xba", "mpeg"),
    (b"\x00\x00\x01\xb3", "mpeg"),
)
_RIFF_KINDS = {b"WAVE": "wav", b"AVI ": "avi", b"WEBP": "webp"}
_HTML_STARTS = (b"<!doctype html", b"<html", b"<head", b"<body")
_PRINTABLE = bytes(range(32, 127)) + b"\t\n\r\f" + bytes(range(128, 256))
_FIXES = {
    "html": "the download gave a web page; fetch the file again",
    "xml": "the download gave an error answer; fetch the file again",
    "zip": "unpack it, or name a member of the archive",
    "gzip": "unpack it with gunzip",
    "pickle": "name what it holds, such as train/audio",
}


def sniff(first_bytes: bytes) -> str | None:
    """Say what a file is by its first bytes, whatever its name; None when they tell nothing."""
    head = first_bytes
    # A bare "BM" may open a text; the reserved bytes of a bitmap's header are zero.
    if head[:2] == b"BM" and head[6:10] != bytes(4):
        return _sniff_text(head)
    for prefix, kind in _PREFIXES:
        if head.startswith(prefix):
            return kind
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] in _RIFF_KINDS:
        return _RIFF_KINDS[head[8:12]]
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mp4"
    if len(head) > 188 and head[0] == head[188] == 0x47:
        return "mpegts"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 0x06:
        return "mp3"
    return _sniff_numbers(head) or _sniff_text(head)


def recognise(source: Source, *, fine: Collection[str] = ()) -> str | None:
    """Sniff a source, refusing pointers, empty files and what no decoder should be given.

    `fine` names kinds that are no media but that this caller reads.
    """
    return recognised(source, read_head(source), fine=fine)


def recognised(source: Source, head: bytes, *, fine: Collection[str] = ()) -> str | None:
    """Do the same for first bytes that were already read."""
    place = where(source)
    if not head:
        raise MediaError("empty", f"{place}: the file is empty; fetch it again")
    kind = sniff(head)
    if kind == "lfs-pointer":
        message = f"{place}: is a git-lfs pointer, not the file itself; run `git lfs pull` there"
        raise MediaError("lfs-pointer", message)
    if kind in NOT_MEDIA and kind not in fine:
        start = head[:40].decode("utf-8", "replace")
        advice = f"; {_FIXES[kind]}" if kind in _FIXES else ""
        message = f"{place}: not media but {kind}, it starts with {start!r}{advice}"
        raise MediaError("not-media", message)
    return kind


def _sniff_numbers(head: bytes) -> str | None:
    if len(head) > 3 and head[:2] == b"\0\0" and head[2] in range(0x08, 0x0F) and head[3] in (1, 3):
        return "idx"
    # Protocol 2 and later: the opcode PROTO and its number; earlier ones have no mark.
    if len(head) > 2 and head[0] == 0x80 and head[1] in range(2, 6):
        return "pickle"
    return None


def _sniff_text(head: bytes) -> str | None:
    if not head or head.translate(None, _PRINTABLE):
        return None
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if start.startswith(_HTML_STARTS):
        return "html"
    if start.startswith(b"<?xml"):
        return "html" if b"<html" in start else "xml"
    # High bytes alone are no sign of text: demand that most of it is ASCII.
    is_ascii = sum(byte < 128 for byte in head)
    return "text" if is_ascii >= 0.7 * len(head) else None
