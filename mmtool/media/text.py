"""Text as token ids: the UTF-8 bytes plus one, 0 being padding."""

import numpy as np
from numpy.typing import NDArray

from mmtool.media.container import read_bytes, where
from mmtool.media.failure import MediaError
from mmtool.media.raw import recognise
from mmtool.media.spec import Source, TextSpec


def decode_text(source: Source, spec: TextSpec) -> NDArray[np.int32]:
    """Give the token ids of a text, cut to `max_tokens` without splitting a character."""
    text = read_text(source) if source.text is None else source.text
    encoded = text.encode("utf-8", "replace")
    if not encoded:
        raise MediaError("empty", f"{where(source)}: the text is empty")
    end = min(len(encoded), spec.max_tokens)
    # UTF-8 continuation bytes are 10xxxxxx; a cut must not fall before one.
    while 0 < end < len(encoded) and encoded[end] & 0xC0 == 0x80:
        end -= 1
    return np.frombuffer(encoded[:end], np.uint8).astype(np.int32) + 1


def read_text(source: Source) -> str:
    """Give the content of a text file: UTF-8 with or without a mark, else cp1252."""
    recognise(source, text_is_fine=True)
    content = read_bytes(source)
    if b"\0" not in content:
        for encoding in ("utf-8-sig", "cp1252"):
            try:
                return content.decode(encoding)
            except UnicodeDecodeError:
                continue
    message = f"{where(source)}: neither UTF-8 nor cp1252 text; convert it with `iconv -t UTF-8`"
    raise MediaError("not-media", message)


def text_of(tokens: NDArray[np.int32]) -> str:
    """Give the text of token ids back, ignoring padding."""
    kept = tokens[tokens > 0] - 1
    return kept.astype(np.uint8).tobytes().decode("utf-8", "replace")
