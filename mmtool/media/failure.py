"""Why one raw file cannot become an array; a preparer's report counts these reasons."""

from typing import Literal, TypeAlias

Reason: TypeAlias = Literal[
    "missing",
    "not-media",
    "decode-error",
    "no-audio",
    "no-video",
    "too-short",
    "non-finite",
    "lfs-pointer",
    "empty",
    "codec-missing",
    "no-data",
]


class MediaError(Exception):
    """One source cannot be decoded: `reason` is for counting, the message for reading."""

    def __init__(self, reason: Reason, message: str) -> None:
        # Both go to the base class, so that the error survives pickling between processes.
        super().__init__(reason, message)
        self.reason: Reason = reason
        self.message = message

    def __str__(self) -> str:
        return self.message
