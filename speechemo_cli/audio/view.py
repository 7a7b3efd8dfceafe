"""What libsndfile sees of a file."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Any

from speechemo_cli.audio.streams import read_at

if TYPE_CHECKING:
    from typing import BinaryIO

    from speechemo_cli.audio.streams import Stream

# Where a file of MPEG frames would end that does not say how long it is. libmpg123 guesses the number of
# frames from this and the first frame, and stops there; at a bit rate that varies that may be anywhere.
_ENDLESS = 2**60


class Content(io.BytesIO):
    """The bytes of a file. A header may send libsndfile anywhere: to where there is nothing, it stays."""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go there if there is such a place."""
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


class View:
    """What libsndfile sees of a file: one of its streams. An error of the disk is an end.

    Errors in what C calls have nobody to raise to and would be printed.
    """

    def __init__(self, file: BinaryIO, stream: Stream) -> None:
        self._file = file
        self._header = stream.header
        self._start = stream.start - len(stream.header)
        self._size = _ENDLESS if stream.endless else stream.end - self._start
        self._end = stream.end - self._start
        self._at = 0
        whole = self._start == 0 and not stream.header and stream.end == file.seek(0, os.SEEK_END)
        self.seen: Any = file if whole and isinstance(file, Content) and stream.kind != "mpeg" else self
        file.seek(0)

    def reached(self) -> int:
        """Return the byte of the file up to which the decoder has read."""
        return self._start + self._at if self.seen is self else self._file.tell()

    def tell(self) -> int:
        """Return where the next byte is read."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go anywhere but before the first byte."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as there is something; return how far."""
        n = len(buffer)
        found = self._header[self._at : self._at + n]
        place = self._at + len(found)
        if self._size == _ENDLESS and place >= _ENDLESS - n:
            found = bytes(n)  # for a tag of another kind; who finds nothing there at all gives up
        elif place < self._end:
            found += read_at(self._file, self._start + place, min(n - len(found), self._end - place))
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)
