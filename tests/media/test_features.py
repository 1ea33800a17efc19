import cmath
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmtool.errors import RequestError
from mmtool.media.failure import MediaError
from mmtool.media.features import (
    derive,
    feature_shape,
    filterbank,
    hz_to_mel,
    log_mel,
    log_spectrogram,
    mel_filters,
)
from mmtool.media.spec import Filterbank, LogMel, LogSpectrogram

RATE_HZ = 8_000
SPEECH = LogMel(num_mels=40, num_frames=40, window=256, hop=128, low_hz=60.0)
SMALL = LogMel(num_mels=3, num_frames=4, window=16, hop=6, low_hz=100.0, high_hz=3_900.0)
FLOOR = np.float16(math.log(1e-7))


def by_hand(wave: np.ndarray, rate_hz: int, spec: LogMel) -> np.ndarray:
    """Log-mel spectrogram from the textbook sums, one number at a time."""
    hann = [math.sin(math.pi * n / spec.window) ** 2 for n in range(spec.window)]
    energy = sum(h * h for h in hann)
    high_hz = spec.high_hz or rate_hz / 2
    steps = [
        hz_to_mel(spec.low_hz)
        + k * (hz_to_mel(high_hz) - hz_to_mel(spec.low_hz)) / (spec.num_mels + 1)
        for k in range(spec.num_mels + 2)
    ]
    corner_hz = [700 * (10 ** (mel / 2595) - 1) for mel in steps]
    result = np.zeros((1, spec.num_mels, spec.num_frames))
    for frame in range(spec.num_frames):
        power = []
        for k in range(spec.window // 2 + 1):
            total = 0j
            for n in range(spec.window):
                at = frame * spec.hop + n
                value = int(wave[at]) / 32768 if at < len(wave) else 0.0
                total += hann[n] * value * cmath.exp(-2j * math.pi * k * n / spec.window)
            power.append(abs(total) ** 2 / energy)
        for mel in range(spec.num_mels):
            low, peak, high = corner_hz[mel : mel + 3]
            band = 0.0
            for k, value in enumerate(power):
                hz = k * rate_hz / spec.window
                if low < hz <= peak:
                    band += value * (hz - low) / (peak - low)
                elif peak < hz < high:
                    band += value * (high - hz) / (high - peak)
            result[0, mel, frame] = math.log(band + 1e-7)
    return result


def tone(hz: float, num_samples: int = 6_000, level: float = 0.5) -> np.ndarray:
    wave = level * np.sin(2 * np.pi * hz * np.arange(num_samples) / RATE_HZ)
    return np.rint(wave * 32767).astype(np.int16)


@settings(max_examples=15, deadline=None)
@given(arrays(np.int16, st.integers(1, 60)))
def test_it_equals_the_sums_of_the_definition(wave):
    np.testing.assert_allclose(
        log_mel(wave, RATE_HZ, SMALL), by_hand(wave, RATE_HZ, SMALL), rtol=2e-3, atol=2e-3
    )


@pytest.mark.parametrize("hz", [150.0, 440.0, 1_000.0, 2_222.0, 3_600.0])
def test_a_tone_is_loudest_in_the_band_that_is_nearest_in_mel(hz):
    centres = np.linspace(hz_to_mel(60.0), hz_to_mel(4_000.0), SPEECH.num_mels + 2)[1:-1]
    nearest = int(np.argmin(np.abs(centres - hz_to_mel(hz))))

    spectrogram = log_mel(tone(hz), RATE_HZ, SPEECH)[0]

    assert np.abs(spectrogram.argmax(0) - nearest).max() <= 1
    assert np.abs(np.median(spectrogram.argmax(0)) - nearest) == 0


def test_a_thousand_hertz_is_about_a_thousand_mel():
    assert hz_to_mel(1_000.0) == pytest.approx(1_000.0, abs=0.5)
    assert hz_to_mel(0.0) == 0.0


def test_half_the_level_is_a_quarter_of_the_power():
    loud, soft = (
        log_mel(tone(1_000.0, level=level), RATE_HZ, SPEECH).max() for level in (0.8, 0.4)
    )

    assert float(loud) - float(soft) == pytest.approx(math.log(4), abs=0.01)


def test_a_short_wave_is_padded_with_silence():
    wave = tone(800.0, 1_000)
    padded = np.concatenate([wave, np.zeros(9_000, np.int16)])

    spectrogram = log_mel(wave, RATE_HZ, SPEECH)

    np.testing.assert_array_equal(spectrogram, log_mel(padded, RATE_HZ, SPEECH))
    assert (spectrogram[0, :, 8:] == FLOOR).all()  # the eighth frame starts at sample 1,024
    assert (spectrogram[0, :, :7].max(0) > FLOOR).all()


def test_what_lies_past_the_last_frame_is_not_read():
    needed = SPEECH.window + (SPEECH.num_frames - 1) * SPEECH.hop
    wave = tone(800.0, needed)
    longer = np.concatenate([wave, tone(3_000.0, 500)])

    np.testing.assert_array_equal(log_mel(wave, RATE_HZ, SPEECH), log_mel(longer, RATE_HZ, SPEECH))
    assert not np.array_equal(log_mel(wave, RATE_HZ, SPEECH), log_mel(wave[:-200], RATE_HZ, SPEECH))


@pytest.mark.parametrize("spec", [SPEECH, SMALL, LogMel()])
def test_the_loudest_wave_and_silence_are_finite_half_precision(spec):
    rate_hz = 16_000 if spec == LogMel() else RATE_HZ
    square = np.tile(np.array([32767] * 9 + [-32768] * 9, np.int16), 2_000)

    for wave in (square, np.zeros(50, np.int16)):
        spectrogram = log_mel(wave, rate_hz, spec)
        assert spectrogram.dtype == np.float16
        assert spectrogram.shape == (1, spec.num_mels, spec.num_frames)
        assert np.isfinite(spectrogram).all()
        assert (spectrogram >= FLOOR).all()


def test_between_the_outer_centres_every_frequency_counts_once():
    filters = mel_filters(RATE_HZ, SPEECH)
    frequencies = np.fft.rfftfreq(SPEECH.window, 1 / RATE_HZ)
    inside = (frequencies > 120.0) & (frequencies < 3_700.0)

    np.testing.assert_allclose(filters.sum(0)[inside], 1.0, atol=1e-9)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (LogMel(num_mels=128, window=256, hop=128), "of the 128 mel bands"),
        (LogMel(num_mels=20, window=512, hop=128, high_hz=12_000.0), "of the 20 mel bands"),
    ],
)
def test_bands_without_any_frequency_are_refused(spec, said):
    with pytest.raises(RequestError, match=said) as caught:
        log_mel(tone(440.0), RATE_HZ, spec)
    assert "num_mels" in caught.value.fix


