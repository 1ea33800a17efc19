"""Odd files of real releases, one per defect, made by ffmpeg."""

import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mmtool.media.decode import decode
from mmtool.media.failure import MediaError
from mmtool.media.features import derive
from mmtool.media.spec import AudioSpec, FramesSpec, LogMel, Source

AT_16K = AudioSpec(rate_hz=16_000)
TWO = FramesSpec(num_frames=2, height=48, width=64)


def ffmpeg(folder: Path, *arguments: str) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *arguments], cwd=folder, check=True)


@pytest.fixture(scope="module")
def odd(clips, tmp_path_factory, needs_torchcodec) -> Path:
    folder = tmp_path_factory.mktemp("odd")
    clip = str(clips / "clip.mp4")
    ffmpeg(folder, "-i", clip, "-metadata:s:v:0", "rotate=90", "-c", "copy", "rotated.mp4")
    green = ["-f", "lavfi", "-i", "color=lime:s=320x320:d=0.04"]
    for name in ("cover.mp4", "cover.mkv"):
        streams = ["-map", "0:v", "-map", "1:v", "-map", "1:a", "-c", "copy", "-c:v:0", "mjpeg"]
        picture = ["-pix_fmt:v:0", "yuvj420p", "-disposition:v:0", "attached_pic"]
        ffmpeg(folder, *green, "-i", clip, *streams, *picture, name)
    for name, sound in (("cover.mp3", "libmp3lame"), ("cover.m4a", "aac")):
        streams = ["-map", "0:v", "-map", "1:a", "-c:v", "mjpeg", "-pix_fmt:v", "yuvj420p"]
        picture = ["-c:a", sound, "-disposition:v:0", "attached_pic"]
        ffmpeg(folder, *green, "-i", clip, *streams, *picture, name)
    bare = ["-c", "copy", "-flvflags", "no_duration_filesize"]
    ffmpeg(folder, "-i", str(clips / "clip.flv"), *bare, "endless.flv")
    ffmpeg(folder, "-i", clip, "-frames:v", "1", "-an", "-c:v", "libx264", "single.mp4")
    return folder


def reason_of(source: Source, spec: AudioSpec | FramesSpec) -> str:
    with pytest.raises(MediaError) as caught:
        decode(source, spec)
    assert source.path.name in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize("backend", ["torchcodec", "OpenCV"])
def test_a_turned_video_is_stored_upright(odd, clips, backend, monkeypatch):
    if backend == "OpenCV":
        monkeypatch.setattr("mmtool.media.codec.load", lambda: "not here")
    lying = FramesSpec(num_frames=2, height=64, width=48)

    found = decode(Source(odd / "rotated.mp4"), lying)

    # The ffmpeg program turns what it decodes: its frames are the reference.
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "rotated.rgb"]
    ffmpeg(odd, "-i", "rotated.mp4", *raw)
    frames = np.fromfile(odd / "rotated.rgb", np.uint8).reshape(-1, 64, 48, 3)
    expected = frames[[12, 37]].transpose(0, 3, 1, 2).astype(int)
    assert (found.facts.width, found.facts.height) == (48, 64)
    assert np.abs(found.array - expected).mean() < 4
    assert np.abs(found.array[:, :, ::-1] - expected).mean() > 40


# OpenCV, which is asked where torchcodec fails, takes the first stream of a Matroska file.
@pytest.mark.parametrize(
    ("backend", "name"),
    [("torchcodec", "cover.mp4"), ("torchcodec", "cover.mkv"), ("OpenCV", "cover.mp4")],
)
def test_a_cover_picture_is_not_taken_for_the_video(odd, clips, name, backend, monkeypatch):
    if backend == "OpenCV":
        monkeypatch.setattr("mmtool.media.codec.load", lambda: "not here")

    found = decode(Source(odd / name), TWO).array

    plain = decode(Source(clips / "clip.mp4"), TWO).array
    assert np.abs(found.astype(int) - plain).max() <= 8


@pytest.mark.parametrize("name", ["cover.mp3", "cover.m4a"])
def test_sound_with_a_cover_picture_has_sound_and_no_video(odd, name):
    assert len(decode(Source(odd / name), AT_16K).array) == pytest.approx(32_000, abs=1600)
    assert reason_of(Source(odd / name), TWO) == "no-video"


