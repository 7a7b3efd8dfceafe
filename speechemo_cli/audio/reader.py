"""Read clips whole: decoded, checked and resampled."""

from __future__ import annotations

import hashlib
import io
import os
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from speechemo_cli.audio import quality, samples
from speechemo_cli.audio.blocks import MonoBlocks, file_errors, opened
from speechemo_cli.errors import AudioError, ClipError, SpeechemoError
from speechemo_cli.files import display_name, open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from speechemo_cli.audio.decode import AudioStream
    from speechemo_cli.config import AudioConfig

# Samples of all channels that are decoded at once: half a minute of stereo.
PIECE = 2**22
# Files larger than this have to show a header that can be used before they are read.
_LARGE_BYTES = 2**26
# MOST_SAMPLES of the widest kind, and a little more for names and pictures.
LARGEST_BYTES = 8 * samples.MOST_SAMPLES + 2**26


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
        What is wrong with the recording.
    channel : str or None
        Which of the file's channels this is; None for their mean.
    decoded : np.ndarray or None [shape=(n,), dtype=float32]
        The samples as they were decoded, where a constant offset has been taken out of `y`; None where
        `y` holds them.
    """

    y: NDArray[np.float32]
    sr: int
    sha256: str
    warnings: tuple[str, ...] = ()
    channel: str | None = None
    decoded: NDArray[np.float32] | None = None

    @cached_property
    def samples_sha256(self) -> str:
        """Hash of the decoded samples: the same for one recording in FLAC, WAV and AIFF.

        SHA-256 of the rate (Hz, 8 bytes) and the mono samples (float32), both little-endian. Samples of
        16 bits are the same numbers in a file of 24 or 32 bits.
        """
        y = self.y if self.decoded is None else self.decoded
        digest = hashlib.sha256(self.sr.to_bytes(8, "little"))
        digest.update(np.ascontiguousarray(y, "<f4").data)
        return digest.hexdigest()

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.y) / self.sr


class PreparedClip(NamedTuple):
    """A channel of a clip, ready for the features.

    Attributes
    ----------
    y : np.ndarray [shape=(n,), dtype=float32]
        Mono samples at the rate that was asked for.
    duration_s : float
        Of the recording.
    sha256 : str
        Hash of the file's content.
    warnings : tuple of str
    channel : str or None
        None for the mean of all.
    """

    y: NDArray[np.float32]
    duration_s: float
    sha256: str
    warnings: tuple[str, ...]
    channel: str | None


@contextmanager
def clip_errors() -> Iterator[None]:
    """Let what goes wrong with one clip cost that clip alone, be it a mistake of ours or of a library.

    With `SPEECHEMO_DEBUG`, which `--debug` sets, it goes through as it is, for the sake of its traceback.
    A library that is missing or broken goes through too: no clip can be read without it.

    Raises
    ------
    AudioError
        In place of any exception that is none of this package's.
    """
    try:
        yield
    except (SpeechemoError, ImportError):
        raise
    except Exception as error:
        if os.environ.get("SPEECHEMO_DEBUG"):
            raise
        if isinstance(error, MemoryError):
            raise AudioError("out of memory", "Use fewer --jobs, or cut it") from error
        raise AudioError(display_name(f"internal error: {type(error).__name__}: {error}")[:200]) from error


def load_clip(
    path: str, config: AudioConfig, channel: str, sr: int, content: bytes | None = None
) -> list[PreparedClip | ClipError]:
    """Read a clip, check it and resample it, each of its channels for itself.

    Parameters
    ----------
    path : str
    config : AudioConfig
    channel : {"mix", "left", "right", "each"}
    sr : int
        Rate in Hz of the samples to return.
    content : bytes, optional
        What the file holds, if it is no file.

    Raises
    ------
    AudioError
        As `read_channels` and `clip_errors`.
    """
    with clip_errors():
        return [prepare(path, one, config, sr) for one in read_channels(path, config, channel, content)]


def prepare(path: str, recording: Recording, config: AudioConfig, sr: int) -> PreparedClip | ClipError:
    """Check a decoded recording and resample it to `sr` Hz."""
    try:
        samples.check(recording.y, recording.sr, config)
    except AudioError as error:
        return ClipError(path, str(error), recording.channel)
    return PreparedClip(
        samples.resample(recording.y, recording.sr, sr),
        recording.duration_s,
        recording.sha256,
        (*recording.warnings, *quality.quality_warnings(recording.y, recording.sr)),
        recording.channel,
    )


def read(path: str | os.PathLike[str], config: AudioConfig) -> Recording:
    """Read a clip and refuse what cannot be used, with the reason.

    Parameters
    ----------
    path : path-like
        A regular file; its content decides the format, not its name.
    config : AudioConfig
        The shortest and the longest duration to accept.

    Raises
    ------
    AudioError
        No such file, not a regular file, no permission, empty, not audio, no samples, too short,
        too long, silent, or with samples that are not finite or absurdly large.
    """
    (recording,) = read_channels(path, config)
    samples.check(recording.y, recording.sr, config)
    return recording


def read_channels(
    path: str | os.PathLike[str], config: AudioConfig, channel: str = "mix", content: bytes | None = None
) -> list[Recording]:
    """Decode a clip and separate its channels. What they hold is left to `samples.check`.

    Parameters
    ----------
    path : path-like
    config : AudioConfig
    channel : {"mix", "left", "right", "each"}
        Calls are often recorded with one speaker a channel.
    content : bytes, optional
        What the file holds, if it is no file.

    Returns
    -------
    list of Recording
        One, or with `each` one a channel.

    Raises
    ------
    AudioError
        As `read`, but for what `samples.check` refuses; or there is no such channel; or there is a
        warning and `config.strict`.
    """
    content = read_bytes(path, config) if content is None else content
    if len(content) > LARGEST_BYTES:
        raise AudioError(f"more than {LARGEST_BYTES} bytes")
    signals, sr, warnings = decode(content, config, channel, path)
    digest = hashlib.sha256(content).hexdigest()
    recordings = []
    for name, decoded in signals.items():
        y, offset = samples.without_offset(decoded)
        samples.check_warnings((*warnings, *offset), config)
        which = None if name == "mix" else name
        recordings.append(Recording(y, sr, digest, (*warnings, *offset), which, decoded if offset else None))
    return recordings


def read_bytes(path: str | os.PathLike[str], config: AudioConfig | None = None) -> bytes:
    """Read the file once, so that its hash and its samples are those of the same bytes.

    Parameters
    ----------
    path : path-like
    config : AudioConfig, optional
        What is too long for it is not read but refused, if the file is a large one.

    Raises
    ------
    AudioError
        No such file, not a regular file, no permission, or too large.
    """
    with file_errors(), open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > _LARGE_BYTES and config is not None:
            with opened(file, config) as stream:
                _check_promise(stream, config)
            file.seek(0)
        if size > LARGEST_BYTES:
            raise AudioError(f"{size} bytes, expected {LARGEST_BYTES} at most")
        return file.read()


def channels_of(content: bytes, config: AudioConfig) -> tuple[str, ...]:
    """Return what the channels of a file are called; only its beginning is decoded.

    Raises
    ------
    AudioError
        Not audio.
    """
    with opened(io.BytesIO(content), config) as stream:
        return samples.channel_names(stream.channels)


def decode(
    content: bytes, config: AudioConfig, channel: str = "mix", path: str | os.PathLike[str] = ""
) -> tuple[dict[str, NDArray[np.float32]], int, tuple[str, ...]]:
    """Decode a file's bytes to samples.

    Parameters
    ----------
    content : bytes
    config : AudioConfig
    channel : {"mix", "left", "right", "each"}
    path : path-like
        For the words about a file that cannot be read.

    Returns
    -------
    signals : dict of str to np.ndarray [shape=(n,), dtype=float32]
        By the name of the channel, or `mix`.
    sr : int
    warnings : tuple of str

    Raises
    ------
    AudioError
        Not audio that is read, longer than `config.max_duration_s`, too many samples, no such channel,
        or channels of which nothing is left when they are mixed.
    """
    with opened(io.BytesIO(content), config, path) as stream:
        _check_promise(stream, config)
        names = samples.channel_names(stream.channels) if channel == "each" else (channel,)
        signals: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
        mono = MonoBlocks(stream, names, max(1, PIECE // stream.channels))
        for block in mono:
            samples.check_longest(mono.held, stream.sr, config, stream.estimated_s)
            samples.check_samples_held(mono.held, stream.sr, stream.channels)
            for name, y in zip(names, block, strict=True):
                signals[name].append(y)
        return {name: _joined(parts) for name, parts in signals.items()}, stream.sr, mono.warnings


def _joined(parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.float32), *parts])


def _check_promise(stream: AudioStream, config: AudioConfig) -> None:
    """Refuse what a header promises if it is too much."""
    if stream.frames is not None:
        samples.check_longest(stream.frames, stream.sr, config)
        samples.check_samples_held(stream.frames, stream.sr, stream.channels)
