"""Feature set `logmel`: log-mel frames at two resolutions and the pitch, trimmed to where somebody speaks."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from speechemo_cli.features.spectrum import mel_bank, mel_spectrogram, power_blocks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from speechemo_cli.config import LogmelConfig

VERSION = 2

# A floor of 1e-6 would cut RAVDESS's quiet recordings away: they sit 30-60 dB below full scale.
FLOOR = 1e-10
# The level that decides what is speech is a running mean of this many frames (0.11 s at 10 ms), so
# that a click does not start a clip and a closed consonant does not end it.
SMOOTH_FRAMES = 11
# Where the pitch is looked for, in Hz: a low man's voice to a scream. The part of the spectrum that is
# searched for its harmonics begins above the hum of the mains.
_LOWEST_PITCH, _HIGHEST_PITCH = 60.0, 600.0
_LOWEST_HARMONIC, _HIGHEST_HARMONIC = 70.0, 4000.0
# Magnitude below which a frame has no pitch: silence would be divided by nothing.
NO_MAGNITUDE = 1e-6


def columns(dim: int) -> tuple[slice, slice, slice]:
    """Where a frame of `dim` numbers has its parts: short window, long window, pitch."""
    n_mels = dim // 4
    return slice(0, n_mels), slice(n_mels, 3 * n_mels), slice(3 * n_mels, dim)


def compute(y: NDArray[np.float32], sr: int, config: LogmelConfig) -> NDArray[np.float32]:
    """Natural logarithm of the mel power, frame by frame, heard in two ways, and the pitch.

    A short window (25 ms) follows the movement of the mouth but runs a man's harmonics into one another;
    a long one (64 ms, `2 * n_fft` samples, twice the bands) keeps them apart. The pitch is what
    `pitch_comb` finds in the long one.

    Parameters
    ----------
    y : np.ndarray [shape=(n,), dtype=float32]
        Samples at `config.sr`.
    sr : int
        Must be `config.sr`.
    config : LogmelConfig

    Returns
    -------
    np.ndarray [shape=(frames, 4 * n_mels), dtype=float32]
        `ln(power + 1e-10)` of `n_mels` and of `2 * n_mels` bands, then `n_mels` pitches from -1 to 1,
        without the silence before and after speech.
    """
    short, long, pitch = columns(4 * config.n_mels)
    mel = mel_spectrogram(
        y,
        mel_bank(sr, config.n_fft, config.n_mels, config.fmin, config.fmax),
        n_fft=config.n_fft,
        win_length=config.win_length,
        hop_length=config.hop_length,
        pad_mode="reflect",
    )
    frames = np.empty((len(mel), 4 * config.n_mels), np.float32)
    np.log(mel + np.float32(FLOOR), out=frames[:, short])
    n_fft = 2 * config.n_fft
    bank = mel_bank(sr, n_fft, 2 * config.n_mels, config.fmin, config.fmax)
    harmonics, comb = pitch_comb(sr, n_fft, config.n_mels)
    for rows, power in power_blocks(
        y, n_fft=n_fft, win_length=n_fft, hop_length=config.hop_length, pad_mode="reflect"
    ):
        bank.apply(power, frames[rows, long])
        magnitude = np.sqrt(power[:, harmonics])
        total = magnitude.sum(axis=1, keepdims=True) + np.float32(NO_MAGNITUDE)
        np.divide(magnitude @ comb, total, out=frames[rows, pitch])
    frames[:, long] += np.float32(FLOOR)
    np.log(frames[:, long], out=frames[:, long])
    if config.trim_nepers:
        first, last = speech_bounds(frames[:, short], config.trim_nepers)
        frames = frames[first:last]
    return np.ascontiguousarray(frames)


@lru_cache(maxsize=4)
def pitch_comb(sr: int, n_fft: int, n_pitches: int) -> tuple[slice, NDArray[np.float32]]:
    """Cosines over the spectrum, one a pitch, that are 1 at its harmonics and -1 between them.

    Summed with the magnitudes of a frame they give its autocorrelation at the period of each pitch,
    with every harmonic's power taken to the root, so that one strong formant does not decide (the
    generalised autocorrelation of Tolonen & Karjalainen 2000).

    Parameters
    ----------
    sr, n_fft : int
    n_pitches : int
        Pitches, evenly spaced on a logarithmic scale from 60 to 600 Hz.

    Returns
    -------
    harmonics : slice
        The bins from 70 to 4000 Hz.
    comb : np.ndarray [shape=(bins, n_pitches), dtype=float32]
    """
    bins = np.arange(1 + n_fft // 2) * (sr / n_fft)
    first, last = np.searchsorted(bins, (_LOWEST_HARMONIC, _HIGHEST_HARMONIC))
    pitches = np.geomspace(_LOWEST_PITCH, _HIGHEST_PITCH, n_pitches)
    comb = np.cos(2.0 * np.pi * bins[first:last, None] / pitches[None, :]).astype(np.float32)
    return slice(int(first), int(last)), comb


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
    padded = np.pad(level, SMOOTH_FRAMES // 2, mode="edge")
    smooth = np.convolve(padded, np.full(SMOOTH_FRAMES, 1.0 / SMOOTH_FRAMES), mode="valid")
    near = np.flatnonzero(smooth >= smooth.max() - nepers)
    return int(near[0]), int(near[-1]) + 1
