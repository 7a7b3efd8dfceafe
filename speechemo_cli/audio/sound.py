"""The sound of a file as one, whatever it consists of: streams, links of a chain, files that were joined."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.audio import containers, formats, source
from speechemo_cli.audio.source import decoding_errors
from speechemo_cli.audio.view import View
from speechemo_cli.errors import AudioError
from speechemo_cli.stderr import quiet_libraries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from numpy.typing import NDArray

    from speechemo_cli.audio.streams import Stream

# Samples that are decoded in one piece: half a minute of stereo. More of several channels is mixed
# piece by piece, so that hours of 5.1 never stand in memory.
PIECE = 2**22
# So many at a time where the decoder may give up.
SMALL_PIECE = 2**10
# Formats whose decoders may.
_COMPRESSED = frozenset({"FLAC", "OGG", "MP3"})
# Links of a chain of Ogg streams, or files that were joined.
_MOST_STREAMS = 2**10
# 448 kbit/s, the most that its frames take.
_MOST_MPEG_BYTES = 56_000


@contextmanager
def sound_file(file: BinaryIO, *, careful: bool = False) -> Iterator[Sound]:
    """Open with libsndfile what is of a format that speech comes in.

    Parameters
    ----------
    file : binary file
        `Content`, or one that was opened; read from its beginning, wherever it stands.
    careful : bool
        Lose nothing that comes before a damage, and take a little longer.

    Yields
    ------
    Sound

    Raises
    ------
    AudioError
        Not audio, or of a format, codec, rate or number of channels that is not read.
    """
    with ExitStack() as stack:
        yield Sound(file, stack, careful=careful)


class Sound:
    """The sound of a file: its streams one after the other, as long as they are of one rate.

    Attributes
    ----------
    samplerate, channels : int
    promised : int or None
        Frames by the header; None where it does not say.
    least_s : float
        Seconds that it lasts at least, if the header is right.
    warnings : tuple of str
        What is wrong with the file; complete when the last frame was read.
    """

    def __init__(self, file: BinaryIO, stack: ExitStack, *, careful: bool) -> None:
        self.warnings: tuple[str, ...] = ()
        self._file = file
        self._stack = stack
        self._careful = careful
        self._streams = containers.streams(file, lambda: self._view.reached())
        first = next(self._streams, None)
        if first is None:
            raise AudioError(f"not audio that can be read ({formats.named(file)})")
        if first.kind == "mpeg":  # its decoder has much to say about a file with a fault
            stack.enter_context(quiet_libraries())
        # Frames of the streams that are through: read, and by their headers.
        self._before = self._expected = self._streams_read = 0
        self._counted = self._damaged = False
        self._error: source.DecodingError | None = None
        self._decoder = self._opened(first)
        self._enter(first)
        self.samplerate: int = self._decoder.samplerate
        self.channels: int = self._decoder.channels
        self.promised = None if first.more else self._frames
        self.least_s = (self.promised or 0) / self.samplerate
        if self.promised is None and first.kind == "mpeg":
            self.least_s = (first.end - first.start) / _MOST_MPEG_BYTES

    def read(self, n: int) -> NDArray[np.float32]:
        """Decode the next `n` frames, fewer at the end.

        Returns
        -------
        np.ndarray [shape=(n,) or (n, channels), dtype=float32]

        Raises
        ------
        DecodingError
            There are more, and they cannot be decoded.
        """
        parts: list[NDArray[np.float32]] = []
        missing = n
        while self._error is None:
            parts.append(self._of_this_stream(missing))
            missing -= len(parts[-1])
            if not missing or self._error is not None or not self._next():
                break
        if self._error is not None and missing == n:
            raise self._error
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _opened(self, stream: Stream) -> Any:
        import soundfile

        self._view = View(self._file, stream)
        with decoding_errors():
            decoder = self._stack.enter_context(soundfile.SoundFile(self._view.seen))
        formats.check(decoder)
        # After each read soundfile seeks to where the file already is. An MP3 decoder takes that for a jump
        # and forgets what the next samples are made of: each joint would be a moment of silence.
        decoder.seekable = lambda: False
        return decoder

    def _enter(self, stream: Stream) -> None:
        self._stream: Stream | None = stream
        self._held, self._cut = 0, stream.cut
        frames = self._decoder.frames
        self._frames = int(frames) if frames < source.UNKNOWN_FRAMES else None

    def _of_this_stream(self, n: int) -> NDArray[np.float32]:
        """Decode the next `n` frames of the stream, fewer at its end and where it is damaged."""
        if self._frames is not None:
            n = min(n, self._frames - self._held)
            if not n:
                return self._nothing()
        if self._careful and self._decoder.format in _COMPRESSED:
            y = np.concatenate([self._nothing(), *self._up_to_a_damage(n)])
        else:
            y = self._samples(n)
        self._held += len(y)
        return y

    def _samples(self, n: int) -> NDArray[np.float32]:
        with decoding_errors():
            if self._decoder.subtype != "PCM_16":
                y: NDArray[np.float32] = self._decoder.read(n, dtype="float32")
                return y
            # The same numbers as dtype="float32", in a tenth less time.
            y = self._decoder.read(n, dtype="int16").astype(np.float32)
            y *= np.float32(2.0**-15)
            return y

    def _up_to_a_damage(self, n: int) -> Iterator[NDArray[np.float32]]:
        """Decode the next `n` frames, and of a part that fails what comes before the failure."""
        shape = (SMALL_PIECE, self.channels) if self.channels > 1 else (SMALL_PIECE,)
        while n > 0:
            wanted = min(SMALL_PIECE, n)
            y = np.full(shape, np.nan, np.float32)
            try:
                with decoding_errors():
                    y = self._decoder.read(wanted, out=y)
            except source.DecodingError as error:
                # What was decoded stands in place of the NaN; zeros at its end stand for what was lost.
                sound = np.flatnonzero(np.nan_to_num(y).reshape(SMALL_PIECE, -1).any(axis=1))
                yield y[: sound[-1] + 1 if len(sound) else 0]
                self._fail(error)
                return
            yield y
            if len(y) < wanted:
                return
            n -= wanted

    def _nothing(self) -> NDArray[np.float32]:
        return np.empty((0, self.channels) if self.channels > 1 else 0, np.float32)

    def _fail(self, error: source.DecodingError) -> None:
        """Take an error for the end of the stream where there may be sound behind it, or none."""
        stream = self._stream
        if stream is None or stream.kind != "mpeg":
            self._error = error
        elif self._view.reached() >= stream.end and self._frames is None and stream.promised is None:
            self._cut = "ends within a frame"

    def _next(self) -> bool:
        """Go on to the next stream of the file, if there is one to be heard."""
        if self._stream is None:
            return False
        self._leave(self._stream)
        stream = next(self._streams, None)
        if stream is not None and self._can_follow(stream):
            self._enter(stream)
            return True
        self._stream, self._frames, self._held = None, 0, 0
        held_s = self._before / self.samplerate
        expected = max(self._expected, self._before) if self._damaged else self._expected
        self.warnings += source.truncation(expected / self.samplerate, held_s)
        if self._cut and stream is None:
            self.warnings += (f"truncated: the file {self._cut}, after {held_s:.2f} s",)
        return False

    def _leave(self, stream: Stream) -> None:
        """Count what a stream held, and what its header promised."""
        self._decoder.close()
        self._before += self._held
        self._streams_read += 1
        if stream.promised is not None and stream.held:
            self._expected += round(self._held * stream.promised / stream.held)
        elif (stream.goes_on or stream.skipped) and self._counted:
            pass  # the header of the stream before promised these as well, or knew nothing of them
        else:
            self._counted = self._frames is not None and stream.promised is None
            self._expected += self._held if self._frames is None else self._frames

    def _can_follow(self, stream: Stream) -> bool:
        """Open the next stream; say of one that cannot be heard with the others that it is there."""
        after = f"after {self._before / self.samplerate:.2f} s"
        if self._streams_read >= _MOST_STREAMS:
            self.warnings += (f"not all heard: more follow {after}, which are {_MOST_STREAMS} recordings",)
            return False
        try:
            self._decoder = self._opened(stream)
        except AudioError as error:
            self.warnings += (
                f"not all heard: {after} a recording follows that is not read ({error.message})",
            )
            return False
        found = (self._decoder.channels, self._decoder.samplerate)
        if found != (self.channels, self.samplerate):
            what = f"{found[0]} channel{'s' * (found[0] > 1)} at {found[1]} Hz"
            self.warnings += (f"not all heard: {after} a recording of {what} follows",)
            return False
        if stream.skipped:
            self._damaged = True
            self.warnings += (f"damaged: {stream.skipped} bytes {after} are no sound, and are left out",)
        return True


def pieces(sound: Sound, most: int) -> Iterator[NDArray[np.float32]]:
    """Decode a file, a clip in one piece and a long recording in several.

    Parameters
    ----------
    sound : Sound
    most : int
        Samples of all channels in a piece.

    Yields
    ------
    np.ndarray [shape=(n,) or (n, channels), dtype=float32]
        At least one frame.

    Raises
    ------
    DecodingError
        It cannot be decoded.
    """
    n = max(1, most // sound.channels)
    while len(y := sound.read(n)):
        yield y
