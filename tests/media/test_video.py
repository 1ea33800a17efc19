import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mmtool.media import codec
from mmtool.media.decode import decode as decode_with_facts
from mmtool.media.failure import MediaError
from mmtool.media.spec import FramesSpec, Source
from mmtool.media.video import decode_video, probe, segment_centres


def decode(source, spec):
    return decode_with_facts(source, spec).array


# The clips have 50 frames at 25 per second; frame n has the brightness 20 + 4 n in its left half.
CLIPS = ["clip.mp4", "clip.avi", "clip.flv", "clip.mkv"]
FIVE = FramesSpec(num_frames=5, height=48, width=64)


def shown(frames: np.ndarray) -> list[float]:
    """Read the number of each frame off its brightness."""
    left = frames[:, :, 8:-8, 8:24].mean(axis=(1, 2, 3))
    return ((left - 20) / 4).tolist()


def expected(name: str) -> list[int]:
    """Say which frames begin at 0.2, 0.6 .. 1.8 s.

    ffmpeg's muxer shows the first frame of an avi twice as long, so all others come one later.
    """
    return [4, 14, 24, 34, 44] if name == "clip.avi" else [5, 15, 25, 35, 45]


def without_torchcodec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "load", lambda: "libavutil.so not found")


@pytest.mark.usefixtures("needs_torchcodec")
@pytest.mark.parametrize("name", CLIPS)
def test_frames_are_those_on_screen_at_the_centres_of_equal_segments(clips, name):
    frames = decode(Source(clips / name), FIVE)

    assert frames.dtype == np.uint8
    assert frames.shape == (5, 3, 48, 64)
    assert shown(frames) == pytest.approx(expected(name), abs=0.6)


@pytest.mark.parametrize("name", CLIPS)
def test_the_second_decoder_takes_the_same_frames(clips, name, monkeypatch):
    without_torchcodec(monkeypatch)

    frames = decode(Source(clips / name), FIVE)

    assert shown(frames) == pytest.approx(expected(name), abs=0.6)


@pytest.mark.usefixtures("needs_torchcodec")
@pytest.mark.parametrize("name", [*CLIPS, "uneven.mkv"])
@pytest.mark.parametrize("num_frames", [1, 3, 7])
def test_both_decoders_agree_on_every_pixel(clips, name, num_frames, monkeypatch):
    source = Source(clips / name, start_s=0.13, end_s=1.71)
    spec = FramesSpec(num_frames=num_frames, height=24, width=32)
    first = decode_video(source, spec).array
    without_torchcodec(monkeypatch)

    second = decode_video(source, spec).array

    assert np.abs(first.astype(int) - second).max() <= 2


def test_a_clip_inside_a_file_is_taken_between_its_times(clips):
    frames = decode(Source(clips / "clip.mp4", start_s=1.0, end_s=1.4), FIVE)

    # Centres 1.04, 1.12 .. 1.36 s.
    assert shown(frames) == pytest.approx([26, 28, 30, 32, 34], abs=0.6)


def test_an_end_beyond_the_file_is_the_end_of_the_file(clips):
    open_end = decode(Source(clips / "clip.mp4", start_s=1.0), FIVE)

    np.testing.assert_array_equal(
        decode(Source(clips / "clip.mp4", start_s=1.0, end_s=99.0), FIVE), open_end
    )


def test_times_count_where_the_rate_varies(clips):
    source = Source(clips / "uneven.mkv", end_s=3.6)

    frames = decode(source, FramesSpec(num_frames=3, height=48, width=64))

    # Until 1 s a frame lasts 0.04 s, then 0.12 s: 0.6, 1.8 and 3.0 s show these.
    assert shown(frames) == pytest.approx([15, 31, 41], abs=0.6)


def test_channels_are_red_green_blue_and_one_frame_has_no_frame_axis(clips):
    frame = decode(Source(clips / "clip.mp4"), FramesSpec(height=48, width=64))

    red, green, blue = frame[:, 8:-8, 40:-8].mean(axis=(1, 2))
    assert frame.shape == (3, 48, 64)
    assert red > 190
    assert max(green, blue) < 40


@pytest.mark.parametrize("size", [(12, 100), (96, 128), (30, 20)])
@pytest.mark.parametrize("channels", [1, 3])
def test_frames_have_the_size_of_the_column(clips, size, channels):
    spec = FramesSpec(num_frames=2, height=size[0], width=size[1], channels=channels)

    assert decode(Source(clips / "clip.flv"), spec).shape == (2, channels, *size)


