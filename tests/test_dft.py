"""Power spectra by products of matrices are those of an FFT, whatever the sizes."""

from __future__ import annotations

import librosa
import numpy as np
import pytest

from speechemo_cli.models import dft
from speechemo_cli.models.keras_backend import load_keras


def spectra(y: np.ndarray, **how: object) -> np.ndarray:
    ops = load_keras().ops
    power, column_of = dft.power(ops, ops.convert_to_tensor(y[None]), **how)  # type: ignore[arg-type]
    return np.asarray(ops.convert_to_numpy(power))[:, column_of]


@pytest.mark.filterwarnings("ignore:n_fft=")  # the shortest signals
@pytest.mark.parametrize("pad_mode", ["reflect", "constant"])
@pytest.mark.parametrize(
    ("n_fft", "win_length", "hop_length"),
    [
        (512, 400, 160),
        (1024, 1024, 160),
        (2048, 2048, 512),
        (400, 400, 160),
        (256, 100, 33),
        (30, 30, 7),
        (62, 62, 200),
    ],
)
def test_every_bin_of_every_frame_is_librosas(
    n_fft: int, win_length: int, hop_length: int, pad_mode: str, rng: np.random.Generator
) -> None:
    for n in (n_fft // 2 + 1, 3 * n_fft, 3 * n_fft + hop_length - 1, 4321):
        y = rng.standard_normal(n).astype(np.float32)
        expected = (
            np.abs(
                librosa.stft(
                    y.astype(np.float64),
                    n_fft=n_fft,
                    win_length=win_length,
                    hop_length=hop_length,
                    pad_mode=pad_mode,  # type: ignore[arg-type]
                )
            ).T
            ** 2
        )

        heard = spectra(y, n_fft=n_fft, win_length=win_length, hop_length=hop_length, pad_mode=pad_mode)

        np.testing.assert_allclose(heard, expected, rtol=1e-4, atol=1e-5 * expected.max())


def test_a_tone_stands_in_its_bin_and_nothing_else_does() -> None:
    n = np.arange(8192)
    y = np.sin(2 * np.pi * 100 / 1024 * n).astype(np.float32)

    heard = spectra(y, n_fft=1024, win_length=1024, hop_length=160, pad_mode="reflect")[10:-10]

    # A Hann window of 1024 points sums to 512; half of the tone is at the negative frequency.
    np.testing.assert_allclose(heard[:, 100], 256.0**2, rtol=1e-5)
    beside = np.delete(heard, [99, 100, 101], axis=1)
    assert beside.max() < 1e-10 * 256.0**2
