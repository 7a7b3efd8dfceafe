"""Which files are opened at all, and with what: by how they begin, whatever they are called."""

from __future__ import annotations

import io
import math
import os
import re
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from speechemo_cli.audio.source import decoding_errors
from speechemo_cli.errors import AudioError
from speechemo_cli.stderr import quiet_libraries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

HEAD_BYTES = 16
# How files begin that libsndfile does not read and ffmpeg does: MP4 and M4A, WebM and Matroska, WMA, AMR,
# AAC, AVI, FLV. Nothing else is handed to ffmpeg, which would take a text for a playlist with URLs.
_FOR_FFMPEG = (
    (4, b"ftyp"),
    (0, b"\x1aE\xdf\xa3"),
    (0, b"0&\xb2u\x8ef\xcf\x11"),
    (0, b"#!AMR"),
    (0, b"\xff\xf1"),
    (0, b"\xff\xf9"),
    (8, b"AVI "),
    (0, b"FLV"),
)
# What speech comes in: WAV, AIFF, W64, CAF, AU, NIST SPHERE, FLAC, Ogg. libsndfile knows as many again that
# nobody records voices in, with decoders that few have looked at; those never see a byte.
_FOR_LIBSNDFILE = re.compile(
    rb"(RIFF|RIFX|RF64)....WAVE|FORM....AIF[FC]|riff\x2e\x91\xcf\x11|caff|\.snd|dns\.|NIST_1A|fLaC|OggS",
    re.DOTALL,
)
_MPEG = re.compile(rb"\xff[\xe2-\xff]")
_ID3_BYTES = 10
# So many printable ones, and no others, make a text.
_TEXT_BYTES = 512
_CODECS = frozenset(
    {
        *("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"),
        *("VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"),
        *("IMA_ADPCM", "MS_ADPCM", "GSM610"),  # voicemail and dictaphones
    }
)
# The telephone's rate to the highest that recorders have.
LOWEST_SR, HIGHEST_SR = 8_000, 384_000
MOST_CHANNELS = 32
# Header, 255 lengths of one byte, and what they add up to: the longest page of an Ogg file (RFC 3533).
_PAGE_HEADER_BYTES = 27
_LONGEST_PAGE = _PAGE_HEADER_BYTES + 255 + 255 * 255
# Samples that are decoded in one piece: half a minute of stereo. More of several channels is mixed
# piece by piece, so that hours of 5.1 never stand in memory.
PIECE = 2**22
# So many where the decoder has given up: what it had of the piece in its hands was lost.
SMALL_PIECE = 2**10


def needs_ffmpeg(head: bytes) -> bool:
    """Whether a file that begins with these `HEAD_BYTES` is one for ffmpeg."""
    return any(head[at : at + len(mark)] == mark for at, mark in _FOR_FFMPEG)


@contextmanager
def sound_file(file: BinaryIO) -> Iterator[Any]:
    """Open with libsndfile what is of a format that speech comes in.

    Parameters
    ----------
    file : binary file
        `Content`, or one that was opened; read from its beginning, wherever it stands.

    Yields
    ------
    soundfile.SoundFile
        What reading it raises is left to `source.decoding_errors`.

    Raises
    ------
    AudioError
        Not audio, or of a format, codec, rate or number of channels that is not read.
    """
    import soundfile

    is_mp3, tagged = _recognised(file)
    bare = is_mp3 and not tagged
    opened: Any = file if isinstance(file, Content) and not bare else _Handle(file, tagged=bare)
    with ExitStack() as stack:
        if is_mp3:  # its decoder has much to say about a file with a fault
            stack.enter_context(quiet_libraries())
        with decoding_errors():
            sound = stack.enter_context(soundfile.SoundFile(opened))
        if sound.subtype not in _CODECS:
            raise AudioError(f"{sound.subtype} is not read", "Convert the file to WAV or FLAC")
        if not LOWEST_SR <= sound.samplerate <= HIGHEST_SR:
            raise AudioError(f"a rate of {sound.samplerate} Hz, expected {LOWEST_SR} to {HIGHEST_SR} Hz")
        if sound.channels > MOST_CHANNELS:
            raise AudioError(f"{sound.channels} channels, expected {MOST_CHANNELS} at most")
        yield sound


