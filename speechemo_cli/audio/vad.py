"""Where somebody speaks: levels of 10 ms frames, taken while a recording streams by, and runs of speech."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

FRAMES_A_SECOND = 100
# Columns of the envelope: more than any picture of it has.
_COLUMNS = 2000
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
    """Levels of a recording that was read in blocks: 4 bytes for 10 ms, and the envelope.

    `levels` [shape=(frames,)] is the power of each frame around its own mean, in dB of full scale; what is
    left over at the end is no frame. `envelope` [shape=(columns, 2)] has the lowest and the highest sample of
    up to 2000 equal parts. `frame_length` is 10 ms, to the nearest sample below.
    """

    levels: NDArray[np.float32]
    envelope: NDArray[np.float32]
    frame_length: int


def measure(blocks: Iterable[NDArray[np.float32]], sr: int) -> LevelTrack:
    """Take levels and the envelope while mono samples at `sr` Hz stream by, in blocks of any length."""
    length = max(1, sr // FRAMES_A_SECOND)
    # These grow in place, where a list of arrays would be copied in the end.
    levels, extremes = bytearray(), bytearray()
    rest = np.empty(0, np.float32)
    for block in blocks:
        y = np.concatenate([rest, block])
        whole = len(y) // length * length
        frames, rest = y[:whole].reshape(-1, length), y[whole:]
        # Around the frame's own mean, so that an offset does not count.
        levels += (10 * np.log10(frames.var(axis=1) + np.float32(1e-12))).data
        extremes += np.stack([frames.min(axis=1), frames.max(axis=1)], axis=1).data
    low, high = np.frombuffer(extremes, np.float32).reshape(-1, 2).T
    envelope = np.empty((min(_COLUMNS, len(low)), 2), np.float32)
    if len(envelope):
        first = np.arange(len(envelope)) * len(low) // len(envelope)
        envelope[:, 0], envelope[:, 1] = np.minimum.reduceat(low, first), np.maximum.reduceat(high, first)
    return LevelTrack(np.frombuffer(levels, np.float32), envelope, length)


def detect_speech(levels: NDArray[np.float32]) -> NDArray[np.int64]:
    """Find speech by its energy, from the levels of 10 ms frames in dB.

    A frame is speech where it stands out of the noise, which is the level of the quietest frames of
    half a minute around it, and is not too far below the loudest frames near it. The threshold
    follows both, so that neither the level of a recording nor its noise matters. Pauses of up to a
    fifth of a second are part of the speech: closed consonants make them. Returned are the first frame
    of each run and the one after its last [shape=(runs, 2)], in order, not touching.
    """
    if not len(levels):
        return np.empty((0, 2), np.int64)
    # The mean of three frames, so that a single one decides nothing. Those at the ends count twice.
    single = np.maximum(levels, np.float32(_DIGITAL_SILENCE_DB))
    level = single.copy()
    level[0] += single[0]
    level[1:] += single[:-1]
    level[:-1] += single[1:]
    level[-1] += single[-1]
    level /= 3
    del single  # as large as the recording
    threshold = _threshold(level)
    speech, loud = np.empty(len(level), bool), np.zeros(len(level) + 1, bool)
    for first in range(0, len(level), _PART):
        frames = np.arange(first, min(first + _PART, len(level)))
        above = level[frames] - threshold(frames)
        speech[frames], loud[frames] = above > 0, above > _CORE_DB
    runs = np.flatnonzero(np.diff(speech, prepend=False, append=False)).reshape(-1, 2)
    core = np.logical_or.reduceat(loud, runs.ravel())[::2] if len(runs) else np.empty(0, bool)
    runs = runs[core & (runs[:, 1] - runs[:, 0] >= _SHORTEST_S * FRAMES_A_SECOND)]
    runs = join(runs, _HANGOVER_S)
    runs = runs[runs[:, 1] - runs[:, 0] >= _LEAST_SPEECH_S * FRAMES_A_SECOND]
    return widen(runs, _BEFORE_S, _AFTER_S, len(levels))


def join(runs: NDArray[np.int64], pause_s: float) -> NDArray[np.int64]:
    """Make one of runs [shape=(runs, 2)] with no longer pause between them."""
    if not len(runs):
        return runs
    parted = runs[1:, 0] - runs[:-1, 1] > pause_s * FRAMES_A_SECOND
    return np.stack([runs[np.append(True, parted), 0], runs[np.append(parted, True), 1]], axis=1)


def widen(runs: NDArray[np.int64], before_s: float, after_s: float, n: int) -> NDArray[np.int64]:
    """Let runs begin earlier and end later, up to the middle of a pause, within `n` frames of a recording."""
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
