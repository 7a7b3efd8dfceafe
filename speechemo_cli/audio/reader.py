"""Decode a clip, check it, mix it to mono, resample it."""

from __future__ import annotations

import hashlib
import io
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from speechemo_cli.errors import AudioError
from speechemo_cli.files import open_regular

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from speechemo_cli.config import AudioConfig

# Below this peak (-80 dB of full scale, after DC is taken out) there is no voice to hear. RAVDESS's
# quietest clip peaks at 0.007.
SILENCE_PEAK = 1e-4
# Float files may go above full scale, and some programs write integers as floats. Beyond this it is
# no sound, and its power would overflow.
LOUDEST_PEAK = 1e6
# libsndfile's SF_COUNT_MAX, for streams that do not say, is 2**63 - 1.
_UNKNOWN_FRAMES = 2**62


@dataclass(frozen=True)
class Recording:
    """A decoded clip.

    Attributes
    ----------
    y : np.ndarray [shape=(n,), dtype=float32]
        Mono samples, full scale at 1.0.
    sr : int
        Samples a second, as in the file.
    sha256 : str
        Hash of the file's content: the very bytes that were decoded.
    warnings : tuple of str
        Why an answer for this clip deserves doubt.
    """

    y: NDArray[np.float32]
    sr: int
    sha256: str
    warnings: tuple[str, ...] = ()

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.y) / self.sr


def read(path: str | os.PathLike[str], config: AudioConfig) -> Recording:
    """Read a clip through libsndfile and refuse what cannot be used, with the reason.

    Parameters
    ----------
    path : path-like
        A regular file; its content decides the format, not its name.
    config : AudioConfig
        The shortest and the longest duration to accept.

    Returns
    -------
    Recording

    Raises
    ------
    AudioError
        No such file, not a regular file, no permission, empty, not audio, no samples, too short,
        too long, silent, or with samples that are not finite or absurdly large.
    """
    content = _content(path)
    y, sr, warnings = decode(content, config)
    check(y, sr, config)
    return Recording(y, sr, hashlib.sha256(content).hexdigest(), warnings)


def _content(path: str | os.PathLike[str]) -> bytes:
    """Read the file once, so that its hash and its samples are those of the same bytes."""
    try:
        with open_regular(path) as file:
            content = file.read()
    except IsADirectoryError:
        raise AudioError("a folder, not a clip") from None
    except FileNotFoundError:
        raise AudioError("no such file") from None
    except OSError as error:
        raise AudioError((error.strerror or str(error)).lower()) from None
    except ValueError:
        raise AudioError("not a possible file name") from None
    if not content:
        raise AudioError("empty file")
    return content


def decode(content: bytes, config: AudioConfig) -> tuple[NDArray[np.float32], int, tuple[str, ...]]:
    """Decode a file's bytes to mono samples.

    Returns
    -------
    y : np.ndarray [shape=(n,), dtype=float32]
        The mean of the channels, as `librosa.load` mixes.
    sr : int
    warnings : tuple of str

    Raises
    ------
    AudioError
        Not audio, or longer than `config.max_duration_s`.
    """
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            sr, promised = file.samplerate, file.frames
            if promised / sr > config.max_duration_s and promised < _UNKNOWN_FRAMES:
                raise AudioError(
                    f"{promised / sr:.0f} s is longer than {config.max_duration_s:g} s",
                    "Cut it, or raise audio.max_duration_s",
                )
            # Some codecs cannot seek and want to be told how much.
            n = promised if promised < _UNKNOWN_FRAMES else -1
            if file.subtype == "PCM_16":
                # The same numbers as dtype="float32", in a tenth less time.
                y = file.read(n, dtype="int16").astype(np.float32)
                y *= np.float32(2.0**-15)
            else:
                y = file.read(n, dtype="float32")
            log = file.extra_info
    except soundfile.LibsndfileError as error:
        reason = str(error.error_string).rstrip(".").lower()
        raise AudioError(f"not audio that can be read ({reason})") from None
    except (RuntimeError, ValueError, MemoryError) as error:
        raise AudioError(f"cannot be decoded ({type(error).__name__})") from None
    if y.ndim > 1:
        y = y.mean(axis=1)
    promised_s = _promised_frames(log, promised, len(y)) / sr
    warnings: tuple[str, ...] = ()
    if promised_s - len(y) / sr > 0.01:
        warnings = (f"truncated: the header promises {promised_s:.2f} s, the file holds {len(y) / sr:.2f} s",)
    return y, sr, warnings


# libsndfile corrects the number of frames of a cut file and says so in its log only.
_CUT = re.compile(r"^\s*(?:data|SSND|Data Size|riff|Riff size)\s*:\s*(\d+) \(should be (\d+)\)", re.MULTILINE)
# Programs that stream write a size near one of these limits: it means "not known", not a promise.
_NO_PROMISE = (2**31 - 2**16, 2**32 - 2**16)


def _promised_frames(log: str, frames: int, held: int) -> int:
    """Frames that the header promises.

    Parameters
    ----------
    log : str
        What libsndfile says of the file.
    frames : int
        What it takes for the number of frames.
    held : int
        Frames that could be read.
    """
    match = _CUT.search(log)
    if match is None:
        return frames
    promised, found = (int(size) for size in match.groups())
    if any(limit <= promised <= limit + 2**16 for limit in _NO_PROMISE) or not found:
        return frames
    return round(held * promised / found)


def check(y: NDArray[np.float32], sr: int, config: AudioConfig) -> None:
    """Refuse samples that say nothing about a voice.

    Raises
    ------
    AudioError
        No samples, shorter than `config.min_duration_s`, NaN, infinite or absurdly large, or silent.
    """
    if y.size == 0:
        raise AudioError("no samples")
    if y.size / sr < config.min_duration_s:
        raise AudioError(f"{y.size / sr:.3f} s is shorter than {config.min_duration_s:g} s")
    low, high = float(y.min()), float(y.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        first = int(np.argmin(np.isfinite(y)))
        raise AudioError(f"contains {'NaN' if np.isnan(y[first]) else 'infinity'} at {first / sr:.3f} s")
    if max(-low, high) > LOUDEST_PEAK:
        raise AudioError(f"samples of up to {max(-low, high):.3g}, expected 1 at full scale")
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
