"""Audio files below a folder; labelled clips, those of one corpus, and those of several."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from speechemo_cli.corpus import MAX_LABELS, RESERVED, is_label, ordered
from speechemo_cli.errors import DataError
from speechemo_cli.files import access_error, display_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

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
LIST_SUFFIXES = (".csv", ".tsv")
# Why an audio file is no clip though one was meant.
NO_LABEL = "with no label that is known"
NOT_MATCHED = "not matched by --label-from"


@dataclass
class NotAudio:
    """What a search passed over: files that are not audio by suffix, the first archive, closed folders."""

    other: int = 0
    archive: str = ""
    unreadable: list[str] = field(default_factory=list)


def iter_audio_files(root: str, passed_over: NotAudio | None = None) -> Iterator[str]:
    """Yield the paths of the audio files below a folder, sorted folder by folder.

    Symbolic links are followed, but no folder is entered twice, so a loop of links ends. Hidden
    files and folders are passed over (macOS leaves `._clip.wav` beside each clip it unpacks).
    Only the names of one folder are held at a time. `passed_over` is updated on the way.
    AccessError: the folder itself cannot be read.
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
            files, folders = _list_folder(folder)
        except OSError:  # not to be entered, or deleted meanwhile
            passed_over.unreadable.append(folder)
            continue
        waiting += [os.path.join(folder, name) for name in reversed(folders)]
        for match in re.finditer(r"[^\0]+", files):
            name = match[0]
            if os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES:
                yield os.path.join(folder, name)
            else:
                passed_over.other += 1
                if not passed_over.archive and name.lower().endswith(ARCHIVE_SUFFIXES):
                    passed_over.archive = os.path.join(folder, name)


def _list_folder(folder: str) -> tuple[str, list[str]]:
    """Return the sorted names of the files in a folder, joined by NUL, and of its folders.

    A string takes a sixth of the memory of a list, for as long as a folder of very many files is worked on.
    """
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(folder) as listing:
        for entry in listing:
            if not entry.name.startswith("."):
                # Of a link to itself, `entry.is_dir` raises OSError; of others, it asks the disk for nothing.
                is_folder = os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()
                (folders if is_folder else files).append(entry.name)
    return "\0".join(sorted(files)), sorted(folders)


@dataclass(frozen=True, slots=True)
class Clip:
    """One labelled recording.

    `speaker`, `gender` ("m" or "f"), `intensity` (1 normal, 2 strong), `statement` and `repetition`
    are None where the layout does not tell. `corpus` is the name of the corpus; empty where nobody told.
    `extra` holds further columns of a manifest, with their values.
    """

    path: str
    label: str
    speaker: str | None = None
    gender: str | None = None
    intensity: int | None = None
    statement: int | str | None = None
    repetition: int | None = None
    song: bool = False
    corpus: str = ""
    extra: tuple[tuple[str, str], ...] = ()

    @property
    def speaker_id(self) -> str | None:
        """Corpus and speaker: `nemo/03` is another person than `ravdess/03`. None for an unknown speaker."""
        if self.speaker is None or not self.corpus:
            return self.speaker
        return f"{self.corpus}/{self.speaker}"


def speaker_names(ids: Iterable[str]) -> dict[str, str]:
    """Return names for display by `Clip.speaker_id`: without the corpus where all are of one."""
    of_one = {one: one.partition("/") for one in ids}
    if len({corpus for corpus, _, _ in of_one.values()}) > 1:
        return {one: one for one in of_one}
    return {one: name or corpus for one, (corpus, _, name) in of_one.items()}


@dataclass
class Corpus:
    """The labelled clips of a folder or a manifest.

    Iterating calls `find`, which looks for them anew, so that a hundred thousand need not be held; those of
    no public corpus get `name` for one. `counts` are of the first search, by corpus, label and speaker.
    `skipped` are numbers of files left out, by the reason, `examples` the path of one of them. `notes` : what
    was not plain. DataError: a label is no label, or there are too many.
    """

    find: Callable[[], Iterable[Clip]]
    counts: Counter[tuple[str, str, str | None]]
    skipped: Mapping[str, int]
    unreadable: Sequence[str] = ()
    examples: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    name: str = ""

    def __post_init__(self) -> None:
        labels = ordered(label for _, label, _ in self.counts)
        wrong = next((label for label in labels if not is_label(label)), None)
        if wrong is not None:
            why = "which stands for something else in answers"
            if wrong not in RESERVED:
                why = "expected up to 100 printable characters"
            raise DataError(
                f"{display_name(wrong)[:100]} cannot be a label, {why}",
                "Rename its folder, or change the manifest",
            )
        if len(labels) > MAX_LABELS:
            raise DataError(f"{len(labels)} labels, expected at most {MAX_LABELS}")

    def __len__(self) -> int:
        return self.counts.total()

    def __iter__(self) -> Iterator[Clip]:
        return (clip if clip.corpus else replace(clip, corpus=self.name) for clip in self.find())


@dataclass
class Collection:
    """The labelled clips of several DATA, each with the name of its corpus.

    Iterating looks for them anew, as with `Corpus`; `clips` holds them.
    """

    parts: dict[str, Corpus]

    def __len__(self) -> int:
        return sum(map(len, self.parts.values()))

    def __iter__(self) -> Iterator[Clip]:
        return chain.from_iterable(self.parts.values())

    @cached_property
    def clips(self) -> tuple[Clip, ...]:
        """All of them."""
        return tuple(self)

    def only(self, data: Sequence[str]) -> Collection:
        """Return what was found in some of the DATA."""
        places = {os.path.realpath(one) for one in data}
        return Collection({one: part for one, part in self.parts.items() if os.path.realpath(one) in places})

    def counts(self) -> dict[str, tuple[Counter[str], Counter[str | None]]]:
        """By the name of the corpus, how many clips each label and each speaker (None: not known) has."""
        counts: dict[str, tuple[Counter[str], Counter[str | None]]] = {}
        for part in self.parts.values():
            for (corpus, label, speaker), n in part.counts.items():
                labels, speakers = counts.setdefault(corpus or part.name, (Counter(), Counter()))
                labels[label] += n
                speakers[speaker] += n
        return counts

    @property
    def skipped(self) -> dict[str, int]:
        """How many files were left out, by the reason."""
        total: Counter[str] = Counter()
        for corpus in self.parts.values():
            total.update(corpus.skipped)
        return dict(total)

    @property
    def unusable(self) -> int:
        """How many folders could not be read, and files left out that were meant to have a label."""
        unreadable = sum(len(corpus.unreadable) for corpus in self.parts.values())
        return unreadable + self.skipped.get(NO_LABEL, 0) + self.skipped.get(NOT_MATCHED, 0)


def corpus_names(data: Sequence[str]) -> list[str]:
    """Name corpora after their folders or manifests. A name that is taken gets a number; none holds a `/`."""
    names: list[str] = []
    for one in data:
        path = Path(os.path.normpath(Path(one).absolute()))
        if path.name.lower() == "manifest.csv":
            path = path.parent
        is_list = path.suffix.lower() in LIST_SUFFIXES and not path.is_dir()
        name = base = (path.stem if is_list else path.name) or "data"
        n = 1
        while name in names:
            n += 1
            name = f"{base}-{n}"
        names.append(name)
    return names
