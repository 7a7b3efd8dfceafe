"""What is wrong with a recording: what it is refused for, and quality warnings, in words and numbers.

Every limit of a warning was set on the 1,200 spoken RAVDESS clips of 20 actors (48 kHz, 2.9-5.3 s), none of
which gets one, and on damaged versions of every twelfth of them: all numbers below were measured there.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from speechemo_cli.errors import AudioError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from speechemo_cli.config import AudioConfig

# Float files may go above full scale, and some programs write integers as floats. Beyond this it is
# no sound, and its power would overflow.
LOUDEST_PEAK = 1e6
# Below this peak (-80 dB, around the mean) there is no voice. RAVDESS's quietest clip peaks at 0.007.
SILENCE_PEAK = 1e-4
# A mean this far from zero, as a share of the peak around it, is an offset of the recorder. RAVDESS clips
# have 0.3 % at most, half a step of eight bits is 2 % of a peak of 0.2. One of 5 % moves the packaged
# model's probabilities by up to 19 points, one of 100 % changes half of its answers.
OFFSET_SHARE = 0.03
OFFSET_SUSPECTED = 0.05
# A clip is clipped if this share of its samples was cut off. RAVDESS clips have 0.0024 % at most on their
# highest and lowest values. Raised over full scale by 3 dB they lose 0.09 % in the median, by 6 dB 0.6 %
# (97 of 100 are found), by 12 dB at least 1 %.
CLIPPED_SHARE = 1e-3
# Where the waveform was cut, few samples lie just below the value that others pile up on: within 3 % of the
# way to the mean, and within four steps as large as the first (levels of integers, or what a coarsely sampled
# wave leaves). A wave that turns around there has at least as many below as on it (sqrt(5) - 1 to 1 where
# levels are fine). Clips cut at 6 dB have eight times as many on it in the median, four times in 95 of 100.
NEAR_SHARE = 0.03
NEAR_STEPS = 4
CUT_RATIO = 2.5
# A coarsely sampled tone touches its highest value with one sample at a time; of clips cut at 6 dB at
# 8 kHz, four in ten samples on it have another beside them.
SIDE_BY_SIDE = 0.1
# The highest levels of mu-law and A-law (ITU-T G.711) in 16 bits. Their steps are so wide that more lies
# within four of them; on the next level alone is a ninth of what is on the highest (median, cut at 6 dB).
LOG_CODE_TOPS = (32124 / 32768, 32256 / 32768)
LOG_CODE_RATIO = 5
# The highest level of mu-law is 0.980 of full scale, of A-law 0.984, of unsigned 8 bits 0.992.
FULL_SCALE = 0.97
# RAVDESS's quietest clip peaks at -44 dB. Here less than eight of 16 bits are left.
QUIET_PEAK_DB = -50.0
# A third of the shortest RAVDESS clip.
SHORT_S = 1.0
# Blocks of 10 ms: level, and frame of the spectrum.
BLOCKS_A_SECOND = 100
# The loudest speech is the level that so many blocks reach (0.1 s), so that a click is not taken for it.
LOUD_BLOCKS = 10
# Speech is within 30 dB of the loudest, and 6 dB above a steady noise: the quietest tenth of the blocks. In
# speech without a pause those are sounds, so what is within 15 dB counts in any case.
SPEECH_DB = 30.0
NOISE_DB = 6.0
SURE_DB = 15.0
# RAVDESS clips are speech for 31 % or more, for 22 % or more under white noise of 15-20 dB SNR. A word
# of 0.6 s in 10 s of silence is 6 %, down to 15 dB SNR.
SPEECH_SHARE = 0.15
# Frames whose spectra are averaged, evenly spaced in the speech: every fifth block of a RAVDESS clip.
FRAMES = 32
# Power per hertz of the frame with the most in ABOVE_HZ, against the mean of all in TELEPHONE_HZ. RAVDESS
# clips have -24 dB or more, after a rate of 11 kHz -28 dB, after MP3 at its lowest rate -34 dB; after a rate
# of 8 kHz or a telephone's band -44 dB or less, with noise of 16 bits, mu-law, GSM, MP3 and Opus, and -35 dB
# under white noise 40 dB below the speech, which is as far as it is audible.
BAND_DB = -35.0
# ITU-T G.712 and the like: what a telephone line carries.
TELEPHONE_HZ = (300.0, 3400.0)
# Above what is left at a rate of 8 kHz, below what is missing in wideband calls and at low MP3 rates.
ABOVE_HZ = (4300.0, 8000.0)
# Rates up to this have nothing there to be looked at.
NARROW_SR = 9500
# A resampler's filter begins to close below half the rate.
USABLE_RATE = 0.47
# "Nothing" is 50 dB below the telephone's band, or less than 10 dB above the noise.
EDGE_DB = -50.0
EDGE_ABOVE_NOISE_DB = 10.0
# An edge below this is no telephone's.
LOWEST_EDGE_HZ = 3000.0
# Samples outside this range are brought to 1 before their power is taken in single precision.
_SAFE_PEAKS = (1e-6, 1e6)


def check(y: NDArray[np.float32], sr: int, config: AudioConfig) -> None:
    """Raise AudioError for samples [shape=(n,)] that cannot be used.

    Those are too few or too many for the config, not finite, absurdly large, or silent.
    """
    check_shortest(y.size, sr, config)
    check_longest(y.size, sr, config)
    low, high = check_finite(y, sr)
    # Half the range bounds the peak around any DC offset.
    if (high - low) / 2 < SILENCE_PEAK:
        raise AudioError(f"silent (peak below {SILENCE_PEAK:g} of full scale)")


def check_shortest(n: int, sr: int, config: AudioConfig) -> None:
    """Raise AudioError for a recording of no samples, or shorter than `config.min_duration_s`."""
    if n == 0:
        raise AudioError("no samples")
    if n / sr < config.min_duration_s:
        # With so many digits that it is not rounded up to its bound.
        texts = (f"{n / sr:.{digits}f}" for digits in range(3, 10))
        shown = next((text for text in texts if float(text) < config.min_duration_s), f"{n / sr:g}")
        raise AudioError(f"{shown} s is shorter than {config.min_duration_s:g} s")


def check_longest(n: int, sr: int, config: AudioConfig, estimated_s: float = 0.0) -> None:
    """Raise AudioError for a recording of `n` samples or more that is longer than `config.max_duration_s`."""
    if n / sr > config.max_duration_s:
        raise AudioError(
            f"{max(n / sr, estimated_s):.0f} s is longer than {config.max_duration_s:g} s",
            "Cut it, raise audio.max_duration_s, or follow it: speechemo timeline RECORDING",
        )


def check_finite(y: NDArray[np.float32], sr: int, before: int = 0) -> tuple[float, float]:
    """Return the lowest and the highest sample; raise AudioError for NaN, infinity and absurdly large ones.

    `before` is the number of samples of the recording that came before `y` [shape=(n,)], n > 0.
    """
    low, high = float(y.min()), float(y.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        first = int(np.argmin(np.isfinite(y)))
        what = "NaN" if np.isnan(y[first]) else "infinity"
        raise AudioError(f"contains {what} at {(before + first) / sr:.3f} s")
    if max(-low, high) > LOUDEST_PEAK:
        raise AudioError(f"samples of up to {max(-low, high):.3g}, expected 1 at full scale")
    return low, high


def check_warnings(warnings: tuple[str, ...], config: AudioConfig) -> None:
    """Raise AudioError if there is a warning and `config.strict`."""
    if warnings and config.strict:
        raise AudioError("; ".join(warnings), "--no-strict takes it all the same")


def offset(y: NDArray[np.float32]) -> float:
    """Return the constant that a faulty recorder has added to each sample; 0 where there is none."""
    # Some of the samples tell whether it is worth looking at them all: 3 % of a voice's peak are 9 % of its
    # RMS or more.
    some = y[::61]
    with np.errstate(invalid="ignore", over="ignore"):
        total, power = float(np.dot(some, np.ones_like(some))), float(np.dot(some, some))
        if total**2 <= OFFSET_SUSPECTED**2 * len(some) * power:
            return 0.0
        mean = float(y.mean(dtype=np.float64))
    return mean if is_offset(mean, float(y.min()), float(y.max())) else 0.0


def is_offset(mean: float, low: float, high: float) -> bool:
    """Whether samples of this mean and this range have an offset; a constant is silence and has none."""
    if not (math.isfinite(high - low) and high > low):
        return False
    # Less than a step of 16 bits is how some programs round.
    return abs(mean) >= max(2.0**-15, OFFSET_SHARE * max(high - mean, mean - low))


def quality_warnings(y: NDArray[np.float32], sr: int) -> tuple[str, ...]:
    """Say what is wrong with a recording, with the numbers. Takes 0.15 ms for a clip of 3.5 s at 48 kHz.

    `y` [shape=(n,)] are finite mono samples at the file's own rate (8-192 kHz), full scale at 1.0. Clipping
    is seen where the cut left equal samples: in what a recorder wrote, also turned down or in 8 bits, but
    not after resampling or lossy coding, unless that overshot full scale.

    >>> quality_warnings(np.zeros(8000, np.float32), 16000)
    ('silent: every sample is the same', 'short: 0.5 s')
    """
    y = np.ascontiguousarray(y, dtype=np.float32)
    # The tenths are rounded down, so never 1.0 s.
    short = (f"short: {10 * y.size // sr / 10:.1f} s",) if y.size < SHORT_S * sr else ()
    n = max(1, sr // BLOCKS_A_SECOND)
    blocks = y[: y.size // n * n].reshape(-1, n)
    if not blocks.size:
        return short
    low, high = float(y.min()), float(y.max())
    if low == high:
        return ("silent: every sample is the same", *short)
    scale = max(-low, high)
    if _SAFE_PEAKS[0] < scale < _SAFE_PEAKS[1]:
        scale = 1.0
    else:
        y, blocks, low, high = y / scale, blocks / scale, low / scale, high / scale
    means = _block_means(blocks)
    mean = float(means.mean(dtype=np.float64))
    peak = max(high - mean, mean - low)
    if abs(mean) > 0.1 * peak:
        # Else the power of a large offset would take the digits of what is around it.
        blocks = blocks - np.float32(mean)
        means = _block_means(blocks)
    speech = _speech(blocks, means)
    found = _clipped(y, low, high, mean, scale)
    if (level := _decibels(scale * peak)) < QUIET_PEAK_DB:
        found += (f"very quiet: peak at {level:.0f} dB of full scale",)
    if (share := len(speech) / len(blocks)) < SPEECH_SHARE:
        found += (f"mostly silence: speech in {100 * share:.0f} % of {y.size / sr:.1f} s",)
    return found + short + _band_limited(blocks, speech, sr)


def long(duration_s: float, longest_s: float) -> str | None:
    """Say that a clip is longer than the longest of the training, if it is by a tenth of a second."""
    if round(duration_s, 1) <= round(longest_s, 1):
        return None
    return f"long: {duration_s:.1f} s, longer than any clip the model was trained on ({longest_s:.1f} s)"


def _block_means(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of each block: the dot product takes a third of the time of `mean(axis=1)`."""
    n = blocks.shape[1]
    means: NDArray[np.float32] = np.vecdot(blocks, np.full(n, 1.0 / n, np.float32))
    return means


