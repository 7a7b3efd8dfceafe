"""Power spectra in Keras ops as products of small matrices, which every runtime has fast kernels for."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.features.spectrum import hann_window

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The second of two short transforms has at most so many points: the fastest of 8, 16 and 32 for 1,024.
_MOST_POINTS = 32


def power(
    ops: Any, waveform: Any, *, n_fft: int, win_length: int, hop_length: int, pad_mode: str
) -> tuple[Any, NDArray[np.int64]]:
    """Power spectra of centred, Hann-windowed frames, with the bins in an order of their own.

    A transform of `rows * columns` points is two of `rows` and of `columns` points with a turn between
    them (Cooley and Tukey 1965). Window and turn go into the matrices of the first, so that 1 + n_fft / 2
    bins of 1,024 points take two products and no FFT: a quarter of the time of LiteRT's, for any even
    `n_fft`, with nothing that ONNX would lack.

    Parameters
    ----------
    ops : module
        `keras.ops`.
    waveform : tensor [shape=(1, samples)]
    n_fft, win_length, hop_length : int
        `n_fft` is even.
    pad_mode : {"reflect", "constant"}
        What is before the first sample and behind the last one.

    Returns
    -------
    power : tensor [shape=(frames, columns)]
    column_of : np.ndarray [shape=(1 + n_fft // 2,)]
        The column of each bin. Bringing them in order would take a third of the time once more, and
        what comes next is a product with a matrix, whose rows can be in any order.
    """
    points = max(
        n
        for n in range(1, _MOST_POINTS + 1)
        if n_fft % n == 0 and _hops(n_fft, hop_length, n) * hop_length <= 2 * max(n_fft, hop_length)
    )
    rows, kept = n_fft // points, n_fft // points // 2 + 1
    first, second = _matrices(n_fft, win_length, points)

    frames = _frames(ops, waveform, n_fft, hop_length, points, pad_mode)
    held = frames.shape[1] // points
    # What a frame holds beyond its end counts for nothing.
    first = np.pad(first, ((0, 0), (0, held - rows), (0, 0)))
    split = ops.transpose(ops.reshape(frames, (-1, held, points)), (2, 0, 1))
    turned = ops.transpose(ops.matmul(split, first), (1, 2, 0))
    parts = ops.square(ops.matmul(ops.reshape(turned, (-1, 2 * points)), second))
    summed = ops.reshape(parts[:, :points] + parts[:, points:], (-1, kept * points))

    quotient, remainder = np.divmod(np.arange(n_fft // 2 + 1), rows)
    # The first transform is of real numbers: the other half of its bins mirrors this one.
    mirrored = remainder >= kept
    remainder = np.where(mirrored, rows - remainder, remainder)
    quotient = np.where(mirrored, points - 1 - quotient, quotient)
    return summed, remainder * points + quotient


def _hops(n_fft: int, hop_length: int, points: int) -> int:
    """Fewest hops that hold a frame and can be cut into rows of so many points."""
    return next(n for n in itertools.count(1) if n * hop_length >= n_fft and n * hop_length % points == 0)


def _matrices(n_fft: int, win_length: int, points: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return what the two transforms multiply with.

    Returns
    -------
    first : np.ndarray [shape=(points, rows, 2 * bins), dtype=float32]
        Window, transform along the rows and turn; real and imaginary parts side by side.
    second : np.ndarray [shape=(2 * points, 2 * points), dtype=float32]
        From the real parts and then the imaginary ones to the same of the bins.
    """
    rows = n_fft // points
    row, column, bins = np.arange(rows), np.arange(points), np.arange(rows // 2 + 1)
    window = hann_window(win_length, n_fft).reshape(rows, points).T
    turns = row[None, :, None] * bins / rows + column[:, None, None] * bins / n_fft
    first = window[:, :, None] * np.exp(-2j * np.pi * turns)
    wave = np.exp(-2j * np.pi * np.outer(column, column) / points)
    second = np.block([[wave.real, wave.imag], [-wave.imag, wave.real]])
    parts = np.stack([first.real, first.imag], axis=-1).reshape(points, rows, -1)
    return parts.astype(np.float32), second.astype(np.float32)


def _frames(ops: Any, waveform: Any, n_fft: int, hop_length: int, points: int, pad_mode: str) -> Any:
    """Cut (1, samples) into centred frames of at least `n_fft` samples, a multiple of `points`.

    Frames are put together of whole hops: copying rows is all that a runtime has to do.
    """
    half, hops = n_fft // 2, _hops(n_fft, hop_length, points)
    n_samples = ops.shape(waveform)[1]
    y = ops.reshape(waveform, (-1,))
    if pad_mode == "reflect":
        before = ops.take(y, np.arange(half, 0, -1, dtype=np.int32), axis=0)
        after = ops.take(y, n_samples - 2 - np.arange(half, dtype=np.int32), axis=0)
    else:
        before = after = np.zeros(half, np.float32)
    n_rows = (n_samples + n_fft + hop_length - 1) // hop_length
    rest = ops.zeros((n_rows * hop_length - n_samples - n_fft,))
    rows = ops.reshape(ops.concatenate([before, y, after, rest]), (-1, hop_length))
    n_frames = 1 + n_samples // hop_length
    row = ops.arange(n_frames, dtype="int32")[:, None] + np.arange(hops, dtype=np.int32)
    # The last frames' rows beyond the end hold nothing that counts.
    row = ops.minimum(row, n_rows - 1)
    return ops.reshape(ops.take(rows, row, axis=0), (-1, hops * hop_length))
