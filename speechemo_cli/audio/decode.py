"""Which decoder a file needs, told by its content, and its sound as one stream.

libsndfile reads plain samples and FLAC, FFmpeg everything else.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, Protocol

import numpy as np

from speechemo_cli.audio import wav_header
from speechemo_cli.audio.containers import (
    Part,
    kind_at,
    next_flac,
    ogg_link,
    past_tags,
    refusal,
)
from speechemo_cli.audio.wav_header import READ_BYTES, Pcm, Span, read_at
from speechemo_cli.errors import AudioError, UnknownFormatError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# The telephone's rate to the highest that recorders have.
LOWEST_SR, HIGHEST_SR = 8_000, 384_000
MOST_CHANNELS = 32
# Links of a chain of Ogg streams, or files that were joined.
_MOST_PARTS = 2**10
_MPEG_IN_WAV = (0x50, 0x55)


class Decoder(Protocol):
    """What decodes a part of a file."""

    sr: int
    channels: int
    frames: int | None
    estimated_s: float
    warnings: tuple[str, ...]

    def read(self, n: int) -> NDArray[np.float32]:
        """Decode the next `n` frames [shape=(n, channels)], fewer at the end."""

    def check_end(self, held: int) -> tuple[str, ...]:
        """Return warnings that can be told when all is read."""

    def close(self) -> None:
        """Let go of the file."""


class AudioStream:
    """The sound of a file: its parts one after the other, as long as they are of one rate.

    Parameters
    ----------
    file : binary file
        Read from its beginning, wherever it stands; its content decides the format.
    track : int
        Which of several sound tracks, from 1; 0 for the one with most speech.
    raw_sr : int
        Rate in Hz of a file without a header: 16-bit mono samples. 0 for a file with one.
    suffix : str
        Of the file's name: it decides nothing but the words for what cannot be read.

    Attributes
    ----------
    sr, channels : int
    frames : int or None
        By the header; None where it does not say.
    estimated_s : float
        About how long it lasts; 0 where nothing is known.
    warnings : tuple of str
        What is wrong with the file; complete when the last frame was read.

    Raises
    ------
    AudioError
        Not audio, or of a format, codec, rate or number of channels that is not read.
    """

    def __init__(self, file: BinaryIO, track: int = 0, raw_sr: int = 0, suffix: str = "") -> None:
        self.warnings: tuple[str, ...] = ()
        self._parts = _raw(file, raw_sr) if raw_sr else _parts(file, track, suffix)
        self._held = self._part_held = self._read_parts = 0
        self._ended = False
        self._decoder = _checked(next(self._parts))
        self.sr, self.channels = self._decoder.sr, self._decoder.channels
        self.frames, self.estimated_s = self._decoder.frames, self._decoder.estimated_s

    def read(self, n: int) -> NDArray[np.float32]:
        """Decode the next `n` frames, fewer at the end.

        Returns
        -------
        np.ndarray [shape=(n, channels), dtype=float32]
        """
        found = [np.empty((0, self.channels), np.float32)]
        while n and not self._ended:
            found.append(self._decoder.read(n))
            self._part_held += len(found[-1])
            n -= len(found[-1])
            self._ended = n > 0 and not self._next()
        return found[1] if len(found) == 2 else np.concatenate(found)

    def close(self) -> None:
        """Let go of the file."""
        self._decoder.close()

    def _next(self) -> bool:
        """Go on to the next part of the file, if there is one to be read."""
        self.warnings += self._decoder.warnings
        self.warnings += self._decoder.check_end(self._part_held)
        self._decoder.close()
        self._held += self._part_held
        self._read_parts += 1
        self._part_held = 0
        after = f"after {self._held / self.sr:.2f} s"
        if self._read_parts >= _MOST_PARTS:
            self.warnings += (f"not all read: more follow {after}, which are {_MOST_PARTS} recordings",)
        else:
            try:
                decoder = next(self._parts, None)
                if decoder is not None and (decoder.channels, decoder.sr) == (self.channels, self.sr):
                    self._decoder = decoder
                    return True
                if decoder is not None:
                    what = f"{decoder.channels} channel{'s' * (decoder.channels > 1)} at {decoder.sr} Hz"
                    self.warnings += (f"not all read: {after} a recording of {what} follows",)
            except AudioError as error:
                self.warnings += (
                    f"not all read: {after} a recording follows that is not read ({error.message})",
                )
        return False


def truncation(promised_s: float, held_s: float) -> tuple[str, ...]:
    """Return the warning for a file that holds less than its header promises, or more, if it does."""
    if abs(promised_s - held_s) <= 0.01:
        return ()
    seconds = f"promises {promised_s:.2f} s, the file holds {held_s:.2f} s"
    if promised_s > held_s:
        return (f"truncated: the header {seconds}",)
    return (f"stale header: it {seconds}, all of which is read",)


def is_plain(file: BinaryIO) -> bool:
    """Whether a file holds plain samples, which nothing decodes."""
    at = past_tags(file)
    kind = kind_at(file, at)
    if kind not in wav_header.KINDS:
        return False
    found = wav_header.find(file, kind, at, file.seek(0, os.SEEK_END))
    return found is not None and found.pcm is not None


# --- the parts of a file


def _parts(file: BinaryIO, track: int, suffix: str) -> Iterator[Decoder]:
    """Open one part of a file after another: links of a chain, files that were joined."""
    end = file.seek(0, os.SEEK_END)
    at = past_tags(file)
    kind = first = kind_at(file, at)
    if kind is None:
        try:
            yield _with_ffmpeg(file, at, end, track)
        except UnknownFormatError:
            raise AudioError(*refusal(file, suffix.lower())) from None
        return
    while kind is not None and kind == first and at < end:
        if kind == "ogg":
            behind, cut = ogg_link(file, at, end)
            # Of Vorbis FFmpeg 8 adds samples at the end, or loses some.
            if read_at(file, at + 28, 7) == b"\x01vorbis":
                yield SndfileDecoder(Part(file, at, behind), cut)
            else:
                yield _with_ffmpeg(file, at, behind, track, cut)
        elif kind in wav_header.KINDS and (found := wav_header.find(file, kind, at, end)):
            behind = found.behind
            if found.pcm is None:
                yield _coded(file, at, end, found, track)
            else:
                for span in found.spans:
                    yield PcmDecoder(file, found.pcm, span)
        elif kind == "flac":
            behind = next_flac(file, at + 4, end)
            yield SndfileDecoder(Part(file, at, behind))
        else:
            yield _with_ffmpeg(file, at, end, track)
            return
        at = past_tags(file, behind)
        kind = kind_at(file, at)


def _with_ffmpeg(
    file: BinaryIO, at: int, end: int, track: int, cut: str = "", header: bytes = b""
) -> Decoder:
    from speechemo_cli.audio.ffmpeg_decoder import FFmpegDecoder

    return FFmpegDecoder(Part(file, at, end, header), track, cut)


def _coded(file: BinaryIO, at: int, end: int, found: wav_header.Found, track: int) -> Decoder:
    """Open a WAV or one of its relatives whose samples are coded."""
    start, held, promised = found.spans[0]
    cut = f"holds {held} of {promised} bytes of sound" if promised and promised > held else ""
    if found.tag in _MPEG_IN_WAV:
        return _with_ffmpeg(file, start, start + held, track)
    if found.tag:  # behind a header that does not count the samples, whatever theirs says
        return _with_ffmpeg(file, start, start + held, track, cut, found.header)
    return _with_ffmpeg(file, at, end, track)


def _raw(file: BinaryIO, sr: int) -> Iterator[Decoder]:
    n = file.seek(0, os.SEEK_END) // 2 * 2
    yield PcmDecoder(file, Pcm("PCM_16", "LITTLE", sr, 1), Span(0, n, n))


def _checked(decoder: Decoder) -> Decoder:
    if not LOWEST_SR <= decoder.sr <= HIGHEST_SR:
        raise AudioError(f"a rate of {decoder.sr} Hz, expected {LOWEST_SR} to {HIGHEST_SR} Hz")
    if decoder.channels > MOST_CHANNELS:
        raise AudioError(f"{decoder.channels} channels, expected {MOST_CHANNELS} at most")
    return decoder


# --- libsndfile


@contextmanager
def _sndfile_errors() -> Iterator[None]:
    """Say what is wrong with audio that libsndfile refuses, as an AudioError."""
    import soundfile

    try:
        yield
    except soundfile.LibsndfileError as error:
        reason = str(error.error_string).rstrip(".").lower()
        raise AudioError(f"not audio that can be read ({reason})") from None
    except (RuntimeError, ValueError, MemoryError) as error:
        raise AudioError(f"cannot be decoded ({type(error).__name__})") from None


class PcmDecoder:
    """Plain samples, which libsndfile gets without their header."""

    estimated_s = 0.0
    warnings: tuple[str, ...] = ()

    def __init__(self, file: BinaryIO, pcm: Pcm, span: Span) -> None:
        import soundfile

        self.sr, self.channels = pcm.sr, pcm.channels
        if not pcm.channels:
            raise AudioError("not audio that can be read (no channels)")
        _checked(self)
        self.frames: int | None = span.held // pcm.frame_bytes
        self._left = span.held // pcm.frame_bytes
        self._promised = self._left if span.promised is None else span.promised // pcm.frame_bytes
        part = Part(file, span.start, span.start + span.held)
        with _sndfile_errors():
            self._file = soundfile.SoundFile(
                part, "r", pcm.sr, pcm.channels, pcm.subtype, pcm.endian, "RAW", closefd=False
            )
        self._file.seekable = lambda: False  # after each read soundfile would seek to where it is
        self._is_16 = pcm.subtype == "PCM_16"

    def read(self, n: int) -> NDArray[np.float32]:
        """Decode the next `n` frames [shape=(n, channels)], fewer at the end."""
        n = min(n, self._left)
        self._left -= n
        with _sndfile_errors():
            if not self._is_16:
                y: NDArray[np.float32] = self._file.read(n, "float32", always_2d=True)
                return y
            # The same numbers as dtype="float32", in a tenth less time.
            y = self._file.read(n, "int16", always_2d=True).astype(np.float32)
            y *= np.float32(2.0**-15)
            return y

    def check_end(self, held: int) -> tuple[str, ...]:
        """Return the warning for a header that counts more samples than there are, or fewer."""
        return truncation(self._promised / self.sr, held / self.sr) if held else ()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class SndfileDecoder:
    """FLAC and Vorbis by libsndfile; from the first damage on by FFmpeg, which loses less."""

    estimated_s = 0.0

    def __init__(self, file: Part, cut: str = "") -> None:
        import soundfile

        self.warnings: tuple[str, ...] = ()
        self._given, self._cut, self._held = file, cut, 0
        self._salvage: Decoder | None = None
        self.frames: int | None = None
        try:
            with _sndfile_errors():
                self._file = soundfile.SoundFile(file, closefd=False)
            self._file.seekable = lambda: False
            self.sr, self.channels = self._file.samplerate, self._file.channels
            # For streams that do not say libsndfile has 2**63 - 1, or a guess of what an endless file holds.
            self.frames = self._file.frames if self._file.frames < 2**50 else None
        except AudioError:
            self._salvage = self._salvaged()
            self.sr, self.channels = self._salvage.sr, self._salvage.channels

    def read(self, n: int) -> NDArray[np.float32]:
        """Decode the next `n` frames [shape=(n, channels)], fewer at the end."""
        if self._salvage is None:
            wanted = n if self.frames is None else min(n, self.frames - self._held)
            try:
                with _sndfile_errors():
                    y: NDArray[np.float32] = self._file.read(wanted, "float32", always_2d=True)
                self._held += len(y)
                return y
            except AudioError:
                self._salvage = self._salvaged()
        return self._salvage.read(n)

    def _salvaged(self) -> Decoder:
        """Open it once more with FFmpeg, and pass over what has been read."""
        from speechemo_cli.audio.ffmpeg_decoder import FFmpegDecoder

        decoder = FFmpegDecoder(self._given)
        left = self._held
        while left and len(y := decoder.read(min(left, READ_BYTES))):
            left -= len(y)
        return decoder

    def check_end(self, held: int) -> tuple[str, ...]:
        """Return what is wrong: a stream that was cut, or damaged."""
        if self._cut:
            return (f"truncated: the file {self._cut}, after {held / self.sr:.2f} s",)
        if self._salvage is None:
            return () if self.frames is None else truncation(self.frames / self.sr, held / self.sr)
        if self.frames:
            return (f"damaged: {held / self.sr:.2f} of {self.frames / self.sr:.2f} s can be decoded",)
        return self._salvage.warnings or ("damaged: a part of its sound may be wrong",)

    def close(self) -> None:
        """Let go of the file."""
        if self._salvage is not None:
            self._salvage.close()
