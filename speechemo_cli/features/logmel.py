"""Feature set `logmel`: log-mel frames, trimmed to the part where somebody speaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from speechemo_cli.features.spectrum import mel_bank, mel_spectrogram

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from speechemo_cli.config import LogmelConfig

VERSION = 1

# A floor of 1e-6 would cut RAVDESS's quiet recordings away: they sit 30-60 dB below full scale.
_FLOOR = 1e-10
# The level that decides what is speech is a running mean of this many frames (0.11 s at 10 ms), so
# that a click does not start a clip and a closed consonant does not end it.
_SMOOTH_FRAMES = 11


def compute(y: NDArray[np.float32], sr: int, config: LogmelConfig) -> NDArray[np.float32]:
    """Natural logarithm of the mel power, frame by frame.

    Parameters
    ----------
    y : np.ndarray [shape=(n,), dtype=float32]
        Samples at `config.sr`.
    sr : int
        Must be `config.sr`.
    config : LogmelConfig

    Returns
    -------
    np.ndarray [shape=(frames, n_mels), dtype=float32]
        `ln(power + 1e-10)`, without the silence before and after speech.
    """
    bank = mel_bank(sr, config.n_fft, config.n_mels, config.fmin, config.fmax)
    mel = mel_spectrogram(
        y,
        bank,
        n_fft=config.n_fft,
        win_length=config.win_length,
        hop_length=config.hop_length,
        pad_mode="reflect",
    )
    frames = np.log(mel + np.float32(_FLOOR))
    if config.trim_nepers:
        first, last = speech_bounds(frames, config.trim_nepers)
        frames = frames[first:last]
    return np.ascontiguousarray(frames)


def speech_bounds(frames: NDArray[np.float32], nepers: float) -> tuple[int, int]:
    """First and one past the last frame whose smoothed level is near the clip's loudest.

    Parameters
    ----------
    frames : np.ndarray [shape=(frames, n_mels)]
        Natural logarithms of power.
    nepers : float
        How far below the loudest smoothed level (in ln power) still counts as speech.

    Returns
    -------
    first, last : int
        Never an empty range.
    """
    level = frames.mean(axis=1)
    # The edges are repeated: zeros in their place would be loud, since a level is a negative number.
    padded = np.pad(level, _SMOOTH_FRAMES // 2, mode="edge")
    smooth = np.convolve(padded, np.full(_SMOOTH_FRAMES, 1.0 / _SMOOTH_FRAMES), mode="valid")
    near = np.flatnonzero(smooth >= smooth.max() - nepers)
    return int(near[0]), int(near[-1]) + 1
