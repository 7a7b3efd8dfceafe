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

SHAPE = {"sr": 16000, "n_fft": 512, "hop_length": 160, "n_mels": 64}


def assert_librosas(y: np.ndarray, pad_mode: str, oracle_pad_mode: str = "", **shape: int) -> np.ndarray:
    ours = mel_spectrogram(y, pad_mode=pad_mode, **{**SHAPE, **shape})
    theirs = librosa.feature.melspectrogram(y=y, pad_mode=oracle_pad_mode or pad_mode, **{**SHAPE, **shape}).T
    assert ours.shape == theirs.shape
    assert ours.dtype == np.float32
    # Rounding of a float32 spectrum is relative to its loudest bin, not to each bin.
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-6 * theirs.max())
    return ours


def test_mel_scale_is_slaneys_and_its_inverse_takes_it_back() -> None:
    hz = np.array([0.0, 50.0, 200.0, 999.9, 1000.0, 1000.1, 4000.0, 11025.0, 24000.0])
    np.testing.assert_allclose(hz_to_mel(hz), librosa.hz_to_mel(hz, htk=False), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(mel_to_hz(hz_to_mel(hz)), hz, rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore:Empty filters")
@pytest.mark.parametrize(
    ("sr", "n_fft", "n_mels"),
    [
        (22050, 2048, 128),
        (16000, 512, 64),
        (16000, 1024, 40),
        (8000, 256, 23),
        (48000, 4096, 256),
        (44100, 1023, 80),
        (16000, 128, 128),  # more bands than bins: some filters are empty
    ],
)
def test_filter_bank_is_librosas(sr: int, n_fft: int, n_mels: int) -> None:
    ours = mel_filter_bank(sr, n_fft, n_mels)
    assert ours.dtype == np.float32
    assert ours.shape == (n_mels, 1 + n_fft // 2)
    np.testing.assert_allclose(
        ours, librosa.filters.mel(sr=sr, n_fft=n_fft, n_mels=n_mels), rtol=1e-3, atol=1e-7
    )


@pytest.mark.parametrize("n", [2, 25, 401, 512])
def test_window_is_librosas_periodic_hann_and_cannot_be_changed(n: int) -> None:
    np.testing.assert_allclose(hann_window(n), librosa.filters.get_window("hann", n, fftbins=True), atol=1e-6)
    with pytest.raises(ValueError, match="read-only"):
        hann_window(n)[0] = 1.0


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
def test_mel_spectrogram_is_librosas(pad_mode: str, shape: dict[str, int], rng: np.random.Generator) -> None:
    voice = harmonic(1.3, shape.get("sr", 16000))
    for y in (voice, voice + 0.01 * rng.standard_normal(len(voice)).astype(np.float32)):
        assert_librosas(y, pad_mode, **shape)


# Blocks hold 128 frames of 160 samples: lengths that end just before, at and just after a block's end. And
# clips that are shorter than a window, which librosa pads with zeros too.
@pytest.mark.filterwarnings("ignore:n_fft")
@pytest.mark.parametrize("n", [1, 160, 256, 511, *(127 * 160 + i for i in (-1, 0, 1)), 128 * 160, 255 * 160])
def test_mel_spectrogram_loses_no_frame_at_any_length(n: int, rng: np.random.Generator) -> None:
    assert len(assert_librosas(rng.standard_normal(n).astype(np.float32), "constant")) == 1 + n // 160


@pytest.mark.filterwarnings("ignore:n_fft")
@pytest.mark.parametrize(
    ("n", "oracle"), [(1, "constant"), (256, "constant"), (257, "reflect"), (511, "reflect")]
)
def test_mel_spectrogram_reflects_from_half_a_window_on_and_pads_shorter_clips_with_zeros(
    n: int, oracle: str, rng: np.random.Generator
) -> None:
    assert_librosas(rng.standard_normal(n).astype(np.float32), "reflect", oracle)
