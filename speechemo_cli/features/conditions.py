"""The same clips as other recordings of them: louder, noisy, through a telephone, with a pause inside."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from speechemo_cli.audio import vad
from speechemo_cli.features import augment

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

# Of the MP3 file: wideband speech, as voice messages and podcasts have it.
_MP3_SR = 16000
# libsndfile goes from 160 (0) to 8 kbit/s (1) at this rate, so this is 32.
_MP3_32K = (160 - 32) / (160 - 8)
_PAUSE_S = 2.0


class Condition(NamedTuple):
    """One way in which a recording may differ from those that a network was trained on.

    Attributes
    ----------
    title : str
        For tables.
    apply : callable
        `(y, sr, rng) -> y`: mono samples at any rate, full scale at 1.0.
    """

    title: str
    apply: Callable[[Samples, int, np.random.Generator], Samples]


def _louder(y: Samples, _sr: int, _rng: np.random.Generator) -> Samples:
    return np.float32(10 ** (30 / 20)) * y


def _softer(y: Samples, _sr: int, _rng: np.random.Generator) -> Samples:
    # With the 16 bits of the usual file, which is what being softer costs.
    rounded = np.round(y * np.float32(10 ** (-20 / 20) * 2**15)) / np.float32(2**15)
    return np.asarray(rounded, np.float32)


def _telephone(y: Samples, sr: int, _rng: np.random.Generator) -> Samples:
    return augment.telephone(y, sr, 300.0, 3400.0)


def _mp3(y: Samples, sr: int, _rng: np.random.Generator) -> Samples:
    import soxr

    low = soxr.resample(y, sr, _MP3_SR, quality="HQ")
    decoded = augment.codec(low, _MP3_SR, ("MP3", "MPEG_LAYER_III"), _MP3_32K)
    back: Samples = soxr.resample(decoded, _MP3_SR, sr, quality="HQ")
    return back


def insert_pause(y: Samples, sr: int, rng: np.random.Generator) -> Samples:
    """Put a pause of two seconds, with noise like that of the recording's silence, into its speech.

    It goes where the middle half of the speech is quietest, so that it cuts no vowel.
    """
    track = vad.measure([y], sr)
    runs = vad.detect_speech(track.levels)
    first, last = (runs[0, 0], runs[-1, 1]) if len(runs) else (0, len(track.levels))
    quarter = (last - first) // 4
    middle = track.levels[first + quarter : max(last - quarter, first + quarter + 1)]
    at = int(first + quarter + np.argmin(np.convolve(middle, np.ones(5), "same"))) if len(middle) else 0
    noise_db = np.sort(track.levels)[len(track.levels) // 20] if len(track.levels) else -100.0
    noise = rng.standard_normal(round(_PAUSE_S * sr), dtype=np.float32) * np.float32(10 ** (noise_db / 20))
    cut = at * track.frame_length
    return np.concatenate([y[:cut], noise, y[cut:]])


CONDITIONS: dict[str, Condition] = {
    "louder": Condition("30 dB louder", _louder),
    "softer": Condition("20 dB softer, 16 bits", _softer),
    "noise-20db": Condition("pink noise, 20 dB", lambda y, sr, rng: augment.add_noise(y, sr, 20.0, 1.0, rng)),
    "noise-10db": Condition("pink noise, 10 dB", lambda y, sr, rng: augment.add_noise(y, sr, 10.0, 1.0, rng)),
    "telephone": Condition("telephone, G.711", _telephone),
    "room": Condition("room, RT60 0.5 s", lambda y, sr, rng: augment.room(y, sr, 0.5, 1.0, rng)),
    "mp3": Condition("MP3, 32 kbit/s", _mp3),
    "pause": Condition("pause of 2 s inside", insert_pause),
}


def feature_sets(feature_set: str) -> tuple[str, ...]:
    """Names of the sets that hold the features of clips under each condition."""
    return tuple(f"{feature_set}@{name}" for name in CONDITIONS)


def apply(name: str, y: Samples, sr: int, key: str) -> Samples:
    """Make another recording of a clip.

    Parameters
    ----------
    name : str
        One of `CONDITIONS`.
    y : np.ndarray [shape=(n,), dtype=float32]
    sr : int
    key : str
        Hash of the clip's content, from which what is random is drawn, so that it is always the same.

    Returns
    -------
    np.ndarray [shape=(m,), dtype=float32]
    """
    seed = hashlib.sha256(f"{key} {name}".encode()).digest()
    changed = CONDITIONS[name].apply(y, sr, np.random.default_rng(np.frombuffer(seed, np.uint32)))
    return np.ascontiguousarray(changed, np.float32)
