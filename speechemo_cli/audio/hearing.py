"""A clip made ready for a network: read, checked, doubted and resampled."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from speechemo_cli.audio import doubts, reader
from speechemo_cli.errors import AudioError, SpeechemoError
from speechemo_cli.files import display_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from speechemo_cli.config import AudioConfig


class Sound(NamedTuple):
    """What there is to listen to.

    Attributes
    ----------
    y : np.ndarray [shape=(n,), dtype=float32]
        Mono samples at the rate that was asked for.
    duration_s : float
        Of the recording.
    sha256 : str
        Hash of the file's content.
    warnings : tuple of str
        Why an answer deserves doubt.
    channel : str or None
        None for the mean of all.
    """

    y: NDArray[np.float32]
    duration_s: float
    sha256: str
    warnings: tuple[str, ...]
    channel: str | None


class Refused(NamedTuple):
    """A channel that cannot be listened to, and why."""

    error: str
    channel: str | None


@contextmanager
def mishaps() -> Iterator[None]:
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
        raise _mishap(error) from error


def _mishap(error: Exception) -> AudioError:
    if isinstance(error, MemoryError):
        return AudioError("out of memory", "Use fewer --jobs, or cut it")
    if isinstance(error, OSError):  # no room for ffmpeg's files, no process for it
        return AudioError(f"cannot be decoded ({(error.strerror or str(error)).lower()})")
    return AudioError(display_name(f"internal error: {type(error).__name__}: {error}")[:200])


def hear(
    path: str, config: AudioConfig, channel: str, sr: int, content: bytes | None = None
) -> list[Sound | Refused]:
    """Make a clip ready, each of its channels for itself.

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
        As `reader.read_channels` and `mishaps`.
    """
    with mishaps():
        recordings = reader.read_channels(path, config, channel, content)
        return [prepare(recording, config, sr) for recording in recordings]


def prepare(recording: reader.Recording, config: AudioConfig, sr: int) -> Sound | Refused:
    """Make a decoded recording ready.

    Parameters
    ----------
    recording : Recording
    config : AudioConfig
    sr : int
    """
    try:
        reader.check(recording.y, recording.sr, config)
    except AudioError as error:
        return Refused(str(error), recording.channel)
    return Sound(
        reader.resample(recording.y, recording.sr, sr),
        recording.duration_s,
        recording.sha256,
        (*recording.warnings, *doubts.doubts(recording.y, recording.sr)),
        recording.channel,
    )
