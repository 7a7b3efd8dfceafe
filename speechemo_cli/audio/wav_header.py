"""Where the samples of WAV, AIFF, W64, CAF, AU and NIST SPHERE files lie, whatever their headers count.

Recorders that lost power, programs that stream and editors leave sizes that are wrong. The chunks are
walked here; libsndfile gets the samples alone.
"""

from __future__ import annotations

import codecs
import re
import struct
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

# So many chunks of a file are read, and so much padding is passed over.
_MOST_CHUNKS = 2**12
_MOST_PADDING = 2**28
READ_BYTES = 2**16
_LONGEST_DESCRIPTION = 2**12
_UNKNOWN_32 = 2**32 - 1
_MPEG_TAGS = (0x50, 0x55)
# Programs that stream write a size near one of these limits: it means "not known".
_NO_PROMISE = (2**31 - 2**16, 2**32 - 2**16)
# Less than this behind the samples is what an editor left there.
_LEAST_BYTES = 512
# Nor are tags, pictures, archives, files of other kinds and text samples.
_NO_SAMPLES = re.compile(
    rb"ID3|TAG|APETAGEX|\xff\xd8\xff|\x89PNG|GIF8|PK\x03\x04|%PDF|RIF[FX]|FORM|riff|caff|fLaC|OggS"
    rb"|\.snd|dns\.|NIST_1A|\x1f\x8b\x08"
)
# Chunks that stand behind the samples; the last of a file may be cut.
_KNOWN = re.compile(
    rb"list|id3 |ixml|axml|bext|cart|chna|umid|cue |smpl|inst|fact|peak|levl|junk|pad |fllr|disp|afsp|_pmx"
    rb"|minf|elm1|regn|dgda|mark|comt|name|auth|anno|\(c\) |appl|midi|info",
    re.IGNORECASE,
)
# A file of its own behind another.
_MAGIC = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b"riff", b"caff")
_GUID = bytes.fromhex("f3acd3118cd100c04f8edb8a")
# What samples are, in libsndfile's words, by their bytes.
_INTEGERS = {1: "PCM_S8", 2: "PCM_16", 3: "PCM_24", 4: "PCM_32"}
_FLOATS = {4: "FLOAT", 8: "DOUBLE"}
# The same by the coding of each format.
_WAV = {1: {**_INTEGERS, 1: "PCM_U8"}, 3: _FLOATS, 6: {1: "ALAW"}, 7: {1: "ULAW"}}
_AIFC = {b"in24": "PCM_24", b"in32": "PCM_32", b"fl32": "FLOAT", b"fl64": "DOUBLE", b"raw ": "PCM_U8"}
_LOG = {b"ulaw": "ULAW", b"mu-law": "ULAW", b"alaw": "ALAW"}
_AU = {1: "ULAW", 2: "PCM_S8", 3: "PCM_16", 4: "PCM_24", 5: "PCM_32", 6: "FLOAT", 7: "DOUBLE", 27: "ALAW"}
_NIST_FIELD = re.compile(rb"^(\w+) -(?:i|s\d+) (\S+)\s*$", re.MULTILINE)


