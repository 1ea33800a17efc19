"""A small raw release of .npy files, a preparer for it, and a decoder that reads them."""

import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmtool.media.spec import Decoded
from mmtool.prepare.api import AudioSpec, FramesSpec, Source, Spec, TextSpec
from mmtool.prepare.pipeline import prepare
from mmtool.prepare.request import MediaRoom, PrepareRequest, PrepareResult

PREPARER = """
    '''A preparer of arrays.'''
    from mmtool.prepare import api

    NAME = "arrays"
    TITLE = "Arrays for tests"
    LICENCE = "none"
    SOURCE = "made up"
    CITATION = "nobody"

    class Options(api.Options):
        scale: int = 1
        '''Does nothing but change the identity.'''

    def columns(root, options):
        return {
            "audio": api.Column("audio", api.AudioSpec(rate_hz=100)),
            "audio.logmel": api.Column(
                "audio", api.AudioSpec(rate_hz=100, feature=api.LogMel(num_mels=2, num_frames=3))
            ),
            "imu": api.Column("imu", api.SeriesSpec()),
            "text": api.Column("text", api.TextSpec()),
            "video": api.Column("video", api.FramesSpec(height=4, width=6)),
        }

    def classes(root, options):
        return ["no", "yes"]

    def clips(root, options):
        for line in (root / "list.txt").read_text().split():
            name, label, split, group = line.split(",")
            sources = {
                m: api.Source(root / f"{m}_{name}.npy")
                for m in ("audio", "imu", "video")
                if (root / f"{m}_{name}.npy").exists() or m == "audio"
            }
            sources["text"] = api.Source(root / "list.txt", text=name)
            yield api.Clip(
                name, int(label), sources, {"main": split, "group": "train"}, group=group
            )
"""


class UnreadableError(Exception):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def decode(source: Source, spec: Spec) -> Decoded:
    return Decoded(load(source, spec))


def load(source: Source, spec: Spec) -> np.ndarray:
    if isinstance(spec, TextSpec):
        assert source.text is not None
        return np.frombuffer(source.text.encode(), np.uint8).astype(np.int32) + 1
    if not source.path.exists():
        raise UnreadableError("missing", f"{source.path.name} does not exist")
    try:
        array: np.ndarray = np.load(source.path)
    except ValueError as error:
        raise UnreadableError("not-media", str(error)) from error
    if isinstance(spec, AudioSpec):
        assert spec.feature is None
    if isinstance(spec, FramesSpec):
        assert array.ndim == 3
    return array


def fingerprint(source: Source) -> str:
    return source.text or f"{source.path.name}:{source.path.stat().st_size}"


def glance(source: Source) -> str:
    return "found" if source.path.exists() else "missing"


def derive(wave: np.ndarray, rate_hz: int, feature: Any) -> np.ndarray:
    level = np.float16(np.abs(wave.astype(np.float32)).mean())
    return np.full((1, feature.num_mels, feature.num_frames), level, dtype=np.float16)


MEDIA = MediaRoom(decode, fingerprint, glance, derive, UnreadableError, {"numpy": "any"})


def write_release(root: Path, num_clips: int = 23) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(7)
    lines = []
    for i in range(num_clips):
        name = f"c{i:03d}"
        np.save(root / f"audio_{name}.npy", random.integers(-999, 999, 20 + i, dtype=np.int16))
        np.save(root / f"imu_{name}.npy", random.normal(size=(5 + i % 4, 3)).astype(np.float32))
        np.save(root / f"video_{name}.npy", random.integers(0, 256, (3, 4, 6)).astype(np.uint8))
        split = ("train", "train", "train", "val", "test")[i % 5]
        lines.append(f"{name},{i % 2},{split},speaker{i % 3}")
    # Listed backwards: order must come from the ids.
    (root / "list.txt").write_text("\n".join(reversed(lines)))
    return root


@dataclass
class Release:
    root: Path
    preparer: Path
    out: Path

    def request(self, **changes: Any) -> PrepareRequest:
        request = PrepareRequest(
            str(self.preparer), self.root, self.out, workers=2, clips_per_shard=5
        )
        return replace(request, **changes)

    def prepare(self, media: MediaRoom = MEDIA, **changes: Any) -> PrepareResult:
        return prepare(self.request(**changes), lambda _: None, media=media)

    def edit_list(self, change: Callable[[str], str]) -> None:
        path = self.root / "list.txt"
        path.write_text(change(path.read_text()))


@pytest.fixture
def media() -> MediaRoom:
    return MEDIA


@pytest.fixture
def release(tmp_path: Path) -> Release:
    work = tmp_path / "work"
    preparer = tmp_path / "arrays.py"
    preparer.write_text(textwrap.dedent(PREPARER))
    work.mkdir()
    return Release(write_release(tmp_path / "raw"), preparer, work / "arrays")
