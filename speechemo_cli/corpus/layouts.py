"""From a folder or a manifest to labelled clips. The one place that knows RAVDESS file names."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from speechemo_cli.corpus import manifest
from speechemo_cli.corpus.labels import (
    EMOTIONS,
    MAX_LABELS,
    RESERVED,
    canonical,
    is_emotion,
    is_label,
    ordered,
)
from speechemo_cli.errors import DataError, NoInputError
from speechemo_cli.files import access_error, display_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

# What phones, browsers, recorders and call centres write; a folder's other files are counted as skipped.
AUDIO_SUFFIXES = frozenset(
    {
        *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".aif", ".aiff", ".aifc"),
        *(".w64", ".caf", ".au", ".snd", ".sph"),
        *(".m4a", ".aac", ".amr", ".weba", ".mka", ".wma", ".ac3", ".dts", ".spx", ".wv", ".tta", ".ape"),
        *(".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".webm", ".mkv", ".avi", ".flv", ".ts", ".mpg", ".mpeg"),
    }
)

Layout = Literal["ravdess", "folders", "manifest"]

# The corpus of a clip that is named as RAVDESS names its own.
RAVDESS = "ravdess"
SUNG = "sung (--song takes them along)"

# modality-channel-emotion-intensity-statement-repetition-actor (Livingstone & Russo 2018):
# modality 03 is audio alone, channel 01 speech and 02 song, actors with odd numbers are men.
_RAVDESS = re.compile(r"03-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-(0[1-9]|1\d|2[0-4])")


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
    statement: int | None = None
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
    """Name speakers for display: without their corpus where all are of one.

    Parameters
    ----------
    ids : iterable of str
        As `Clip.speaker_id` has them.

    Returns
    -------
    dict of str to str
        By id.
    """
    of_one = {one: one.partition("/") for one in ids}
    if len({corpus for corpus, _, _ in of_one.values()}) > 1:
        return {one: one for one in of_one}
    return {one: name or corpus for one, (corpus, _, name) in of_one.items()}


class Corpus:
    """The labelled clips of a folder or a manifest.

    Iterating looks for them anew, so that a hundred thousand need not be held; `clips` holds them.

    Parameters
    ----------
    layout : {"ravdess", "folders", "manifest"}
    find : callable
        Gives the clips, each time it is called.
    tally : Tally
        What `find` gave at the first look.
    skipped : dict of str to int
        What was left out: how many files, by the reason.
    unreadable : tuple of str
        Folders that could not be looked into.
    notes : tuple of str
        What the person should know of how it was read.

    Raises
    ------
    DataError
        A label is no label, or there are too many.
    """

    def __init__(
        self,
        layout: Layout,
        find: Callable[[], Iterable[Clip]],
        tally: Tally,
        skipped: dict[str, int],
        unreadable: tuple[str, ...] = (),
        notes: tuple[str, ...] = (),
    ) -> None:
        self.layout = layout
        self.labels = ordered(tally.labels)
        self.speakers = tuple(sorted(tally.speakers))
        self.skipped = skipped
        self.unreadable = unreadable
        self.notes = notes
        self._find = find
        self._n = tally.n
        wrong = next((label for label in self.labels if not is_label(label)), None)
        if wrong is not None:
            why = (
                "which stands for something else in answers"
                if wrong in RESERVED
                else "expected up to 100 printable characters"
            )
            raise DataError(
                f"{display_name(wrong)[:100]} cannot be a label, {why}",
                "Rename its folder, or change the manifest",
            )
        if len(self.labels) > MAX_LABELS:
            raise DataError(f"{len(self.labels)} labels, expected at most {MAX_LABELS}")

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[Clip]:
        return iter(self._find())

    @cached_property
    def clips(self) -> tuple[Clip, ...]:
        """All of them."""
        return tuple(self)


class Tally:
    """How many clips there are, and which labels and speakers occur."""

    def __init__(self) -> None:
        self.n = 0
        self.labels: set[str] = set()
        self.speakers: set[str] = set()

    def add(self, clip: Clip) -> None:
        """Count one more."""
        self.n += 1
        self.labels.add(clip.label)
        if clip.speaker is not None:
            self.speakers.add(clip.speaker)


def parse_ravdess(path: str | os.PathLike[str]) -> Clip | None:
    """Read the seven fields of a RAVDESS file name.

    Parameters
    ----------
    path : path-like
        Only the stem of the name counts, so copies with any suffix in any folder do.

    Returns
    -------
    Clip or None
        None where the name is not one of RAVDESS's.
    """
    match = _RAVDESS.fullmatch(os.path.splitext(os.path.basename(path))[0])
    if match is None:
        return None
    channel, emotion, intensity, statement, repetition, actor = (int(code) for code in match.groups())
    return Clip(
        path=os.fspath(path),
        label=EMOTIONS[emotion - 1],
        speaker=f"{actor:02d}",
        gender="m" if actor % 2 else "f",
        intensity=intensity,
        statement=statement,
        repetition=repetition,
        song=channel == 2,
        corpus=RAVDESS,
    )


class Walk:
    """The audio files below a folder, sorted folder by folder; iterating looks for them anew.

    Symbolic links are followed, but no folder is entered twice, so a loop of links ends. Hidden
    files and folders are passed over (macOS leaves `._clip.wav` beside each clip it unpacks).
    Only the names of one folder are held at a time.

    Parameters
    ----------
    root : str

    Attributes
    ----------
    other : int
        Files with a suffix that is none of an audio format, as far as the last look has come.
    unreadable : list of str
        Folders in it that may not be entered, likewise.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self.other = 0
        self.unreadable: list[str] = []

    def __iter__(self) -> Iterator[str]:
        """Yield the path of each.

        Raises
        ------
        AccessError
            The folder itself cannot be read.
        """
        try:
            os.scandir(self.root).close()
        except OSError as error:
            raise access_error("read", self.root, error) from error
        self.other, self.unreadable = 0, []
        seen: set[tuple[int, int]] = set()
        # A list, not os.walk, which calls itself for each level and gives up at a thousand.
        waiting = [self.root]
        while waiting:
            folder = waiting.pop()
            try:
                status = os.stat(folder)
                if (status.st_dev, status.st_ino) in seen:
                    continue
                seen.add((status.st_dev, status.st_ino))
                files, folders = _look_into(folder)
            except OSError:  # not to be entered, or it went while we looked
                self.unreadable.append(folder)
                continue
            waiting += [os.path.join(folder, name) for name in reversed(folders)]
            for name in files:
                if os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES:
                    yield os.path.join(folder, name)
                else:
                    self.other += 1


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


