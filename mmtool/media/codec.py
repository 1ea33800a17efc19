"""The general decoder, torchcodec, loaded when the first file needs it."""

import struct
from collections.abc import Callable
from functools import lru_cache
from types import ModuleType
from typing import Any

from mmtool.media.container import opened, read_bytes, where
from mmtool.media.failure import MediaError
from mmtool.media.flv import without_late_notes
from mmtool.media.spec import Source


@lru_cache(maxsize=1)
def load() -> ModuleType | str:
    """Give `torchcodec.decoders`, or the reason why it does not load on this machine."""
    try:
        from torchcodec import decoders
    except (ImportError, RuntimeError, OSError) as error:
        # torchcodec loads FFmpeg's libraries at import and fails there when there are none.
        return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return decoders


def decoders(place: str) -> ModuleType:
    """Give `torchcodec.decoders`, or explain what this machine lacks to read such a file."""
    found = load()
    if isinstance(found, str):
        raise MediaError(
            "codec-missing",
            f"{place}: torchcodec or the FFmpeg libraries it needs are missing ({found}); "
            "run `apt-get install ffmpeg`",
        )
    return found


def handle(source: Source, kind: str | None) -> str | bytes:
    """Give what a decoder opens: a path, or the bytes of an archive's member."""
    if kind == "flv":
        content = read_bytes(source)
        cleaned = without_late_notes(content)
        if source.member is not None or cleaned is not content:
            return cleaned
    elif source.member is not None:
        return read_bytes(source)
    # FFmpeg would take "a:b.mp4" for a protocol; an absolute path is never one.
    return str(source.path.absolute())


def opens(decoder: Callable[..., Any], content: str | bytes, **options: Any) -> bool:
    """Say whether a file has a stream of this decoder's kind."""
    try:
        decoder(content, **options)
    except (RuntimeError, ValueError):
        return False
    return True


def unreadable(source: Source, error: Exception, kind: str | None) -> MediaError:
    """Explain a decoder's refusal."""
    if kind == "mp4" and not _has_index(source):
        message = f"{where(source)}: the index of the file (moov) is missing: the download was "
        return MediaError("decode-error", message + "cut short; fetch it again")
    lines = str(error).strip().splitlines()
    # The useful part follows the decoder's own source location.
    told = lines[0].split(".cpp:")[-1].lstrip("0123456789, ") if lines else type(error).__name__
    looks = f"looks like {kind}" if kind else "is of no known kind"
    return MediaError("decode-error", f"{where(source)}: {looks} but does not decode: {told}")


def _has_index(source: Source) -> bool:
    """Walk the boxes of an mp4 file: size and name, then the content."""
    with opened(source) as file:
        at = 0
        while len(head := file.read(16)) >= 8:
            size, name = struct.unpack(">I4s", head[:8])
            if name == b"moov":
                return True
            if size == 1 and len(head) == 16:
                size = struct.unpack(">Q", head[8:])[0]
            if size < 8:
                return False
            at += size
            file.seek(at)
    return False
