"""What reading a clip whole and reading a recording in blocks share: channels, checks, words for errors."""

from __future__ import annotations

import math
import re
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
# libsndfile's SF_COUNT_MAX, for streams that do not say, is 2**63 - 1.
UNKNOWN_FRAMES = 2**62
# How files begin that libsndfile does not read and ffmpeg does: MP4 and M4A, WebM and Matroska, WMA, AMR,
# AAC, AVI, FLV. Nothing else is handed to ffmpeg, which would take a text for a playlist with URLs.
_FOR_FFMPEG = (
    (4, b"ftyp"),
    (0, b"\x1aE\xdf\xa3"),
    (0, b"0&\xb2u\x8ef\xcf\x11"),
    (0, b"#!AMR"),
    (0, b"\xff\xf1"),
    (0, b"\xff\xf9"),
    (8, b"AVI "),
    (0, b"FLV"),
)
HEAD_BYTES = 16


def needs_ffmpeg(head: bytes) -> bool:
    """Whether a file that begins with these `HEAD_BYTES` is one for ffmpeg."""
    return any(head[at : at + len(mark)] == mark for at, mark in _FOR_FFMPEG)


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
    """Say what is wrong with audio that libsndfile refuses, as an AudioError."""
    import soundfile

    try:
        yield
    except soundfile.LibsndfileError as error:
        reason = str(error.error_string).rstrip(".").lower()
        raise AudioError(f"not audio that can be read ({reason})") from None
    except (RuntimeError, ValueError, MemoryError) as error:
        raise AudioError(f"cannot be decoded ({type(error).__name__})") from None


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
        return y.mean(axis=1) if y.ndim > 1 else y
    names = channel_names(y.shape[1] if y.ndim > 1 else 1)
    if channel not in names:
        raise AudioError(f"has {len(names)} channel{'s' * (len(names) > 1)}, no {channel} one")
    return np.ascontiguousarray(y[:, names.index(channel)]) if y.ndim > 1 else y


def truncation(log: str, frames: int, held: int, sr: int) -> tuple[str, ...]:
    """Return the warning for a file that holds less than its header promises, if it does.

    Parameters
    ----------
    log : str
        What libsndfile says of the file.
    frames : int
        What it takes for the number of frames.
    held : int
        Frames that could be read.
    sr : int
        Frames a second.
    """
    promised_s = _promised_frames(log, frames, held) / sr
    if promised_s - held / sr <= 0.01:
        return ()
    return (f"truncated: the header promises {promised_s:.2f} s, the file holds {held / sr:.2f} s",)


# libsndfile corrects the number of frames of a cut file and says so in its log only.
_CUT = re.compile(r"^\s*(?:data|SSND|Data Size|riff|Riff size)\s*:\s*(\d+) \(should be (\d+)\)", re.MULTILINE)
# Programs that stream write a size near one of these limits: it means "not known", not a promise.
_NO_PROMISE = (2**31 - 2**16, 2**32 - 2**16)


def _promised_frames(log: str, frames: int, held: int) -> int:
    """Frames that the header promises."""
    match = _CUT.search(log)
    if match is None:
        return frames
    promised, found = (int(size) for size in match.groups())
    if any(limit <= promised <= limit + 2**16 for limit in _NO_PROMISE) or not found:
        return frames
    return round(held * promised / found)


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
        raise AudioError(f"{n / sr:.3f} s is shorter than {config.min_duration_s:g} s")


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
