"""Decode a clip, check it, mix it to mono, resample it."""

from __future__ import annotations

import hashlib
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from speechemo_cli.audio import source
from speechemo_cli.errors import AudioError
from speechemo_cli.files import open_regular

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from speechemo_cli.config import AudioConfig

# Below this peak (-80 dB of full scale, after DC is taken out) there is no voice to hear. RAVDESS's
# quietest clip peaks at 0.007.
SILENCE_PEAK = 1e-4
# What can be listened to: the mean of a file's channels, one of two, or each.
CHANNELS = ("mix", "left", "right", "each")


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
    channel : str or None
        Which of the file's channels this is; None for their mean.
    """

    y: NDArray[np.float32]
    sr: int
    sha256: str
    warnings: tuple[str, ...] = ()
    channel: str | None = None

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
    (recording,) = read_channels(path, config)
    check(recording.y, recording.sr, config)
    return recording


def read_channels(
    path: str | os.PathLike[str], config: AudioConfig, channel: str = "mix", content: bytes | None = None
) -> list[Recording]:
    """Decode a clip and take its channels apart. What they hold is left to `check`.

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
        As `read`, but for what `check` refuses; or there is no such channel.
    """
    content = read_bytes(path) if content is None else content
    if not content:
        raise AudioError("empty file")
    y, sr, warnings = decode(content, config)
    digest = hashlib.sha256(content).hexdigest()
    return [Recording(samples, sr, digest, warnings, name) for name, samples in _channels(y, channel)]


def _channels(y: NDArray[np.float32], channel: str) -> list[tuple[str | None, NDArray[np.float32]]]:
    """Name and samples of the channels to listen to."""
    if channel == "each":
        names = source.channel_names(y.shape[1] if y.ndim > 1 else 1)
        return [(name, source.one_channel(y, name)) for name in names]
    return [(None if channel == "mix" else channel, source.one_channel(y, channel))]


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Read the file once, so that its hash and its samples are those of the same bytes.

    Raises
    ------
    AudioError
        No such file, not a regular file, or no permission.
    """
    with source.file_errors(), open_regular(path) as file:
        return file.read()


def channels_of(content: bytes) -> tuple[str, ...]:
    """Return what the channels of a file are called; only its header is read.

    Raises
    ------
    AudioError
        Not audio that libsndfile reads.
    """
    import soundfile

    with source.decoding_errors(), soundfile.SoundFile(io.BytesIO(content)) as file:
        return source.channel_names(file.channels)


def decode(content: bytes, config: AudioConfig) -> tuple[NDArray[np.float32], int, tuple[str, ...]]:
    """Decode a file's bytes to samples.

    Returns
    -------
    y : np.ndarray [shape=(n,) or (n, channels), dtype=float32]
    sr : int
    warnings : tuple of str

    Raises
    ------
    AudioError
        Not audio, or longer than `config.max_duration_s`.
    """
    import soundfile

    if source.needs_ffmpeg(content[: source.HEAD_BYTES]):
        from speechemo_cli.audio import ffmpeg

        # A little more, so that what is too long is seen to be.
        with ffmpeg.decoded(content, config.max_duration_s + 1.0) as path:
            content = path.read_bytes()
    with source.decoding_errors(), soundfile.SoundFile(io.BytesIO(content)) as file:
        sr, promised = file.samplerate, file.frames
        if promised < source.UNKNOWN_FRAMES:
            _check_longest(promised, sr, config)
        # Some codecs cannot seek and want to be told how much.
        n = promised if promised < source.UNKNOWN_FRAMES else -1
        if file.subtype == "PCM_16":
            # The same numbers as dtype="float32", in a tenth less time.
            y = file.read(n, dtype="int16").astype(np.float32)
            y *= np.float32(2.0**-15)
        else:
            y = file.read(n, dtype="float32")
        log = file.extra_info
    return y, sr, source.truncation(log, promised, len(y), sr)


def _check_longest(n: int, sr: int, config: AudioConfig) -> None:
    if n / sr > config.max_duration_s:
        raise AudioError(
            f"{n / sr:.0f} s is longer than {config.max_duration_s:g} s",
            "Cut it, or raise audio.max_duration_s",
        )


def check(y: NDArray[np.float32], sr: int, config: AudioConfig) -> None:
    """Refuse samples that say nothing about a voice.

    Raises
    ------
    AudioError
        No samples, shorter than `config.min_duration_s` or longer than `config.max_duration_s`, NaN,
        infinite or absurdly large, or silent.
    """
    source.check_duration(y.size, sr, config)
    _check_longest(y.size, sr, config)
    low, high = source.check_samples(y, sr)
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
