"""Folders of numbered pictures, which count as videos whose frames are known by number only."""

import os
import re
from pathlib import Path

import numpy as np

from mmtool.media.failure import MediaError
from mmtool.media.image import fitted, is_constant, read_picture
from mmtool.media.spec import Decoded, FramesSpec, MediaFacts, Source

_PICTURE = re.compile(r"[^.].*\.(jpe?g|png|bmp|webp|gif)", re.IGNORECASE)
_DIGITS = re.compile(r"(\d+)")


def pictures_in(folder: Path) -> list[Path]:
    """Give the pictures of a folder in the order of their numbers; other files are ignored."""
    try:
        names = [name for name in os.listdir(folder) if _PICTURE.fullmatch(name)]  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MediaError("missing", f"{folder}: no such folder") from error
    except OSError as error:
        raise MediaError("decode-error", f"{folder}: cannot be read ({error})") from error
    return [folder / name for name in sorted(names, key=_natural)]


def decode_folder(source: Source, spec: FramesSpec) -> Decoded:
    """Give frames [num_frames, channels, height, width] at the centres of equal segments.

    Such a folder has no time stamps: all of it is taken, whatever `end_s` says. With two channels
    the first comes from the source's path, the second from its part (optical flow).
    """
    if source.start_s:
        message = f"{source.path}: a folder of pictures has no times, {source.start_s:g} s is none"
        raise MediaError("decode-error", message)
    folders = [source.path, *source.parts]
    if len(folders) != (2 if spec.channels == 2 else 1):
        message = f"{source.path}: {len(folders)} folders do not make {spec.channels} channels"
        raise MediaError("decode-error", message)
    found = [pictures_in(folder) for folder in folders]
    for folder, pictures in zip(folders, found, strict=True):
        if not pictures:
            raise MediaError("empty", f"{folder}: holds no pictures")
    num_pictures = min(map(len, found))
    chosen = ((np.arange(spec.num_frames) + 0.5) / spec.num_frames * num_pictures).astype(int)
    gray = FramesSpec(height=spec.height, width=spec.width, channels=1)
    layer = gray if spec.channels == 2 else spec
    raw = {path: read_picture(Source(path)) for p in found for path in {p[i] for i in chosen}}
    frames = np.stack(
        [np.concatenate([fitted(raw[p[i]], layer) for p in found]) for i in chosen]
    )  # fmt: skip
    height, width = raw[found[0][chosen[0]]].shape[:2]
    kind = found[0][0].suffix.lower().removeprefix(".").replace("jpg", "jpeg")
    flags = ("constant",) if is_constant(frames) else ()
    facts = MediaFacts(codec=kind, width=width, height=height, flags=flags)
    return Decoded(frames, facts)


def _natural(name: str) -> tuple[list[int | str], str]:
    # Split at groups of digits, text and numbers alternate, so that like is compared with like.
    parts = _DIGITS.split(name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name
