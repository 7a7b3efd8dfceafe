"""Labelled clips: one, and all of a folder or a manifest."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from speechemo_cli.corpus.known import Named, recognise
from speechemo_cli.corpus.labels import MAX_LABELS, RESERVED, is_label, ordered
from speechemo_cli.errors import DataError
from speechemo_cli.files import display_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

# Why an audio file is no clip though one was meant.
NO_LABEL = "with no label that is known"
NOT_MATCHED = "not matched by --label-from"


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


class CorpusCounts:
    """How many clips there are, and of which labels and speakers, by corpus.

    Attributes
    ----------
    n : int
    labels : dict of str to Counter
        Clips of each label, by the name of the corpus (empty: that of the DATA).
    speakers : dict of str to Counter
        Likewise of each speaker; None counts the clips whose speaker is not known.
    """

    def __init__(self) -> None:
        self.n = 0
        self.labels: dict[str, Counter[str]] = defaultdict(Counter)
        self.speakers: dict[str, Counter[str | None]] = defaultdict(Counter)

    def add(self, clip: Clip, n: int = 1) -> None:
        """Count a clip, or some like it."""
        self.n += n
        self.labels[clip.corpus][clip.label] += n
        self.speakers[clip.corpus][clip.speaker] += n

    def merge(self, other: CorpusCounts, name: str) -> None:
        """Add the counts of a DATA, those of no public corpus under a name."""
        self.n += other.n
        for corpus in other.labels:
            self.labels[corpus or name].update(other.labels[corpus])
            self.speakers[corpus or name].update(other.speakers[corpus])


class Corpus:
    """The labelled clips of a folder or a manifest.

    Iterating looks for them anew, so that a hundred thousand need not be held; `clips` holds them.

    Parameters
    ----------
    find : callable
        Gives the clips, each time it is called.
    counts : CorpusCounts
        Of what `find` gave at the first look.
    skipped : mapping of str to int
        What was left out: how many files, by the reason.
    unreadable : tuple of str
        Folders that could not be looked into.
    examples : mapping of str to str
        A path of those that were left out, by the reason.
    notes : tuple of str
        What the person should know of how it was read.
    names_read : bool
        `find` has looked whether the names are those of a public corpus.

    Attributes
    ----------
    unlabelled : int
        Audio files among those left out that were meant to have a label, as far as can be told.

    Raises
    ------
    DataError
        A label is no label, or there are too many.
    """

    def __init__(
        self,
        find: Callable[[], Iterable[Clip]],
        counts: CorpusCounts,
        skipped: Mapping[str, int],
        unreadable: tuple[str, ...] = (),
        examples: Mapping[str, str] | None = None,
        *,
        notes: tuple[str, ...] = (),
        names_read: bool = False,
    ) -> None:
        self.counts = counts
        self.labels = ordered(label for labels in counts.labels.values() for label in labels)
        self.skipped = dict(skipped)
        self.unreadable = unreadable
        self.examples = examples or {}
        self.notes = notes
        self.names_read = names_read
        self.unlabelled = self.skipped.get(NO_LABEL, 0) + self.skipped.get(NOT_MATCHED, 0)
        self._find = find
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
        return self.counts.n

    def __iter__(self) -> Iterator[Clip]:
        return iter(self._find())

    @cached_property
    def clips(self) -> tuple[Clip, ...]:
        """All of them."""
        return tuple(self)


def clip_by_name(path: str) -> Clip | None:
    """Return the clip of a public corpus that a file is by its name; None where the name tells no label."""
    told = recognise(path)
    return None if told is None or told.left_out or told.label is None else named_clip(path, told)


def named_clip(path: str, told: Named) -> Clip:
    """Return the clip that a name tells; its label is empty where the name tells none."""
    return Clip(
        path,
        told.label or "",
        told.speaker,
        told.gender,
        told.intensity,
        told.statement,
        told.repetition,
        told.song,
        told.corpus,
    )
