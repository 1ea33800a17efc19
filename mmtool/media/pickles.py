"""Pickles of known feature releases, read without executing anything they bring along."""

import io
import pickle
from pathlib import Path
from typing import Any

from mmtool.media.container import read_bytes
from mmtool.media.failure import MediaError
from mmtool.media.spec import Source


def read_pickle(path: Path, *, member: str | None = None) -> Any:
    """Give what a pickle holds if it consists of numpy arrays and plain Python values alone."""
    raise NotImplementedError