def read_on(sound: Any) -> None:
    """Make one `read` after another give samples without a joint.

    After each read soundfile seeks to where the file already is. An MP3 decoder takes that for a jump and
    forgets what the next samples are made of: each joint would be a moment of silence.
    """
    sound.seekable = lambda: False


def pieces(sound: Any, promised: int | None, most: int) -> Iterator[NDArray[np.float32]]:
    """Decode a file, a clip in one piece and a long recording in several.

    Parameters
    ----------
    sound : soundfile.SoundFile
    promised : int or None
        Frames, if the header says how many.
    most : int
        Samples of all channels in a piece.

    Yields
    ------
    np.ndarray [shape=(n,) or (n, channels), dtype=float32]
        May be empty.

    Raises
    ------
    DecodingError
        It cannot be decoded.
    """
    read_on(sound)
    n = max(1, most // sound.channels)
    left = math.inf if promised is None else promised
    # The same numbers as dtype="float32", in a tenth less time.
    as_integers = sound.subtype == "PCM_16"
    while left > 0:
        wanted = int(min(n, left))
        with decoding_errors():
            if as_integers:
                y = sound.read(wanted, dtype="int16").astype(np.float32)
                y *= np.float32(2.0**-15)
            else:
                y = sound.read(wanted, dtype="float32")
        yield y
        if len(y) < wanted:
            return
        left -= wanted


def _recognised(file: BinaryIO) -> tuple[bool, bool]:
    """Whether a file that libsndfile may see is an MP3, and has a tag; the file stands at its first byte.

    Raises
    ------
    AudioError
        It may not.
    """
    file.seek(0)
    first = head = file.read(_TEXT_BYTES)
    if first.startswith(b"ID3") and len(first) > _ID3_BYTES:
        # Four times seven bits. libsndfile's own guess at what is behind it may fail in odd ways.
        size = sum((byte & 127) << 7 * (3 - i) for i, byte in enumerate(first[6:_ID3_BYTES]))
        file.seek(_ID3_BYTES + size)
        head = file.read(HEAD_BYTES)
    file.seek(0)
    if _FOR_LIBSNDFILE.match(head):
        return False, head is not first
    if _MPEG.match(head):
        return True, head is not first
    text = first.isascii() and first.decode("ascii").replace("\n", " ").replace("\r", " ").isprintable()
    raise AudioError(f"not audio that can be read ({'it is text' if text else 'format not recognised'})")


def cut_off(file: BinaryIO, held_s: float) -> tuple[str, ...]:
    """Return the warning for an Ogg file that ends within a page, as half a download does.

    Its header promises no length, and libsndfile gives what is there.

    Parameters
    ----------
    file : binary file
    held_s : float
        What could be read of it, in seconds.
    """
    file.seek(0)
    if file.read(4) != b"OggS":
        return ()
    file.seek(max(0, file.seek(0, os.SEEK_END) - _LONGEST_PAGE))
    tail = file.read()
    page = tail[max(0, tail.rfind(b"OggS\0")) :]
    n = page[_PAGE_HEADER_BYTES - 1] if len(page) >= _PAGE_HEADER_BYTES else 255
    header = _PAGE_HEADER_BYTES + n
    if len(page) >= header + sum(page[_PAGE_HEADER_BYTES:header]):
        return ()
    return (f"truncated: the file ends within a page of its Ogg stream, after {held_s:.2f} s",)


class Content(io.BytesIO):
    """The bytes of a file. A header may send libsndfile anywhere: to where there is nothing, it stays."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go there if there is such a place."""
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


class _Handle:
    """What libsndfile sees of an open file: an error of the disk is an end, and MP3 begins with a tag.

    Errors in what C calls have nobody to raise to and would be printed.

    Without a tag libsndfile first looks whether an MP3 file is a Sound Designer file with its other half
    in `._` or `.AppleDouble` in the working folder. What is there by chance makes it refuse the MP3, or
    wait for a pipe.
    """

    _TAG = b"ID3\x04\0\0\0\0\0\x0a" + bytes(10)

    def __init__(self, file: BinaryIO, *, tagged: bool) -> None:
        self._file = file
        self._tag = self._TAG if tagged else b""
        self._size = len(self._tag) + file.seek(0, os.SEEK_END)
        self._at = 0

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        found = self._tag[self._at : self._at + len(buffer)]
        try:
            self._file.seek(max(0, self._at - len(self._tag)))
            found += self._file.read(len(buffer) - len(found))
        except (OSError, ValueError, OverflowError):
            pass
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)
