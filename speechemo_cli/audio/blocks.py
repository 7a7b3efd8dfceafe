"""Read a recording of any length a second at a time, in memory that does not grow with it."""

from __future__ import annotations

import math
import os
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from speechemo_cli.audio import samples
from speechemo_cli.audio.decode import AudioStream
from speechemo_cli.errors import AudioError
from speechemo_cli.files import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

    from numpy.typing import NDArray

    from speechemo_cli.config import AudioConfig

BLOCK_S = 1.0
# Numbers decoded at a time at most, whatever rate and number of channels a header claims.
_LARGEST_BLOCK = 2**20


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
def opened(file: BinaryIO, config: AudioConfig, path: str | os.PathLike[str] = "") -> Iterator[AudioStream]:
    """Open the sound of a binary file as the config says.

    Raises
    ------
    AudioError
        Empty, or not audio.
    """
    if not file.seek(0, os.SEEK_END):
        raise AudioError("empty file")
    suffix = Path(path).suffix
    with closing(AudioStream(file, config.track, config.raw_sr, suffix)) as stream:
        yield stream


class MonoBlocks:
    """Channels of a stream, or their mean, block by block. Go through it once.

    Attributes
    ----------
    held : int
        Samples of each channel that were read so far.
    warnings : tuple of str
        Complete after the last block.
    """

    def __init__(self, stream: AudioStream, names: tuple[str, ...], n: int) -> None:
        self.held = 0
        self.warnings: tuple[str, ...] = ()
        self._stream, self._names, self._n = stream, names, n

    def __iter__(self) -> Iterator[list[NDArray[np.float32]]]:
        """Yield one array [shape=(n,), dtype=float32] for each name.

        Raises
        ------
        AudioError
            There is no such channel; or, at the end, the mean has lost what was in the channels.
        """
        mixed = self._stream.channels > 1 and "mix" in self._names
        powers = np.zeros(2)
        while len(y := self._stream.read(self._n)):
            block = [samples.one_channel(y, name) for name in self._names]
            if mixed:
                powers = powers + samples.powers(y, block[0])
            self.held += len(y)
            yield block
        self.warnings = self._stream.warnings
        if mixed:
            self.warnings += samples.cancellation(powers, self._stream.channels)


class Blocks:
    """A recording that is being read. Go through it once.

    Attributes
    ----------
    sr : int
        Rate of the blocks in Hz.
    channels : tuple of str
        What the file's channels are called.
    promised_s : float or None
        Length in seconds as the header has it; None where it does not say.
    warnings : tuple of str
        What is wrong with the recording; complete after the last block.
    """

    def __init__(self, stream: AudioStream, target_sr: int, config: AudioConfig, channel: str) -> None:
        self.sr = target_sr
        self.channels = samples.channel_names(stream.channels)
        self.warnings: tuple[str, ...] = ()
        self.promised_s = None if stream.frames is None else stream.frames / stream.sr
        self._source_sr = stream.sr
        self._config = config
        n = min(round(BLOCK_S * stream.sr), _LARGEST_BLOCK // stream.channels)
        self._mono = MonoBlocks(stream, (channel,), max(1, n))

    @property
    def duration_s(self) -> float:
        """Length in seconds of what was read so far."""
        return self._mono.held / self._source_sr

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield mono samples [shape=(n,), dtype=float32] that follow one another without a joint.

        One after the other they are what `reader.read` and `samples.resample` make of the whole file.

        Raises
        ------
        AudioError
            No samples, too short, not finite or absurdly large, or no such channel. After the last block,
            if the channels leave nothing of each other, or if there is a warning and `config.strict`.
        """
        blocks = self._checked() if self._source_sr == self.sr else self._resampled()
        for block in blocks:
            if block.size:
                yield block
        samples.check_duration(self._mono.held, self._source_sr, self._config)
        samples.check_warnings(self.warnings, self._config)

    def _checked(self) -> Iterator[NDArray[np.float32]]:
        """Yield mono samples at the rate of the file."""
        low, high, total = math.inf, -math.inf, 0.0
        for (y,) in self._mono:
            now = samples.check_samples(y, self._source_sr, self._mono.held - len(y))
            low, high = min(low, now[0]), max(high, now[1])
            total += float(y.sum(dtype=np.float64))
            yield y
        self.warnings = self._mono.warnings
        mean = total / max(self._mono.held, 1)
        if samples.is_offset(mean, low, high):
            self.warnings += (f"offset: {mean:+.2g} of full scale is on every sample, which spoils answers",)

    def _resampled(self) -> Iterator[NDArray[np.float32]]:
        """Yield mono samples at the rate that was asked for, as many as `samples.resample` gives."""
        import soxr

        stream = soxr.ResampleStream(self._source_sr, self.sr, 1, dtype="float32", quality="HQ")
        given = 0
        for block in self._checked():
            out = stream.resample_chunk(block)
            given += len(out)
            yield out
        left = math.ceil(self._mono.held * (self.sr / self._source_sr)) - given
        out = stream.resample_chunk(np.empty(0, np.float32), last=True)[: max(left, 0)]
        yield np.pad(out, (0, max(left, 0) - len(out)))


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
    with ExitStack() as stack:
        with file_errors():
            file = stack.enter_context(open_regular(path))
        yield Blocks(stack.enter_context(opened(file, config, path)), target_sr, config, channel)


def channel_names(path: str | os.PathLike[str], config: AudioConfig | None = None) -> tuple[str, ...]:
    """Return what the channels of a file are called: `left` and `right`, or their numbers from 1.

    Raises
    ------
    AudioError
        As `open_blocks`.
    """
    from speechemo_cli.config import AudioConfig

    with open_blocks(path, 1, config or AudioConfig()) as blocks:
        return blocks.channels


def cut(blocks: Iterable[NDArray[np.float32]], spans: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
    """Cut pieces out of samples that stream by, holding no more of them than the pieces still to come need.

    Parameters
    ----------
    blocks : iterable of np.ndarray [shape=(n,), dtype=float32]
        Samples that follow one another. They are asked for until the last piece is cut.
    spans : np.ndarray [shape=(pieces, 2), dtype=int64]
        First sample of each piece and the one after its last, in order of the first. They may overlap.

    Yields
    ------
    np.ndarray [shape=(n,), dtype=float32]
        Each piece, in order.

    Raises
    ------
    AudioError
        The samples end before the last piece does.
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
