"""What a file is by its content, and where in it the sound begins and ends."""

from __future__ import annotations

import io
import os
import re
from typing import Any, BinaryIO

import numpy as np

from speechemo_cli.audio.wav_header import READ_BYTES, past_padding, read_at

_HEAD_BYTES = 512
_MOST_TAGS = 16
_KINDS = re.compile(
    rb"(?P<riff>(RIFF|RIFX|RF64|BW64)....WAVE)|(?P<aiff>FORM....AIF[FC])|(?P<w64>riff\x2e\x91\xcf\x11)"
    rb"|(?P<caf>caff)|(?P<au>\.snd|dns\.)|(?P<nist>NIST_1A)|(?P<flac>fLaC)|(?P<ogg>OggS)",
    re.DOTALL,
)


# MP4 and its relatives begin with a size, MPEG program streams with a start code.
_BEGINS_WITH_0 = re.compile(rb"....(ftyp|wide|mdat|moov|free|skip|pnot)|\0\0\1\xba", re.DOTALL)


class Part(io.RawIOBase):
    """Some bytes of a file, behind a header of our own, as a file. An error of the disk is an end."""

    def __init__(self, file: BinaryIO, start: int, end: int, header: bytes = b"") -> None:
        self._file, self._start, self._header = file, start, header
        self._size = len(header) + max(0, end - start)
        self._at = 0

    def tell(self) -> int:
        """Return where the next byte is read."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go anywhere but before the first byte: a header may send a decoder there."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = min(max(0, base + offset), 2**62)
        return self._at

    def read(self, n: int = -1) -> bytes:
        """Read up to `n` bytes."""
        left = max(0, self._size - self._at)
        n = left if n < 0 else min(n, left)
        found = self._header[self._at : self._at + n]
        place = self._at + len(found) - len(self._header)
        if len(found) < n:
            found += read_at(self._file, self._start + place, n - len(found))
        self._at += len(found)
        return found

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as there is something; return how far."""
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that any place can be read."""
        return True


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
        elif head[:1] in (b"\0", b"\r", b"\n") and not _BEGINS_WITH_0.match(head):
            at = past_padding(file, at)
        else:
            break
    return at


def kind_at(file: BinaryIO, at: int) -> str | None:
    """Return what begins at a byte: a name of `_KINDS`; None where nothing known does."""
    match = _KINDS.match(read_at(file, at, 16))
    return match and match.lastgroup


_FLAC = re.compile(rb"fLaC[\0\x80]\0\0\x22")
_PAGE = re.compile(rb"OggS\0([\0-\x07])", re.DOTALL)


def ogg_link(file: BinaryIO, at: int, end: int) -> tuple[int, str]:
    """Return where a link of a chain of Ogg streams ends, and in what the file ends that it should not.

    A link ends before the first page that begins a stream after others did not (RFC 3533).
    """
    begun, last, start = False, b"", at
    while start < end:
        found = read_at(file, start, READ_BYTES + 5)
        for match in _PAGE.finditer(found):
            if match.start() >= READ_BYTES:
                break
            flags = match[1][0]
            if begun and flags & 2:
                return start + match.start(), ""
            begun = begun or not flags & 2
            page = start + match.start()
            last = read_at(file, page, 27 + 255)
        start += READ_BYTES
    if len(last) < 27 or page + 27 + last[26] + sum(last[27 : 27 + last[26]]) > end:
        return end, "ends within a page of its Ogg stream"
    return end, "" if last[5] & 4 else "ends before its Ogg stream does"


def next_flac(file: BinaryIO, at: int, end: int) -> int:
    """Return where the next FLAC stream of a file begins, or its end."""
    while at < end and (found := read_at(file, at, READ_BYTES + 7)):
        if match := _FLAC.search(found):
            return at + match.start()
        at += READ_BYTES
    return end


_OTHERS = (
    (b"version https://git-lfs.github.com/", "a Git LFS pointer", "Run git lfs pull"),
    (b"\x1fC\xb6u", "a WebM recording without its beginning", "Join its parts: cat PART1 PART2 > WHOLE"),
    (b"PK\3\4", "a zip archive", "Unzip it"),
    (b"%PDF", "a PDF", ""),
    (b"MATLAB", "a MATLAB file", ""),
    (b"Creative Voice File", "a VOC file", "Convert it to WAV"),
    (b"\x89PNG", "a picture", ""),
    (b"\xff\xd8\xff", "a picture", ""),
)


# Suffixes of files without a header, and what makes a WAV of them.
_HEADERLESS = {
    **dict.fromkeys((".pcm", ".raw", ".sln16"), "ffmpeg -f s16le -ar 16000 -ac 1 -i FILE clip.wav"),
    ".sln": "ffmpeg -f s16le -ar 8000 -ac 1 -i FILE clip.wav",
    ".gsm": "ffmpeg -f gsm -i FILE clip.wav",
    ".g722": "ffmpeg -f g722 -i FILE clip.wav",
    ".vox": "sox -t vox -r 8000 FILE clip.wav",
    **dict.fromkeys((".ulaw", ".ul", ".mulaw", ".pcmu"), "ffmpeg -f mulaw -ar 8000 -i FILE clip.wav"),
    **dict.fromkeys((".alaw", ".al", ".pcma"), "ffmpeg -f alaw -ar 8000 -i FILE clip.wav"),
}


def refusal(file: BinaryIO, suffix: str) -> tuple[str, str]:
    """Name what is no audio as far as its bytes and the suffix of its name tell, and a way out."""
    head = read_at(file, 0, READ_BYTES)
    for mark, name, hint in _OTHERS:
        if head.startswith(mark):
            return f"not audio that can be read (it is {name})", hint
    first = head[:_HEAD_BYTES]
    if first.isascii() and first.decode("ascii").replace("\n", " ").replace("\r", " ").isprintable():
        return "not audio that can be read (it is text)", ""
    y = np.frombuffer(head[: len(head) // 2 * 2], "<i2").astype(np.float64)
    # Neighbouring samples of a voice are alike; bytes that are no samples are not.
    alike = float(np.dot(y[1:], y[:-1])) > 0.5 * float(np.dot(y, y)) > 0
    if suffix in _HEADERLESS or (alike and not _BEGINS_WITH_0.match(first)):
        line = _HEADERLESS.get(suffix, _HEADERLESS[".pcm"])
        rate = re.search(r"s16le -ar (\d+)", line)
        raw = f"Say its rate, --raw {rate[1]}, or convert it" if rate else "Convert it"
        return "no header (raw PCM?)", f"{raw}: {line}"
    return "not audio that can be read (format not recognised)", ""
