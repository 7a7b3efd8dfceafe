"""From a folder or a manifest to labelled clips, each decided by itself."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

from speechemo_cli.corpus import manifest
from speechemo_cli.corpus.audio_files import ARCHIVE_SUFFIXES, NotAudio, iter_audio_files
from speechemo_cli.corpus.clips import NO_LABEL, NOT_MATCHED, Clip, Corpus, CorpusCounts, named_clip
from speechemo_cli.corpus.folders import Place, read_folders
from speechemo_cli.corpus.known import RAVDESS, Named, hint_for, recognise
from speechemo_cli.corpus.labels import canonical, emotion_in
from speechemo_cli.errors import ConfigError, NoInputError
from speechemo_cli.files import display_name

if TYPE_CHECKING:
    from collections.abc import Iterator

# Why a file is no clip of this run, besides.
SUNG = "sung (--song takes them along)"
VIDEO_TOO = "video whose sound is there as a recording, too"
_FOLDERS_SHOWN = 6
_FILMED = (RAVDESS, "mead")  # corpora that hold the same speech as sound and as video


def find_clips(
    data: str, *, song: bool = False, label_from: str | None = None, speaker_from: str | None = None
) -> Corpus:
    """Find the labelled clips of a folder or a CSV manifest.

    In a folder each file is decided by itself: by its name, where it is that of a public corpus
    (`known.CORPORA`); else by the folders and the words of its name (`folders.read_folders`). Where neither
    tells a label, none is guessed. Manifest: as `manifest.read` takes it.

    Parameters
    ----------
    data : str
        A folder, a folder that holds `manifest.csv`, or a CSV file.
    song : bool
        Keep RAVDESS's sung clips.
    label_from, speaker_from : str, optional
        Regular expressions, searched in the path below the folder, with `/`. What the group `label` or
        `speaker` matches, else the first group, is the label or the speaker of the clip.

    Raises
    ------
    NoInputError
        Nothing is there, or nothing that carries a label.
    DataError
        The manifest lacks a column or a value.
    ConfigError
        An expression is none, or has no group.
    """
    if os.path.isdir(data):
        inside = os.path.join(data, "manifest.csv")
        if os.path.isfile(inside):
            return _from_manifest(inside, song=song)
        return _FolderReader(
            data, song, _expression("--label-from", label_from), _expression("--speaker-from", speaker_from)
        ).read()
    if not os.path.exists(data):
        raise NoInputError(
            f"{display_name(data)} does not exist",
            "Give the folder of your clips, or fetch RAVDESS: speechemo download ravdess",
        )
    if data.lower().endswith(manifest.SUFFIXES):
        return _from_manifest(data, song=song)
    if data.lower().endswith(ARCHIVE_SUFFIXES):
        raise NoInputError(
            f"{display_name(data)} is an archive, expected a folder or a CSV manifest", _unzip(data)
        )
    raise NoInputError(
        f"{display_name(data)} is a file, expected a folder or a CSV manifest",
        "For the emotion of one clip: speechemo predict CLIP",
    )


def _unzip(archive: str) -> str:
    return f"Unzip it; RAVDESS's: speechemo download ravdess --archive {display_name(archive)}"


def _expression(option: str, text: str | None) -> re.Pattern[str] | None:
    if text is None:
        return None
    try:
        compiled = re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError(f"{option} is {text!r}, expected a regular expression: {error}") from None
    if not compiled.groups:
        raise ConfigError(
            f"{option} is {text!r}, expected a group in it", f"For example {option} '([^/]+)/[^/]+$'"
        )
    return compiled


_OWN = Clip("", "")


class _Draft(NamedTuple):
    """A clip as its name tells it, before the folders are read."""

    clip: Clip  # at the first look without its path, so that like ones are equal; an empty label is not told
    folder: str  # below the data
    word: str | None  # the emotion in the name of a file of people's own
    told: Named | None


class _FolderReader:
    """Reads a folder: a first look counts what there is, then what the folders mean is known."""

    def __init__(
        self, data: str, song: bool, label_from: re.Pattern[str] | None, speaker_from: re.Pattern[str] | None
    ) -> None:
        self._data = data
        self._song = song
        self._label_from = label_from
        self._speaker_from = speaker_from
        self._below = len(os.path.join(data, ""))
        self._places: dict[str, Place] = {}
        self._recordings: set[Named] = set()

    def read(self) -> Corpus:
        """Look for the first time."""
        passed_over = NotAudio()
        counts, skipped, examples = CorpusCounts(), Counter[str](), dict[str, str]()
        # Of people's own clips and of videos like ones are counted together: the list of files is not held.
        own: dict[str, Counter[_Draft]] = defaultdict(Counter)
        videos = Counter[_Draft]()
        paths: dict[_Draft, str] = {}
        for path in iter_audio_files(self._data, passed_over):
            draft = self._draft(path)
            if isinstance(draft, str):
                skipped[draft] += 1
                examples.setdefault(draft, path)
                continue
            if draft.told is not None and draft.told.video:
                videos[draft] += 1
            elif draft.told is None or draft.told.label is None:
                own[draft.folder][draft] += 1
                paths.setdefault(draft, path)
            else:
                counts.add(draft.clip)
                if draft.told.corpus in _FILMED:
                    self._recordings.add(draft.told)
        self._places = read_folders({folder: _words(drafts) for folder, drafts in own.items()})
        for drafts in (videos, *own.values()):
            for draft, n in drafts.items():
                clip = self._decide(draft)
                if isinstance(clip, Clip):
                    counts.add(clip, n)
                else:
                    skipped[clip] += n
                    examples.setdefault(clip, paths.get(draft, ""))
        for reason, n in (
            ("not audio, by the suffix", passed_over.other),
            ("folders that cannot be read", len(passed_over.unreadable)),
        ):
            skipped[reason] += n
        if not counts.n:
            raise self._nothing(skipped, own, passed_over, examples)
        return Corpus(self._find, counts, +skipped, tuple(passed_over.unreadable), examples, names_read=True)

    def _find(self) -> Iterator[Clip]:
        for path in iter_audio_files(self._data):
            draft = self._draft(path, path)
            if not isinstance(draft, str):
                clip = self._decide(draft, path)
                if isinstance(clip, Clip):
                    yield clip

    def _draft(self, path: str, held: str = "") -> _Draft | str:
        """Read a name; a text says why the file is left out."""
        told = recognise(path)
        if told is not None and (told.left_out or (told.song and not self._song)):
            return told.left_out or SUNG
        below = path[self._below :].replace(os.sep, "/")
        clip = _OWN if told is None else named_clip(held, told)
        if self._label_from is not None:
            label = _group(self._label_from.search(below), "label")
            if not label:
                return NOT_MATCHED
            clip = replace(clip, label=canonical(label))
        if self._speaker_from is not None:
            speaker = _group(self._speaker_from.search(below), "speaker")
            clip = replace(clip, speaker=speaker or clip.speaker)
        folder, _, name = below.rpartition("/")
        own = told is None or told.label is None
        return _Draft(clip, folder, emotion_in(os.path.splitext(name)[0]) if own else None, told)

    def _decide(self, draft: _Draft, path: str = "") -> Clip | str:
        """Add what the folders tell; a text says why the file is left out."""
        clip = draft.clip
        if draft.told is not None and draft.told.label is not None:
            return (
                VIDEO_TOO
                if draft.told.video and draft.told._replace(video=False) in self._recordings
                else clip
            )
        place = self._places.get(draft.folder, Place())
        label = clip.label or place.label or (draft.word if place.by_name else None)
        if not label:
            return NO_LABEL
        speaker = place.speaker if clip.speaker is None and draft.told is None else clip.speaker
        return replace(clip, path=path, label=label, speaker=speaker)

    def _nothing(
        self,
        skipped: Counter[str],
        own: dict[str, Counter[_Draft]],
        passed_over: NotAudio,
        examples: dict[str, str],
    ) -> NoInputError:
        """Say why there is no clip, and how to tell the labels."""
        data = display_name(self._data)
        told = ", ".join(f"{n} {reason}" for reason, n in skipped.items() if n) or "it is empty"
        if skipped[NOT_MATCHED]:
            below = display_name(examples[NOT_MATCHED][self._below :])
            return NoInputError(f"--label-from matches no path below {data}, the first is {below}")
        if not own:
            hint = _unzip(passed_over.archive) if passed_over.archive else ""
            return NoInputError(
                f"no labelled clip in {data} ({told})",
                hint
                or "Expected a public corpus, one folder a label, or a manifest.csv (path,label[,speaker]); "
                "speechemo download ravdess gets a corpus",
            )
        columns = zip_longest(*(folder.split("/") for folder in own), fillvalue="")
        levels = [sorted(set(names) - {""}) for names in columns]
        shown = "; ".join(
            f"level {depth}: {display_name(', '.join(names[:_FOLDERS_SHOWN]))}"
            + (f", ... ({len(names)} in all)" if len(names) > _FOLDERS_SHOWN else "")
            for depth, names in enumerate(levels, start=1)
            if names
        )
        why = hint_for({draft.clip.corpus for drafts in own.values() for draft in drafts})
        return NoInputError(
            f"no label is known for the {skipped[NO_LABEL]} audio files in {data}; "
            f"their folders: {shown or 'none'}",
            f"{why}{'. ' if why else ''}Tell the label by --label-from REGEX, the speaker by --speaker-from "
            "REGEX, on the path below DATA (--label-from '^([^/]+)/' takes the first folder), or list clips:"
            f" speechemo extract {data} --manifest-template data.csv",
        )


def _words(drafts: Counter[_Draft]) -> Counter[str | None]:
    words = Counter[str | None]()
    for draft, n in drafts.items():
        words[draft.word] += n
    return words


def _group(match: re.Match[str] | None, name: str) -> str | None:
    if match is None:
        return None
    return match.groupdict().get(name) if name in match.re.groupindex else match[1]


def _from_manifest(file: str, *, song: bool) -> Corpus:
    listed = manifest.read(file)
    counts = CorpusCounts()
    clips = [clip for clip in (Clip(**fields) for fields in listed.clips) if song or not clip.song]
    for clip in clips:
        counts.add(clip)
    sung = len(listed.clips) - len(clips)
    if not clips:
        raise NoInputError(f"{display_name(file)} lists sung clips alone", "--song takes them along")
    return Corpus(lambda: clips, counts, {SUNG: sung} if sung else {}, notes=tuple(listed.notes))
