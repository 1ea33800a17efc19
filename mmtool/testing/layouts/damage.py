"""Defects put into good files, byte by byte."""

import struct
from pathlib import Path

APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(58)
WEB_PAGE = (
    b"<!DOCTYPE html>\n<html><head><title>Quota exceeded</title></head>\n"
    b"<body><p>Too many users have downloaded this file recently.</p></body></html>\n"
)
_TURNS = {
    90: (0, 1, -1, 0),
    180: (-1, 0, 0, -1),
    270: (0, -1, 1, 0),
}


def lfs_pointer(path: Path, num_bytes: int = 265_922) -> None:
    """Write the text that a clone without git-lfs holds instead of the file."""
    digest = path.name.encode().hex().ljust(64, "0")[:64]
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {num_bytes}\n"
    _write(path, text.encode())


def web_page(path: Path) -> None:
    """Write the error page that a failed download stores under the name of the file."""
    _write(path, WEB_PAGE)


def apple_double(path: Path) -> Path:
    """Write the `._` twin of a file, as macOS leaves it in archives; gives its path."""
    twin = path.with_name(f"._{path.name}")
    _write(twin, APPLE_DOUBLE)
    return twin


def empty(path: Path) -> None:
    """Write a file of 0 bytes."""
    _write(path, b"")


def stub(path: Path) -> None:
    """Write an mp4 of 48 bytes: its head, and no media."""
    brands = b"isom" + struct.pack(">I", 512) + b"isomiso2avc1mp41"
    _write(path, struct.pack(">I", 32) + b"ftyp" + brands + b"\0\0\0\x08free\0\0\0\x08mdat")


def truncate(path: Path, share: float = 0.6) -> None:
    """Keep only the first part of a file."""
    content = path.read_bytes()
    _write(path, content[: int(len(content) * share)])


def without_moov(path: Path) -> None:
    """Take the index out of an mp4: the media is there, but nothing says where."""
    content = path.read_bytes()
    kept = [content[start:end] for kind, start, end in _boxes(content) if kind != b"moov"]
    _write(path, b"".join(kept))


def cover_first(path: Path) -> None:
    """Move the cover picture of an mp4 before its streams, so that it becomes the first one."""
    content = path.read_bytes()
    start, end = next((s, e) for k, s, e in _boxes(content) if k == b"moov")
    inner = content[start + 8 : end]
    parts = [(kind, inner[s:e]) for kind, s, e in _boxes(inner)]
    order = {b"mvhd": 0, b"udta": 1}
    parts.sort(key=lambda part: order.get(part[0], 2))
    moved = b"".join(part for _, part in parts)
    _write(path, content[: start + 8] + moved + content[end:])


def rotate_mp4(path: Path, degrees: int) -> None:
    """Write a display matrix that makes players turn the picture clockwise by 90, 180 or 270."""
    content = bytearray(path.read_bytes())
    moov_start, moov_end = next((s, e) for k, s, e in _boxes(bytes(content)) if k == b"moov")
    at = content.find(b"tkhd", moov_start, moov_end)
    while at >= 0:
        matrix = at + 44
        width, height = struct.unpack(">II", content[matrix + 36 : matrix + 44])
        if width:
            a, b, c, d = _TURNS[degrees]
            shift_x = height if (a, c) == (0, -1) else width if a == -1 else 0
            shift_y = width if (b, d) == (-1, 0) else height if d == -1 else 0
            one = 1 << 16
            turned = (a * one, b * one, 0, c * one, d * one, 0, shift_x, shift_y, 1 << 30)
            content[matrix : matrix + 36] = struct.pack(">9i", *turned)
        at = content.find(b"tkhd", at + 4, moov_end)
    _write(path, bytes(content))


def stamp(path: Path, mark: str) -> None:
    """Append bytes that every player skips, so that equal media become different files."""
    content = path.read_bytes()
    note = mark.encode()
    if path.suffix in (".mp4", ".m4a"):
        extra = struct.pack(">I", 8 + len(note)) + b"free" + note
    elif path.suffix == ".avi":
        note += b"\0" * (len(note) % 2)
        extra = b"JUNK" + struct.pack("<I", len(note)) + note
    elif path.suffix == ".flv":
        body = b"\x02" + struct.pack(">H", len(note)) + note + b"\x05"
        tag = b"\x12" + struct.pack(">I", len(body))[1:] + _last_time(content) + bytes(3) + body
        extra = tag + struct.pack(">I", len(tag))
    else:
        raise ValueError(f"no way to mark {path.suffix}")
    _write(path, content + extra)


def _last_time(flv: bytes) -> bytes:
    (size,) = struct.unpack(">I", flv[-4:])
    start = len(flv) - 4 - size
    return flv[start + 4 : start + 8]


def _boxes(content: bytes) -> list[tuple[bytes, int, int]]:
    found = []
    start = 0
    while start + 8 <= len(content):
        (size,) = struct.unpack(">I", content[start : start + 4])
        size = size or len(content) - start
        found.append((content[start + 4 : start + 8], start, start + size))
        start += size
    return found


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A new file: the old name may be a hard link to shared media.
    path.unlink(missing_ok=True)
    path.write_bytes(content)
