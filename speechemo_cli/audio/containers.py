"""Where in a file its sound lies, and how much its header promises: chunks, pages, frames, no samples."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import BinaryIO, NamedTuple

# A file is walked for so many chunks, pages or tags, and searched for so many bytes: more is no recording.
_MOST_CHUNKS = 2**12
_MOST_PAGES = 2**20
_MOST_TAGS = 16
_SEARCHED_BYTES = 2**20
_READ_BYTES = 2**16
HEAD_BYTES = 16
# What speech comes in: WAV, AIFF, W64, CAF, AU, NIST SPHERE, FLAC, Ogg, MPEG. libsndfile knows as many again
# that nobody records voices in, with decoders that few have looked at; those never see a byte.
_KINDS = re.compile(
    rb"(?P<riff>(RIFF|RIFX|RF64|BW64)....WAVE)|(?P<aiff>FORM....AIF[FC])|(?P<w64>riff\x2e\x91\xcf\x11)"
    rb"|(?P<caf>caff)|(?P<au>\.snd|dns\.)|(?P<nist>NIST_1A)|(?P<flac>fLaC)|(?P<ogg>OggS)"
    rb"|(?P<mpeg>\xff[\xe2-\xff])",
    re.DOTALL,
)
# Without a tag libsndfile first looks whether an MP3 file is a Sound Designer file with its other half in
# `._` or `.AppleDouble` in the working folder. What is there by chance makes it refuse the MP3, or wait for
# a pipe.
_MPEG_TAG = b"ID3\x04\0\0\0\0\0\x0a" + bytes(10)
# WAVE_FORMAT_MPEG and WAVE_FORMAT_MPEGLAYER3.
_MPEG_IN_WAV = (0x50, 0x55)
_LONGEST_DESCRIPTION = 2**12
_LONGEST_32 = 2**32 - 1
# Programs that stream write a size near one of these limits: it means "not known", not a promise.
_NO_PROMISE = (2**31 - 2**16, 2**32 - 2**16)
# Less than this behind the samples is what an editor left there.
_LEAST_BYTES = 512
# Header, 255 lengths of one byte (RFC 3533). What the fifth byte after the magic says.
_PAGE_HEADER_BYTES = 27
_FIRST_PAGE, _LAST_PAGE = 2, 4
_PAGE = b"OggS\0"
# So many MPEG frames in a row are sound, and no accident. Encoders pad the end with fewer.
_FRAMES_IN_A_ROW = 4
# Before a second FLAC stream: as much as the decoder of the first may have read of it.
_AHEAD_BYTES = 2**16
_FLAC = (b"fLaC\0\0\0\x22", b"fLaC\x80\0\0\x22")


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
_Parsed = Generator[Stream, None, int]


def streams(file: BinaryIO, reached: Callable[[], int]) -> Iterator[Stream]:
    """Find one stream of sound after another: links of a chain, files that were joined.

    Parameters
    ----------
    file : binary file
    reached : callable
        Up to which byte of the file the decoder of the stream before has read.

    Yields
    ------
    Stream
        All of one kind. The next is to be asked for when the last was decoded.
    """
    parsers: dict[str, Callable[[BinaryIO, int, int], _Parsed]] = {
        "au": _au,
        "nist": _nist,
        "ogg": _ogg,
        "flac": partial(_flac, reached),
        "mpeg": partial(_mpeg, reached),
    }
    size = file.seek(0, os.SEEK_END)
    at = past_tags(file)
    first = kind = _kind(file, at)
    while kind is not None and kind == first:
        at = yield from parsers.get(kind, _chunked)(file, at, size)
        if at >= size:
            return
        at = past_tags(file, at)
        kind = _kind(file, at)


def beginning(file: BinaryIO) -> bytes:
    """Return the `HEAD_BYTES` that tell what a file is: its first, or those behind its tags."""
    return read_at(file, past_tags(file), HEAD_BYTES)


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
        elif head[:1] in (b"\0", b"\r", b"\n") and head[4:8] != b"ftyp":  # MP4 begins with a size
            at = _past_padding(file, at)
        else:
            break
    return at


def _past_padding(file: BinaryIO, at: int) -> int:
    for _ in range(_SEARCHED_BYTES // _READ_BYTES):
        found = read_at(file, at, _READ_BYTES)
        rest = found.lstrip(b"\0\r\n")
        at += len(found) - len(rest)
        if rest or not found:
            break
    return at


def _kind(file: BinaryIO, at: int) -> str | None:
    return _kind_of(read_at(file, at, HEAD_BYTES))


def _kind_of(head: bytes) -> str | None:
    match = _KINDS.match(head)
    return match and match.lastgroup


def read_at(file: BinaryIO, at: int, n: int) -> bytes:
    """Read bytes from wherever a header sends us: an error of the disk is the end of the file."""
    try:
        return file.read(n) if 0 <= at < 2**63 and file.seek(at) == at else b""
    except (OSError, ValueError, OverflowError):
        return b""


# --- chunks: WAV and its relatives, AIFF, W64, CAF


class _Layout(NamedTuple):
    """How a format writes its chunks, and which are what the samples are, and the samples."""

    name_bytes: int
    size: struct.Struct
    alignment: int
    first: int  # where the first chunk is
    description: bytes
    data: bytes
    before_samples: int = 0  # bytes of the samples' chunk that are none
    size_of_all: bool = False  # the size counts the chunk's name and itself


_GUID = bytes.fromhex("f3acd3118cd100c04f8edb8a")
# A file of its own behind another.
_MAGIC = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b"riff", b"caff")
_LAYOUTS = {
    "riff": _Layout(4, struct.Struct("<I"), 2, 12, b"fmt ", b"data"),
    "rifx": _Layout(4, struct.Struct(">I"), 2, 12, b"fmt ", b"data"),
    "aiff": _Layout(4, struct.Struct(">I"), 2, 12, b"COMM", b"SSND", 8),
    "w64": _Layout(16, struct.Struct("<q"), 8, 40, b"fmt " + _GUID, b"data" + _GUID, 0, size_of_all=True),
    "caf": _Layout(4, struct.Struct(">q"), 1, 8, b"desc", b"data", 4),
}


def _chunks(file: BinaryIO, at: int, layout: _Layout) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name of each chunk, where its content begins, and the size of that by its header."""
    n = layout.name_bytes + layout.size.size
    for _ in range(_MOST_CHUNKS):
        head = read_at(file, at, n)
        if len(head) < n:
            return
        (size,) = layout.size.unpack_from(head, layout.name_bytes)
        size -= n * layout.size_of_all
        yield head[: layout.name_bytes], at + n, size
        if size < 0:
            return
        at += n + size + -size % layout.alignment


