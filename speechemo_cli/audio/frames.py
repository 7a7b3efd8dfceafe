"""Ogg pages, FLAC and MPEG frames: sound that does not say how many bytes it has."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from speechemo_cli.audio.streams import READ_BYTES, SEARCHED_BYTES, Stream, find, past_tags, read_at

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from speechemo_cli.audio.streams import Parsed

_MOST_PAGES = 2**20
# Header, 255 lengths of one byte (RFC 3533). What the fifth byte after the magic says.
_PAGE_HEADER_BYTES = 27
_FIRST_PAGE, _LAST_PAGE = 2, 4
_PAGE = b"OggS\0"
# So many MPEG frames in a row are sound, and no accident. Encoders pad the end with fewer.
_FRAMES_IN_A_ROW = 4
# Room for some of the longest MPEG frames, of 2,880 bytes.
_TAIL_BYTES = 2**14
# Before a second FLAC stream: as much as the decoder of the first may have read of it.
_AHEAD_BYTES = 2**16
_FLAC = (b"fLaC\0\0\0\x22", b"fLaC\x80\0\0\x22")
# Without a tag libsndfile first looks whether an MP3 file is a Sound Designer file with its other half in
# `._` or `.AppleDouble` in the working folder. What is there by chance makes it refuse the MP3, or wait for
# a pipe.
_MPEG_TAG = b"ID3\x04\0\0\0\0\0\x0a" + bytes(10)


def ogg(file: BinaryIO, at: int, end: int) -> Parsed:
    """Take the pages of one link of a chain: up to the first that begins a stream after others did not."""
    stream, begun, cut, searched = Stream("ogg", b"", at, end), False, "", 0
    for _ in range(_MOST_PAGES):
        head = read_at(file, at, _PAGE_HEADER_BYTES + 255)
        if not head.startswith(b"OggS"):
            resumed = find(file, _PAGE, at, min(end, at + SEARCHED_BYTES))
            searched += READ_BYTES
            if resumed is None or searched > 16 * SEARCHED_BYTES:
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


def flac(reached: Callable[[], int], file: BinaryIO, at: int, end: int) -> Parsed:
    """Take a FLAC stream; return where another one begins behind what its decoder has read."""
    yield Stream("flac", b"", at, end)
    at = max(at + 4, reached() - _AHEAD_BYTES)
    second = find(
        file, b"fLaC", at, min(end, at + SEARCHED_BYTES), lambda place: read_at(file, place, 8) in _FLAC
    )
    return end if second is None else second


# The first frame may be none but count those that follow; the lowest bit says that it does.
_COUNT = re.compile(rb"(?:Xing|Info)\0\0\0[\x01\x03\x05\x07\x09\x0b\x0d\x0f](?!\0\0\0\0)")


def mpeg(reached: Callable[[], int], file: BinaryIO, at: int, end: int) -> Parsed:
    """Take one run of MPEG frames after another, each where the decoder of the one before has stopped."""
    stream, left = mpeg_stream(file, at, end), SEARCHED_BYTES
    while True:
        yield stream
        at = past_tags(file, max(stream.start + 1, min(reached(), end)))
        start = find(file, b"\xff", at, min(end, at + left), partial(frames_at, file))
        if start is None:
            return end
        left -= start - at
        stream = mpeg_stream(file, start, end)
        stream = stream._replace(skipped=start - at, goes_on=stream.endless and start == at)


def mpeg_stream(file: BinaryIO, start: int, end: int) -> Stream:
    """Describe the MPEG frames between two bytes."""
    endless = not _COUNT.search(read_at(file, start, 64))
    cut = "ends within a frame" if endless and _is_cut(file, start, end) else ""
    return Stream("mpeg", _MPEG_TAG, start, end, cut=cut, endless=endless)


def _is_cut(file: BinaryIO, start: int, end: int) -> bool:
    """Whether the last MPEG frame goes on behind the end of the file."""
    start = max(start, end - _TAIL_BYTES)
    at = find(file, b"\xff", start, end, partial(frames_at, file))
    while at is not None and (frame := _frame(read_at(file, at, 4))):
        at += frame[1]
        if at > end:
            return True
    return False


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


def frames_at(file: BinaryIO, at: int) -> bool:
    """Whether so many MPEG frames of a kind begin here that it is no accident."""
    common = None
    for _ in range(_FRAMES_IN_A_ROW):
        frame = _frame(read_at(file, at, 4))
        if frame is None or (common and frame[0] != common):
            return False
        common, at = frame[0], at + frame[1]
    return True