def find_clips(data: str, *, song: bool = False) -> Corpus:
    """Find the labelled clips of a folder or a CSV manifest, and say which layout it is.

    Three layouts are understood. RAVDESS: names like `03-01-05-02-01-01-12.wav` at any depth.
    Folders: `angry/clip.wav`, `angry/speaker7/clip.wav` or `speaker7/angry/clip.wav`; the folder
    that names an emotion is the label and the one other level, if there is one, the speaker; where
    no folder names an emotion, the topmost folder is the label. Manifest: as
    `manifest.read` takes it.

    Parameters
    ----------
    data : str
        A folder, a folder that holds `manifest.csv`, or a CSV file.
    song : bool
        Keep RAVDESS's sung clips.

    Returns
    -------
    Corpus

    Raises
    ------
    NoInputError
        Nothing is there, or nothing that carries a label.
    DataError
        The manifest lacks a column or a value.
    """
    if os.path.isdir(data):
        inside = os.path.join(data, "manifest.csv")
        if os.path.isfile(inside):
            return _from_manifest(inside, song=song)
        return _from_folder(data, song=song)
    if not os.path.exists(data):
        raise NoInputError(
            f"{display_name(data)} does not exist",
            "Give the folder of your clips, or fetch RAVDESS: speechemo download ravdess",
        )
    if data.lower().endswith(manifest.SUFFIXES):
        return _from_manifest(data, song=song)
    if data.lower().endswith(".zip"):
        hint = "Unzip it, or, if it is RAVDESS: speechemo download ravdess --archive ZIP"
    else:
        hint = "For the emotion of one clip: speechemo predict CLIP"
    raise NoInputError(f"{display_name(data)} is a file, expected a folder or a CSV manifest", hint)


def _from_folder(data: str, *, song: bool) -> Corpus:
    below = len(os.path.join(data, ""))
    readings: tuple[Callable[[str], Clip | None], ...] = (
        parse_ravdess,
        lambda path: _label_by_folder(path, path[below:], _emotion_at),
        lambda path: _label_by_folder(path, path[below:], _top_at),
    )
    walk = Walk(data)
    # The first reading that fits any name is meant for all of them, so each needs a look of its own.
    for read in readings:
        tally, no_clip, sung = Tally(), 0, 0
        for path in walk:
            clip = read(path)
            if clip is None:
                no_clip += 1
            elif clip.song and not song:
                sung += 1
            else:
                tally.add(clip)
        if tally.n or sung:
            break
    layout: Layout = "ravdess" if read is parse_ravdess else "folders"
    left_out = {
        "not audio, by the suffix": walk.other,
        "folders that cannot be read": len(walk.unreadable),
        "no RAVDESS name" if layout == "ravdess" else "in no folder that names a label": no_clip,
        SUNG: sung,
    }
    skipped = {reason: count for reason, count in left_out.items() if count}
    if not tally.n:
        told = ", ".join(f"{count} {reason}" for reason, count in skipped.items()) or "it is empty"
        raise NoInputError(
            f"no labelled clip in {display_name(data)} ({told})",
            "Expected RAVDESS names, one folder a label, or a manifest.csv with path,label[,speaker]",
        )

    def find() -> Iterator[Clip]:
        return (clip for clip in map(read, Walk(data)) if clip is not None and (song or not clip.song))

    return Corpus(layout, find, tally, skipped, tuple(walk.unreadable))


def _label_by_folder(path: str, inside: str, level: Callable[[list[str]], int | None]) -> Clip | None:
    """Read the folders of a path inside the data; `level` tells which of them is the label, if one is."""
    parts = inside.split(os.sep)[:-1]
    at = level(parts)
    if at is None:
        return None
    others = parts[:at] + parts[at + 1 :]
    return Clip(path, canonical(parts[at]), speaker=others[0] if len(others) == 1 else None)


def _emotion_at(parts: list[str]) -> int | None:
    # The deepest one wins: in `anger_study/angry/x.wav` it is the folder next to the clip.
    return next((i for i in reversed(range(len(parts))) if is_emotion(parts[i])), None)


def _top_at(parts: list[str]) -> int | None:
    return 0 if parts else None


def _from_manifest(file: str, *, song: bool) -> Corpus:
    listed = manifest.read(file)
    tally = Tally()
    clips = [clip for clip in (Clip(**fields) for fields in listed.clips) if song or not clip.song]
    for clip in clips:
        tally.add(clip)
    sung = len(listed.clips) - len(clips)
    if not clips:
        raise NoInputError(f"{display_name(file)} lists sung clips alone", "--song takes them along")
    return Corpus("manifest", lambda: clips, tally, {SUNG: sung} if sung else {}, notes=tuple(listed.notes))
