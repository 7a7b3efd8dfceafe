"""What to listen to: files, folders, lists of paths, and audio on stdin."""

from __future__ import annotations

import os
import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from speechemo_cli.cli import render
from speechemo_cli.errors import AccessError, ConfigError, NoInputError
from speechemo_cli.evaluation.wording import counted
from speechemo_cli.files import access_error, display_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

STDIN = "-"
_CHUNK_BYTES = 2**16


class Input(NamedTuple):
    """A clip to listen to.

    Attributes
    ----------
    path : str
        As it is opened and shown; `-` for the audio on stdin.
    below : str
        Its name below the folder it was found in, for outputs that mirror the tree.
    """

    path: str
    below: str


def collect(clips: list[str], files_from: str | None) -> Iterator[Input]:
    """Find every clip, folder by folder, as they are asked for; the first one now.

    Parameters
    ----------
    clips : list of str
        Files, folders, or `-`.
    files_from : str or None
        A list of paths, one a line or separated by NUL, or `-` for stdin; they are taken as they
        stand, so that a folder among them is an error of its own.

    Returns
    -------
    iterator of Input

    Raises
    ------
    ConfigError
        Nothing to listen to, or stdin for two things at once.
    NoInputError
        There is no clip at all.
    AccessError
        The list, or a folder that was named, cannot be read.
    """
    if not clips and files_from is None:
        raise ConfigError(
            "no CLIP was given", "Name files or folders, - for audio on stdin, or a list with --files-from"
        )
    if clips.count(STDIN) + (files_from == STDIN) > 1:
        raise ConfigError("stdin can be one thing only", "Give - once, as CLIP or to --files-from")
    found = _found(clips, files_from)
    first = next(found, None)
    if first is None:
        sources = [*clips, *([files_from] if files_from else [])]
        raise NoInputError(f"no audio in {', '.join(map(display_name, sources))}")
    return chain([first], found)


def stdin() -> BinaryIO:
    """Return the bytes of stdin.

    Raises
    ------
    NoInputError
        It is closed.
    """
    if sys.stdin is None:  # what Python makes of `<&-`
        raise NoInputError("stdin is closed")
    return sys.stdin.buffer


def _found(clips: list[str], files_from: str | None) -> Iterator[Input]:
    for clip in clips:
        if clip != STDIN and Path(clip).is_dir():
            # The folder's own name, where others could hold the same names.
            yield from _in_folder(clip, prefix=_own_name(clip) if len(clips) > 1 else "")
        else:
            yield _by_name(clip)
    if files_from is not None:
        # On a list, unlike among the arguments, nothing but a file can be meant.
        yield from (_by_name(f"./{STDIN}" if path == STDIN else path) for path in _listed(files_from))


def count(clips: list[str], files_from: str | None) -> int | None:
    """How many clips `collect` will find; None where telling would take a list away that is read once."""
    if files_from is not None and (files_from == STDIN or not Path(files_from).is_file()):
        return None
    from speechemo_cli.corpus.layouts import Walk

    folders = [clip for clip in clips if clip != STDIN and Path(clip).is_dir()]
    listed = sum(1 for _ in _listed(files_from)) if files_from is not None else 0
    return len(clips) - len(folders) + sum(1 for folder in folders for _ in Walk(folder)) + listed


def _by_name(path: str) -> Input:
    return Input(path, _own_name(path))


def _own_name(path: str) -> str:
    """Return the last part of a path; never one that leads elsewhere, as `..` and `/` would."""
    name = Path(path).name
    return name if name not in ("", "..") else Path(path).resolve().name or "root"


def _in_folder(folder: str, prefix: str) -> Iterator[Input]:
    """Find the audio files of a folder; what is left out is said at the end."""
    from speechemo_cli.corpus.layouts import Walk

    walk = Walk(folder)
    for path in walk:
        yield Input(path, str(Path(prefix, os.path.relpath(path, folder))))
    if walk.other:
        left_out = counted(walk.other, "file")
        render.note(f"{display_name(folder)}: left out {left_out}: not audio, by the suffix")
    for inner in walk.unreadable:
        render.warn(f"{display_name(inner)}: the folder cannot be read")


def _listed(source: str) -> Iterator[str]:
    """Read paths one after the other, as they arrive."""
    if source == STDIN:
        descriptor = stdin().fileno()
        yield from _split(iter(lambda: os.read(descriptor, _CHUNK_BYTES), b""))
        return
    try:
        with Path(source).open("rb") as file:
            yield from _split(iter(lambda: file.read1(_CHUNK_BYTES), b""))
    except OSError as error:
        raise access_error("read", source, error) from error
    except ValueError as error:
        raise AccessError(f"cannot read {display_name(source)}: {error}") from None


def _split(chunks: Iterable[bytes]) -> Iterator[str]:
    """Cut at NULs where there are any in the first piece, else at the ends of lines; skip empty ones."""
    rest, mark = b"", b""
    for chunk in chunks:
        mark = mark or (b"\0" if b"\0" in chunk else b"\n" if b"\n" in chunk else b"")
        rest += chunk
        if mark:
            *whole, rest = rest.split(mark)
            yield from filter(None, (_path(line, mark) for line in whole))
    yield from filter(None, [_path(rest, mark)])


def _path(line: bytes, mark: bytes) -> str:
    return os.fsdecode(line if mark == b"\0" else line.removesuffix(b"\r"))