def _chunked(file: BinaryIO, at: int, end: int) -> _Parsed:
    magic = read_at(file, at, HEAD_BYTES)
    kind = _kind_of(magic) or ""
    layout = _LAYOUTS["rifx" if magic.startswith(b"RIFX") else kind]
    description, wide = b"", 0
    for name, start, size in _chunks(file, at + layout.first, layout):
        if name == b"ds64" and magic[:4] in (b"RF64", b"BW64"):
            wide = int.from_bytes(read_at(file, start + 8, 8), "little")
        elif name == layout.description and 0 < size <= _LONGEST_DESCRIPTION:
            description = read_at(file, start, size)
        elif name == layout.data and description:
            promised = wide if magic[:4] in (b"RF64", b"BW64") and size == _LONGEST_32 else size
            break
    else:
        # No sound; the decoder's own words for that are as good as any.
        yield Stream(kind, b"", at, end)
        return end

    whole = Stream(kind, b"", at, end)
    here, seen = _samples(file, start, promised, end, layout)
    found, behind = [here], end
    for name, start, size in _chunks(file, seen, layout):
        if not _is_chunk(name, start, size, end):
            behind = start - layout.size.size - layout.name_bytes
            break
        if name == layout.data:
            found.append(_samples(file, start, size, end, layout)[0])
    more = len(found) > 1 or (behind < end and _kind(file, behind) == kind)
    mpeg = kind in ("riff", "w64") and int.from_bytes(description[:2], "little") in _MPEG_IN_WAV
    plain = not more and not mpeg and magic[:4] != b"BW64"
    for span in found:
        stream = whole._replace(promised=span.promised, held=span.held, more=more)
        if mpeg:
            inside = _mpeg_stream(file, span.start, span.start + span.held)
            stream = inside._replace(promised=span.promised, held=span.held, more=more)
        elif not (plain and span.as_it_is):
            stream = _described(stream, magic, description, span)
        yield stream
    return behind


class _Samples(NamedTuple):
    """The bytes of a chunk of samples; those that its header promises, if it does; whether that will do."""

    start: int
    held: int
    promised: int | None
    as_it_is: bool


