"""Augmented copies of a clip: other speeds, rooms, microphones, lines and noises, from its waveform."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

# The range of speeds. Speech beyond them sounds like somebody else in another mood.
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


def augmented_copy(y: Samples, sr: int, key: str, number: int) -> Samples:
    """Return one augmented copy of a clip.

    Parameters
    ----------
    y : np.ndarray [shape=(n,), dtype=float32]
        Mono samples.
    sr : int
        Their rate in Hz.
    key : str
        Hash of the clip's content. With `number` it decides everything that is drawn, so that a copy
        is the same whenever and wherever it is computed.
    number : int
        Which copy, from 1 on.

    Returns
    -------
    np.ndarray [shape=(m,), dtype=float32]
        Of another length where the speed was changed.
    """
    seed = hashlib.sha256(f"{key} {number}".encode()).digest()
    rng = np.random.default_rng(np.frombuffer(seed, np.uint32))
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
        y = codec(y, sr, _CODECS[rng.integers(len(_CODECS))], rng.uniform(0.5, 0.95))
    return y


def change_speed(y: Samples, sr: int, factor: float) -> Samples:
    """Play faster (above 1) or slower, which moves tempo and pitch together, by soxr's resampler."""
    import soxr

    changed: Samples = soxr.resample(y, sr * factor, sr, quality="HQ")
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
    """Add noise whose power falls with the frequency to an exponent: 0 is white, 1 pink, 2 brown.

    Parameters
    ----------
    y : np.ndarray [shape=(n,), dtype=float32]
    sr : int
    snr_db : float
        Ratio of the power of the speech (`speech_power`) to that of the noise.
    exponent : float
    rng : np.random.Generator

    Returns
    -------
    np.ndarray [shape=(n,), dtype=float32]
    """
    spectrum = np.fft.rfft(rng.standard_normal(_fast_length(len(y)), dtype=np.float32))
    # Flat below 50 Hz: no speech is there, and it would hold most of the power.
    hz = np.maximum(np.fft.rfftfreq(_fast_length(len(y)), 1 / sr), 50.0)
    noise = np.fft.irfft(spectrum * hz ** (-exponent / 2))[: len(y)]
    wanted = speech_power(y, sr) / 10 ** (snr_db / 10)
    noisy = y + noise * np.sqrt(wanted / max(float(np.square(noise).mean()), 1e-20))
    return np.asarray(noisy, np.float32)


def room(y: Samples, sr: int, rt60_s: float, direct: float, rng: np.random.Generator) -> Samples:
    """Add the echo of a room: noise that decays by 60 dB in `rt60_s` seconds.

    Parameters
    ----------
    y : np.ndarray [shape=(n,), dtype=float32]
    sr : int
    rt60_s : float
    direct : float
        Energy of the direct sound, in parts of the energy of the echo.
    rng : np.random.Generator

    Returns
    -------
    np.ndarray [shape=(n,), dtype=float32]
    """
    n = max(2, round(rt60_s * sr))
    response = rng.standard_normal(n) * 10 ** (-3.0 * np.arange(n) / n)
    response *= 1.0 / np.sqrt(np.square(response).sum())
    response[0] = np.sqrt(direct)
    length = _fast_length(len(y) + n)
    echoed = np.fft.irfft(np.fft.rfft(y, length) * np.fft.rfft(response, length), length)[: len(y)]
    return np.asarray(echoed / np.sqrt(1.0 + direct), np.float32)


def microphone(y: Samples, sr: int, rng: np.random.Generator) -> Samples:
    """Colour the sound as another microphone would: a random curve with 4 dB of deviation an octave."""
    length = _fast_length(len(y))
    octave = np.log2(np.maximum(np.fft.rfftfreq(length, 1 / sr), 60.0) / 60.0)
    gain_db = np.interp(octave, np.arange(9), rng.normal(0.0, 4.0, 9))
    coloured = np.fft.irfft(np.fft.rfft(y, length) * 10 ** (gain_db / 20), length)[: len(y)]
    return np.asarray(coloured, np.float32)


def overdrive(y: Samples, gain_db: float) -> Samples:
    """Record so loud that the peaks are cut: `gain_db` above what would just fit."""
    peak = float(np.abs(y).max()) or 1.0
    return np.asarray(np.clip(y / peak * 10 ** (gain_db / 20), -1.0, 1.0), np.float32)


def telephone(
    y: Samples, sr: int, low_hz: float, high_hz: float, line: tuple[str, str] = ("WAV", "ULAW")
) -> Samples:
    """Send a clip through a telephone: a narrow band at 8 kHz, and the codec of the line.

    Parameters
    ----------
    y : np.ndarray [shape=(n,), dtype=float32]
    sr : int
    low_hz, high_hz : float
        Edges of the band; 300 and 3400 are those of ITU-T G.712.
    line : (str, str)
        Format and subtype of soundfile that encodes it: G.711 by default.

    Returns
    -------
    np.ndarray [shape=(m,), dtype=float32]
        At `sr` again.
    """
    import soxr

    length = _fast_length(len(y))
    hz = np.fft.rfftfreq(length, 1 / sr)
    band = 1.0 / (1.0 + (low_hz / np.maximum(hz, 1.0)) ** 8) / (1.0 + (hz / high_hz) ** 16)
    narrow = np.fft.irfft(np.fft.rfft(y, length) * np.sqrt(band), length)[: len(y)].astype(np.float32)
    down = soxr.resample(narrow, sr, _TELEPHONE_SR, quality="HQ")
    up: Samples = soxr.resample(_through(_full_scale(down), _TELEPHONE_SR, line), _TELEPHONE_SR, sr, "HQ")
    return up


def codec(y: Samples, sr: int, kind: tuple[str, str], compression: float) -> Samples:
    """Encode a clip with losses and decode it again.

    Parameters
    ----------
    y : np.ndarray [shape=(n,), dtype=float32]
    sr : int
    kind : (str, str)
        Format and subtype of soundfile.
    compression : float
        From 0 (little) to 1 (much), as soundfile's `compression_level`.
    """
    return _through(_full_scale(y), sr, kind, compression)


def _through(y: Samples, sr: int, kind: tuple[str, str], compression: float | None = None) -> Samples:
    import soundfile

    how: dict[str, object] = {} if compression is None else {"compression_level": compression}
    if kind[0] == "MP3":
        how["bitrate_mode"] = "CONSTANT"
    buffer = io.BytesIO()
    soundfile.write(buffer, y, sr, format=kind[0], subtype=kind[1], **how)
    buffer.seek(0)
    decoded: Samples = soundfile.read(buffer, dtype="float32")[0]
    return decoded


def _full_scale(y: Samples) -> Samples:
    """Bring a clip to the level that codecs are made for: a peak of 0.5."""
    return y * np.float32(0.5 / max(float(np.abs(y).max()), 1e-6))


def _fast_length(n: int) -> int:
    """Round up to a length that an FFT is fast for: a few times a power of two."""
    step = 1 << max(0, n.bit_length() - 4)
    return -(-n // step) * step
