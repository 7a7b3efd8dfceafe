"""Read clips whole, checked and resampled, and recordings of any length in blocks."""

from __future__ import annotations

import hashlib
import math
import os
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from speechemo_cli.audio import quality
from speechemo_cli.audio.decode import AudioStream, file_errors, open_stream
from speechemo_cli.audio.decoders import form
from speechemo_cli.errors import AudioError, SpeechemoError
from speechemo_cli.files import display_name, open_regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from speechemo_cli.config import AudioConfig

# Samples of all channels that are decoded at once: half a minute of stereo.
PIECE = 2**22
BLOCK_S = 1.0
# Numbers decoded for a block at most, whatever rate and number of channels a header claims.
_LARGEST_BLOCK = 2**20
# Samples of all channels to hold at most, 1 GiB of them: ten minutes of 5.1 at 48 kHz, four hours of
# mono at 16 kHz. FLAC packs silence into a thousandth of it.
MOST_SAMPLES = 2**28
# Files larger than this have to show a header that can be used before they are read.
_LARGE_BYTES = 2**26
# MOST_SAMPLES of the widest kind, and a little more for names and pictures.
LARGEST_BYTES = 8 * MOST_SAMPLES + 2**26


@dataclass(frozen=True)
class Recording:
    """A decoded clip.

    Attributes
    ----------
    decoded : np.ndarray [shape=(n,), dtype=float32]
        Mono samples, full scale at 1.0.
    sr : int
        Samples a second, as in the file.
    sha256 : str
        Hash of the file's content: the very bytes that were decoded.
    warnings : tuple of str
        What is wrong with the recording.
    channel : str or None
        Which of the file's channels this is; None for their mean.
    offset : float
        The constant that a faulty recorder has added to each sample.
    """

    decoded: NDArray[np.float32]
    sr: int
    sha256: str
    warnings: tuple[str, ...] = ()
    channel: str | None = None
    offset: float = 0.0

    @cached_property
    def y(self) -> NDArray[np.float32]:
        """The samples without the offset [shape=(n,)]."""
        return self.decoded - np.float32(self.offset) if self.offset else self.decoded

    @cached_property
    def samples_sha256(self) -> str:
        """Hash of the decoded samples: the same for one recording in FLAC, WAV and AIFF.

        SHA-256 of the rate (Hz, 8 bytes) and the mono samples (float32), both little-endian. Samples of
        16 bits are the same numbers in a file of 24 or 32 bits.
        """
        digest = hashlib.sha256(self.sr.to_bytes(8, "little"))
        digest.update(np.ascontiguousarray(self.decoded, "<f4").data)
        return digest.hexdigest()

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.decoded) / self.sr


# --- clips, whole


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
    quality.check(recording.y, recording.sr, config)
    return recording


