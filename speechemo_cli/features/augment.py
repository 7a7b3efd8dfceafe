"""Changed recordings of a clip, made from its samples at any rate.

Augmented copies for training: other speeds, rooms, microphones, lines and noises. And recording conditions
to test a network under: louder, noisy, through a telephone, with a pause inside.
"""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from speechemo_cli.audio import vad

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

# The range of speeds. Beyond them speech sounds like another speaker with another emotion.
_SPEEDS = (0.9, 1.1)
# How often each change is drawn; several may fall on one copy.
_ROOM_SHARE, _TELEPHONE_SHARE, _CODEC_SHARE, _NOISE_SHARE = 0.3, 0.25, 0.15, 0.7
_MICROPHONE_SHARE, _OVERDRIVE_SHARE = 0.3, 0.1
_SNR_DB = (5.0, 40.0)
# Frames by which the level of speech is measured, in seconds, and how far below the loudest one speech goes.
_FRAME_S, _ACTIVE_DB = 0.02, 30.0
_TELEPHONE_SR = 8000
# What soundfile encodes and decodes again: the codecs of telephone lines, then those of music and calls.
_LINES = (("WAV", "ULAW"), ("WAV", "ALAW"), ("WAV", "GSM610"))
_CODECS = (("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS"))  # Opus takes seven times as long
# Of the MP3 file: wideband speech, as voice messages and podcasts have it.
_MP3_SR = 16000
# libsndfile goes from 160 (0) to 8 kbit/s (1) at this rate, so this is 32.
_MP3_32K = (160 - 32) / (160 - 8)
_PAUSE_S = 2.0


def augmented_copy(y: Samples, sr: int, key: str, number: int) -> Samples:
    """Return one augmented copy of a clip, of another length where the speed was changed.

    The hash of the clip's content (`key`) and the number of the copy, from 1 on, decide everything that is
    drawn, so that a copy is the same whenever and wherever it is computed.
    """
    rng = _rng(f"{key} {number}")
    y = change_speed(y, sr, rng.uniform(*_SPEEDS))
    if rng.random() < _MICROPHONE_SHARE:
        y = microphone(y, sr, rng)
    if rng.random() < _ROOM_SHARE:
        y = room(y, sr, rng.uniform(0.15, 0.7), rng.uniform(0.5, 5.0), rng)
    if rng.random() < _NOISE_SHARE:
        y = add_noise(y, sr, rng.uniform(*_SNR_DB), rng.uniform(0.0, 2.0), rng)
    if rng.random() < _OVERDRIVE_SHARE:
        y = overdrive(y, rng.uniform(3.0, 15.0))
    if rng.random() < _TELEPHONE_SHARE:
        low, high = rng.uniform(80.0, 350.0), rng.uniform(3000.0, 3900.0)
        y = telephone(y, sr, low, high, _LINES[rng.integers(len(_LINES))])
    if rng.random() < _CODEC_SHARE:
        y = codec(y, sr, _CODECS[rng.integers(len(_CODECS))], sr, rng.uniform(0.5, 0.95))
    return y


def _rng(drawn_from: str) -> np.random.Generator:
    seed = hashlib.sha256(drawn_from.encode()).digest()
    return np.random.default_rng(np.frombuffer(seed, np.uint32))


def change_speed(y: Samples, sr: int, factor: float) -> Samples:
    """Play faster (above 1) or slower, which moves tempo and pitch together, by soxr's resampler."""
    return _resampled(y, sr * factor, sr)


def _resampled(y: Samples, sr: float, target: float) -> Samples:
    import soxr

    changed: Samples = soxr.resample(y, sr, target, quality="HQ")
    return changed


def speech_power(y: Samples, sr: int) -> float:
    """Mean power of the frames of a clip that are less than 30 dB below its loudest one.

    Pauses do not count, so that a clip with a long pause gets no less noise at the same ratio.
    """
    length = max(1, round(_FRAME_S * sr))
    whole = len(y) // length * length
    if not whole:
        return float(np.square(y).mean()) if len(y) else 0.0
    power = np.square(y[:whole].reshape(-1, length)).mean(axis=1)
    return float(power[power >= power.max() * 10 ** (-_ACTIVE_DB / 10)].mean())


def add_noise(y: Samples, sr: int, snr_db: float, exponent: float, rng: np.random.Generator) -> Samples:
    """Add noise whose power falls with frequency as 1 / f**exponent: 0 is white, 1 pink, 2 brown.

    `snr_db` is the ratio of the power of the speech (`speech_power`) to that of the noise.
    """
    spectrum = np.fft.rfft(rng.standard_normal(_fast_length(len(y)), dtype=np.float32))
    # Flat below 50 Hz: no speech is there, and it would hold most of the power.
    hz = np.maximum(_frequencies(y, sr), 50.0)
    noise = np.fft.irfft(spectrum * hz ** (-exponent / 2))[: len(y)]
    wanted = speech_power(y, sr) / 10 ** (snr_db / 10)
    noisy = y + noise * np.sqrt(wanted / max(float(np.square(noise).mean()), 1e-20))
    return np.asarray(noisy, np.float32)


