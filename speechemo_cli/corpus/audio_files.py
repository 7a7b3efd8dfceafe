"""The audio files below a folder."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from speechemo_cli.files import access_error

if TYPE_CHECKING:
    from collections.abc import Iterator

# What phones, browsers, recorders and call centres write; a folder's other files are counted as skipped.
AUDIO_SUFFIXES = frozenset(
    {
        *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".aif", ".aiff", ".aifc"),
        *(".w64", ".caf", ".au", ".snd", ".sph"),
        *(".m4a", ".aac", ".amr", ".weba", ".mka", ".wma", ".ac3", ".dts", ".spx", ".wv", ".tta", ".ape"),
        *(".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".webm", ".mkv", ".avi", ".flv", ".ts", ".mpg", ".mpeg"),
    }
)
ARCHIVE_SUFFIXES = (".zip", ".7z", ".rar", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")


@dataclass
class NotAudio:
    """What a look at a folder passed over, as far as it has come.

    Attributes
    ----------
    other : int
        Files with a suffix that is none of an audio format.
    archive : str
        The first of them that is an archive; empty where none is.
    unreadable : list of str
        Folders that may not be entered.
    """

    other: int = 0
    archive: str = ""
    unreadable: list[str] = field(default_factory=list)


def iter_audio_files(root: str, passed_over: NotAudio | None = None) -> Iterator[str]:
    """Give the audio files below a folder, sorted folder by folder.

    Symbolic links are followed, but no folder is entered twice, so a loop of links ends. Hidden
    files and folders are passed over (macOS leaves `._clip.wav` beside each clip it unpacks).
    Only the names of one folder are held at a time.

    Parameters
    ----------
    root : str
    passed_over : NotAudio, optional
        Is told what was none.

    Yields
    ------
    str
        The path of each.

    Raises
    ------
    AccessError
        The folder itself cannot be read.
    """
    passed_over = NotAudio() if passed_over is None else passed_over
    try:
        os.scandir(root).close()
    except OSError as error:
        raise access_error("read", root, error) from error
    seen: set[tuple[int, int]] = set()
    # A list, not os.walk, which calls itself for each level and gives up at a thousand.
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            files, folders = _look_into(folder)
        except OSError:  # not to be entered, or it went while we looked
            passed_over.unreadable.append(folder)
            continue
        waiting += [os.path.join(folder, name) for name in reversed(folders)]
        for name in files:
            if os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES:
                yield os.path.join(folder, name)
            else:
                passed_over.other += 1
                if not passed_over.archive and name.lower().endswith(ARCHIVE_SUFFIXES):
                    passed_over.archive = os.path.join(folder, name)


def _look_into(folder: str) -> tuple[Iterator[str], list[str]]:
    """Name the files and the folders in a folder, each sorted."""
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(folder) as listing:
        for entry in listing:
            if not entry.name.startswith("."):
                (folders if _is_folder(entry) else files).append(entry.name)
    # One string: it takes a sixth of the memory, which counts where a folder holds very many for hours.
    return _split("\0".join(sorted(files))), sorted(folders)


def _split(names: str) -> Iterator[str]:
    start = 0
    while start < len(names):
        end = names.find("\0", start)
        end = len(names) if end < 0 else end
        yield names[start:end]
        start = end + 1


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, which the reader has words for
        return False