def test_a_lost_index_of_an_mp4_is_named(clips, tmp_path):
    content = (clips / "clip.mp4").read_bytes()
    for name, part in (("a.mp4", content[: len(content) * 6 // 10]), ("b.mp4", content[:900])):
        (tmp_path / name).write_bytes(part)
        for spec in (TWO, AT_16K):
            with pytest.raises(
                MediaError, match=r"index of the file \(moov\) is missing"
            ) as caught:
                decode(Source(tmp_path / name), spec)
            assert caught.value.reason == "decode-error"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.mp4", "a.mp4")
    with pytest.raises(MediaError, match="moov"):
        decode(Source(tmp_path / "a.zip", "a.mp4"), TWO)


def test_facts_of_video_and_sound_come_with_the_arrays(clips):
    video = decode(Source(clips / "clip.mp4"), TWO).facts
    sound = decode(Source(clips / "clip.mp4"), AT_16K).facts
    wave = decode(Source(clips / "tone.wav", start_s=0.5, end_s=0.75), AT_16K).facts
    cut = decode(Source(clips / "tone.mp3", start_s=0.5, end_s=0.75), AT_16K).facts

    assert (video.codec, video.width, video.height, video.flags) == ("h264", 64, 48, ())
    assert video.fps == pytest.approx(25, rel=1e-3)
    assert video.duration_s == pytest.approx(2.0, abs=0.01)
    assert (sound.codec, sound.rate_hz, sound.flags) == ("aac", 44_100, ())
    assert sound.duration_s == pytest.approx(2.0, abs=0.05)
    assert (wave.codec, wave.rate_hz, wave.duration_s) == ("pcm_s16le", 44_100, 2.0)
    assert (cut.codec, cut.duration_s) == ("mp3", pytest.approx(2.0, abs=0.1))


@pytest.mark.parametrize("num_frames", [1, 3, 8])
@pytest.mark.parametrize("backend", ["torchcodec", "OpenCV"])
def test_a_rate_that_varies_is_told(clips, num_frames, backend, monkeypatch):
    if backend == "OpenCV":
        monkeypatch.setattr("mmtool.media.codec.load", lambda: "not here")
    spec = FramesSpec(num_frames=num_frames, height=24, width=32)

    assert decode(Source(clips / "uneven.mkv"), spec).facts.variable_rate
    for name in ("clip.mp4", "clip.flv", "clip.mkv"):
        assert not decode(Source(clips / name), spec).facts.variable_rate


def test_without_a_duration_in_the_header_the_content_counts(odd):
    found = decode(Source(odd / "endless.flv"), TWO)

    assert found.facts.flags == ()
    assert found.facts.duration_s == pytest.approx(2.0, abs=0.1)


def test_a_video_of_one_frame_gives_it_as_often_as_wanted(odd):
    found = decode(Source(odd / "single.mp4"), TWO)

    assert found.array.shape == (2, 3, 48, 64)
    np.testing.assert_array_equal(found.array[0], found.array[1])
    assert not found.facts.variable_rate


@pytest.mark.parametrize("encoding", ["pcm_s16le", "pcm_s24le", "pcm_f32le", "pcm_u8"])
def test_six_channels_are_mixed_by_the_mean(odd, encoding, sounds):
    tones = "|".join(f"0.25*sin(2*PI*{hz}*t)" for hz in (200, 300, 400, 500, 600, 700))
    six = ["-f", "lavfi", "-i", f"aevalsrc={tones}:c=5.1:s=48000:d=0.5"]
    ffmpeg(odd, *six, "-c:a", encoding, f"six_{encoding}.wav")

    found = decode(Source(odd / f"six_{encoding}.wav"), AudioSpec(rate_hz=48_000))

    each = [sounds.tone(48_000, 0.5, hz, 0.25) for hz in (200, 300, 400, 500, 600, 700)]
    atol = 300 if encoding == "pcm_u8" else 3
    np.testing.assert_allclose(found.array, np.mean(each, axis=0) * 32768, atol=atol)
    assert found.facts.codec == encoding


def test_ten_milliseconds_are_too_short_for_a_feature_but_not_for_a_wave(tmp_path, sounds):
    (tmp_path / "short.wav").write_bytes(sounds.wav16(np.arange(160, dtype=np.int16)))

    wave = decode(Source(tmp_path / "short.wav"), AT_16K).array

    assert len(wave) == 160
    with pytest.raises(MediaError) as caught:
        derive(wave, 16_000, LogMel())
    assert caught.value.reason == "too-short"


def test_real_clips_and_the_damaged_one_among_them(kit):
    archive = kit / "grid_s1" / "GRID_s1_originals.zip"
    with zipfile.ZipFile(archive) as opened:
        names = [name for name in opened.namelist() if name.endswith(".mpg")]
    spec = FramesSpec(num_frames=3, height=72, width=90)

    facts = {name: decode(Source(archive, name), spec).facts for name in names}

    assert len(facts) == 9
    for found in facts.values():
        assert (found.codec, found.width, found.height) == ("mpeg1video", 360, 288)
