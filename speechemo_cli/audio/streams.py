"""One run of sound in a file, and how to find one's way among the bytes without trusting any."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from typing import BinaryIO, NamedTuple

# A file is searched for so many tags and bytes: more is no recording.
_MOST_TAGS = 16
SEARCHED_BYTES = 2**20
READ_BYTES = 2**16
# The first of an Ogg file's 28 are of its first page.
HEAD_BYTES = 36
# What speech comes in: WAV, AIFF, W64, CAF, AU, NIST SPHERE, FLAC, Ogg, MPEG. libsndfile knows as many again
# that nobody records voices in, with decoders that few have looked at; those never see a byte.
_KINDS = re.compile(
    rb"(?P<riff>(RIFF|RIFX|RF64|BW64)....WAVE)|(?P<aiff>FORM....AIF[FC])|(?P<w64>riff\x2e\x91\xcf\x11)"
    rb"|(?P<caf>caff)|(?P<au>\.snd|dns\.)|(?P<nist>NIST_1A)|(?P<flac>fLaC)|(?P<ogg>OggS)"
    rb"|(?P<mpeg>\xff[\xe2-\xff])",
    re.DOTALL,
)


class Stream(NamedTuple):
    """One run of sound in a file: what a decoder is to see of it, and what its header says.

    Attributes
    ----------
    kind : str
        `riff`, `aiff`, `w64`, `caf`, `au`, `nist`, `flac`, `ogg` or `mpeg`.
    header : bytes
        What the decoder sees before the bytes of the file.
    start, end : int
        The bytes of the file that it sees.
    promised, held : int or None
        Bytes of sound by the header, and in the file. None where the header does not say.
    more : bool
        Another stream is known to follow.
    cut : str
        In what the file ends that it should not end in, if it does.
    skipped : int
        Bytes before this stream that are no sound and should be.
    endless : bool
        Nothing says how many MPEG frames there are.
    goes_on : bool
        This is the rest of the stream before, of which its header did not know.
    """

    kind: str
    header: bytes
    start: int
    end: int
    promised: int | None = None
    held: int | None = None
    more: bool = False
    cut: str = ""
    skipped: int = 0
    endless: bool = False
    goes_on: bool = False


# What a parser yields, and where the next stream may begin.
Parsed = Generator[Stream, None, int]


def past_tags(file: BinaryIO, at: int = 0) -> int:
    """Return where a file begins behind tags that players write before anything, and behind padding."""
    for _ in range(_MOST_TAGS):
        head = read_at(file, at, 10)
        if head.startswith(b"ID3") and len(head) == 10:
            # Four times seven bits, and a footer that repeats the header.
            at += 10 + sum((byte & 127) << 7 * (3 - i) for i, byte in enumerate(head[6:]))
            at += 10 * (head[5] >> 4 & 1)
        elif head.startswith(b"TAG"):
            at += 128
        elif head.startswith(b"APETAGEX"):
            at += 32 + int.from_bytes(read_at(file, at + 12, 4), "little")
        elif head[:1] in (b"\0", b"\r", b"\n") and head[4:8] != b"ftyp":  # MP4 begins with a size
            at = past_padding(file, at)
        else:
            break
    return at


def past_padding(file: BinaryIO, at: int, padding: bytes = b"\0\r\n", most: int = SEARCHED_BYTES) -> int:
    """Return where bytes of some kinds stop, by default zeros and line ends, or where there were many."""
    for _ in range(most // READ_BYTES):
        found = read_at(file, at, READ_BYTES)
        rest = found.lstrip(padding)
        at += len(found) - len(rest)
        if rest or not found:
            break
    return at


def kind_at(file: BinaryIO, at: int) -> str | None:
    """Return the kind of stream that begins here, as in `Stream`; None where none does."""
    return kind_of(read_at(file, at, HEAD_BYTES))


def kind_of(head: bytes) -> str | None:
    """Return the kind of stream that begins so."""
    match = _KINDS.match(head)
    return match and match.lastgroup


def read_at(file: BinaryIO, at: int, n: int) -> bytes:
    """Read bytes from wherever a header sends us: an error of the disk is the end of the file."""
    try:
        return file.read(n) if 0 <= at < 2**63 and file.seek(at) == at else b""
    except (OSError, ValueError, OverflowError):
        return b""


def find(
    file: BinaryIO, mark: bytes, at: int, end: int, is_one: Callable[[int], bool] = lambda _: True
) -> int | None:
    """Return where between two bytes a mark is that is one, if there is."""
    while at < end:
        found = read_at(file, at, READ_BYTES + len(mark) - 1)
        place = found.find(mark)
        while place >= 0:
            if is_one(at + place):
                return at + place
            place = found.find(mark, place + 1)
        at += READ_BYTES
    return None
