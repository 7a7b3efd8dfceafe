"""Decode a clip, check it, mix it to mono, resample it."""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from speechemo_cli.audio import containers, formats, source
from speechemo_cli.audio.sound import PIECE, Sound, pieces, sound_file
from speechemo_cli.audio.view import Content
from speechemo_cli.errors import AudioError
from speechemo_cli.files import open_regular

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from speechemo_cli.config import AudioConfig

# Below this peak (-80 dB of full scale, after DC is taken out) there is no voice to hear. RAVDESS's
# quietest clip peaks at 0.007.
SILENCE_PEAK = 1e-4
# What can be listened to: the mean of a file's channels, one of two, or each.
CHANNELS = ("mix", "left", "right", "each")
# Files larger than this have to show a header that can be used before they are read.
_LARGE_BYTES = 2**26
# MOST_SAMPLES of the widest kind, and a little more for names and pictures.
LARGEST_BYTES = 8 * source.MOST_SAMPLES + 2**26


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
        As `read`, but for what `check` refuses; or there is no such channel; or there is a warning and
        `config.strict`.
    """
    content = read_bytes(path, config) if content is None else content
    if len(content) > LARGEST_BYTES:
        raise AudioError(f"more than {LARGEST_BYTES} bytes")
    if not content:
        raise AudioError("empty file")
    heard, sr, warnings = decode(content, config, channel)
    digest = hashlib.sha256(content).hexdigest()
    recordings = []
    for name, samples in heard.items():
        y, offset = source.without_offset(samples)
        source.check_warnings((*warnings, *offset), config)
        which = None if name == "mix" else name
        decoded = samples if offset else None
        recordings.append(Recording(y, sr, digest, (*warnings, *offset), which, decoded))
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
    with source.file_errors(), open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > _LARGE_BYTES:
            _look_at(file, config)
        if size > LARGEST_BYTES:
            raise AudioError(f"{size} bytes, expected {LARGEST_BYTES} at most")
        return file.read()


def _look_at(file: BinaryIO, config: AudioConfig | None) -> None:
    """Refuse by its header what would be refused after hours of reading, and go back to the first byte."""
    if not formats.needs_ffmpeg(containers.beginning(file)):
        with sound_file(file) as sound:
            _check_promise(sound, config)
            if config is not None and sound.least_s > config.max_duration_s:
                raise _too_long(f"{sound.least_s:.0f} s at least", config)
    file.seek(0)


def channels_of(content: bytes) -> tuple[str, ...]:
    """Return what the channels of a file are called; only its header is read.

    Raises
    ------
    AudioError
        Not audio that libsndfile reads.
    """
    with sound_file(Content(content)) as sound:
        return source.channel_names(sound.channels)


def decode(
    content: bytes, config: AudioConfig, channel: str = "mix"
) -> tuple[dict[str, NDArray[np.float32]], int, tuple[str, ...]]:
    """Decode a file's bytes to samples.

    Parameters
    ----------
    content : bytes
    config : AudioConfig
    channel : {"mix", "left", "right", "each"}

    Returns
    -------
    heard : dict of str to np.ndarray [shape=(n,), dtype=float32]
        By the name of the channel, or `mix`.
    sr : int
    warnings : tuple of str

    Raises
    ------
    AudioError
        Not audio that is read, longer than `config.max_duration_s`, too many samples, no such channel,
        or channels of which nothing is left when they are mixed.
    """
    given = Content(content)
    if not formats.needs_ffmpeg(containers.beginning(given)):
        return _decode_or_salvage(given, config, channel)
    from speechemo_cli.audio import ffmpeg

    # A little more, so that what is too long is seen to be.
    with ffmpeg.decoded(content, config.max_duration_s + 1.0) as made, made.path.open("rb") as file:
        heard, sr, warnings = _decode_or_salvage(file, config, channel)
        return heard, sr, (*made.warnings, *warnings)


def _decode_or_salvage(
    file: BinaryIO, config: AudioConfig, channel: str
) -> tuple[dict[str, NDArray[np.float32]], int, tuple[str, ...]]:
    """Decode a file; where that fails within it, what comes before the damage."""
    try:
        return _decode(file, config, channel, salvage=False)
    except source.DecodingError:
        return _decode(file, config, channel, salvage=True)


def _decode(
    file: BinaryIO, config: AudioConfig, channel: str, *, salvage: bool
) -> tuple[dict[str, NDArray[np.float32]], int, tuple[str, ...]]:
    powers, held = np.zeros(2), 0
    with sound_file(file, careful=salvage) as sound:
        _check_promise(sound, config)
        sr, channels = sound.samplerate, sound.channels
        mixed = channels > 1 and channel == "mix"
        names = source.channel_names(channels) if channel == "each" else (channel,)
        heard: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
        damage: tuple[str, ...] = ()
        try:
            for piece in pieces(sound, PIECE):
                held += len(piece)
                _check_longest(held, sr, config)
                source.check_samples_held(held, sr, channels)
                for name, parts in heard.items():
                    parts.append(source.one_channel(piece, name))
                if mixed:
                    powers = powers + source.powers(piece, heard["mix"][-1])
        except source.DecodingError as error:
            if not salvage or held / sr < config.min_duration_s:
                raise
            damage = source.damage(held / sr, error)
        warnings = sound.warnings + damage
    if mixed:
        warnings += source.cancellation(powers, channels)
    return {name: _joined(parts) for name, parts in heard.items()}, sr, warnings


def _check_promise(sound: Sound, config: AudioConfig | None) -> None:
    """Refuse what a header promises if it is too much."""
    if sound.promised is not None:
        if config is not None:
            _check_longest(sound.promised, sound.samplerate, config)
        source.check_samples_held(sound.promised, sound.samplerate, sound.channels)


def _joined(parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.float32), *parts])


def _check_longest(n: int, sr: int, config: AudioConfig) -> None:
    if n / sr > config.max_duration_s:
        raise _too_long(f"{n / sr:.0f} s", config)


def _too_long(duration: str, config: AudioConfig) -> AudioError:
    return AudioError(
        f"{duration} is longer than {config.max_duration_s:g} s", "Cut it, or raise audio.max_duration_s"
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