def noise(num_samples: int) -> np.ndarray:
    return np.rint(np.random.default_rng(5).normal(size=num_samples) * 3000).astype(np.int16)


@pytest.mark.parametrize("num_samples", [66_150, 80_000, 66_149, 20_000, 513])
def test_a_log_spectrogram_equals_the_formula_of_the_reference(num_samples):
    torch = pytest.importorskip("torch")
    spec, wave = LogSpectrogram(), noise(num_samples)
    repeated = np.tile(wave / 32768.0, 66_150 // num_samples + 1)[:66_150]
    stft = torch.stft(
        torch.from_numpy(repeated),
        spec.num_fft,
        spec.hop,
        window=torch.hann_window(spec.num_fft, dtype=torch.float64),
        center=True,
        pad_mode="constant",
        return_complex=True,
    )

    found = log_spectrogram(wave, spec.rate_hz, spec)

    assert found.shape == (257, 188)
    np.testing.assert_allclose(found, torch.log(stft.abs() + 1e-7).numpy(), atol=1e-9)


def test_no_rounding_fills_the_empty_top_of_a_resampled_spectrogram():
    wave = noise(48_000)

    top = log_spectrogram(wave, 16_000, LogSpectrogram())[200:]  # above 8.6 kHz

    # Rounded to 16 bits at the new rate, the floor would lie near log(1e-4).
    assert np.median(top) < math.log(1e-5)


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050])
def test_a_filterbank_equals_that_of_kaldi(rate_hz):
    torch = pytest.importorskip("torch")
    kaldi = pytest.importorskip("torchaudio.compliance.kaldi")
    wave = noise(30_000)
    expected = kaldi.fbank(
        torch.from_numpy(wave.astype(np.float32) / 32768)[None],
        sample_frequency=rate_hz,
        htk_compat=True,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=128,
        dither=0.0,
    ).numpy()

    found = filterbank(wave, rate_hz, Filterbank())

    assert found.shape == (128, 1024)
    assert 0 < len(expected) < 1024
    np.testing.assert_allclose(found[:, : len(expected)], expected.T, atol=1e-3)
    assert (found[:, len(expected) :] == 0).all()
    few = filterbank(wave, rate_hz, Filterbank(num_frames=9))
    np.testing.assert_allclose(few, found[:, :9], atol=1e-12)


@pytest.mark.parametrize("feature", [LogMel(), LogSpectrogram(), Filterbank(), LogMel(num_mels=8)])
def test_a_feature_has_the_shape_it_announces_and_too_little_sound_is_refused(feature):
    found = derive(noise(40_000), 16_000, feature)

    assert found.dtype == np.float16
    assert found.shape == feature_shape(feature)
    assert np.isfinite(found).all()
    assert np.isfinite(derive(np.zeros(40_000, np.int16), 16_000, feature)).all()
    with pytest.raises(MediaError, match="160 samples at 16000 Hz") as caught:
        derive(noise(160), 16_000, feature)
    assert caught.value.reason == "too-short"