class Pcm(NamedTuple):
    """What plain samples are, in libsndfile's words."""

    subtype: str
    endian: str
    sr: int
    channels: int

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        width = {"PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8, "PCM_16": 2}.get(self.subtype, 1)
        return width * self.channels


class Span(NamedTuple):
    """Bytes of samples in a file, and how many the header promises: as many where it does not say."""

    start: int
    held: int
    promised: int


class Found(NamedTuple):
    """The sound of one file within a file, which ends at the byte `behind`.

    `pcm` is None where the samples are coded otherwise, and `header` where they are nothing without the whole
    file; else it is to stand before them, and leaves their number open. `cut` says how many bytes they lack.
    """

    pcm: Pcm | None
    spans: list[Span]
    behind: int
    header: bytes | None = None
    cut: str = ""


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


_LAYOUTS = {
    "riff": _Layout(4, struct.Struct("<I"), 2, 12, b"fmt ", b"data"),
    "rifx": _Layout(4, struct.Struct(">I"), 2, 12, b"fmt ", b"data"),
    "aiff": _Layout(4, struct.Struct(">I"), 2, 12, b"COMM", b"SSND", 8),
    "w64": _Layout(16, struct.Struct("<q"), 8, 40, b"fmt " + _GUID, b"data" + _GUID, 0, size_of_all=True),
    "caf": _Layout(4, struct.Struct(">q"), 1, 8, b"desc", b"data", 4),
}


# --- bytes of a file


def read_at(file: BinaryIO, at: int, n: int) -> bytes:
    """Read bytes from wherever a header sends us: an error of the disk is the end of the file."""
    try:
        return file.read(n) if 0 <= at < 2**63 and file.seek(at) == at else b""
    except (OSError, ValueError, OverflowError):
        return b""


def past_padding(file: BinaryIO, at: int, padding: bytes = b"\0\r\n", most: int = 2**20) -> int:
    """Return where bytes of some kinds stop, by default zeros and line ends, or where there were many."""
    for _ in range(most // READ_BYTES):
        found = read_at(file, at, READ_BYTES)
        rest = found.lstrip(padding)
        at += len(found) - len(rest)
        if rest or not found:
            break
    return at


class Part:
    """Some bytes of a file, behind a header of our own, as a file. An error of the disk is an end."""

    def __init__(self, file: BinaryIO, start: int, end: int, header: bytes = b"") -> None:
        self._file, self._start, self._header = file, start, header
        self.size = len(header) + max(0, end - start)
        self._at = 0

    def tell(self) -> int:
        """Return where the next byte is read."""
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go anywhere but before the first byte: a header may send a decoder there."""
        self._at = min(max(0, (0, self._at, self.size)[whence] + offset), 2**62)
        return self._at

    def read(self, n: int) -> bytes:
        """Read up to `n` bytes."""
        n = min(n, max(0, self.size - self._at))
        found = self._header[self._at : self._at + n]
        if len(found) < n:
            at = self._start + self._at + len(found) - len(self._header)
            found += read_at(self._file, at, n - len(found))
        self._at += len(found)
        return found


# --- formats


def find(file: BinaryIO, kind: str, at: int, end: int) -> Found | None:
    """Find the samples of a file that begins at a byte.

    None where there are no samples, the header does not say what they are, or the kind is another.
    """
    try:
        return {"au": _au, "nist": _nist}.get(kind, _chunked)(file, kind, at, end)
    # Of another kind, of a header that is cut, or of one that holds nonsense.
    except (struct.error, ValueError, OverflowError, KeyError):
        return None


def _chunked(file: BinaryIO, kind: str, at: int, end: int) -> Found | None:
    magic = read_at(file, at, 12)
    layout = _LAYOUTS["rifx" if magic.startswith(b"RIFX") else kind]
    large = magic[:4] in (b"RF64", b"BW64")
    description, wide = b"", 0
    for name, start, size in _chunks(file, at + layout.first, layout):
        if name == b"ds64" and large:
            wide = int.from_bytes(read_at(file, start + 8, 8), "little")
        elif name == layout.description and 0 < size <= _LONGEST_DESCRIPTION:
            description = read_at(file, start, size)
        elif name == layout.data and description:
            promised = wide if large and size == _UNKNOWN_32 else size
            break
    else:
        return None
    span, seen = _span(file, start, promised, end, layout)
    spans, behind = [span], end
    for name, start, size in _chunks(file, seen, layout):
        if not _is_chunk(name, start, size, end):
            behind = start - layout.size.size - layout.name_bytes
            break
        if name == layout.data:
            spans.append(_span(file, start, size, end, layout)[0])
    if kind == "aiff":
        return Found(_aiff(magic, description), spans, behind)
    if kind == "caf":
        return Found(_caf(description), spans, behind)
    pcm, tag = _wav(description, ">" if magic.startswith(b"RIFX") else "<")
    if pcm or not tag:
        return Found(pcm, spans, behind)
    if tag in _MPEG_TAGS:
        return Found(None, spans, behind, b"")
    cut = f"holds {span.held} of {span.promised} bytes of sound" if span.held < span.promised else ""
    unknown = struct.pack("<I", _UNKNOWN_32)
    header = b"RIFF" + unknown + b"WAVEfmt " + struct.pack("<I", len(description)) + description
    return Found(None, spans, behind, header + bytes(len(description) % 2) + b"data" + unknown, cut)


def _wav(description: bytes, order: str) -> tuple[Pcm | None, int]:
    """Read a chunk `fmt `; also return its format tag (mmreg.h)."""
    tag, channels, sr, _, block, bits = struct.unpack_from(order + "HHIIHH", description)
    if tag == 0xFFFE and len(description) >= 26:  # WAVE_FORMAT_EXTENSIBLE names it further on
        (tag,) = struct.unpack_from(order + "H", description, 24)
    width = block // channels if channels and block % channels == 0 else (bits + 7) // 8
    return _pcm(_WAV.get(tag, {}).get(width), order, sr, channels), tag


def _aiff(magic: bytes, description: bytes) -> Pcm | None:
    channels, _, bits, exponent, mantissa = struct.unpack_from(">HIHHQ", description)
    sr = round(mantissa * 2.0 ** ((exponent & 0x7FFF) - 16383 - 63))
    coding = description[18:22].lower() if magic[8:12] == b"AIFC" else b"none"
    integer = _INTEGERS.get((bits + 7) // 8) if coding in (b"none", b"twos", b"sowt") else None
    subtype = integer or _AIFC.get(coding) or _LOG.get(coding)
    return _pcm(subtype, "<" if coding == b"sowt" else ">", sr, channels)


def _caf(description: bytes) -> Pcm | None:
    sr, coding, flags, _, _, channels, bits = struct.unpack_from(">d4sIIIII", description)
    width = bits // 8 if bits % 8 == 0 else 0
    subtype = (_FLOATS if flags & 1 else _INTEGERS).get(width) if coding == b"lpcm" else _LOG.get(coding)
    return _pcm(subtype, "<" if flags & 2 else ">", round(sr), channels)


def _au(file: BinaryIO, _: str, at: int, end: int) -> Found:
    head = read_at(file, at, 24)
    order = ">" if head.startswith(b".snd") else "<"
    offset, promised, coding, sr, channels = struct.unpack_from(order + "5I", head, 4)
    start, promised = at + max(24, offset), 0 if _is_open(promised) else promised
    span = _counted(file, start, promised, start + promised, end)[0]
    return Found(_pcm(_AU.get(coding), order, sr, channels), [span], end)


def _nist(file: BinaryIO, _: str, at: int, end: int) -> Found:
    """Read a text header (NIST SPHERE 2.6)."""
    head = read_at(file, at, 2**14)
    fields = dict(_NIST_FIELD.findall(head.partition(b"end_head")[0]))
    sr, channels = int(fields[b"sample_rate"]), int(fields.get(b"channel_count", 1))
    width = int(fields.get(b"sample_n_bytes", 2))
    promised = int(fields.get(b"sample_count", 0)) * channels * width
    coding = fields.get(b"sample_coding", b"pcm")
    subtype = _INTEGERS.get(width) if coding == b"pcm" else _LOG.get(coding)
    order = "<" if fields.get(b"sample_byte_format", b"01").startswith(b"0") else ">"
    start = at + int(head[8:16])
    span = _counted(file, start, promised, start + promised, end)[0]
    return Found(_pcm(subtype, order, sr, channels), [span], end)


def _pcm(subtype: str | None, order: str, sr: int, channels: int) -> Pcm | None:
    return Pcm(subtype, "BIG" if order == ">" else "LITTLE", sr, channels) if subtype else None


# --- sizes


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


def _span(file: BinaryIO, start: int, promised: int, end: int, layout: _Layout) -> tuple[Span, int]:
    """Find out where a chunk of samples ends, and where the chunks behind it begin."""
    start, promised = start + layout.before_samples, promised - layout.before_samples
    last = start + max(0, promised)
    behind = last + -promised % layout.alignment
    # Some programs leave the padding out, some write too much.
    for place in (last, behind, last + 1, last + 2):
        if _chunk_at(file, place, end, layout):
            return Span(start, last - start, last - start), place
    if not 0 < promised <= end - start and _is_open(promised):
        promised = 0
    return _counted(file, start, promised, behind, end)


def _counted(file: BinaryIO, start: int, promised: int, behind: int, end: int) -> tuple[Span, int]:
    """Do the same for samples that a header counts; 0 where it does not say."""
    there = max(0, end - start)
    if not promised:
        return Span(start, there, there), end
    if promised > there or _goes_on(file, behind, end):
        return Span(start, there, promised), end
    return Span(start, promised, promised), behind


def _is_open(size: int) -> bool:
    return size <= 0 or any(limit <= size <= limit + 2**16 for limit in _NO_PROMISE) or size >= 2**62


def _chunk_at(file: BinaryIO, at: int, end: int, layout: _Layout) -> bool:
    return _is_chunk(*next(_chunks(file, at, layout), (b"", at, -1)), end)


def _is_chunk(name: bytes, start: int, size: int, end: int) -> bool:
    """Whether this may be a chunk, and no samples: text for a name, and a size that there is room for."""
    name = name[:4]
    if name in _MAGIC or not all(32 <= byte < 127 for byte in name):
        return False
    return 0 <= size <= end - start or bool(_KNOWN.match(name))


def _goes_on(file: BinaryIO, at: int, end: int) -> bool:
    """Whether behind the last sample that a header counts there are more, and not something else."""
    if end - at < _LEAST_BYTES:
        return False
    head, far = read_at(file, at, _LEAST_BYTES), min(end, at + _MOST_PADDING)
    return not (
        _NO_SAMPLES.match(head)
        or _is_text(head)
        or past_padding(file, at, most=_MOST_PADDING) >= far
        or past_padding(file, at, head[:1], _MOST_PADDING) >= far
    )


def _is_text(head: bytes) -> bool:
    coding = "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
    try:
        # The last character may have been cut.
        text = codecs.getincrementaldecoder(coding)().decode(head)
    except UnicodeDecodeError:
        return False
    return all(c.isprintable() or c in "\t\r\n\ufeff" for c in text)
