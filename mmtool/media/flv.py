"""Flash video without the notes that players skip and torchcodec does not survive.

An flv file is a chain of tags: sound, picture, or script data. Encoders of the time put script data
behind the first pictures as well (`onCuePoint`, `onLastSecond`). FFmpeg makes a new stream of them
while the file is being read, and torchcodec 0.17 then writes beyond the streams it has counted: the
process dies some files later. Such tags are taken out before a decoder sees the file.
"""

import struct

_SCRIPT = 18
_HEADER_BYTES = 11
_LENGTH_BYTES = 4


def without_late_notes(content: bytes) -> bytes:
    """Give an flv file without script data behind its first sound or picture; else as it is."""
    spans = _late_notes(content)
    if not spans:
        return content
    view = memoryview(content)
    kept, at = [], 0
    for start, end in spans:
        kept.append(view[at:start])
        at = end
    return b"".join([*kept, view[at:]])


def _late_notes(content: bytes) -> list[tuple[int, int]]:
    """Give where tags of script data lie that follow the first other tag."""
    if len(content) < 9:
        return []
    (first,) = struct.unpack_from(">I", content, 5)
    at, end_of_file = first + _LENGTH_BYTES, len(content)
    has_begun = False
    found = []
    while at + _HEADER_BYTES <= end_of_file:
        kind = content[at] & 0x1F
        size = int.from_bytes(content[at + 1 : at + 4], "big")
        following = at + _HEADER_BYTES + size + _LENGTH_BYTES
        if kind != _SCRIPT:
            has_begun = True
        elif has_begun:
            found.append((at, min(following, end_of_file)))
        at = following
    return found
