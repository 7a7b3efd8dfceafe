"""From a folder or a manifest to labelled clips. The one place that knows RAVDESS file names."""

from __future__ import annotations

import csv
import io
import os
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from speechemo_cli.corpus.labels import EMOTIONS, MAX_LABELS, canonical, is_emotion, is_label, ordered
from speechemo_cli.errors import DataError, NoInputError
from speechemo_cli.files import access_error, display_name, open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator

# What libsndfile reads, then what ffmpeg does; a folder's other files are counted as skipped. Videos are
# left out: RAVDESS's hold the sounds of its clips once more.
AUDIO_SUFFIXES = frozenset(
    {
        *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc"),
        *(".m4a", ".aac", ".amr", ".weba", ".wma"),
    }
)

Layout = Literal["ravdess", "folders", "manifest"]

# modality-channel-emotion-intensity-statement-repetition-actor (Livingstone & Russo 2018):
# modality 03 is audio alone, channel 01 speech and 02 song, actors with odd numbers are men.
_RAVDESS = re.compile(r"03-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-(0[1-9]|1\d|2[0-4])")


@dataclass(frozen=True, slots=True)
class Clip:
    """One labelled recording.

    `speaker`, `gender` ("m" or "f"), `intensity` (1 normal, 2 strong), `statement` and `repetition`
    are None where the layout does not tell.
    """

    path: str
    label: str
    speaker: str | None = None
    gender: str | None = None
    intensity: int | None = None
    statement: int | None = None
    repetition: int | None = None
    song: bool = False


