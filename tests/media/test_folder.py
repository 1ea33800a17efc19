import cv2
import numpy as np
import pytest

from mmtool.media.decode import decode
from mmtool.media.failure import MediaError
from mmtool.media.folder import pictures_in
from mmtool.media.raw import fingerprint, glance
from mmtool.media.spec import FramesSpec, Source


def write(folder, names, first=0, step=10):
    """Write gray pictures, each brighter than the one before."""
    folder.mkdir(parents=True)
    for i, name in enumerate(names):
        gray = np.full((12, 16, 3), first + step * i, np.uint8)
        ending = "." + name.rsplit(".", 1)[1].lower()
        (folder / name).write_bytes(cv2.imencode(ending, gray)[1].tobytes())


@pytest.mark.parametrize(
    "pattern", ["frame{:06d}.jpg", "frame_{:05d}.JPG", "{:05d}.png", "img-{}.bmp", "clip7_{}.jpeg"]
)
def test_numbered_pictures_are_the_frames_of_a_video(tmp_path, pattern):
    write(tmp_path / "v", [pattern.format(i + 1) for i in range(20)])
    for junk in ("._frame000001.jpg", "Thumbs.db", "flow.bin", ".DS_Store"):
        (tmp_path / "v" / junk).write_bytes(b"\x00\x05\x16\x07")

    found = decode(Source(tmp_path / "v"), FramesSpec(num_frames=4, height=6, width=8))

    assert found.array.shape == (4, 3, 6, 8)
    # Centres 2.5, 7.5, 12.5 and 17.5 of 20 frames.
    np.testing.assert_allclose(found.array.mean(axis=(1, 2, 3)), [20, 70, 120, 170], atol=2)
    assert (found.facts.width, found.facts.height) == (16, 12)
    assert found.facts.duration_s is None
    assert len(pictures_in(tmp_path / "v")) == 20


def test_one_frame_is_the_middle_one_without_a_frame_axis(tmp_path):
    write(tmp_path / "v", [f"{i}.png" for i in range(3)])

    found = decode(Source(tmp_path / "v", end_s=5.0), FramesSpec(height=6, width=8))

    assert found.array.shape == (3, 6, 8)
    assert (found.array == 10).all()
    assert found.facts.flags == ("constant",)


def test_flow_takes_its_two_channels_from_two_folders(tmp_path):
    names = [f"frame{i:06d}.jpg" for i in range(1, 11)]
    write(tmp_path / "u" / "a", names, first=0)
    write(tmp_path / "v" / "a", names[:9], first=100)
    spec = FramesSpec(num_frames=3, height=6, width=8, channels=2)

    found = decode(Source(tmp_path / "u" / "a", parts=(tmp_path / "v" / "a",)), spec).array

    assert found.shape == (3, 2, 6, 8)
    np.testing.assert_allclose(found.mean(axis=(2, 3)), [[10, 110], [40, 140], [70, 170]], atol=2)
    with pytest.raises(MediaError, match="1 folders do not make 2 channels"):
        decode(Source(tmp_path / "u" / "a"), spec)


def test_folders_without_pictures_say_so(tmp_path):
    spec = FramesSpec(num_frames=2)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "x.bin").write_bytes(b"x")
    write(tmp_path / "cut", ["1.jpg", "2.jpg"])
    (tmp_path / "cut" / "2.jpg").write_bytes((tmp_path / "cut" / "1.jpg").read_bytes()[:200])

    for source, reason in (
        (Source(tmp_path / "gone"), "missing"),
        (Source(tmp_path / "none"), "empty"),
        (Source(tmp_path / "cut"), "decode-error"),
        (Source(tmp_path / "cut", start_s=1.0), "decode-error"),
    ):
        with pytest.raises(MediaError) as caught:
            decode(source, spec)
        assert caught.value.reason == reason
        assert str(source.path) in str(caught.value)


def test_a_look_and_a_fingerprint_tell_folders_apart(tmp_path):
    for name, first in (("a", 0), ("b", 0), ("c", 50)):
        write(tmp_path / name, ["1.png", "2.png"], first)
    (tmp_path / "none").mkdir()

    prints = [fingerprint(Source(tmp_path / name)) for name in "abc"]

    assert prints[0] == prints[1] != prints[2]
    assert fingerprint(Source(tmp_path / "a", parts=(tmp_path / "c",))) not in prints
    assert glance(Source(tmp_path / "a")) == "found"
    assert glance(Source(tmp_path / "none")) == "empty"