def _clipped(y: NDArray[np.float32], low: float, high: float, mean: float, scale: float) -> tuple[str, ...]:
    """Warn unless the loudest samples are those of the voice; `scale` is what `y` was divided by."""
    reach = max(high - mean, mean - low)
    top = scale * max(-low, high)
    cut = _on_extreme(y, low, mean, reach) + _on_extreme(y, high, mean, reach)
    if cut >= CLIPPED_SHARE * y.size:
        full = FULL_SCALE <= top <= 1.0
        where = "at full scale" if full else f"cut off at {_decibels(top):.1f} dB of full scale"
        return (f"clipped: {100 * cut / y.size:.1f} % of the samples {where}",)
    # Only floats get there: of a clipped recording, a lossy codec or a resampler makes such.
    beyond = np.count_nonzero(y > 1.0 / scale) + np.count_nonzero(y < -1.0 / scale) if top > 1.0 else 0
    if beyond >= CLIPPED_SHARE * y.size:
        return (f"too loud: {100 * beyond / y.size:.1f} % of the samples beyond full scale",)
    return ()


def _on_extreme(y: NDArray[np.float32], extreme: float, mean: float, reach: float) -> int:
    """Count the samples on the lowest or highest value, if they are too many for a wave that turned there.

    `reach` is how far `y` goes from its mean.
    """
    # On one side of a lopsided recording the extreme may be its silence.
    if abs(extreme - mean) < reach / 2:
        return 0
    on = y == extreme
    n = int(np.count_nonzero(on))
    if n < CLIPPED_SHARE / 10 * y.size or np.count_nonzero(on[1:] & on[:-1]) < SIDE_BY_SIDE * n:
        return 0
    # `where` takes a tenth of the time of picking the others out.
    nearest = float(y.max(where=~on, initial=-np.inf) if extreme > mean else y.min(where=~on, initial=np.inf))
    if abs(extreme) in LOG_CODE_TOPS:
        return n if n >= LOG_CODE_RATIO * np.count_nonzero(y == nearest) else 0
    width = max(NEAR_STEPS * abs(extreme - nearest), NEAR_SHARE * abs(extreme - mean))
    near = y >= extreme - width if extreme > mean else y <= extreme + width
    return n if n >= CUT_RATIO * (np.count_nonzero(near) - n) else 0


