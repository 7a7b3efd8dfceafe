"""WAV and its relatives, AIFF, CAF, AU, NIST SPHERE: headers that count bytes, and may count wrongly."""

from __future__ import annotations

import codecs
import re
import struct
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from speechemo_cli.audio.frames import frames_at, mpeg_stream
from speechemo_cli.audio.streams import (
    HEAD_BYTES,
    Parsed,
    Stream,
    kind_at,
    kind_of,
    past_padding,
    read_at,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

# A file is walked for so many chunks: more is no recording.
_MOST_CHUNKS = 2**12
# WAVE_FORMAT_MPEG and WAVE_FORMAT_MPEGLAYER3.
_MPEG_IN_WAV = (0x50, 0x55)
_LONGEST_DESCRIPTION = 2**12
_LONGEST_32 = 2**32 - 1
# Programs that stream write a size near one of these limits: it means "not known", not a promise.
_NO_PROMISE = (2**31 - 2**16, 2**32 - 2**16)
# Less than this behind the samples is what an editor left there.
_LEAST_BYTES = 512
# Nor is padding, where there is nothing else for so long: an hour at 32 kHz.
_MOST_PADDING = 2**28
# Nor are tags, pictures, archives, files of other kinds, and text.
_NO_SAMPLES = re.compile(
    rb"ID3|TAG|APETAGEX|\xff\xd8\xff|\x89PNG|GIF8|PK\x03\x04|%PDF|RIF[FX]|FORM|riff|caff|\x1f\x8b\x08"
    rb"|\xff\xfe([\t\n\r -~]\0){8}|\xfe\xff(\0[\t\n\r -~]){8}"
)


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
# Chunks that stand behind the samples, in lower case; the last of a file may be cut.
_KNOWN = frozenset(
    (
        *(b"list", b"id3 ", b"ixml", b"axml", b"bext", b"cart", b"chna", b"umid", b"cue ", b"smpl", b"inst"),
        *(b"fact", b"peak", b"levl", b"junk", b"pad ", b"fllr", b"disp", b"afsp", b"_pmx", b"minf", b"elm1"),
        *(b"regn", b"dgda", b"mark", b"comt", b"name", b"auth", b"anno", b"(c) ", b"appl", b"midi", b"info"),
    )
)
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


def chunked(file: BinaryIO, at: int, end: int) -> Parsed:
    """Take the sound of a WAV, AIFF, W64 or CAF file; return where its chunks end."""
    magic = read_at(file, at, HEAD_BYTES)
    kind = kind_of(magic) or ""
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
    more = len(found) > 1 or (behind < end and kind_at(file, behind) == kind)
    mpeg = kind in ("riff", "w64") and int.from_bytes(description[:2], "little") in _MPEG_IN_WAV
    # libsndfile refuses a file with another one behind it, and takes what is behind the samples of a W64 file
    # for more of them.
    plain = not more and not mpeg and magic[:4] != b"BW64" and behind >= end
    plain = plain and (kind != "w64" or seen >= end)
    for span in found:
        stream = whole._replace(promised=span.promised, held=span.held, more=more)
        if mpeg:
            inside = mpeg_stream(file, span.start, span.start + span.held)
            stream = inside._replace(promised=span.promised, held=span.held, more=more, cut="")
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
    last = start + max(0, promised)
    behind = last + -promised % layout.alignment
    # Some programs leave the padding out, some write too much.
    places = (last, behind, last + 1, last + 2)
    behind = next((place for place in places if _chunk_at(file, place, end, layout)), behind)
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
    return 0 <= size <= end - start or name.lower() in _KNOWN


def _goes_on(file: BinaryIO, at: int, end: int, layout: _Layout | None = None) -> bool:
    """Whether behind the last sample that a header counts there are more, and not something else."""
    if end - at < _LEAST_BYTES or (layout and _chunk_at(file, at, end, layout)):
        return False
    head, far = read_at(file, at, _LEAST_BYTES), min(end, at + _MOST_PADDING)
    return not (
        _NO_SAMPLES.match(head)
        or _is_text(head)
        or kind_at(file, at) not in (None, "mpeg")
        or frames_at(file, at)
        or past_padding(file, at, most=_MOST_PADDING) >= far
        or past_padding(file, at, head[:1], _MOST_PADDING) >= far
    )


def _is_text(head: bytes) -> bool:
    try:
        # The last character may have been cut.
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return all(c.isprintable() or c in "\t\r\n" for c in text)


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


def au(file: BinaryIO, at: int, end: int) -> Parsed:
    """Take the sound of an AU file."""
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


def nist(file: BinaryIO, at: int, end: int) -> Parsed:
    """Take the sound of a NIST SPHERE file."""
    head = read_at(file, at, 1024)
    numbers = {name: int(digits) for name, digits in _NIST_NUMBER.findall(head)}
    size = head[8:16].strip()
    whole = Stream("nist", b"", at, end)
    if len(numbers) == 3 and size.isdigit() and b"shorten" not in head:
        promised, start = 1, at + int(size)
        for number in numbers.values():
            promised *= number
        held = max(0, end - start)
        if 0 < promised < held and not _goes_on(file, start + promised, end):
            held = promised
            whole = whole._replace(end=start + held)
        whole = whole._replace(promised=promised or None, held=held)
    yield whole
    return end
