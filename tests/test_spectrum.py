"""Mel filter banks and spectrograms against librosa's."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
from conftest import harmonic

from speechemo_cli.features.spectrum import (
    hann_window,
    hz_to_mel,
    mel_filter_bank,
    mel_spectrogram,
    mel_to_hz,
)

BANKS = [
    (22050, 2048, 128),
    (16000, 512, 64),
    (16000, 1024, 40),
    (8000, 256, 23),
    (48000, 4096, 256),
    (44100, 1023, 80),
]


def both_spectrograms(
    y: np.ndarray,
    pad_mode: str,
    *,
    sr: int = 16000,
    n_fft: int = 512,
    hop_length: int = 160,
    n_mels: int = 64,
    oracle_pad_mode: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    ours = mel_spectrogram(y, sr, n_fft=n_fft, hop_length=hop_length, n_mels=n_mels, pad_mode=pad_mode)
    theirs = librosa.feature.melspectrogram(
        y=y,
        sr=sr,
        n_fft=n_fft,
        hop_length=hop_length,
        n_mels=n_mels,
        pad_mode=oracle_pad_mode or pad_mode,
    ).T
    return ours, theirs


def assert_same_power(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.shape == theirs.shape
    assert ours.dtype == np.float32
    # Rounding of a float32 spectrum is relative to its loudest bin, not to each bin.
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-6 * theirs.max())


@pytest.mark.parametrize("hz", [0.0, 50.0, 200.0, 999.9, 1000.0, 1000.1, 4000.0, 11025.0, 24000.0])
def test_the_mel_scale_is_slaneys_and_its_inverse_takes_it_back(hz: float) -> None:
    mel = hz_to_mel(np.array([hz]))
    np.testing.assert_allclose(mel, librosa.hz_to_mel(hz, htk=False), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(mel_to_hz(mel), hz, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("sr", "n_fft", "n_mels"), BANKS)
def test_the_filter_bank_is_librosas(sr: int, n_fft: int, n_mels: int) -> None:
    ours = mel_filter_bank(sr, n_fft, n_mels)
    assert ours.dtype == np.float32
    assert ours.shape == (n_mels, 1 + n_fft // 2)
    np.testing.assert_allclose(
        ours, librosa.filters.mel(sr=sr, n_fft=n_fft, n_mels=n_mels), rtol=1e-4, atol=1e-8
    )


@pytest.mark.filterwarnings("ignore:Empty filters")
def test_more_bands_than_bins_leave_the_same_filters_empty_as_librosa() -> None:
    ours = mel_filter_bank(16000, 128, 128)
    theirs = librosa.filters.mel(sr=16000, n_fft=128, n_mels=128)
    assert not theirs.any(axis=1).all()
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-7)


def test_a_shared_window_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        hann_window(400)[0] = 1.0


@pytest.mark.parametrize("n", [2, 25, 401, 512])
def test_the_window_is_librosas_periodic_hann(n: int) -> None:
    np.testing.assert_allclose(hann_window(n), librosa.filters.get_window("hann", n, fftbins=True), atol=1e-6)


@pytest.mark.parametrize("pad_mode", ["constant", "reflect"])
@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"hop_length": 512},
        {"sr": 22050, "n_fft": 2048, "hop_length": 512, "n_mels": 128},
        {"n_fft": 511, "hop_length": 100},
        {"n_mels": 17},
    ],
    ids=str,
)
def test_the_mel_spectrogram_is_librosas(pad_mode: str, shape: dict, rng: np.random.Generator) -> None:
    sr = shape.get("sr", 16000)
    voice = harmonic(1.3, sr)
    for y in (voice, voice + 0.01 * rng.standard_normal(len(voice)).astype(np.float32)):
        assert_same_power(*both_spectrograms(y, pad_mode, **shape))


# Blocks hold 64 frames of 160 samples: lengths that end just before, at and just after a block's end.
@pytest.mark.parametrize("n", [63 * 160 - 1, 63 * 160, 63 * 160 + 1, 64 * 160, 127 * 160, 128 * 160])
def test_no_frame_is_lost_at_the_end_of_a_block(n: int, rng: np.random.Generator) -> None:
    y = rng.standard_normal(n).astype(np.float32)
    ours, theirs = both_spectrograms(y, "constant")
    assert len(ours) == 1 + n // 160
    assert_same_power(ours, theirs)


@pytest.mark.filterwarnings("ignore:n_fft")
@pytest.mark.parametrize("n", [1, 2, 100, 159, 160, 256, 399, 400, 511, 512])
def test_a_clip_shorter_than_a_window_is_padded_with_zeros_as_librosa_pads(
    n: int, rng: np.random.Generator
) -> None:
    y = rng.standard_normal(n).astype(np.float32)
    assert_same_power(*both_spectrograms(y, "constant"))


@pytest.mark.filterwarnings("ignore:n_fft")
@pytest.mark.parametrize(
    ("n", "oracle"), [(1, "constant"), (256, "constant"), (257, "reflect"), (511, "reflect")]
)
def test_reflection_needs_half_a_window_and_shorter_clips_get_zeros(
    n: int, oracle: str, rng: np.random.Generator
) -> None:
    y = rng.standard_normal(n).astype(np.float32)
    assert_same_power(*both_spectrograms(y, "reflect", oracle_pad_mode=oracle))


def test_a_sine_is_loudest_in_the_band_that_its_frequency_lies_in() -> None:
    sr, n_mels = 16000, 40
    centres = librosa.mel_frequencies(n_mels + 2, fmin=0.0, fmax=sr / 2)[1:-1]
    for band in (8, 20, 33):
        y = np.sin(2 * np.pi * centres[band] * np.arange(sr) / sr).astype(np.float32)
        mel = mel_spectrogram(y, sr, n_fft=1024, hop_length=256, n_mels=n_mels, pad_mode="reflect")
        assert int(mel.mean(axis=0).argmax()) == band


def test_power_grows_with_the_square_of_the_amplitude() -> None:
    y = harmonic(0.5, 16000)
    quiet, _ = both_spectrograms(y, "reflect")
    loud, _ = both_spectrograms(4 * y, "reflect")
    np.testing.assert_allclose(loud, 16 * quiet, rtol=1e-5)