@dataclass(frozen=True)
class Corpus:
    """What was found, and what was left out and why (reason -> number of files)."""

    clips: tuple[Clip, ...]
    layout: Layout
    skipped: dict[str, int]

    def __post_init__(self) -> None:
        labels = self.labels
        wrong = next((label for label in labels if not is_label(label)), None)
        if wrong is not None:
            raise DataError(
                f"{display_name(wrong)[:100]} cannot be a label, expected up to 100 printable characters",
                "Rename its folder, or change the manifest",
            )
        if len(labels) > MAX_LABELS:
            raise DataError(f"{len(labels)} labels, expected at most {MAX_LABELS}")

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that occur, in the one order."""
        return ordered(clip.label for clip in self.clips)

    @property
    def speakers(self) -> tuple[str, ...]:
        """The speakers that occur, sorted; empty where the layout does not tell."""
        return tuple(sorted({clip.speaker for clip in self.clips if clip.speaker is not None}))


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
    )


@dataclass(frozen=True)
class Walk:
    """What a folder holds.

    Attributes
    ----------
    audio : list of str
        Files with a suffix of an audio format, sorted folder by folder.
    other : int
        Files with another suffix.
    unreadable : list of str
        Folders in it that may not be entered.
    """

    audio: list[str]
    other: int
    unreadable: list[str]


def walk_audio(root: str) -> Walk:
    """List the audio files below a folder.

    Symbolic links are followed, but no folder is entered twice, so a loop of links ends. Hidden
    files and folders are passed over (macOS leaves `._clip.wav` beside each clip it unpacks).

    Raises
    ------
    AccessError
        The folder itself cannot be read.
    """
    try:
        os.scandir(root).close()
    except OSError as error:
        raise access_error("read", root, error) from error
    walk = Walk([], 0, [])
    other = 0
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
            with os.scandir(folder) as listing:
                entries = sorted((e.name, _is_folder(e)) for e in listing if not e.name.startswith("."))
        except OSError:  # not to be entered, or it went while we looked
            walk.unreadable.append(folder)
            continue
        waiting += [os.path.join(folder, name) for name, is_folder in reversed(entries) if is_folder]
        for name in (name for name, is_folder in entries if not is_folder):
            if os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES:
                walk.audio.append(os.path.join(folder, name))
            else:
                other += 1
    return replace(walk, other=other)


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
    no folder names an emotion, the topmost folder is the label. Manifest: a CSV file with the
    columns `path,label` and perhaps `speaker`; paths count from the manifest's folder.

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
            return _from_manifest(inside)
        return _from_folder(data, song=song)
    if not os.path.exists(data):
        raise NoInputError(
            f"{display_name(data)} does not exist",
            "Give the folder of your clips; data/README.md says where to get RAVDESS",
        )
    if data.lower().endswith(".csv"):
        return _from_manifest(data)
    raise NoInputError(
        f"{display_name(data)} is a file, expected a folder or a CSV manifest",
        "For the emotion of one clip: speechemo predict CLIP",
    )


def _from_folder(data: str, *, song: bool) -> Corpus:
    walk = walk_audio(data)
    paths = walk.audio
    skipped = Counter({"not audio, by the suffix": walk.other} if walk.other else {})
    if walk.unreadable:
        skipped[f"folders that cannot be read ({display_name(walk.unreadable[0])})"] = len(walk.unreadable)
    ravdess = [clip for clip in map(parse_ravdess, paths) if clip is not None]
    if ravdess:
        if len(ravdess) < len(paths):
            skipped["no RAVDESS name"] = len(paths) - len(ravdess)
        kept = ravdess if song else [clip for clip in ravdess if not clip.song]
        if len(kept) < len(ravdess):
            skipped["sung (--song takes them along)"] = len(ravdess) - len(kept)
        clips, layout = kept, "ravdess"
    else:
        clips, layout = list(_label_folders(paths, data)), "folders"
        if len(clips) < len(paths):
            skipped["in no folder that names a label"] = len(paths) - len(clips)
    if not clips:
        left_out = ", ".join(f"{count} {reason}" for reason, count in skipped.items()) or "it is empty"
        raise NoInputError(
            f"no labelled clip in {display_name(data)} ({left_out})",
            "Expected RAVDESS names, one folder a label, or a manifest.csv with path,label[,speaker]",
        )
    return Corpus(tuple(clips), "ravdess" if layout == "ravdess" else "folders", dict(skipped))


def _label_folders(paths: list[str], root: str) -> Iterator[Clip]:
    levels = [Path(os.path.relpath(path, root)).parts[:-1] for path in paths]
    emotions_named = any(is_emotion(part) for parts in levels for part in parts)
    for path, parts in zip(paths, levels, strict=True):
        if emotions_named:
            # The deepest one wins: in `anger_study/angry/x.wav` it is the folder next to the clip.
            at = next((i for i in reversed(range(len(parts))) if is_emotion(parts[i])), None)
        else:
            at = 0 if parts else None
        if at is None:
            continue
        others = parts[:at] + parts[at + 1 :]
        yield Clip(path, canonical(parts[at]), speaker=others[0] if len(others) == 1 else None)


def _from_manifest(file: str) -> Corpus:
    folder = os.path.dirname(file)
    clips = []
    try:
        # utf-8-sig: spreadsheet programs put a byte-order mark before the first column's name.
        with (
            open_regular(file) as content,
            io.TextIOWrapper(content, "utf-8-sig", "surrogateescape", newline="") as handle,
        ):
            reader = csv.DictReader(handle)
            columns = reader.fieldnames or []
            for needed in ("path", "label"):
                if needed not in columns:
                    found = display_name(", ".join(columns)) or "nothing"
                    raise DataError(
                        f"{display_name(file)}: no column {needed!r}, found {found}",
                        "Expected path,label[,speaker]",
                    )
            for row in reader:
                if not (row["path"] or "").strip() or not (row["label"] or "").strip():
                    raise DataError(f"{display_name(file)}, line {reader.line_num}: path or label is empty")
                speaker = (row.get("speaker") or "").strip() or None
                clips.append(Clip(os.path.join(folder, row["path"]), canonical(row["label"]), speaker))
    except OSError as error:
        raise access_error("read", file, error) from error
    except csv.Error as error:
        raise DataError(f"{display_name(file)}: not a CSV file: {error}") from None
    if not clips:
        raise NoInputError(f"{display_name(file)} lists no clip")
    return Corpus(tuple(clips), "manifest", {})
