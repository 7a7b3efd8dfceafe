"""What libsndfile does not read for certain is decoded by FFmpeg, which PyAV brings along."""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from speechemo_cli.audio import vad
from speechemo_cli.errors import AudioError, UnknownFormatError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from speechemo_cli.audio.containers import Part

# The formats that FFmpeg may find in a file; nothing that names other files is among them. Of the counted
# ones a header or an index tells the length, of others FFmpeg guesses it from the bit rate.
_COUNTED = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "asf", "ogg", "flac", "tta", "ape", "wv"})
_FORMATS = (
    *_COUNTED,
    *("mp3", "aac", "amr", "wav", "w64", "caf", "aiff", "au", "nistsphere", "avi", "flv", "mpeg", "mpegts"),
    *("ac3", "eac3", "dts", "rm"),
)
# A file that holds less than this share of what it promises was cut, unless it lacks so little: some headers
# count the delay of the encoder, and what fills its last frame.
_CUT_SHARE, _CUT_S, _CUT_SAMPLES = 0.98, 0.1, 2400
# So many packets without sound are no recording.
_MOST_EMPTY_PACKETS = 2**18
# What is looked at of each sound track to find the one with speech.
_LOOKED_AT_S = 30.0


# The first frame of an MP3 may be none, but count those that follow; its lowest bit says that it does.
_MP3_COUNT = re.compile(rb"(?:Xing|Info)\0\0\0[\x01\x03\x05\x07\x09\x0b\x0d\x0f](....)", re.DOTALL)