def read_channels(
    path: str | os.PathLike[str], config: AudioConfig, channel: str = "mix", content: bytes | None = None
) -> list[Recording]:
    """Decode a clip and separate its channels. What they hold is left to `quality.check`.

    Parameters
    ----------
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
        As `read`, but for what `quality.check` refuses; or too many samples, no such channel, or channels
        of which nothing is left when they are mixed; or there is a warning and `config.strict`.
    """
    content = read_bytes(path, config) if content is None else content
    if len(content) > LARGEST_BYTES:
        raise AudioError(f"more than {LARGEST_BYTES} bytes")
    with open_stream(content, config, path) as stream:
        _check_length(stream.frames or 0, stream, config)
        names = stream.names if channel == "each" else (channel,)
        parts: list[list[NDArray[np.float32]]] = [[] for _ in names]
        for block in stream.mono(names, max(1, PIECE // stream.channels)):
            _check_length(stream.held, stream, config)
            for part, y in zip(parts, block, strict=True):
                part.append(y)
    joined = [part[0] if len(part) == 1 else np.concatenate([np.empty(0, "f"), *part]) for part in parts]
    sha256 = hashlib.sha256(content).hexdigest()
    return [
        as_recording(y, stream.sr, config, stream.warnings, sha256, name)
        for name, y in zip(names, joined, strict=True)
    ]


def as_recording(
    y: NDArray[np.float32],
    sr: int,
    config: AudioConfig,
    warnings: tuple[str, ...] = (),
    sha256: str = "",
    channel: str = "mix",
) -> Recording:
    """Take samples [shape=(n,)] at `sr` Hz for a recording; AudioError if there is a warning and `strict`."""
    if offset := quality.offset(y):
        warnings += (f"offset: {offset:+.2g} of full scale was on every sample, and is taken out",)
    quality.check_warnings(warnings, config)
    return Recording(y, sr, sha256, warnings, None if channel == "mix" else channel, offset)


def read_bytes(path: str | os.PathLike[str], config: AudioConfig | None = None) -> bytes:
    """Read the file once, so that its hash and its samples are those of the same bytes.

    Parameters
    ----------
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
            with open_stream(path, config) as stream:
                _check_length(stream.frames or 0, stream, config)
        if size > LARGEST_BYTES:
            raise AudioError(f"{size} bytes, expected {LARGEST_BYTES} at most")
        return file.read()


def _check_length(n: int, stream: AudioStream, config: AudioConfig) -> None:
    """Refuse a stream of `n` samples a channel or more if that is too much."""
    quality.check_longest(n, stream.sr, config, stream.estimated_s)
    if n * stream.channels > MOST_SAMPLES:
        raise AudioError(
            f"{n / stream.sr:.0f} s of {form(stream.channels, stream.sr)},"
            f" expected {MOST_SAMPLES} samples at most",
            "Convert it to one channel at 16 kHz",
        )


def resample(y: NDArray[np.float32], sr: int, target: int) -> NDArray[np.float32]:
    """Resample as `librosa.load(sr=target)` does: soxr at high quality, `ceil(n * target / sr)` samples."""
    if sr == target:
        return y
    import soxr

    n = math.ceil(len(y) * (target / sr))
    out: NDArray[np.float32] = soxr.resample(y, sr, target, quality="HQ")
    return out[:n] if len(out) >= n else np.pad(out, (0, n - len(out)))


# --- recordings of any length, in blocks


def channel_names(source: str | os.PathLike[str] | bytes, config: AudioConfig) -> tuple[str, ...]:
    """Return what the channels of a file, or of what it holds, are called: `left` and `right`, or numbers.

    Only its beginning is decoded. AudioError is raised as by `open_blocks`.
    """
    with open_stream(source, config) as stream:
        return stream.names


class Blocks:
    """A recording that is being read. Go through it once."""

    def __init__(self, stream: AudioStream, target_sr: int, config: AudioConfig, channel: str) -> None:
        # By the header, where it says.
        self.promised_s = None if stream.frames is None else stream.frames / stream.sr
        self._stream, self._target_sr, self._config, self._channel = stream, target_sr, config, channel

    @property
    def duration_s(self) -> float:
        """Length in seconds of what was read so far."""
        return self._stream.held / self._stream.sr

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong with the recording; complete after the last block."""
        return self._stream.warnings

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield mono samples [shape=(n,), dtype=float32] that follow one another without a joint.

        One after the other they are what `read` and `resample` make of the whole file. AudioError is raised
        for samples that are too few, not finite or absurdly large, or if there is no such channel; and after
        the last block if the channels leave nothing of each other, or for a warning with `config.strict`.
        """
        import soxr

        stream, sr, target_sr = self._stream, self._stream.sr, self._target_sr
        resampler = None
        if sr != target_sr:
            resampler = soxr.ResampleStream(sr, target_sr, 1, dtype="float32", quality="HQ")
        low, high, total, given = math.inf, -math.inf, 0.0, 0
        n = max(1, min(round(BLOCK_S * sr), _LARGEST_BLOCK // stream.channels))
        for (y,) in stream.mono((self._channel,), n):
            lowest, highest = quality.check_finite(y, sr, stream.held - len(y))
            low, high = min(low, lowest), max(high, highest)
            total += float(y.sum(dtype=np.float64))
            out = resampler.resample_chunk(y) if resampler else y
            given += len(out)
            if len(out):
                yield out
        left = math.ceil(stream.held * (target_sr / sr)) - given
        if resampler and left > 0:
            out = resampler.resample_chunk(np.empty(0, np.float32), last=True)[:left]
            yield np.pad(out, (0, left - len(out)))
        mean = total / max(stream.held, 1)
        if quality.is_offset(mean, low, high):
            stream.warnings += (
                f"offset: {mean:+.2g} of full scale is on every sample, which spoils answers",
            )
        quality.check_shortest(stream.held, sr, self._config)
        quality.check_warnings(self.warnings, self._config)


@contextmanager
def open_blocks(
    path: str | os.PathLike[str], target_sr: int, config: AudioConfig, channel: str = "mix"
) -> Iterator[Blocks]:
    """Open a recording to read it in blocks.

    Parameters
    ----------
    path : path-like
        A regular file; its content decides the format, not its name.
    target_sr : int
        Rate in Hz of the samples to yield.
    config : AudioConfig
        The shortest duration to accept. The longest does not apply: nothing is held that grows.
    channel : str
        `mix` for the mean of all channels, or one of `channel_names(path)`: `left` and `right` of two.

    Raises
    ------
    AudioError
        No such file, not a regular file, no permission, empty, or not audio. What the samples are
        refused for is raised when they are read.
    """
    with open_stream(path, config) as stream:
        yield Blocks(stream, target_sr, config, channel)


def cut(blocks: Iterable[NDArray[np.float32]], spans: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
    """Cut pieces out of samples that stream by, holding no more of them than the pieces still to come need.

    `spans` [shape=(pieces, 2)] are the first sample of each piece and the one after its last, in order of the
    first; they may overlap. AudioError is raised if the samples end before the last piece does.
    """
    held, start, done = np.empty(0, np.float32), 0, 0
    for block in blocks:
        held = np.concatenate([held, block])
        while spans[done, 1] <= start + len(held):
            yield held[spans[done, 0] - start : spans[done, 1] - start].copy()
            done += 1
            if done == len(spans):
                return
        past = min(len(held), max(0, int(spans[done, 0]) - start))
        held, start = held[past:].copy(), start + past
    raise AudioError("changed while it was being read")
