"""A clip made ready for a network: read, checked, doubted and resampled."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from speechemo_cli.audio import doubts, reader
from speechemo_cli.errors import AudioError

if TYPE_CHECKING:
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
        As `reader.read_channels`.
    """
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