class FFmpegDecoder:
    """One sound track of a file.

    Parameters
    ----------
    file : binary file
        Read from where `read` and `seek` say, never by a name: nothing else is opened.
    track : int
        Which of several sound tracks, from 1; 0 for the one with most speech.
    cut : str
        In what the file ends that it should not end in, if it is known to.

    Attributes
    ----------
    sr, channels : int
        Of the first decoded frame: headers of AAC tell half the rate.
    frames : int or None
        By the header, if it says.
    estimated_s : float
        What FFmpeg takes for the length in seconds; 0 where it does not know.
    warnings : tuple of str
        What is wrong; complete when the last frame was read.

    Raises
    ------
    AudioError
        Damaged, without a sound track, or in a codec that FFmpeg does not know.
    """

    def __init__(self, file: BinaryIO | Part, track: int = 0, cut: str = "") -> None:
        import av

        self.warnings: tuple[str, ...] = ()
        mp3_frames = _mp3_frames(file)
        self._container = _opened(file)
        self._format = self._container.format.name
        n = len(self._container.streams.audio)
        if not n:
            raise AudioError("has no sound track")
        if track > n:
            raise AudioError(f"has {n} sound track{'s' * (n > 1)}, no track {track}")
        if n > 1 and not track:
            track = _with_speech(file, n)
            self._container = _opened(file)
            self.warnings = (
                f"not all read: {n} sound tracks, this is number {track}; --track takes another",
            )
        self._stream = self._container.streams.audio[max(track, 1) - 1]
        if self._stream.codec_context is None:
            raise AudioError(
                "not audio that can be read (its codec is unknown)", "Convert the file to WAV or FLAC"
            )
        if self._format == "flac":  # a frame whose checksum is wrong would be noise
            self._stream.codec_context.options = {"err_detect": "crccheck+explode"}
        if self._stream.codec_context.name == "alac":  # its last packet is short, as some headers say again
            self._stream.codec_context.flags2 |= av.codec.context.Flags2.skip_manual
        self._pieces = self._decoded()
        self._rest = np.empty((0, 1), np.float32)
        self.sr = 0
        first = next(self._pieces, None)
        if first is None:
            raise AudioError("not audio that can be read (not a frame of its sound can be decoded)")
        self.channels = first.shape[1]
        self._pieces = chain([first], self._pieces)
        duration = self._stream.duration and float(self._stream.duration * self._stream.time_base)
        if not duration and self._container.duration and n == 1:  # else of the longest track
            duration = self._container.duration / 1e6
        self.estimated_s = duration or 0.0
        promised = round(self.estimated_s * self.sr) if self._format in _COUNTED else 0
        if self._format == "mp3":
            promised = mp3_frames
        self.frames = promised or None
        self._cut = cut
        # The last block of an Ogg stream is longer than its sound.
        self._left = self.frames if self._format == "ogg" and not cut else None

    def read(self, n: int) -> NDArray[np.float32]:
        """Decode the next `n` frames [shape=(n, channels)], fewer at the end."""
        if self._left is not None:
            n = min(n, self._left)
            self._left -= n
        parts, held = [self._rest], len(self._rest)
        while held < n:
            piece = next(self._pieces, None)
            if piece is None:
                break
            parts.append(piece)
            held += len(piece)
        y = np.concatenate(parts) if self._rest.shape[1] == self.channels else np.concatenate(parts[1:])
        self._rest = y[n:]
        return y[:n]

    def close(self) -> None:
        """Let go of the file."""
        self._container.close()

    def _decoded(self) -> Iterator[NDArray[np.float32]]:
        """Yield what each frame holds [shape=(n, channels)] as long as rate and channels stay the same."""
        amr, held, good, lost, failed = "amr" in self._stream.codec_context.name, 0, 0, 0, 0
        for frames in self._frames():
            if frames is None or (not frames and amr):
                failed += 1
            good += bool(frames)
            for frame in frames or ():
                y = _samples(frame)
                if not self.sr:
                    self.sr, self.channels = frame.sample_rate, y.shape[1]
                if (frame.sample_rate, y.shape[1]) != (self.sr, self.channels):
                    what = f"{y.shape[1]} channel{'s' * (y.shape[1] > 1)} at {frame.sample_rate} Hz"
                    after = f"after {held / self.sr:.2f} s"
                    self.warnings += (f"not all read: {after} a recording of {what} follows",)
                    return
                if amr:  # a phone sends nothing for a pause
                    held += failed * len(y)
                    good += failed
                    yield np.zeros((failed * len(y), self.channels), np.float32)
                else:
                    lost += failed
                failed, held = 0, held + len(y)
                yield y
        if amr and good:
            yield np.zeros((failed * held // good, self.channels), np.float32)
            failed = 0
        # Behind the last sound of a file without an index stand tags and padding, which are no frames.
        lost += failed if self._format in _COUNTED or failed > good else 0
        if lost > good > 0:  # what is left is no voice
            raise AudioError(f"damaged: {lost} of {lost + good} parts of its sound cannot be decoded")
        if lost:
            self.warnings += (f"damaged: {lost} part{'s' * (lost > 1)} of its sound cannot be decoded",)

    def _frames(self) -> Iterator[list[Any] | None]:
        """Yield the frames of each packet; None for one that cannot be decoded, which costs no other."""
        import av

        packets, empty = self._container.demux(self._stream), 0
        while empty < _MOST_EMPTY_PACKETS:
            try:
                packet = next(packets)
                frames = packet.decode()
                if not frames and not packet.size:  # the end
                    return
            except StopIteration:
                return
            except (av.error.FFmpegError, OSError, ValueError, MemoryError):
                frames = None
            empty = 0 if frames else empty + 1
            yield frames

    def check_end(self, held: int) -> tuple[str, ...]:
        """Return the warning for a file that holds fewer frames than its header promises, if it does."""
        promised_s, held_s = (self.frames or 0) / self.sr, held / self.sr
        if self._cut:
            return (f"truncated: the file {self._cut}, after {held_s:.2f} s",)
        if held_s >= _CUT_SHARE * promised_s - max(_CUT_S, _CUT_SAMPLES / self.sr):
            return ()
        return (f"truncated: the header promises {promised_s:.2f} s, the file holds {held_s:.2f} s",)


def _opened(file: BinaryIO | Part) -> Any:
    import av

    file.seek(0)
    whitelists = {"format_whitelist": ",".join(_FORMATS), "protocol_whitelist": "none"}
    try:
        return av.open(file, metadata_errors="ignore", options=whitelists)
    except (av.error.FFmpegError, OSError, ValueError, MemoryError):
        raise UnknownFormatError("not audio that can be read (format not recognised, or damaged)") from None


def _mp3_frames(file: BinaryIO | Part) -> int:
    """Return how many samples an MP3 promises; 0 where it does not say."""
    file.seek(0)
    head = file.read(64)
    match = _MP3_COUNT.search(head)
    return int.from_bytes(match[1], "big") * (1152 if head[1] & 8 else 576) if match else 0


def _samples(frame: Any) -> NDArray[np.float32]:
    """Return what a frame holds [shape=(n, channels)], full scale at 1."""
    y: NDArray[Any] = frame.to_ndarray()
    channels = frame.layout.nb_channels
    y = y.T if frame.format.is_planar else y.reshape(-1, channels)
    if y.dtype.kind == "f":
        with np.errstate(over="ignore"):  # infinities are refused in their place
            return np.asarray(y, np.float32)
    half = 2.0 ** (8 * y.dtype.itemsize - 1)
    if y.dtype.kind == "u":
        y = y - half
    return np.asarray(y, np.float32) * np.float32(1 / half)


def _with_speech(file: BinaryIO | Part, n: int) -> int:
    """Return which of the sound tracks has most speech at its beginning; the first, if none has any."""
    return max(range(1, n + 1), key=lambda track: (_speech_frames(file, track), -track))


def _speech_frames(file: BinaryIO | Part, track: int) -> int:
    try:
        decoder = FFmpegDecoder(file, track)
    except AudioError:
        return -1
    y = decoder.read(round(_LOOKED_AT_S * decoder.sr)).mean(axis=1)
    runs = vad.detect_speech(vad.measure([y], decoder.sr).levels)
    return int((runs[:, 1] - runs[:, 0]).sum())
