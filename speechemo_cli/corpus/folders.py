"""What the folders of people's own recordings mean: which level is the label, which the speaker."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, NamedTuple

from speechemo_cli.corpus.labels import canonical, emotion_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Parts = tuple[str, ...]


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
_WORD = re.compile(r"[^\W\d_]+|\d+")


class Place(NamedTuple):
    """What a folder tells of the clips in it.

    `by_name` is True where the words of the files' names are their labels instead.
    """

    label: str | None = None
    by_name: bool = False
    speaker: str | None = None


def read_folders(folders: Mapping[str, Counter[str | None]]) -> dict[str, Place]:
    """Find the level of labels and the level of speakers.

    Levels like `train`, `male`, `wav`, `session2` and such with one folder alone are passed over. The label
    is the level that names the most emotions, or the files' names do; siblings of a label are labels, too.
    The speaker is the one other level, or the one that looks like speakers.

    Parameters
    ----------
    folders : mapping of str to Counter
        By path below the data, with `/`: how many clips have which emotion in their own name (None: none).

    Returns
    -------
    dict of str to Place
    """
    levels = {folder: _levels(folder) for folder in folders}
    by_depth: dict[int, list[str]] = defaultdict(list)
    for folder, parts in levels.items():
        by_depth[len(parts)].append(folder)
    groups = [_Group([(one, levels[one], folders[one]) for one in group]) for group in by_depth.values()]
    # An unknown word is a label where a known one lies beside it, or where it is a label elsewhere.
    beside = {parts[: g.label] for g in groups for parts in g.known_parts()}
    accepted = {
        part
        for parts in levels.values()
        for i, part in enumerate(parts)
        if parts[:i] in beside and not _UNLABELLED.intersection(_words(part))
    }
    return {
        folder: group.place(parts, beside, accepted) for group in groups for folder, parts, _ in group.members
    }


class _Group:
    """The folders of one depth, containers left out."""

    def __init__(self, members: list[tuple[str, Parts, Counter[str | None]]]) -> None:
        self.members = members
        total = sum(names.total() for _, _, names in members)
        columns = [set(column) for column in zip(*(parts for _, parts, _ in members), strict=True)]
        words = Counter[str | None]()
        for _, _, names in members:
            words.update(names)
        told = total - words.pop(None, 0)
        # (tells two labels or more, differs, share of the clips, level); -1 is the files' names.
        choices = [(len(words) > 1, len(words) > 1, told / total, -1)] if told else []
        for i, column in enumerate(columns):
            known = {part: emotion_in(part) for part in column} if _names_labels(column) else {}
            share = sum(names.total() for _, parts, names in members if known.get(parts[i])) / total
            if share:
                distinct = len({label for label in known.values() if label})
                choices.append((distinct > 1, len(column) > 1, share, i))
        self.label: int | None = max(choices)[3] if choices else None
        self.speaker = self._speaker_level(columns, total)

    def known_parts(self) -> Iterable[Parts]:
        """Give the folders whose label is a known word."""
        i = self.label
        return [p for _, p, _ in self.members if i is not None and i >= 0 and emotion_in(p[i])]

    def place(self, parts: Parts, beside: set[Parts], accepted: set[str]) -> Place:
        """Read one folder."""
        if self.label == -1:
            return Place(None, True, self._speaker(parts))
        if self.label is not None:
            word = parts[self.label]
            label = emotion_in(word) or (canonical(word) if word in accepted else None)
            return Place(label, False, self._speaker(parts))
        return next(
            (Place(canonical(p)) for i, p in enumerate(parts) if parts[:i] in beside and p in accepted),
            Place(),
        )

    def _speaker(self, parts: Parts) -> str | None:
        return None if self.speaker is None else parts[self.speaker]

    def _speaker_level(self, columns: list[set[str]], total: int) -> int | None:
        if self.label is None:
            return None
        others = [i for i in range(len(columns)) if i != self.label and not all(map(emotion_in, columns[i]))]
        looks = [i for i in others if all(map(_SPEAKER.fullmatch, columns[i]))]
        # A folder for each clip is no level of speakers; of a few clips nobody can tell.
        rest = [i for i in others if len(columns[i]) > 1 and (len(columns[i]) < total or total <= _FEW)]
        candidates = [i for i in looks if i in rest] or (rest if len(rest) == 1 else looks)
        return candidates[0] if len(candidates) == 1 else None


def _names_labels(column: set[str]) -> bool:
    """Whether enough of a level's names are emotions: one name of ten speakers may be `Joy`."""
    known = sum(emotion_in(part) is not None for part in column)
    return known >= len(column) / 2 or (known >= 2 and known >= len(column) / 4)


def _levels(folder: str) -> Parts:
    return tuple(part for part in folder.split("/") if part and not _is_container(part))


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
