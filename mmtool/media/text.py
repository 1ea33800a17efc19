"""Text as token ids, 0 being padding: the UTF-8 bytes or a tokenizer's ids, each plus one."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmtool.errors import EnvironmentLacks, RequestError
from mmtool.media.container import FileKey, file_key, read_bytes, where
from mmtool.media.failure import MediaError
from mmtool.media.kinds import WRITTEN, recognise
from mmtool.media.spec import Source, TextSpec


def decode_text(source: Source, spec: TextSpec) -> NDArray[np.int32]:
    """Give the token ids of a text, cut to `max_tokens` without splitting a character."""
    text = read_text(source) if source.text is None else source.text
    if spec.tokenizer is not None:
        return _by_tokenizer(text, spec.tokenizer, spec.max_tokens, where(source))
    encoded = text.encode("utf-8", "replace")
    if not encoded:
        raise MediaError("empty", f"{where(source)}: the text is empty")
    end = min(len(encoded), spec.max_tokens)
    # UTF-8 continuation bytes are 10xxxxxx; a cut must not fall before one.
    while 0 < end < len(encoded) and encoded[end] & 0xC0 == 0x80:
        end -= 1
    return np.frombuffer(encoded[:end], np.uint8).astype(np.int32) + 1


def _by_tokenizer(text: str, file: Path, max_tokens: int, place: str) -> NDArray[np.int32]:
    ids = _tokenizer(file_key(file)).encode(text).ids[:max_tokens]
    if not ids:
        raise MediaError("empty", f"{place}: the text has no tokens")
    return np.asarray(ids, np.int32) + 1


@lru_cache(maxsize=4)
def _tokenizer(key: FileKey) -> Any:
    """Give the tokenizer of a file; encoding changes nothing in it, so threads may share it."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise EnvironmentLacks(
            "the package tokenizers is not installed",
            where=key[0],
            why="this dataset stores its text as ids of a tokenizer",
            fix="pip install tokenizers",
        ) from error
    try:
        tokenizer = Tokenizer.from_file(key[0])
    except Exception as error:
        # The package raises bare exceptions.
        raise RequestError(
            "the file is no tokenizer that the package tokenizers can read",
            where=key[0],
            why=str(error),
            fix="name the tokenizer.json of a model",
        ) from error
    # What a file says about its model's batches does not belong into a store.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def read_text(source: Source) -> str:
    """Give the content of a text file: UTF-8 with or without a mark, else cp1252."""
    recognise(source, fine=WRITTEN)
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
