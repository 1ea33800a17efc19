import os
from pathlib import Path
from typing import Any

import pytest

from mmtool.errors import SourceError
from mmtool.prepare.api import Clip, Source
from mmtool.prepare.inventory import (
    refuse_damaged,
    refuse_missing,
    take_inventory,
    without_missing,
)


def clips_of(root: Path, num: int, *modalities: str) -> list[Clip]:
    return [
        Clip(f"c{i}", i % 2, {m: Source(root / f"{m}{i}") for m in modalities}, {"s": "train"})
        for i in range(num)
    ]


def write(clips: list[Clip], content: bytes = b"x" * 5000) -> None:
    for clip in clips:
        for source in clip.sources.values():
            source.path.write_bytes(content)


def test_missing_files_leave_the_clip_out_or_only_the_modality(tmp_path: Path, media: Any) -> None:
    clips = clips_of(tmp_path, 3, "audio", "video")
    write(clips)
    clips[1].sources["audio"].path.unlink()
    inventory = take_inventory(clips, media, 2)

    kept, left_out = without_missing(clips, inventory, keep_partial=False)
    assert [c.id for c in kept] == ["c0", "c2"]
    assert [(f.clip.id, f.reason) for f in left_out] == [("c1", "missing")]
    assert "audio1 does not exist" in left_out[0].detail

    kept, left_out = without_missing(clips, inventory, keep_partial=True)
    assert [sorted(c.sources) for c in kept] == [["audio", "video"], ["video"], ["audio", "video"]]
    assert left_out == []


def test_too_many_missing_stop_with_counts_per_split_and_class(tmp_path: Path, media: Any) -> None:
    clips = clips_of(tmp_path, 10, "audio")
    write(clips[:6])
    _, missing = without_missing(clips, take_inventory(clips, media, 1), keep_partial=False)
    facts = {"classes": ["no", "yes"], "protocol": "s"}
    refuse_missing(missing, 10, max_missing=0.4, **facts)  # type: ignore[arg-type]
    with pytest.raises(SourceError, match="4 clips of 10 have no file") as caught:
        refuse_missing(missing, 10, max_missing=0.3, **facts)  # type: ignore[arg-type]
    assert "train 4" in caught.value.why
    assert "no 2, yes 2" in caught.value.why
    assert "--max-missing 0.41" in caught.value.fix


def test_when_all_are_missing_the_folder_is_doubted(tmp_path: Path, media: Any) -> None:
    clips = clips_of(tmp_path, 4, "audio")
    _, missing = without_missing(clips, take_inventory(clips, media, 1), keep_partial=False)
    with pytest.raises(SourceError) as caught:
        refuse_missing(missing, 4, max_missing=1.0, classes=["no", "yes"], protocol="s")
    assert "--source" in caught.value.fix


def test_pointers_stop_with_the_command_that_fetches_them(tmp_path: Path) -> None:
    from mmtool.prepare.pipeline import default_media

    clips = clips_of(tmp_path, 10, "audio")
    write(clips, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    inventory = take_inventory(clips, default_media(), 2)
    with pytest.raises(SourceError, match="10 of 10 raw files") as caught:
        refuse_damaged(inventory, tmp_path, "cremad")
    assert f"git -C {tmp_path} lfs pull" in caught.value.fix


def test_a_few_empty_files_among_many_are_left_to_the_decoder(tmp_path: Path, media: Any) -> None:
    clips = clips_of(tmp_path, 50, "audio")
    write(clips)
    for clip in clips[:4]:
        clip.sources["audio"].path.write_bytes(b"")
    refuse_damaged(take_inventory(clips, media, 1), tmp_path, "any")
    clips[4].sources["audio"].path.write_bytes(b"")
    with pytest.raises(SourceError, match="5 of 50") as caught:
        refuse_damaged(take_inventory(clips, media, 1), tmp_path, "any")
    assert "empty: 5" in caught.value.why


def test_a_stamp_changes_with_the_file(tmp_path: Path, media: Any) -> None:
    (clip,) = clips_of(tmp_path, 1, "audio")
    write([clip])
    first = take_inventory([clip], media, 1).stamps(clip)
    os.utime(clip.sources["audio"].path, ns=(1, 1))
    assert take_inventory([clip], media, 1).stamps(clip) != first
