"""What reading a clip whole and reading a recording in blocks share: channels, checks, words for errors."""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from speechemo_cli.errors import AudioError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from speechemo_cli.config import AudioConfig

# Float files may go above full scale, and some programs write integers as floats. Beyond this it is
# no sound, and its power would overflow.
LOUDEST_PEAK = 1e6
# For streams that do not say libsndfile has 2**63 - 1, or a guess of what an endless file would hold.
UNKNOWN_FRAMES = 2**50
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


class DecodingError(AudioError):
    """The decoder gives up on a file; `reason` says why, in its words."""

    reason = ""


@contextmanager
def file_errors() -> Iterator[None]:
    """Say what is wrong with a file that cannot be opened or read, as an AudioError."""
    try:
        yield
    except IsADirectoryError:
        raise AudioError("a folder, not a clip") from None
    except FileNotFoundError:
        raise AudioError("no such file") from None
    except OSError as error:
        raise AudioError((error.strerror or str(error)).lower()) from None
    except ValueError:
        raise AudioError("not a possible file name") from None


@contextmanager
def decoding_errors() -> Iterator[None]:
    """Say what is wrong with audio that libsndfile refuses, as a DecodingError."""
    import soundfile

    try:
        yield
    except soundfile.LibsndfileError as error:
        reason = str(error.error_string).rstrip(".").lower()
        if "not a regular file" in reason:  # what libsndfile says of an MP3 without a frame
            reason = "damaged"
        raise _decoding_error("not audio that can be read", reason) from None
    except (RuntimeError, ValueError, MemoryError) as error:
        raise _decoding_error("cannot be decoded", type(error).__name__) from None


def _decoding_error(what: str, reason: str) -> DecodingError:
    error = DecodingError(f"{what} ({reason})")
    error.reason = reason
    return error


def channel_names(n: int) -> tuple[str, ...]:
    """Return what the channels of a file with `n` of them are called."""
    return ("left", "right") if n == 2 else tuple(str(i + 1) for i in range(n))


def one_channel(y: NDArray[np.float32], channel: str) -> NDArray[np.float32]:
    """Take one channel, or the mean of all.

    Parameters
    ----------
    y : np.ndarray [shape=(n,) or (n, channels), dtype=float32]
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
        return _mean(y) if y.ndim > 1 else y
    names = channel_names(y.shape[1] if y.ndim > 1 else 1)
    if channel not in names:
        raise AudioError(f"has {len(names)} channel{'s' * (len(names) > 1)}, no {channel} one")
    return np.ascontiguousarray(y[:, names.index(channel)]) if y.ndim > 1 else y


def _mean(y: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of channels: what `y.mean(axis=1)` gives, channel after channel, in a tenth of the time."""
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
        raise AudioError("silent: the channels cancel each other out", "Listen to one of them")
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


def damage(held_s: float, error: DecodingError) -> tuple[str, ...]:
    """Return the warning for a file that can be decoded for so many seconds, and no further."""
    return (f"damaged: nothing can be read after {held_s:.2f} s ({error.reason})",)


def truncation(promised_s: float, held_s: float) -> tuple[str, ...]:
    """Return the warning for a file that holds less than its header promises, or more, if it does."""
    if abs(promised_s - held_s) <= 0.01:
        return ()
    seconds = f"promises {promised_s:.2f} s, the file holds {held_s:.2f} s"
    if promised_s > held_s:
        return (f"truncated: the header {seconds}",)
    return (f"stale header: it {seconds}, all of which is heard",)


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