def _speech(blocks: NDArray[np.float32], means: NDArray[np.float32]) -> NDArray[np.intp]:
    """Positions of the blocks [shape=(blocks, samples)] where somebody speaks.

    The mean of each is taken out: no offset, drift or rumble is speech.
    """
    power = np.vecdot(blocks, blocks) / blocks.shape[1] - means * means
    ordered = np.sort(power)
    loud = ordered[-min(LOUD_BLOCKS, 1 + len(power) // 4)]
    noise = ordered[len(power) // 10]
    threshold = max(loud * _power(-SPEECH_DB), min(noise * _power(NOISE_DB), loud * _power(-SURE_DB)))
    # Of less than 0.1 s of sound in digital silence, the sound.
    return np.flatnonzero((power >= threshold) & (power > 0.0))


def _band_limited(blocks: NDArray[np.float32], speech: NDArray[np.intp], sr: int) -> tuple[str, ...]:
    """Warn unless the voice's high frequencies were recorded, which the blocks with speech tell."""
    if sr <= NARROW_SR:
        return (_limited_to(sr / 2),)
    if not speech.size:
        return ()
    chosen = speech[np.linspace(0, len(speech) - 1, min(FRAMES, len(speech))).astype(np.intp)]
    window = np.hanning(blocks.shape[1] + 1)[:-1].astype(np.float32)
    spectra = np.fft.rfft(blocks[chosen] * window)
    power = np.asarray(spectra.real**2 + spectra.imag**2, dtype=np.float32)
    hz = np.arange(power.shape[1]) * (sr / blocks.shape[1])
    first, last = np.searchsorted(hz, TELEPHONE_HZ)
    above, end = np.searchsorted(hz, (ABOVE_HZ[0], min(ABOVE_HZ[1], USABLE_RATE * sr)))
    mean = power.mean(axis=0)
    telephone = mean[first:last].mean()
    high = power[:, above:end].mean(axis=1)
    if not high.max() < telephone * _power(BAND_DB):
        return ()
    nothing = max(telephone * _power(EDGE_DB), high.mean() * _power(EDGE_ABOVE_NOISE_DB))
    return (_limited_to(hz[np.flatnonzero(mean[:above] > nothing)[-1]]),)


def _limited_to(hz: float) -> str:
    like = ", as on a telephone" if hz >= LOWEST_EDGE_HZ else ""
    return f"band-limited: nothing above {hz / 1000:.1f} kHz{like}"


def _decibels(amplitude: float) -> float:
    return 20.0 * math.log10(amplitude)


def _power(decibels: float) -> float:
    return math.pow(10.0, decibels / 10.0)
