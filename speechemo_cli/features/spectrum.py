"""Mel power spectra, equal to librosa's and several times as fast for many short clips."""

from __future__ import annotations

import math
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Frames worked on at a time: windowed frames, spectrum and power of one block stay in the cache of a
# core, where arrays of a whole clip would be mapped and unmapped by the system each time.
_BLOCK_FRAMES = 128
# Filters multiplied at a time. A filter is zero outside its band, so a block of neighbours needs the
# bins of its own bands only: less than a fifth of the full product.
_BLOCK_FILTERS = 16
# Samples of scratch memory that a thread keeps: 16 MB, three minutes at 22 kHz.
_LARGEST_SCRATCH = 2**22


def hz_to_mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slaney's mel scale (Auditory Toolbox, 1998), librosa's default: linear to 1 kHz, then logarithmic."""
    linear = 3.0 * hz / 200.0
    return np.where(
        hz < 1000.0, linear, 15.0 + np.log(np.maximum(hz, 1000.0) / 1000.0) * (27.0 / np.log(6.4))
    )


def mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of `hz_to_mel`."""
    return np.where(mel < 15.0, 200.0 * mel / 3.0, 1000.0 * np.exp((mel - 15.0) * (np.log(6.4) / 27.0)))


def mel_filter_bank(sr: int, n_fft: int, n_mels: int) -> NDArray[np.float32]:
    """Triangular filters of equal area from 0 to sr / 2 [shape=(n_mels, bins)].

    They are those of `librosa.filters.mel`, which takes a second to import in every worker process.
    """
    bins = np.fft.rfftfreq(n_fft, 1.0 / sr)
    edges = mel_to_hz(np.linspace(0.0, hz_to_mel(np.array(sr / 2)), n_mels + 2))
    width = np.diff(edges)
    rising = (bins[None, :] - edges[:-2, None]) / width[:-1, None]
    falling = (edges[2:, None] - bins[None, :]) / width[1:, None]
    filters = np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
    filters *= (2.0 / (edges[2:] - edges[:-2])).astype(np.float32)[:, None]
    return filters


@lru_cache(maxsize=8)
def _bands(sr: int, n_fft: int, n_mels: int) -> list[tuple[slice, slice, NDArray[np.float32]]]:
    """Cut a filter bank into blocks of neighbouring filters: rows, bins, and block [shape=(bins, rows)]."""
    filters = mel_filter_bank(sr, n_fft, n_mels)
    bands = []
    for first in range(0, n_mels, _BLOCK_FILTERS):
        rows = slice(first, first + _BLOCK_FILTERS)
        used = np.flatnonzero(filters[rows].any(axis=0))
        bins = slice(int(used[0]), int(used[-1]) + 1) if used.size else slice(0, 1)
        bands.append((rows, bins, np.ascontiguousarray(filters[rows, bins].T)))
    return bands


@lru_cache(maxsize=8)
def hann_window(n: int) -> NDArray[np.float32]:
    """Periodic Hann window of `n` samples."""
    window = (0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(n) / n)).astype(np.float32)
    window.setflags(write=False)
    return window


def mel_spectrogram(
    y: NDArray[np.float32],
    sr: int,
    *,
    n_fft: int,
    hop_length: int,
    n_mels: int,
    pad_mode: Literal["constant", "reflect"],
) -> NDArray[np.float32]:
    """Mel power spectrogram of `y` [shape=(n,)], as `librosa.feature.melspectrogram(center=True)`.

    Frames come first, unlike librosa's: [shape=(1 + n // hop_length, n_mels)]. `pad_mode` says what stands
    before the first and after the last sample; `reflect` needs more than `n_fft // 2` samples, and a shorter
    clip is padded with zeros.
    """
    half = n_fft // 2
    padded = _scratch("padded", (len(y) + 2 * half,))
    padded[half : half + len(y)] = y
    reflect = pad_mode == "reflect" and len(y) > half
    padded[:half] = y[half:0:-1] if reflect else 0.0
    padded[half + len(y) :] = y[-2 : -half - 2 : -1] if reflect else 0.0
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop_length]
    window = hann_window(n_fft)
    mel = np.empty((len(frames), n_mels), np.float32)
    for start in range(0, len(frames), _BLOCK_FRAMES):
        n = min(_BLOCK_FRAMES, len(frames) - start)
        windowed = _scratch("windowed", (n, n_fft))
        squares = _scratch("squares", (n, half + 1, 2))
        power = _scratch("power", (n, half + 1))
        np.multiply(frames[start : start + n], window, out=windowed)
        spectrum = np.fft.rfft(windowed)
        np.square(spectrum.view(np.float32).reshape(n, half + 1, 2), out=squares)
        np.add(squares[:, :, 0], squares[:, :, 1], out=power)
        for rows, bins, block in _bands(sr, n_fft, n_mels):
            np.matmul(power[:, bins], block, out=mel[start : start + n, rows])
    return mel


_buffers = threading.local()


def _scratch(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return an array in memory that this thread uses again, since mapping new pages takes long."""
    size = math.prod(shape)
    if size > _LARGEST_SCRATCH:
        return np.empty(shape, np.float32)
    buffer = getattr(_buffers, name, None)
    if buffer is None or buffer.size < size:
        buffer = np.empty(size, np.float32)
        setattr(_buffers, name, buffer)
    scratch: NDArray[np.float32] = buffer[:size].reshape(shape)
    return scratch
