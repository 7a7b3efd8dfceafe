"""Feature set `mfcc`: the mean over time of the first mel-frequency cepstral coefficients."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from speechemo_cli.features.spectrum import mel_spectrogram

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from speechemo_cli.config import MfccConfig

VERSION = 1

# librosa.power_to_db's defaults: the floor of the power and how far below the loudest it may fall.
AMIN = 1e-10
TOP_DB = 80.0


def compute(y: NDArray[np.float32], sr: int, config: MfccConfig) -> NDArray[np.float32]:
    """Mean over time of the MFCCs, equal to `librosa.feature.mfcc(y=y, sr=sr, ...).mean(axis=1)`.

    The mean is taken before the cosine transform, which is linear, so that one column is
    transformed instead of one a frame.

    Parameters
    ----------
    y : np.ndarray [shape=(n,), dtype=float32]
        Samples at `config.sr`.
    sr : int
        Must be `config.sr`.
    config : MfccConfig

    Returns
    -------
    np.ndarray [shape=(1, n_mfcc), dtype=float32]
        One frame for the whole clip.
    """
    mel = mel_spectrogram(
        y, sr, n_fft=config.n_fft, hop_length=config.hop_length, n_mels=config.n_mels, pad_mode="constant"
    )
    decibel = np.log(np.maximum(mel, AMIN))
    decibel *= np.float32(10.0 / np.log(10.0))  # numpy's log10 takes twice the time
    np.maximum(decibel, decibel.max() - TOP_DB, out=decibel)
    mean = decibel.mean(axis=0, dtype=np.float64) @ dct(config.n_mels)[:, : config.n_mfcc]
    return np.asarray(mean[None, :], dtype=np.float32)


@lru_cache(maxsize=4)
def dct(n: int) -> NDArray[np.float64]:
    """Orthonormal DCT-II as a matrix: `x @ dct(n)` is `scipy.fft.dct(x, norm="ortho")`."""
    k = np.arange(n)
    matrix = np.sqrt(2.0 / n) * np.cos(np.pi / n * (k[:, None] + 0.5) * k[None, :])
    matrix[:, 0] = np.sqrt(1.0 / n)
    return np.asarray(matrix)
