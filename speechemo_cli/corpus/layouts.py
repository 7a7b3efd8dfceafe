"""From folders and manifests to labelled clips: what names, folders and lists tell of each recording."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

from speechemo_cli.corpus import canonical, emotion_in, manifest
from speechemo_cli.corpus.clips import (
    ARCHIVE_SUFFIXES,
    LIST_SUFFIXES,
    NO_LABEL,
    NOT_MATCHED,
    Clip,
    Collection,
    Corpus,
    NotAudio,
    corpus_names,
    iter_audio_files,
)
from speechemo_cli.corpus.known import BY_NAME, RAVDESS, recognise
from speechemo_cli.errors import ConfigError, NoInputError
from speechemo_cli.files import display_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from speechemo_cli.config import Config

    Parts = tuple[str, ...]

# Why a file is no clip of this run, besides.
SUNG = "sung (--song takes them along)"
VIDEO_TOO = "video whose sound is there as a recording, too"
_FOLDERS_SHOWN = 6
_FILMED = (RAVDESS, "mead")  # corpora that hold the same speech as sound and as video


def find_all(data: Sequence[str], config: Config) -> Collection:
    """Find the labelled clips of several DATA, each as `find_clips`; one that is named twice counts once."""
    places = {os.path.realpath(one): one for one in reversed(data)}
    once = [*reversed(places.values())]
    parts = {}
    for one, name in zip(once, corpus_names(once), strict=True):
        found = find_clips(
            one, song=config.song, label_from=config.label_from, speaker_from=config.speaker_from
        )
        parts[one] = replace(found, name=name)
    return Collection(parts)


def find_clips(
    data: str, *, song: bool = False, label_from: str | None = None, speaker_from: str | None = None
) -> Corpus:
    """Find the labelled clips of a folder, a folder that holds `manifest.csv`, or a CSV manifest.

    In a folder each file is decided by itself: by its name, where it is that of a public corpus
    (`known.recognise`); else by the folders and the words of its name (`read_folders`). Where neither
    tells a label, none is guessed. `song` keeps sung clips. `label_from` and `speaker_from` are regular
    expressions, searched in the path below the folder, with `/`: what the group `label` or `speaker` matches,
    else the first group, is the label or the speaker.

    NoInputError: nothing is there, or nothing that carries a label. DataError: the manifest lacks a column
    or a value. ConfigError: an expression is none, or has no group.
    """
    if os.path.isdir(data):
        inside = os.path.join(data, "manifest.csv")
        if os.path.isfile(inside):
            return _from_manifest(inside, song)
        return _FolderReader(
            data, song, _expression("--label-from", label_from), _expression("--speaker-from", speaker_from)
        ).read()
    shown = display_name(data)
    if not os.path.exists(data):
        hint = "Give the folder of your clips, or fetch RAVDESS: speechemo download ravdess"
        raise NoInputError(f"{shown} does not exist", hint)
    if data.lower().endswith(LIST_SUFFIXES):
        return _from_manifest(data, song)
    if data.lower().endswith(ARCHIVE_SUFFIXES):
        raise NoInputError(f"{shown} is an archive, expected a folder or a CSV manifest", _unzip(data))
    raise NoInputError(
        f"{shown} is a file, expected a folder or a CSV manifest",
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


def _from_manifest(file: str, song: bool) -> Corpus:
    listed, notes = manifest.read(file)
    clips = [_as_named(clip) for clip in listed if song or not clip.song]
    if not clips:
        raise NoInputError(f"{display_name(file)} lists sung clips alone", "--song takes them along")
    counts = Counter((clip.corpus, clip.label, clip.speaker) for clip in clips)
    sung = len(listed) - len(clips)
    return Corpus(lambda: clips, counts, {SUNG: sung} if sung else {}, notes=notes)


def _as_named(clip: Clip) -> Clip:
    """Add what the name of a listed file tells.

    A file that is named as a public corpus names its own is that corpus's, and a speaker that the
    list does not tell is told by its name. RAVDESS's names are never anybody else's.
    """
    named = None if clip.corpus else recognise(clip.path)
    if named is None or named.left_out or not named.clip.label:
        return clip
    known = named.clip
    if clip.speaker not in (None, known.speaker) and known.corpus != RAVDESS:
        return clip
    return replace(known, path=clip.path, label=clip.label, extra=clip.extra)


class _Draft(NamedTuple):
    """A clip as its name tells it, which waits for the end of the first search. Like ones are equal."""

    clip: Clip  # without its path; an empty label is not told
    folder: str = ""  # below the data
    word: str | None = None  # the emotion in the name of a file of people's own
    sound: Clip | None = None  # of a video: the recording that may be there too


@dataclass
class _FolderReader:
    """Reads a folder: a first search counts what there is, then what the folders mean is known."""

    data: str
    song: bool
    label_from: re.Pattern[str] | None
    speaker_from: re.Pattern[str] | None
    places: dict[str, Place] = field(default_factory=dict)
    recordings: set[Clip] = field(default_factory=set)

    def read(self) -> Corpus:
        """Search for the first time."""
        passed_over = NotAudio()
        counts, skipped = Counter[tuple[str, str, str | None]](), Counter[str]()
        examples: dict[str, str] = {}

        def take(found: Clip | str, path: str, n: int = 1) -> None:
            if isinstance(found, Clip):
                counts[found.corpus, found.label, found.speaker] += n
            else:
                skipped[found] += n
                examples.setdefault(found, path)

        # Of people's own clips and of videos like ones are counted together: the list of files is not held.
        own, videos = Counter[_Draft](), Counter[_Draft]()
        paths: dict[_Draft, str] = {}
        for path in iter_audio_files(self.data, passed_over):
            found = self._by_name(path)
            if not isinstance(found, _Draft):
                take(found, path)
            elif found.sound is not None:
                videos[found] += 1
            else:
                own[found] += 1
                paths.setdefault(found, path)
        words: dict[str, Counter[str | None]] = defaultdict(Counter)
        for draft, n in own.items():
            words[draft.folder][draft.word] += n
        self.places = read_folders(words)
        for draft, n in [*videos.items(), *own.items()]:
            take(self._decide(draft), paths.get(draft, ""), n)
        skipped["not audio, by the suffix"] += passed_over.other
        skipped["folders that cannot be read"] += len(passed_over.unreadable)
        if not counts:
            raise self._nothing(skipped, own, passed_over.archive, examples)
        return Corpus(self._find, counts, +skipped, passed_over.unreadable, examples)

    def _find(self) -> Iterator[Clip]:
        for path in iter_audio_files(self.data):
            found = self._by_name(path)
            clip = self._decide(found) if isinstance(found, _Draft) else found
            if isinstance(clip, Clip):
                yield replace(clip, path=path)

    def _below(self, path: str) -> str:
        return path[len(os.path.join(self.data, "")) :].replace(os.sep, "/")

    def _by_name(self, path: str) -> Clip | _Draft | str:
        """Return what a name tells: a clip, without its path; a draft of one; or why the file is left out."""
        named = recognise(path)
        if named is not None and (named.left_out or (named.clip.song and not self.song)):
            return named.left_out or SUNG
        below = self._below(path)
        clip = Clip("", "") if named is None else named.clip
        if self.label_from is not None:
            label = _group(self.label_from, "label", below)
            if not label:
                return NOT_MATCHED
            clip = replace(clip, label=canonical(label))
        if self.speaker_from is not None:
            clip = replace(clip, speaker=_group(self.speaker_from, "speaker", below) or clip.speaker)
        if named is None or not named.clip.label:
            folder, _, name = below.rpartition("/")
            return _Draft(clip, folder, emotion_in(os.path.splitext(name)[0]))
        if named.video:
            return _Draft(clip, sound=named.clip)
        if named.clip.corpus in _FILMED:
            self.recordings.add(named.clip)
        return clip

    def _decide(self, draft: _Draft) -> Clip | str:
        """Add what the folders tell; a text says why the file is left out."""
        clip = draft.clip
        if draft.sound is not None:
            return VIDEO_TOO if draft.sound in self.recordings else clip
        place = self.places.get(draft.folder, Place())
        label = clip.label or place.label or (draft.word if place.by_name else None)
        return replace(clip, label=label, speaker=clip.speaker or place.speaker) if label else NO_LABEL

    def _nothing(
        self, skipped: Counter[str], own: Counter[_Draft], archive: str, examples: dict[str, str]
    ) -> NoInputError:
        """Say why there is no clip, and how to tell the labels."""
        data = display_name(self.data)
        if skipped[NOT_MATCHED]:
            below = display_name(self._below(examples[NOT_MATCHED]))
            return NoInputError(f"--label-from matches no path below {data}, the first is {below}")
        folders = {draft.folder for draft in own}
        if not folders:
            left_out = ", ".join(f"{n} {reason}" for reason, n in skipped.items() if n) or "it is empty"
            hint = (
                "Expected a public corpus, one folder a label, or a manifest.csv (path,label[,speaker]); "
                "speechemo download ravdess gets a corpus"
            )
            return NoInputError(
                f"no labelled clip in {data} ({left_out})", _unzip(archive) if archive else hint
            )
        columns = zip_longest(*(folder.split("/") for folder in folders), fillvalue="")
        levels = [sorted(set(names) - {""}) for names in columns]
        shown = "; ".join(
            f"level {depth}: {display_name(', '.join(names[:_FOLDERS_SHOWN]))}"
            + (f", ... ({len(names)} in all)" if len(names) > _FOLDERS_SHOWN else "")
            for depth, names in enumerate(levels, start=1)
            if names
        )
        why = sorted({f"{BY_NAME[draft.clip.corpus].hint}. " for draft in own if draft.clip.corpus})
        return NoInputError(
            f"no label is known for the {skipped[NO_LABEL]} audio files in {data}; "
            f"their folders: {shown or 'none'}",
            f"{''.join(why)}Tell the label by --label-from REGEX, the speaker by --speaker-from REGEX, "
            "on the path below DATA (--label-from '^([^/]+)/' takes the first folder), or list clips: "
            f"speechemo extract {data} --manifest-template data.csv",
        )


def _group(pattern: re.Pattern[str], name: str, below: str) -> str | None:
    match = pattern.search(below)
    return match and match[name if name in pattern.groupindex else 1]


# --- what the folders of people's own recordings mean


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


# Levels that say how recordings are kept or divided: neither labels nor speakers.
_CONTAINERS = _set(
    """
    train training trainset val valid validation test testing testset dev devel eval evaluation male female
    males females man men woman women boys girls m f gender audio audios wav wavs wave flac mp3 ogg speech
    voice voices song data dataset datasets corpus clip clips recording recordings record records sample
    samples sound sounds file files raw processed clean cleaned original originals all mono stereo resampled
    converted emotion emotions label labels class classes sentences utterances actors speakers low medium
    high normal strong weak mild noisy noise augmented aug phone telephone mobile mic microphone studio
    office indoor outdoor close far left right young old adult adults child children kids elderly english
    german french spanish italian chinese mandarin
    """
)
# The same with a number: `session2`, `level_1`, `fold3`, `take 4`, `16k`. A number alone is no container.
_NUMBERED = _set(
    """
    session ses sess level part fold split set batch day week round take rep repetition sentence statement
    scene utterance script impro k khz hz kbps disc disk cd video
    """
)
_DATE = re.compile(r"(?:19|20)\d\d[-_.]?[01]\d[-_.]?[0-3]\d.*")
_SPEAKER = re.compile(
    r"(?:speaker|spk|spkr|actor|actress|subject|subj|sub|participant|person|voice|talker|user|proband|id|s|p)"
    r"[ _-]?\d+|(?:f|m|w|male|female|man|woman)[ _-]?\d+|\d{1,4}",
    re.IGNORECASE,
)
# Folders beside labels whose clips have none.
_UNLABELLED = _set(
    """
    unsorted unknown other others misc unlabelled unlabeled unlabel nolabel rest backup old tmp temp trash
    xxx oth extra extras noise background silence
    """
)
_FEW = 8
_NAMES = -1  # a level of labels: the names of the files
_WORD = re.compile(r"[^\W\d_]+|\d+")


class Place(NamedTuple):
    """What a folder tells of the clips in it; `by_name`: the words of their names are the labels."""

    label: str | None = None
    by_name: bool = False
    speaker: str | None = None


def read_folders(folders: Mapping[str, Counter[str | None]]) -> dict[str, Place]:
    """Find the level of labels and the level of speakers, and tell what each folder means.

    Levels like `train`, `male`, `wav`, `session2` and such with one folder alone are passed over. The label
    is the level that names the most emotions, or the files' names do; siblings of a label are labels, too.
    The speaker is the one other level, or the one that looks like speakers.

    `folders` : by path below the data, with `/`, how many clips have which emotion in their own name.
    """
    parts_of = {
        folder: tuple(part for part in folder.split("/") if part and not _is_container(part))
        for folder in folders
    }
    by_depth: dict[int, dict[str, Parts]] = defaultdict(dict)
    for folder, parts in parts_of.items():
        by_depth[len(parts)][folder] = parts
    levels = {depth: _levels(group, folders) for depth, group in by_depth.items()}
    # An unknown word is a label where a known one lies beside it, or where it is a label elsewhere.
    beside: set[Parts] = set()
    for parts in parts_of.values():
        label, _ = levels[len(parts)]
        if label is not None and label != _NAMES and emotion_in(parts[label]):
            beside.add(parts[:label])
    accepted = {
        part
        for parts in parts_of.values()
        for i, part in enumerate(parts)
        if parts[:i] in beside and not _UNLABELLED.intersection(_words(part))
    }
    places = {}
    for folder, parts in parts_of.items():
        label, speaker = levels[len(parts)]
        known = None
        if label is None:
            unknown = [part for i, part in enumerate(parts) if parts[:i] in beside and part in accepted]
            known = canonical(unknown[0]) if unknown else None
        elif label != _NAMES:
            word = parts[label]
            known = emotion_in(word) or (canonical(word) if word in accepted else None)
        places[folder] = Place(known, label == _NAMES, None if speaker is None else parts[speaker])
    return places


def _levels(
    group: Mapping[str, Parts], folders: Mapping[str, Counter[str | None]]
) -> tuple[int | None, int | None]:
    """Return the level of labels, or `_NAMES`, and that of speakers in folders of one depth."""
    columns = [set(column) for column in zip(*group.values(), strict=True)]
    words = Counter[str | None]()
    for folder in group:
        words.update(folders[folder])
    total = words.total()
    labelled = total - words.pop(None, 0)
    # (tells two labels or more, differs, share of the clips, level)
    choices = [(len(words) > 1, len(words) > 1, labelled / total, _NAMES)] if labelled else []
    for i, column in enumerate(columns):
        known = {part: emotion_in(part) for part in column} if _names_labels(column) else {}
        share = sum(folders[folder].total() for folder, parts in group.items() if known.get(parts[i])) / total
        if share:
            distinct = len({label for label in known.values() if label})
            choices.append((distinct > 1, len(column) > 1, share, i))
    if not choices:
        return None, None
    label = max(choices)[3]
    others = [i for i in range(len(columns)) if i != label and not all(map(emotion_in, columns[i]))]
    looks = [i for i in others if all(map(_SPEAKER.fullmatch, columns[i]))]
    # A folder for each clip is no level of speakers; of a few clips nobody can tell.
    rest = [i for i in others if len(columns[i]) > 1 and (len(columns[i]) < total or total <= _FEW)]
    candidates = [i for i in looks if i in rest] or (rest if len(rest) == 1 else looks)
    return label, candidates[0] if len(candidates) == 1 else None


def _names_labels(column: set[str]) -> bool:
    """Whether enough of a level's names are emotions: one name of ten speakers may be `Joy`."""
    known = sum(emotion_in(part) is not None for part in column)
    return known >= len(column) / 2 or (known >= 2 and known >= len(column) / 4)


def _is_container(part: str) -> bool:
    if _DATE.fullmatch(part):
        return True
    words = _words(part)
    names = [word for word in words if not word.isdigit()]
    if not names or not all(word in _CONTAINERS or word in _NUMBERED for word in names):
        return False
    # `f1`, `male2` and `voice 3` are speakers; `train_16k`, `actors_01-24` and `session2` are not.
    return len(names) == len(words) or not _SPEAKER.fullmatch(part)


def _words(part: str) -> list[str]:
    return _WORD.findall(part.lower())