def _samples(file: BinaryIO, start: int, promised: int, end: int, layout: _Layout) -> tuple[_Samples, int]:
    """Find out where a chunk of samples ends, and where the chunks behind it begin."""
    start, promised = start + layout.before_samples, promised - layout.before_samples
    there = max(0, end - start)
    behind = start + max(0, promised)
    if not _chunk_at(file, behind, end, layout):  # some programs leave the padding out
        behind += -promised % layout.alignment
    if promised > there and not _is_open(promised):
        return _Samples(start, there, promised, layout is not _LAYOUTS["caf"]), end
    if promised > there or (promised <= 0 and not _chunk_at(file, behind, end, layout)):
        return _Samples(start, there, None, there == 0), end
    if promised > 0 and _goes_on(file, behind, end, layout):
        return _Samples(start, there, promised, as_it_is=False), end
    return _Samples(start, max(0, promised), max(0, promised), as_it_is=True), behind


def _is_open(size: int) -> bool:
    return size <= 0 or any(limit <= size <= limit + 2**16 for limit in _NO_PROMISE) or size >= 2**62


def _chunk_at(file: BinaryIO, at: int, end: int, layout: _Layout) -> bool:
    return _is_chunk(*next(_chunks(file, at, layout), (b"", at, -1)), end)


def _is_chunk(name: bytes, start: int, size: int, end: int) -> bool:
    """Whether this may be a chunk, and no samples: text for a name, and a size that there is room for."""
    name = name[:4]
    if name in _MAGIC or not all(32 <= byte < 127 for byte in name):
        return False
    return 0 <= size <= end - start or name == b"LIST"


def _goes_on(file: BinaryIO, at: int, end: int, layout: _Layout | None = None) -> bool:
    """Whether behind the last sample that a header counts there are more, and not something else."""
    if end - at < _LEAST_BYTES or (layout and _chunk_at(file, at, end, layout)):
        return False
    tags = (b"ID3", b"TAG", b"APETAGEX")
    return not (
        read_at(file, at, 8).startswith(tags)
        or _kind(file, at) not in (None, "mpeg")
        or _frames_at(file, at)
        or _past_padding(file, at) >= min(end, at + _SEARCHED_BYTES)
    )


def _described(stream: Stream, magic: bytes, description: bytes, span: _Samples) -> Stream:
    """Put a header before the samples that counts them all, and has nothing else in it."""
    n = span.held
    if stream.kind == "caf":
        if description[8:12] == b"alac":  # wants more of the header than this, and is not read
            return stream
        header = magic[:8] + b"desc" + struct.pack(">q", len(description)) + description
        header += b"data" + struct.pack(">qI", n + 4, 0)
    else:
        order = ">" if stream.kind == "aiff" or magic.startswith(b"RIFX") else "<"
        size = struct.Struct(order + "I").pack
        padded = description + bytes(len(description) % 2)
        if stream.kind == "aiff":
            body = magic[8:12] + b"COMM" + size(len(description)) + padded
            body += b"SSND" + size(min(n + 8, _LONGEST_32)) + bytes(8)
            head = b"FORM"
        else:
            body = b"WAVEfmt " + size(len(description)) + padded + b"data" + size(min(n, _LONGEST_32))
            head = b"RIFX" if order == ">" else b"RIFF"
        header = head + size(min(len(body) + n, _LONGEST_32)) + body
    return stream._replace(header=header, start=span.start, end=span.start + n)


# --- one number in a header: AU, NIST SPHERE


def _au(file: BinaryIO, at: int, end: int) -> _Parsed:
    head = read_at(file, at, 24)
    whole = Stream("au", b"", at, end)
    if len(head) == 24:
        order = ">" if head.startswith(b".snd") else "<"
        offset, promised = struct.unpack_from(order + "II", head, 4)
        held = max(0, end - at - offset)
        if _is_open(promised):
            promised = None
        elif promised < held and not _goes_on(file, at + offset + promised, end):
            held = promised
        whole = whole._replace(promised=promised, held=held)
        if offset >= 24 and held and (promised is None or promised < held):
            header = head[:4] + struct.pack(order + "II", 24, min(held, _LONGEST_32)) + head[12:]
            whole = whole._replace(header=header, start=at + offset)
    yield whole
    return end


_NIST_NUMBER = re.compile(rb"^(sample_count|sample_n_bytes|channel_count) -i (\d{1,12})\s*$", re.MULTILINE)


def _nist(file: BinaryIO, at: int, end: int) -> _Parsed:
    head = read_at(file, at, 1024)
    numbers = {name: int(digits) for name, digits in _NIST_NUMBER.findall(head)}
    size = head[8:16].strip()
    whole = Stream("nist", b"", at, end)
    if len(numbers) == 3 and size.isdigit() and b"shorten" not in head:
        promised, start = 1, at + int(size)
        for number in numbers.values():
            promised *= number
        held = max(0, end - start)
        if promised < held and not _goes_on(file, start + promised, end):
            held = promised
        whole = whole._replace(promised=promised or None, held=held)
    yield whole
    return end


