"""Clips that everybody fetched for themselves from YouTube: named by video id, in any folder."""

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from mmtool.prepare.files import FileTree
from mmtool.prepare.splits import draw_share

VIDEO_ID_LENGTH = 11
_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".flv", ".m4v")
# Ids hold "_" and "-" themselves, so that only their length tells where they end.
_STEM = re.compile(rf"(?P<video>[\w-]{{{VIDEO_ID_LENGTH}}})(?:_(?P<start>\d+)(?:_\d+)?)?", re.ASCII)


def video_and_start(name: str) -> tuple[str, int | None] | None:
    """Give video id and first second of `ytid`, `ytid_34`, `ytid_000034` or `ytid_000034_000044`.

    None for a name of another form.
    """
    found = _STEM.fullmatch(name)
    if found is None:
        return None
    return found["video"], None if found["start"] is None else int(found["start"])


class VideoFiles:
    """The video files below a folder by id and first second, walked once."""

    def __init__(self, folder: Path) -> None:
        self._by_video: dict[str, list[tuple[int | None, Path]]] = defaultdict(list)
        for path in FileTree(folder, *_SUFFIXES).paths:
            if (name := video_and_start(path.stem)) is not None:
                self._by_video[name[0]].append((name[1], path))

    def find(self, video: str, start_s: int, *, any_start: bool = False) -> Path | None:
        """Give the file of a video that begins at a second.

        With `any_start` the only file of a video will do whatever its name says, and of several one
        that is named by the id alone.
        """
        files = self._by_video.get(video, [])
        exact = [path for start, path in files if start == start_s]
        if any_start and not exact:
            exact = [path for start, path in files if start is None or len(files) == 1]
        return exact[0] if exact else None


def draw_videos(labels: Mapping[str, object], share: float, salt: str) -> set[str]:
    """Draw about `share` of the videos, evenly over labels: all clips of a video go together."""
    videos = sorted(labels)
    return draw_share(videos, share, salt, labels=[labels[video] for video in videos])
