"""Samples of one channel or the mean of all, without a constant offset, checked and resampled."""

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
# Below this peak (-80 dB of full scale, after DC is taken out) there is no voice. RAVDESS's
# quietest clip peaks at 0.007.
SILENCE_PEAK = 1e-4
# Samples of all channels to decode at most, 1 GiB of them: ten minutes of 5.1 at 48 kHz, four hours of
# mono at 16 kHz. FLAC packs silence into a thousandth of it.
MOST_SAMPLES = 2**28
# Uncorrelated channels have a mean with an n-th of their power. Below a tenth of that, they cancel each
# other, as where the leads of a microphone are swapped; below a millionth, nothing is left of them.
CANCELLED = 0.1
CANCELLED_WHOLLY = 1e-6
# A mean this far from zero, as a share of the peak around it, is an offset of the recorder. RAVDESS clips
# have 0.3 % at most, half a step of eight bits is 2 % of a peak of 0.2. One of 5 % moves the packaged
# model's probabilities by up to 19 points, one of 100 % changes half of its answers.
OFFSET_SHARE = 0.03
OFFSET_SUSPECTED = 0.05


def channel_names(n: int) -> tuple[str, ...]:
    """Return what the channels of a file with `n` of them are called."""
    return ("left", "right") if n == 2 else tuple(str(i + 1) for i in range(n))


def one_channel(y: NDArray[np.float32], channel: str) -> NDArray[np.float32]:
    """Take one channel, or the mean of all.

    Parameters
    ----------
    y : np.ndarray [shape=(n, channels), dtype=float32]
    channel : str
        One of `channel_names`, or `mix`.

    Returns
    -------
    np.ndarray [shape=(n,), dtype=float32]

    Raises
    ------
    AudioError
        There is no such channel.
    """
    if channel == "mix":
        return _mean(y)
    names = channel_names(y.shape[1])
    if channel not in names:
        raise AudioError(f"has {len(names)} channel{'s' * (len(names) > 1)}, no {channel} one")
    return np.ascontiguousarray(y[:, names.index(channel)])


