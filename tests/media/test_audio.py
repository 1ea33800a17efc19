import contextlib
import struct
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmtool.media import audio, codec
from mmtool.media.decode import decode as decode_with_facts
from mmtool.media.failure import MediaError
from mmtool.media.spec import AudioSpec, Source
from mmtool.media.wav import parse_wav


def decode(source, spec):
    return decode_with_facts(source, spec).array


AT_16K = AudioSpec(rate_hz=16_000)
RAMP = np.arange(-300, 300, dtype=np.int16) * 100


@pytest.fixture
def written(tmp_path):
    def write(content: bytes, name: str = "a.wav") -> Source:
        (tmp_path / name).write_bytes(content)
        return Source(tmp_path / name)

    return write


def reason_of(source: Source, spec: AudioSpec = AT_16K) -> str:
    with pytest.raises(MediaError) as caught:
        decode(source, spec)
    assert source.path.name in str(caught.value)
    return caught.value.reason


def test_a_plain_wave_comes_back_bit_for_bit(written, sounds):
    wave = decode(written(sounds.wav16(RAMP)), AT_16K)

    assert wave.dtype == np.int16
    np.testing.assert_array_equal(wave, RAMP)


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
@pytest.mark.parametrize("form", ["plain", "extensible"])
def test_every_integer_width_gives_the_same_wave(written, sounds, bits, form):
    coarse = (RAMP // 256).astype(np.int64)
    if bits == 8:
        data = (coarse + 128).astype(np.uint8).tobytes()
    else:
        shifted = (coarse << (bits - 8)).astype("<i4")
        data = shifted.view(np.uint8).reshape(-1, 4)[:, : bits // 8].tobytes()
    chunk = (
        sounds.wav_format(1, 1, 16_000, bits)
        if form == "plain"
        else sounds.extensible(bits, 1, 1, 16_000)
    )

    wave = decode(written(sounds.riff(chunk, (b"data", data))), AT_16K)

    np.testing.assert_array_equal(wave, coarse * 256)


@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
def test_float_waves_are_scaled_and_clipped_not_wrapped(written, sounds, dtype):
    values = np.array([0.0, 0.5, -0.5, 1.5, -1.5], dtype)
    form = sounds.wav_format(3, 1, 16_000, values.itemsize * 8)

    wave = decode(written(sounds.riff(form, (b"data", values.tobytes()))), AT_16K)

    assert wave.tolist() == [0, 16384, -16384, 32767, -32768]


def test_a_nan_in_a_float_wave_is_named_with_its_place(written, sounds):
    values = np.array([0.0, np.nan, 1.0, np.inf], "<f4")
    source = written(sounds.riff(sounds.wav_format(3, 1, 16_000, 32), (b"data", values.tobytes())))

    with pytest.raises(MediaError, match=r"sample 1 is nan \(2 such") as caught:
        decode(source, AT_16K)

    assert caught.value.reason == "non-finite"


@given(
    wave=arrays(np.int16, st.integers(1, 40)),
    junk=st.binary(max_size=9),
    before=st.booleans(),
)
def test_chunks_of_odd_size_around_the_samples_are_stepped_over(sounds, wave, junk, before):
    extra = (b"LIST", junk)
    form, data = sounds.wav_format(1, 1, 8000, 16), (b"data", wave.astype("<i2").tobytes())
    content = sounds.riff(*([extra, form, extra, data] if before else [form, data, extra]))

    found = parse_wav(content, "a.wav")

    assert found is not None
    assert found.rate_hz == 8000
    np.testing.assert_array_equal(found.samples(0, found.num_samples)[:, 0], wave)


@given(content=st.binary(max_size=80), cut=st.integers(0, 60))
def test_damaged_waves_end_in_a_media_error_and_nothing_else(sounds, content, cut):
    whole = sounds.wav16(RAMP[:20])
    for damaged in (whole[:cut], whole[:12] + content, whole[:cut] + content):
        with contextlib.suppress(MediaError):
            found = parse_wav(damaged, "a.wav")
            assert found is None or found.samples(0, found.num_samples).ndim == 2


def test_a_truncated_wave_says_how_much_is_missing(written, sounds):
    source = written(sounds.wav16(RAMP)[:-200])

    with pytest.raises(
        MediaError, match="truncated: header promises 1200 bytes, file holds 1000"
    ) as caught:
        decode(source, AT_16K)

    assert caught.value.reason == "decode-error"


def test_a_wave_written_to_a_pipe_has_no_size_and_is_read_to_its_end(written, sounds):
    content = bytearray(sounds.wav16(RAMP))
    content[40:44] = struct.pack("<I", 0xFFFFFFFF)

    np.testing.assert_array_equal(decode(written(bytes(content)), AT_16K), RAMP)


def test_stereo_at_8_khz_is_mixed_by_the_mean_and_doubled_in_rate(written, sounds):
    left = np.rint(sounds.tone(8000) * 32767).astype(np.int16)
    stereo = np.stack([left, np.zeros_like(left)], axis=1)

    wave = decode(written(sounds.wav16(stereo, 8000)), AT_16K)

    expected = sounds.tone(16_000) * 32767 / 2
    assert len(wave) == 2 * len(left)
    inner = slice(400, -400)
    np.testing.assert_allclose(wave[inner], expected[inner], atol=2.0)


def test_start_end_and_the_longest_duration_cut_the_clip(written, sounds):
    path = written(sounds.wav16(RAMP, 100)).path
    at_100 = AudioSpec(rate_hz=100)

    np.testing.assert_array_equal(decode(Source(path, start_s=1, end_s=2), at_100), RAMP[100:200])
    np.testing.assert_array_equal(decode(Source(path, start_s=5.5), at_100), RAMP[550:])
    short = AudioSpec(rate_hz=100, max_seconds=0.5)
    np.testing.assert_array_equal(decode(Source(path, start_s=1), short), RAMP[100:150])
    assert len(decode(Source(path), AudioSpec(rate_hz=160, max_seconds=0.5))) == 80


def test_a_mapped_large_file_gives_the_same_clip(written, sounds, monkeypatch):
    source = Source(written(sounds.wav16(RAMP, 100)).path, start_s=1, end_s=2)
    monkeypatch.setattr(audio, "_MAP_FROM_BYTES", 0)

    np.testing.assert_array_equal(decode(source, AudioSpec(rate_hz=100)), RAMP[100:200])


def test_what_holds_no_sound_is_refused_with_its_reason(written, sounds, tmp_path):
    nothing = written(sounds.wav16(RAMP[:0]))
    assert reason_of(nothing) == "too-short"
    assert reason_of(Source(written(sounds.wav16(RAMP)).path, start_s=9)) == "too-short"
    assert reason_of(Source(tmp_path / "gone.wav")) == "missing"
    assert reason_of(written(b"")) == "empty"
    assert reason_of(written(b"name,label\na,1\n")) == "not-media"
    assert reason_of(written(b"\x89PNG\r\n\x1a\n" + bytes(20))) == "no-audio"
    assert reason_of(Source(tmp_path / "a.wav", row=3)) == "decode-error"


def test_a_git_lfs_pointer_says_which_command_fetches_the_file(written):
    source = written(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")

    with pytest.raises(MediaError, match="git lfs pull") as caught:
        decode(source, AT_16K)

    assert caught.value.reason == "lfs-pointer"


@pytest.mark.parametrize(
    ("wave", "flags"),
    [
        (np.zeros(100, np.int16), ("silent",)),
        (np.full(100, 900, np.int16), ("silent",)),
        (np.where(np.arange(100) % 2, 32767, -32768).astype(np.int16), ("clipped",)),
        (np.where(np.arange(9000) == 5, 32767, 0).astype(np.int16), ()),
        (RAMP, ()),
    ],
    ids=["nothing", "a constant", "a square", "one full sample", "a ramp"],
)
def test_silence_and_clipping_are_kept_but_flagged(written, sounds, wave, flags):
    found = decode_with_facts(written(sounds.wav16(wave)), AT_16K)

    assert found.facts.flags == flags
    np.testing.assert_array_equal(found.array, wave)


def test_many_threads_read_members_of_one_archive(tmp_path, sounds):
    waves = {f"clips/{i}.wav": np.full(50, i, np.int16) for i in range(20)}
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, wave in waves.items():
            archive.writestr(name, sounds.wav16(wave))
    names = list(waves) * 5

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: decode(Source(tmp_path / "a.zip", n), AT_16K), names))

    for name, wave in zip(names, found, strict=True):
        np.testing.assert_array_equal(wave, waves[name])
    assert reason_of(Source(tmp_path / "a.zip", "clips/99.wav")) == "missing"


FORMATS = [
    "tone.flac", "tone.mp3", "tone.ogg", "tone.m4a",
    "clip.mp4", "clip.avi", "clip.flv", "clip.mkv",
]  # fmt: skip


@pytest.mark.usefixtures("needs_torchcodec")
@pytest.mark.parametrize("name", FORMATS)
def test_compressed_formats_give_the_tone_at_the_wanted_rate(clips, sounds, name):
    wave = decode(Source(clips / name), AT_16K)

    assert wave.dtype == np.int16
    assert len(wave) == pytest.approx(sounds.clip_s * 16_000, abs=1600)
    assert sounds.main_frequency(wave, 16_000) == pytest.approx(sounds.tone_hz, abs=1.0)
    assert np.abs(wave).max() == pytest.approx(0.5 * 32767, rel=0.05)


@pytest.mark.usefixtures("needs_torchcodec")
def test_lossless_compression_equals_the_wave_file(clips):
    spec = AudioSpec(rate_hz=44_100)

    compressed = decode(Source(clips / "tone.flac"), spec)

    np.testing.assert_array_equal(compressed, decode(Source(clips / "tone.wav"), spec))


@pytest.mark.usefixtures("needs_torchcodec")
@pytest.mark.parametrize("name", ["tone.flac", "tone.mp3", "clip.mp4"])
def test_a_cut_of_a_compressed_file_equals_the_cut_of_the_whole(clips, name):
    spec = AudioSpec(rate_hz=44_100)
    whole = decode(Source(clips / name), spec)

    cut = decode(Source(clips / name, start_s=0.5, end_s=1.25), spec)

    # A lossy decoder started in the middle may round differently by one step.
    np.testing.assert_allclose(cut, whole[22_050 : 22_050 + 33_075], atol=1)


@pytest.mark.usefixtures("needs_torchcodec")
def test_a_cut_of_an_flv_is_exact_to_the_millisecond_of_its_time_stamps(clips):
    spec = AudioSpec(rate_hz=44_100)
    whole = decode(Source(clips / "clip.flv"), spec).astype(int)

    cut = decode(Source(clips / "clip.flv", start_s=0.5, end_s=1.25), spec).astype(int)

    assert len(cut) == 33_075
    distance = [np.abs(whole[22_050 + d :][: len(cut)] - cut).max() for d in range(-44, 45)]
    assert min(distance) <= 1


@pytest.mark.usefixtures("needs_torchcodec")
def test_a_compressed_wave_file_goes_to_the_general_decoder(clips, sounds):
    wave = decode(Source(clips / "tone.alaw.wav"), AT_16K)

    assert sounds.main_frequency(wave, 16_000) == pytest.approx(sounds.tone_hz, abs=1.0)


@pytest.mark.usefixtures("needs_torchcodec")
def test_a_video_without_sound_and_a_broken_file_have_their_own_reasons(clips, tmp_path):
    assert reason_of(Source(clips / "mute.mp4")) == "no-audio"
    assert reason_of(Source(clips / "tone.mp3", start_s=30.0)) == "too-short"
    (tmp_path / "cut.mp4").write_bytes((clips / "clip.mp4").read_bytes()[:900])
    assert reason_of(Source(tmp_path / "cut.mp4")) == "decode-error"


@pytest.mark.usefixtures("needs_torchcodec")
def test_compressed_sound_is_read_from_an_archive(clips, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(clips / "tone.mp3", "tone.mp3")

    member = decode(Source(tmp_path / "a.zip", "tone.mp3"), AT_16K)

    np.testing.assert_array_equal(member, decode(Source(clips / "tone.mp3"), AT_16K))


def test_a_machine_without_ffmpeg_is_told_what_to_install(written, monkeypatch):
    monkeypatch.setattr(codec, "load", lambda: "libavutil.so not found")

    with pytest.raises(MediaError, match="apt-get install ffmpeg") as caught:
        decode(written(b"fLaC" + bytes(60), "a.flac"), AT_16K)

    assert caught.value.reason == "codec-missing"


def test_real_recordings_in_the_archive_they_come_in(kit):
    archive = kit / "fsdd" / "free-spoken-digit-dataset.zip"
    name = "free-spoken-digit-dataset/recordings/0_george_0.wav"
    found = decode_with_facts(Source(archive, name), AudioSpec(rate_hz=8000))
    native = found.array

    doubled = decode(Source(archive, name), AT_16K)

    assert found.facts.flags == ()
    assert (found.facts.codec, found.facts.rate_hz) == ("pcm_s16le", 8000)
    assert len(native) > 1000
    assert len(doubled) == 2 * len(native)
    np.testing.assert_allclose(doubled[::2][200:-200], native[200:-200], atol=900)


def test_real_pointers_are_recognised(kit):
    pointers = sorted((kit / "crema_d_listing" / "lfs_pointers").glob("*/*"))

    assert pointers
    assert {reason_of(Source(path)) for path in pointers} == {"lfs-pointer"}