# --- Ogg, FLAC, MPEG: they do not say how long they are in bytes


def _ogg(file: BinaryIO, at: int, end: int) -> _Parsed:
    """Take the pages of one link of a chain: up to the first that begins a stream after others did not."""
    stream, begun, cut, searched = Stream("ogg", b"", at, end), False, "", 0
    for _ in range(_MOST_PAGES):
        head = read_at(file, at, _PAGE_HEADER_BYTES + 255)
        if not head.startswith(b"OggS"):
            resumed = _find(file, _PAGE, at, min(end, at + _SEARCHED_BYTES))
            searched += _READ_BYTES
            if resumed is None or searched > 16 * _SEARCHED_BYTES:
                break
            at = resumed
            continue
        flags, n = head[5:6], head[26:_PAGE_HEADER_BYTES]
        if begun and flags and flags[0] & _FIRST_PAGE:
            yield stream._replace(end=at, more=True)
            return at
        header = _PAGE_HEADER_BYTES + n[0] if n else end + 1
        at += header + sum(head[_PAGE_HEADER_BYTES:header])
        if at > end:
            cut = "ends within a page of its Ogg stream"
            break
        begun = begun or not flags[0] & _FIRST_PAGE
        cut = "" if flags[0] & _LAST_PAGE else "ends before its Ogg stream does"
        if at == end:
            break
    else:
        cut = ""
    yield stream._replace(cut=cut)
    return end


def _flac(reached: Callable[[], int], file: BinaryIO, at: int, end: int) -> _Parsed:
    yield Stream("flac", b"", at, end)
    at = max(at + 4, reached() - _AHEAD_BYTES)
    second = _find(
        file, b"fLaC", at, min(end, at + _SEARCHED_BYTES), lambda place: read_at(file, place, 8) in _FLAC
    )
    return end if second is None else second


# The first frame may be none but count those that follow; the lowest bit says that it does.
_COUNT = re.compile(rb"(?:Xing|Info)\0\0\0[\x01\x03\x05\x07\x09\x0b\x0d\x0f](?!\0\0\0\0)")


def _mpeg(reached: Callable[[], int], file: BinaryIO, at: int, end: int) -> _Parsed:
    stream, left = _mpeg_stream(file, at, end), _SEARCHED_BYTES
    while True:
        yield stream
        at = past_tags(file, max(stream.start + 1, min(reached(), end)))
        start = _find(file, b"\xff", at, min(end, at + left), partial(_frames_at, file))
        if start is None:
            return end
        left -= start - at
        stream = _mpeg_stream(file, start, end)
        stream = stream._replace(skipped=start - at, goes_on=stream.endless and start == at)


def _mpeg_stream(file: BinaryIO, start: int, end: int) -> Stream:
    endless = not _COUNT.search(read_at(file, start, 64))
    return Stream("mpeg", _MPEG_TAG, start, end, endless=endless)


def _find(
    file: BinaryIO, mark: bytes, at: int, end: int, is_one: Callable[[int], bool] = lambda _: True
) -> int | None:
    """Return where between two bytes a mark is that is one, if there is."""
    while at < end:
        found = read_at(file, at, _READ_BYTES + len(mark) - 1)
        place = found.find(mark)
        while place >= 0:
            if is_one(at + place):
                return at + place
            place = found.find(mark, place + 1)
        at += _READ_BYTES
    return None


_KBPS = {
    (3, 3): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (3, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (3, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 3): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_KBPS[2, 1] = _KBPS[2, 2]
_RATES = (44_100, 48_000, 32_000)


def _frame(head: bytes) -> tuple[tuple[int, int, int], int] | None:
    """Return what the frames of a stream have in common, and the length of this one (ISO 11172-3)."""
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    bitrate, rate, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 0 or bitrate in (0, 15) or rate == 3:
        return None
    sr = _RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    bits = 1000 * _KBPS[3 if version == 3 else 2, layer][bitrate - 1]
    if layer == 3:
        length = (12 * bits // sr + padding) * 4
    else:
        length = (72 if layer == 1 and version != 3 else 144) * bits // sr + padding
    return (version, layer, rate), length


def _frames_at(file: BinaryIO, at: int) -> bool:
    common = None
    for _ in range(_FRAMES_IN_A_ROW):
        frame = _frame(read_at(file, at, 4))
        if frame is None or (common and frame[0] != common):
            return False
        common, at = frame[0], at + frame[1]
    return True