def _mean(y: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of channels: what `y.mean(axis=1)` gives, channel after channel, in a tenth of the time."""
    if y.shape[1] == 1:
        return np.ascontiguousarray(y[:, 0])
    # Infinities of both signs make NaN, which is refused in its place.
    with np.errstate(invalid="ignore", over="ignore"):
        total = y[:, 0].copy()
        for i in range(1, y.shape[1]):
            total += y[:, i]
        total /= np.float32(y.shape[1])
    return total


def powers(y: NDArray[np.float32], mean: NDArray[np.float32]) -> NDArray[np.float64]:
    """Power of the mean of some channels [shape=(n, channels)], and of one channel on average, times `n`."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.array([np.vdot(mean, mean), np.vdot(y, y) / y.shape[1]], np.float64)


def cancellation(powers: NDArray[np.float64], channels: int) -> tuple[str, ...]:
    """Return the warning for channels whose mean has lost what was in them, if it has.

    Parameters
    ----------
    powers : np.ndarray [shape=(2,)]
        As the function of this name gives them, of the whole recording.
    channels : int

    Raises
    ------
    AudioError
        Nothing is left.
    """
    mean, single = (float(power) for power in powers)
    if not (0.0 < single < math.inf) or channels * mean >= CANCELLED * single:
        return ()
    if mean < CANCELLED_WHOLLY * single:
        raise AudioError("silent: the channels cancel each other out", "Use one of them alone")
    return (f"channels cancel: their mean is {10 * math.log10(single / mean):.0f} dB below them",)


def without_offset(y: NDArray[np.float32]) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Take the constant out that a faulty recorder adds to each sample, if there is one.

    Parameters
    ----------
    y : np.ndarray [shape=(n,), dtype=float32]

    Returns
    -------
    y : np.ndarray [shape=(n,), dtype=float32]
        What was given, but for an offset of `OFFSET_SHARE` of the peak or more.
    warnings : tuple of str
    """
    # Some of the samples tell whether it is worth looking at them all: 3 % of a voice's peak are 9 % of its
    # RMS or more.
    some = y[::61]
    with np.errstate(invalid="ignore", over="ignore"):
        total, power = float(np.dot(some, np.ones_like(some))), float(np.dot(some, some))
        if total**2 <= OFFSET_SUSPECTED**2 * len(some) * power:
            return y, ()
        mean = float(y.mean(dtype=np.float64))
    if not is_offset(mean, float(y.min()), float(y.max())):
        return y, ()
    return y - np.float32(mean), (f"offset: {mean:+.2g} of full scale was on every sample, and is taken out",)


def is_offset(mean: float, low: float, high: float) -> bool:
    """Whether samples of this mean and this range have an offset; a constant is silence and has none."""
    if not (math.isfinite(high - low) and high > low):
        return False
    # Less than a step of 16 bits is how some programs round.
    return abs(mean) >= max(2.0**-15, OFFSET_SHARE * max(high - mean, mean - low))


def check_samples_held(n: int, sr: int, channels: int) -> None:
    """Refuse more samples than are decoded at once.

    Raises
    ------
    AudioError
        `n` samples of each channel are more than `MOST_SAMPLES`.
    """
    if n * channels > MOST_SAMPLES:
        raise AudioError(
            f"{n / sr:.0f} s of {channels} channel{'s' * (channels > 1)} at {sr} Hz,"
            f" expected {MOST_SAMPLES} samples at most",
            "Convert it to one channel at 16 kHz",
        )


def check_duration(n: int, sr: int, config: AudioConfig) -> None:
    """Refuse a recording of `n` samples that is too short.

    Raises
    ------
    AudioError
        No samples, or shorter than `config.min_duration_s`.
    """
    if n == 0:
        raise AudioError("no samples")
    if n / sr < config.min_duration_s:
        raise AudioError(
            f"{_below(n / sr, config.min_duration_s)} s is shorter than {config.min_duration_s:g} s"
        )


def _below(duration_s: float, bound_s: float) -> str:
    """Write a duration with so many digits that it is not rounded up to its bound."""
    texts = (f"{duration_s:.{digits}f}" for digits in range(3, 10))
    return next((text for text in texts if float(text) < bound_s), f"{duration_s:g}")


def check_warnings(warnings: tuple[str, ...], config: AudioConfig) -> None:
    """Refuse what would be used with a warning.

    Raises
    ------
    AudioError
        There is a warning, and `config.strict`.
    """
    if warnings and config.strict:
        raise AudioError("; ".join(warnings), "--no-strict takes it all the same")


def check_samples(y: NDArray[np.float32], sr: int, before: int = 0) -> tuple[float, float]:
    """Refuse samples that are no numbers or no sound.

    Parameters
    ----------
    y : np.ndarray [shape=(n,), dtype=float32]
        At least one.
    sr : int
        Their rate in Hz.
    before : int
        Samples of the recording that came before them.

    Returns
    -------
    low, high : float
        The lowest and the highest.

    Raises
    ------
    AudioError
        NaN, infinite or absurdly large.
    """
    low, high = float(y.min()), float(y.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        first = int(np.argmin(np.isfinite(y)))
        what = "NaN" if np.isnan(y[first]) else "infinity"
        raise AudioError(f"contains {what} at {(before + first) / sr:.3f} s")
    if max(-low, high) > LOUDEST_PEAK:
        raise AudioError(f"samples of up to {max(-low, high):.3g}, expected 1 at full scale")
    return low, high


def check_longest(n: int, sr: int, config: AudioConfig, estimated_s: float = 0.0) -> None:
    """Refuse a recording of `n` samples or more that is too long.

    Raises
    ------
    AudioError
        Longer than `config.max_duration_s`.
    """
    if n / sr > config.max_duration_s:
        raise AudioError(
            f"{max(n / sr, estimated_s):.0f} s is longer than {config.max_duration_s:g} s",
            "Cut it, raise audio.max_duration_s, or follow it: speechemo timeline RECORDING",
        )


def check(y: NDArray[np.float32], sr: int, config: AudioConfig) -> None:
    """Refuse samples that say nothing about a voice.

    Raises
    ------
    AudioError
        No samples, shorter than `config.min_duration_s` or longer than `config.max_duration_s`, NaN,
        infinite or absurdly large, or silent.
    """
    check_duration(y.size, sr, config)
    check_longest(y.size, sr, config)
    low, high = check_samples(y, sr)
    # Half the range bounds the peak around any DC offset.
    if (high - low) / 2 < SILENCE_PEAK:
        raise AudioError(f"silent (peak below {SILENCE_PEAK:g} of full scale)")


def resample(y: NDArray[np.float32], sr: int, target: int) -> NDArray[np.float32]:
    """Resample as `librosa.load(sr=target)` does: soxr at high quality, `ceil(n * target / sr)` samples.

    Parameters
    ----------
    y : np.ndarray [shape=(n,), dtype=float32]
    sr, target : int
        Rates in Hz.

    Returns
    -------
    np.ndarray [shape=(ceil(n * target / sr),), dtype=float32]
    """
    if sr == target:
        return y
    import soxr

    n = math.ceil(len(y) * (target / sr))
    out: NDArray[np.float32] = soxr.resample(y, sr, target, quality="HQ")
    return out[:n] if len(out) >= n else np.pad(out, (0, n - len(out)))
