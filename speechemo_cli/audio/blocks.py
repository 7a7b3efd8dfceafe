"""Read a recording of any length a second at a time, in memory that does not grow with it."""

from __future__ import annotations

import math
import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import numpy as np

from speechemo_cli.audio import containers, formats, source
from speechemo_cli.audio.sound import Sound, sound_file
from speechemo_cli.errors import AudioError
from speechemo_cli.files import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from speechemo_cli.config import AudioConfig

BLOCK_S = 1.0
# Numbers decoded at a time at most, whatever rate and number of channels a header claims.
_LARGEST_BLOCK = 2**20


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
        Why what was read deserves doubt; complete after the last block.
    """

    def __init__(
        self,
        sound: Sound,
        target_sr: int,
        config: AudioConfig,
        channel: str,
        doubts: tuple[str, ...] = (),
    ) -> None:
        self.sr = target_sr
        self.channels = source.channel_names(sound.channels)
        self.warnings = doubts
        self._sound = sound
        self._source_sr = sound.samplerate
        self.promised_s = None if sound.promised is None else sound.promised / sound.samplerate
        self._config = config
        self._channel = channel
        self._held = 0

    @property
    def duration_s(self) -> float:
        """Length in seconds of what was read so far."""
        return self._held / self._source_sr

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        """Yield mono samples [shape=(n,), dtype=float32] that follow one another without a joint.

        One after the other they are what `reader.read` and `reader.resample` make of the whole file.

        Raises
        ------
        AudioError
            No samples, too short, not finite or absurdly large, or no such channel. After the last block,
            if the channels leave nothing of each other, or if there is a warning and `config.strict`.
        """
        blocks = self._decoded() if self._source_sr == self.sr else self._resampled()
        for block in blocks:
            if block.size:
                yield block
        source.check_duration(self._held, self._source_sr, self._config)
        source.check_warnings(self.warnings, self._config)

    def _decoded(self) -> Iterator[NDArray[np.float32]]:
        """Yield mono samples at the rate of the file."""
        sound, sr = self._sound, self._source_sr
        mixed = sound.channels > 1 and self._channel == "mix"
        n = max(1, min(round(BLOCK_S * sr), _LARGEST_BLOCK // sound.channels))
        low, high, total, powers = math.inf, -math.inf, 0.0, np.zeros(2)
        while True:
            try:
                y = sound.read(n)
            except source.DecodingError as error:
                if not self._held:
                    raise
                # An hour that can be read is worth more than the reason why the next second cannot.
                self.warnings += sound.warnings + source.damage(self.duration_s, error)
                return
            if not len(y):
                break
            mono = source.one_channel(y, self._channel)
            if mixed:
                powers = powers + source.powers(y, mono)
            now = source.check_samples(mono, sr, self._held)
            low, high = min(low, now[0]), max(high, now[1])
            total += float(mono.sum(dtype=np.float64))
            self._held += len(y)
            yield mono
        self.warnings += sound.warnings
        if mixed:
            self.warnings += source.cancellation(powers, sound.channels)
        mean = total / max(self._held, 1)
        if source.is_offset(mean, low, high):
            self.warnings += (f"offset: {mean:+.2g} of full scale is on every sample, which spoils answers",)

    def _resampled(self) -> Iterator[NDArray[np.float32]]:
        """Yield mono samples at the rate that was asked for, as many as `reader.resample` gives."""
        import soxr

        stream = soxr.ResampleStream(self._source_sr, self.sr, 1, dtype="float32", quality="HQ")
        given = 0
        for block in self._decoded():
            out = stream.resample_chunk(block)
            given += len(out)
            yield out
        left = math.ceil(self._held * (self.sr / self._source_sr)) - given
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

    Yields
    ------
    Blocks

    Raises
    ------
    AudioError
        No such file, not a regular file, no permission, empty, or not audio. What the samples are
        refused for is raised when they are read.
    """
    with ExitStack() as stack:
        with source.file_errors():
            opened = stack.enter_context(open_regular(path))
            size = os.fstat(opened.fileno()).st_size
        if not size:
            raise AudioError("empty file")
        doubts: tuple[str, ...] = ()
        if formats.needs_ffmpeg(containers.beginning(opened)):
            from speechemo_cli.audio import ffmpeg

            made = stack.enter_context(ffmpeg.decoded(path))
            opened, doubts = stack.enter_context(made.path.open("rb")), made.warnings
        sound = stack.enter_context(sound_file(opened, careful=True))
        yield Blocks(sound, target_sr, config, channel, doubts)


def channel_names(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return what the channels of a file are called: `left` and `right`, or their numbers from 1.

    Raises
    ------
    AudioError
        As `open_blocks`.
    """
    from speechemo_cli.config import AudioConfig

    with open_blocks(path, 1, AudioConfig()) as blocks:
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
