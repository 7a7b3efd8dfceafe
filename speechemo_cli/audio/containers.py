"""Where in a file its sound lies, and how much its header promises."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from speechemo_cli.audio import chunks, frames
from speechemo_cli.audio.streams import HEAD_BYTES, kind_at, past_tags, read_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from speechemo_cli.audio.streams import Parsed, Stream


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
    parsers: dict[str, Callable[[BinaryIO, int, int], Parsed]] = {
        "au": chunks.au,
        "nist": chunks.nist,
        "ogg": frames.ogg,
        "flac": partial(frames.flac, reached),
        "mpeg": partial(frames.mpeg, reached),
    }
    size = file.seek(0, os.SEEK_END)
    at = past_tags(file)
    first = kind = kind_at(file, at)
    while kind is not None and kind == first:
        at = yield from parsers.get(kind, chunks.chunked)(file, at, size)
        if at >= size:
            return
        at = past_tags(file, at)
        kind = kind_at(file, at)


def beginning(file: BinaryIO) -> bytes:
    """Return the `HEAD_BYTES` that tell what a file is: its first, or those behind its tags."""
    return read_at(file, past_tags(file), HEAD_BYTES)