@pytest.mark.usefixtures("needs_torchcodec")
def test_threads_and_archives_change_nothing(clips, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in CLIPS:
            archive.write(clips / name, name)
    expected = {name: decode(Source(clips / name), FIVE) for name in CLIPS}

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: decode(Source(tmp_path / "a.zip", n), FIVE), CLIPS * 3))

    for name, frames in zip(CLIPS * 3, found, strict=True):
        np.testing.assert_array_equal(frames, expected[name])


def test_the_second_decoder_reads_archives_too(clips, tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(clips / "clip.flv", "in/clip.flv")
    without_torchcodec(monkeypatch)

    frames = decode(Source(tmp_path / "a.zip", "in/clip.flv"), FIVE)

    assert shown(frames) == pytest.approx([5, 15, 25, 35, 45], abs=0.6)


def test_names_that_look_like_options_or_protocols_are_files(clips, tmp_path):
    expected = decode(Source(clips / "clip.mp4"), FIVE)
    for name in ("-9_5_2i4igQ.mp4", "file:a%03d.mp4"):
        (tmp_path / name).write_bytes((clips / "clip.mp4").read_bytes())

        np.testing.assert_array_equal(decode(Source(tmp_path / name), FIVE), expected)


@pytest.mark.parametrize(
    ("content", "reason", "words"),
    [
        (b"<!DOCTYPE html><html><body>404", "not-media", "web page"),
        (b"1,2,3\n4,5,6\n", "not-media", "starts with '1,2,3"),
        (b"version https://git-lfs.github.com/spec/v1\n", "lfs-pointer", "git lfs pull"),
        (b"", "empty", "fetch it again"),
        (b"\x00\x00\x00\x20ftypisom" + bytes(60), "decode-error", "moov"),
        (b"FLV\x01\x05" + bytes(100), "decode-error", "looks like flv"),
        (bytes(range(200)), "decode-error", "no known kind"),
    ],
)
def test_what_is_no_video_is_named_for_what_it_is(tmp_path, content, reason, words):
    (tmp_path / "a.mp4").write_bytes(content)

    with pytest.raises(MediaError, match=words) as caught:
        decode(Source(tmp_path / "a.mp4"), FIVE)

    assert caught.value.reason == reason
    assert "a.mp4" in str(caught.value)


@pytest.mark.usefixtures("needs_torchcodec")
def test_sound_without_picture_and_a_late_start_have_their_own_reasons(clips):
    with pytest.raises(MediaError) as caught:
        decode(Source(clips / "tone.ogg"), FIVE)
    assert caught.value.reason == "no-video"
    with pytest.raises(MediaError, match=r"lasts 2\.00 s") as caught:
        decode(Source(clips / "clip.mp4", start_s=5.0), FIVE)
    assert caught.value.reason == "too-short"


def test_without_the_first_decoder_a_broken_file_still_names_the_remedy(tmp_path, monkeypatch):
    (tmp_path / "a.flv").write_bytes(b"FLV\x01\x05" + bytes(100))
    without_torchcodec(monkeypatch)

    with pytest.raises(MediaError, match="apt-get install ffmpeg") as caught:
        decode(Source(tmp_path / "a.flv"), FIVE)

    assert caught.value.reason == "codec-missing"


@pytest.mark.usefixtures("needs_torchcodec")
@pytest.mark.parametrize(
    ("name", "pictures", "sound"),
    [
        ("clip.mp4", "h264", "aac"),
        ("clip.avi", "mpeg4", "mp3"),
        ("clip.flv", "flv1", "mp3"),
        ("clip.mkv", "h264", "vorbis"),
        ("mute.mp4", "h264", None),
    ],
)
def test_probe_tells_codecs_size_and_rates(clips, name, pictures, sound):
    found = probe(clips / name)

    assert (found.codec, found.audio_codec) == (pictures, sound)
    assert (found.width, found.height) == (64, 48)
    assert found.fps == pytest.approx(25, rel=0.02)
    assert found.duration_s == pytest.approx(2.0, abs=0.1)
    assert found.rate_hz == (44_100 if sound else None)
    assert not found.variable_rate


@pytest.mark.usefixtures("needs_torchcodec")
def test_probe_tells_a_variable_rate_and_a_file_without_pictures(clips, tmp_path):
    assert probe(clips / "uneven.mkv").variable_rate
    tone = probe(clips / "tone.mp3")
    assert (tone.codec, tone.width, tone.audio_codec, tone.rate_hz) == (None, None, "mp3", 44_100)
    (tmp_path / "a.avi").write_bytes(b"RIFF\0\0\0\0AVI " + bytes(40))
    with pytest.raises(MediaError, match="looks like avi"):
        probe(tmp_path / "a.avi")


def test_a_time_on_a_border_belongs_to_the_frame_that_begins_there():
    times = segment_centres(Source(Path("a.mp4")), 1, 2.0)

    assert times[0] >= 1.0
    assert times[0] - 1.0 < 1e-5
