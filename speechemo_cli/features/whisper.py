"""Feature set `whisper`: statistics, over the speech in a clip, of what Whisper's encoder makes of it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from speechemo_cli.features.augment import augmented_copy
from speechemo_cli.features.spectrum import mel_spectrogram
from speechemo_cli.litert import LiteRtModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Array = NDArray[np.float32]

VERSION = 1

# Whisper's front end (Radford et al. 2022, arXiv 2212.04356): frames of 25 ms every 10 ms at 16 kHz, 80 mel
# bands, log10 of the power with a floor, at most 8 below the loudest, then (x + 4) / 4.
SR = 16000
N_FFT = 400
HOP_LENGTH = 160
N_MELS = 80
AMIN = 1e-10
RANGE = 8.0
# What the loudest band of a clip is set to, in log10 of power. Whisper takes the level as it is, so that
# the same voice recorded louder gives other numbers; speech with peaks at full scale has about this.
LOUDEST = 1.5
# So many frames (0.1 s) may be louder: a click is not speech.
LOUDER_FRAMES = 10
# Log-mel frames that the encoder reads at a time (3 s), and from one window to the next in longer clips.
WINDOW = 300
WINDOW_HOP = 150

# Where somebody speaks: the level of a frame, without the bands below 110 Hz where mains and traffic hum,
# averaged over 50 ms, is less than 32.6 dB below the loudest of the clip and 6 dB above its quietest
# twentieth, but never more is asked for than 12 dB below the loudest, since a clip without a pause has none.
FIRST_BAND = 3
SMOOTH_FRAMES = 5
TRIM_DB = 32.6
QUIET_SHARE, ABOVE_QUIET_DB, SURE_DB = 0.05, 6.0, 12.0
# What is shorter than 50 ms is a click; pauses of up to 0.2 s are closed consonants.
CLICK_FRAMES = 5
GAP_FRAMES = 21

# Frames of silence to leave on both sides where a clip is cut to its speech before it is augmented.
_MARGIN = 10

ENCODER = Path(__file__).with_name("whisper_encoder.tflite")
# Output of the encoder: blocks and numbers of each.
_N_BLOCKS, _WIDTH = 4, 384
DIM = 2 * _N_BLOCKS * _WIDTH


def compute(y: Array, encode: Callable[[Array], Array] | None = None) -> Array:
    """Mean and deviation over the speech in a clip of the outputs of the encoder's four blocks.

    Frames without speech are taken out before the encoder, so that pauses count for nothing, and the
    level is fixed, so that it does not either.

    Parameters
    ----------
    y : np.ndarray [shape=(n,), dtype=float32]
        Samples at 16 kHz.
    encode : callable, optional
        Stands for the encoder: [shape=(1, 300, 80)] -> [shape=(1, 4, 150, 384)].

    Returns
    -------
    np.ndarray [shape=(1, 3072), dtype=float32]
    """
    power = mel_power(y)
    frames = fixed_level(_log10(power[is_speech(power)]))
    return _statistics(frames, encode or (lambda window: encoder().run(window)[0]))[None]


def compute_copies(y: Array, key: str, copies: int) -> Array:
    """Return the same for augmented copies of a clip, for training.

    Parameters
    ----------
    y : np.ndarray [shape=(n,), dtype=float32]
        Samples at 16 kHz.
    key : str
        Hash of the clip's content, which decides how the copies differ.
    copies : int

    Returns
    -------
    np.ndarray [shape=(copies, 3072), dtype=float32]
    """
    # Half of a clip of RAVDESS is silence before and behind, which would be augmented for nothing.
    speech = np.flatnonzero(is_speech(mel_power(y)))
    first = max(0, int(speech[0]) - _MARGIN) * HOP_LENGTH
    part = y[first : (int(speech[-1]) + _MARGIN) * HOP_LENGTH]
    rows = [compute(augmented_copy(part, SR, key, i + 1)) for i in range(copies)]
    return np.concatenate([np.empty((0, DIM), np.float32), *rows])


def mel_power(y: Array) -> Array:
    """Whisper's mel spectrogram of samples at 16 kHz, before its logarithm [shape=(n // 160, 80)].

    It has one frame at least.
    """
    power = mel_spectrogram(y, SR, n_fft=N_FFT, hop_length=HOP_LENGTH, n_mels=N_MELS, pad_mode="reflect")
    return power[: max(1, len(y) // HOP_LENGTH)]


def is_speech(power: Array) -> NDArray[np.bool_]:
    """Tell the frames in which somebody speaks [shape=(frames,)] from pauses, by their power.

    It is made of what LiteRT and ONNX have (means, sorting, maxima), so that an exported model finds the
    same frames. It is true somewhere.
    """
    level = 10.0 * _log10(power[:, FIRST_BAND:].sum(axis=1))
    level = _sliding(level, SMOOTH_FRAMES, np.mean)
    ordered = np.sort(level)
    loudest = ordered[-1 - min(LOUDER_FRAMES, len(ordered) - 1)]
    quiet = ordered[int(QUIET_SHARE * len(ordered))]
    threshold = max(loudest - TRIM_DB, min(quiet + ABOVE_QUIET_DB, loudest - SURE_DB))
    near = level >= threshold
    speech = _sliding(_sliding(near, CLICK_FRAMES, np.min), CLICK_FRAMES, np.max)
    # Within a margin of frames without speech, so that nothing is closed towards the ends of the clip.
    speech = _sliding(_sliding(np.pad(speech, GAP_FRAMES), GAP_FRAMES, np.max), GAP_FRAMES, np.min)
    speech = speech[GAP_FRAMES:-GAP_FRAMES]
    return speech if speech.any() else near


def _sliding(values: NDArray[Any], n: int, statistic: Callable[..., NDArray[Any]]) -> NDArray[Any]:
    """Take a statistic of `n` (odd) neighbours of each value; the ends are repeated."""
    return statistic(sliding_window_view(np.pad(values, n // 2, mode="edge"), n), axis=1)


def _log10(power: Array) -> Array:
    return np.log10(np.maximum(power, np.float32(AMIN)))


def fixed_level(frames: Array) -> Array:
    """Bring log10 of the power [shape=(frames, 80)] to one level and to Whisper's range.

    In place of its own scaling: (1.5 + 4) / 4 where the clip is loudest, at most 8 / 4 less.
    """
    loudest = np.sort(frames.max(axis=1))[-1 - min(LOUDER_FRAMES, len(frames) - 1)]
    relative = np.maximum(frames - loudest, np.float32(-RANGE))
    levelled: Array = (relative + np.float32(LOUDEST + 4.0)) / np.float32(4.0)
    return levelled


def windows(n: int) -> Iterator[slice]:
    """Cut `n` frames into windows of at most `WINDOW` that overlap by half; the last ends with the clip."""
    start = 0
    while start + WINDOW < n:
        yield slice(start, start + WINDOW)
        start = min(start + WINDOW_HOP, n - WINDOW)
    yield slice(start, n)


@lru_cache(maxsize=1)
def encoder() -> LiteRtModel:
    """Load the encoder, once a process."""
    return LiteRtModel(str(ENCODER))


def _statistics(frames: Array, encode: Callable[[Array], Array]) -> Array:
    """Mean and deviation over time of the four blocks [shape=(3072,)], windows pooled as one."""
    n = 0
    mean = squares = np.zeros((_N_BLOCKS, _WIDTH), np.float32)
    padded = np.empty((1, WINDOW, N_MELS), np.float32)
    for window in windows(len(frames)):
        part = frames[window]
        padded[0, : len(part)] = part
        padded[0, len(part) :] = frames.min()
        # The second convolution halves the rate; what was padded is left out.
        outputs = encode(padded)[0, :, : (len(part) + 1) // 2]
        count = outputs.shape[1]
        own = outputs.mean(axis=1)
        own_squares = np.square(outputs - own[:, None]).sum(axis=1)
        # Chan et al. 1979: statistics of parts put together without a loss of digits.
        total, difference = n + count, own - mean
        mean = mean + difference * np.float32(count / total)
        squares = squares + own_squares + np.square(difference) * np.float32(n * count / total)
        n = total
    return np.concatenate([mean, np.sqrt(squares / np.float32(n))], axis=1).ravel()
