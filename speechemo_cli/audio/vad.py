"""Where somebody speaks: levels of 10 ms frames, taken while a recording streams by, and runs of speech."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

FRAMES_A_SECOND = 100
# Columns of the envelope: more than any picture of it has. While it is taken there are up to sixteen times
# as many, so that memory does not grow with the recording.
_COLUMNS = 2000
_MOST_EXTREMES = 16 * _COLUMNS
# Frames that are looked at together: ten minutes.
_PART = 60_000

# Below this level in dB of full scale there is no voice: steps of 16 bits make noise at -101 dB.
_LOWEST_DB = -90.0
_DIGITAL_SILENCE_DB = -100.0
# What counts as noise is the level of the quietest twentieth of half a minute: whoever speaks pauses
# for longer than that.
_FLOOR_S, _FLOOR_PERCENT = 30.0, 5
# Speech stands out of the noise by this much somewhere near, and by a little less wherever it is.
_CONTRAST_DB, _ABOVE_FLOOR_DB = 10.0, 6.0
# Within three seconds syllables rise and fall by more; what does not is a machine that was switched on.
_SWING_S, _SWING_DB = 3.0, 6.0
# Speech spans about 30 dB; what is further below the loudest within two seconds is its echo, or a breath.
_NEAR_S, _BELOW_NEAR_DB = 2.0, 35.0
# Other voices may be this much quieter than the loudest of the recording.
_BELOW_LOUDEST_DB = 60.0
# A run of speech has a frame that is louder than the threshold by this much, and lasts this long.
_CORE_DB, _SHORTEST_S = 3.0, 0.06
# Closed consonants are silent for up to a fifth of a second.
_HANGOVER_S = 0.2
# Beginnings and ends are softer than any threshold.
_BEFORE_S, _AFTER_S = 0.03, 0.06
# A stretch of speech that is shorter says nothing, as a clip that is shorter is refused.
_LEAST_SPEECH_S = 0.2


@dataclass(frozen=True)
class LevelTrack:
    """What is kept of a recording that streamed by: 4 bytes for 10 ms, and the envelope.

    Attributes
    ----------
    levels : np.ndarray [shape=(frames,), dtype=float32]
        Power of each frame around its own mean, in dB of full scale. What is left over at the end is
        no frame.
    envelope : np.ndarray [shape=(columns, 2), dtype=float32]
        Lowest and highest sample of up to 2000 equal parts of the recording.
    frame_length : int
        Samples of a frame: 10 ms, to the nearest sample below.
    """

    levels: NDArray[np.float32]
    envelope: NDArray[np.float32]
    frame_length: int


def measure(blocks: Iterable[NDArray[np.float32]], sr: int) -> LevelTrack:
    """Take levels and the envelope while samples stream by.

    Parameters
    ----------
    blocks : iterable of np.ndarray [shape=(n,), dtype=float32]
        Mono samples that follow one another.
    sr : int
        Their rate in Hz.

    Returns
    -------
    LevelTrack
        The same however the samples were cut into blocks.
    """
    length = max(1, sr // FRAMES_A_SECOND)
    levels = bytearray()  # grows in place, where a list of arrays would be copied in the end
    extremes, frames_each = np.empty((0, 2), np.float32), 1
    rest, waiting = np.empty(0, np.float32), np.empty((0, 2), np.float32)
    for block in blocks:
        y = np.concatenate([rest, block])
        whole = len(y) // length * length
        frames, rest = y[:whole].reshape(-1, length), y[whole:]
        # Around the frame's own mean, so that an offset does not count.
        levels += (10 * np.log10(frames.var(axis=1) + np.float32(1e-12))).data
        waiting = np.concatenate([waiting, np.stack([frames.min(axis=1), frames.max(axis=1)], axis=1)])
        whole = len(waiting) // frames_each * frames_each
        merged = _extremes(waiting[:whole], np.arange(0, whole, frames_each))
        extremes, waiting = np.concatenate([extremes, merged]), waiting[whole:]
        while len(extremes) > _MOST_EXTREMES:
            n = len(extremes) // 2 * 2
            waiting = np.concatenate([extremes[n:].repeat(frames_each, axis=0), waiting])
            extremes, frames_each = _extremes(extremes[:n], np.arange(0, n, 2)), 2 * frames_each
    extremes = np.concatenate([extremes, _extremes(waiting, np.arange(min(len(waiting), 1)))])
    n = min(_COLUMNS, len(extremes))
    envelope = _extremes(extremes, np.arange(n) * len(extremes) // max(n, 1))
    return LevelTrack(np.frombuffer(levels, np.float32), envelope, length)


def _extremes(pairs: NDArray[np.float32], first: NDArray[np.int64]) -> NDArray[np.float32]:
    """Join (lowest, highest) pairs: those from each of `first` to the next [shape=(len(first), 2)]."""
    if not len(first):
        return np.empty((0, 2), np.float32)
    low, high = np.minimum.reduceat(pairs[:, 0], first), np.maximum.reduceat(pairs[:, 1], first)
    return np.stack([low, high], axis=1)


def detect_speech(levels: NDArray[np.float32]) -> NDArray[np.int64]:
    """Find speech by its energy.

    A frame is speech where it stands out of the noise, which is the level of the quietest frames of
    half a minute around it, and is not too far below the loudest frames near it. The threshold
    follows both, so that neither the level of a recording nor its noise matters. Pauses of up to a
    fifth of a second are part of the speech: closed consonants make them.

    Parameters
    ----------
    levels : np.ndarray [shape=(frames,), dtype=float32]
        Of 10 ms frames, in dB.

    Returns
    -------
    np.ndarray [shape=(runs, 2), dtype=int64]
        First frame of each run and the one after its last, in order, not touching.
    """
    if not len(levels):
        return np.empty((0, 2), np.int64)
    level = _smooth(levels)
    threshold = _threshold(level)
    speech, loud = np.empty(len(level), bool), np.zeros(len(level) + 1, bool)
    for first in range(0, len(level), _PART):
        frames = np.arange(first, min(first + _PART, len(level)))
        above = level[frames] - threshold(frames)
        speech[frames], loud[frames] = above > 0, above > _CORE_DB
    runs = _runs(speech)
    core = np.logical_or.reduceat(loud, runs.ravel())[::2] if len(runs) else np.empty(0, bool)
    runs = runs[core & (runs[:, 1] - runs[:, 0] >= _SHORTEST_S * FRAMES_A_SECOND)]
    runs = join(runs, _HANGOVER_S)
    runs = runs[runs[:, 1] - runs[:, 0] >= _LEAST_SPEECH_S * FRAMES_A_SECOND]
    return widen(runs, _BEFORE_S, _AFTER_S, len(levels))


def join(runs: NDArray[np.int64], pause_s: float) -> NDArray[np.int64]:
    """Make one of runs with no more than a pause between them.

    Parameters
    ----------
    runs : np.ndarray [shape=(runs, 2), dtype=int64]
        As `detect_speech` returns them.
    pause_s : float
        The longest pause to bridge.
    """
    if not len(runs):
        return runs
    parted = runs[1:, 0] - runs[:-1, 1] > pause_s * FRAMES_A_SECOND
    return np.stack([runs[np.append(True, parted), 0], runs[np.append(parted, True), 1]], axis=1)


def widen(runs: NDArray[np.int64], before_s: float, after_s: float, n: int) -> NDArray[np.int64]:
    """Let runs begin earlier and end later, up to the middle of the pause between two.

    Parameters
    ----------
    runs : np.ndarray [shape=(runs, 2), dtype=int64]
    before_s, after_s : float
    n : int
        Frames of the recording.
    """
    if not len(runs):
        return runs
    middle = (runs[1:, 0] + runs[:-1, 1]) // 2
    first = np.maximum(runs[:, 0] - round(before_s * FRAMES_A_SECOND), np.append(0, middle))
    last = np.minimum(runs[:, 1] + round(after_s * FRAMES_A_SECOND), np.append(middle, n))
    return np.stack([first, last], axis=1)


def _threshold(level: NDArray[np.float32]) -> Callable[[NDArray[np.int64]], NDArray[np.float32]]:
    """Return what gives, for some frames, the levels in dB that they must exceed to be speech."""
    loudest = _around(level, _NEAR_S, 0.25, lambda part: float(part.max()))
    floor = _around(level, _FLOOR_S / 2, 1.0, _noise_floor)
    swing = _around(level, _SWING_S / 2, 0.25, lambda part: _percentile(part, 95) - _percentile(part, 5))
    lowest = max(_LOWEST_DB, float(level.max()) - _BELOW_LOUDEST_DB)

    def threshold(frames: NDArray[np.int64]) -> NDArray[np.float32]:
        loud, quiet = loudest(frames), floor(frames)
        above = np.maximum(lowest, np.maximum(quiet + _ABOVE_FLOOR_DB, loud - _BELOW_NEAR_DB))
        speech = (loud - quiet >= _CONTRAST_DB) & (swing(frames) >= _SWING_DB)
        return np.where(speech, above, np.float32(np.inf))

    return threshold


def _noise_floor(part: NDArray[np.float32]) -> float:
    # Digital silence is no noise: there is some of it in recordings that are noisy everywhere else.
    sounding = part[part > _DIGITAL_SILENCE_DB]
    return _percentile(sounding, _FLOOR_PERCENT) if sounding.size else _DIGITAL_SILENCE_DB


def _percentile(part: NDArray[np.float32], percent: int) -> float:
    # A tenth of the time of numpy's, which interpolates.
    at = len(part) * percent // 100
    return float(np.partition(part, at)[at])


def _around(
    level: NDArray[np.float32],
    reach_s: float,
    step_s: float,
    statistic: Callable[[NDArray[np.float32]], float],
) -> Callable[[NDArray[np.int64]], NDArray[np.float32]]:
    """Return what gives, for some frames, a statistic of those up to `reach_s` before and after each."""
    reach, step = round(reach_s * FRAMES_A_SECOND), round(step_s * FRAMES_A_SECOND)
    at = np.arange(0, len(level), step)
    values = [statistic(level[max(0, i - reach) : i + reach + 1]) for i in at]
    return lambda frames: np.interp(frames, at, values).astype(np.float32)


def _smooth(levels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average three frames, so that a single one decides nothing."""
    level = np.maximum(levels, np.float32(_DIGITAL_SILENCE_DB))
    before = level[0]
    for first in range(0, len(level), _PART):
        part = np.append(before, level[first : first + _PART + 1])
        if first + _PART >= len(level):
            part = np.append(part, part[-1])
        before = part[-2]
        level[first : first + _PART] = (part[:-2] + part[1:-1] + part[2:]) / 3
    return level


def _runs(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """First frame and the one after the last of each run of True [shape=(runs, 2)]."""
    return np.flatnonzero(np.diff(flags, prepend=False, append=False)).reshape(-1, 2)