def room(y: Samples, sr: int, rt60_s: float, direct: float, rng: np.random.Generator) -> Samples:
    """Add the echo of a room: noise that decays by 60 dB in `rt60_s`, and has 1 / `direct` of y's energy."""
    n = max(2, round(rt60_s * sr))
    response = rng.standard_normal(n) * 10 ** (-3.0 * np.arange(n) / n)
    response *= 1.0 / np.sqrt(np.square(response).sum())
    response[0] = np.sqrt(direct)
    length = _fast_length(len(y) + n)
    echoed = np.fft.irfft(np.fft.rfft(y, length) * np.fft.rfft(response, length), length)[: len(y)]
    return np.asarray(echoed / np.sqrt(1.0 + direct), np.float32)


def microphone(y: Samples, sr: int, rng: np.random.Generator) -> Samples:
    """Colour the sound as another microphone would: a random curve with 4 dB of deviation an octave."""
    octave = np.log2(np.maximum(_frequencies(y, sr), 60.0) / 60.0)
    gain_db = np.interp(octave, np.arange(9), rng.normal(0.0, 4.0, 9))
    return _filtered(y, 10 ** (gain_db / 20))


def overdrive(y: Samples, gain_db: float) -> Samples:
    """Record so loud that the peaks are cut: `gain_db` above what would just fit."""
    peak = float(np.abs(y).max()) or 1.0
    return np.asarray(np.clip(y / peak * 10 ** (gain_db / 20), -1.0, 1.0), np.float32)


def telephone(y: Samples, sr: int, low_hz: float, high_hz: float, line: tuple[str, str]) -> Samples:
    """Send a clip through a telephone: a narrow band at 8 kHz, and the codec of the line.

    The edges of the band are those of ITU-T G.712 at 300 and 3400 Hz; `line` is a kind of `codec`.
    """
    hz = _frequencies(y, sr)
    band = 1.0 / (1.0 + (low_hz / np.maximum(hz, 1.0)) ** 8) / (1.0 + (hz / high_hz) ** 16)
    return codec(_filtered(y, np.sqrt(band)), sr, line, _TELEPHONE_SR)


def codec(
    y: Samples, sr: int, kind: tuple[str, str], codec_sr: int, compression: float | None = None
) -> Samples:
    """Encode a clip at `codec_sr` and decode it again; the rest are soundfile's parameters."""
    import soundfile

    y = _resampled(y, sr, codec_sr)
    # The level that codecs are made for: a peak of 0.5.
    y = y * np.float32(0.5 / max(float(np.abs(y).max()), 1e-6))
    buffer, (format_, subtype) = io.BytesIO(), kind
    mode = "CONSTANT" if format_ == "MP3" else None
    soundfile.write(
        buffer, y, codec_sr, subtype, format=format_, compression_level=compression, bitrate_mode=mode
    )
    buffer.seek(0)
    return _resampled(soundfile.read(buffer, dtype="float32")[0], codec_sr, sr)


def _frequencies(y: Samples, sr: int) -> NDArray[Any]:
    """Frequencies in Hz of the spectrum that `_filtered` multiplies."""
    return np.fft.rfftfreq(_fast_length(len(y)), 1 / sr)


def _filtered(y: Samples, gain: NDArray[Any]) -> Samples:
    length = _fast_length(len(y))
    return np.asarray(np.fft.irfft(np.fft.rfft(y, length) * gain, length)[: len(y)], np.float32)


def _fast_length(n: int) -> int:
    """Round up to a length that an FFT is fast for: a few times a power of two."""
    step = 1 << max(0, n.bit_length() - 4)
    return -(-n // step) * step


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


class Condition(NamedTuple):
    """A way in which a recording may differ from others: a title for tables, and the change of samples."""

    title: str
    apply: Callable[[Samples, int, np.random.Generator], NDArray[Any]]


CONDITIONS: dict[str, Condition] = {
    "louder": Condition("30 dB louder", lambda y, _sr, _rng: np.float32(10 ** (30 / 20)) * y),
    # With the 16 bits of the usual file, which is what being softer costs.
    "softer": Condition(
        "20 dB softer, 16 bits",
        lambda y, _sr, _rng: np.round(y * np.float32(10 ** (-20 / 20) * 2**15)) / np.float32(2**15),
    ),
    "noise-20db": Condition("pink noise, 20 dB", lambda y, sr, rng: add_noise(y, sr, 20.0, 1.0, rng)),
    "noise-10db": Condition("pink noise, 10 dB", lambda y, sr, rng: add_noise(y, sr, 10.0, 1.0, rng)),
    "telephone": Condition("telephone, G.711", lambda y, sr, _rng: telephone(y, sr, 300, 3400, _LINES[0])),
    "room": Condition("room, RT60 0.5 s", lambda y, sr, rng: room(y, sr, 0.5, 1.0, rng)),
    "mp3": Condition("MP3, 32 kbit/s", lambda y, sr, _rng: codec(y, sr, _CODECS[0], _MP3_SR, _MP3_32K)),
    "pause": Condition("pause of 2 s inside", insert_pause),
}


def condition_sets(feature_set: str) -> tuple[str, ...]:
    """Names of the sets that hold the features of clips under each condition."""
    return tuple(f"{feature_set}@{name}" for name in CONDITIONS)


def apply_condition(name: str, y: Samples, sr: int, key: str) -> Samples:
    """Make another recording of a clip; what is random is drawn from the hash of its content (`key`)."""
    changed = CONDITIONS[name].apply(y, sr, _rng(f"{key} {name}"))
    return np.ascontiguousarray(changed, np.float32)
