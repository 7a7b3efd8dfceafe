"""Several folders and manifests as one collection of clips, each clip with the name of its corpus."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from speechemo_cli.corpus.clips import CorpusCounts, clip_by_name
from speechemo_cli.corpus.known import RAVDESS
from speechemo_cli.corpus.labels import ordered
from speechemo_cli.corpus.layouts import find_clips
from speechemo_cli.corpus.manifest import SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from speechemo_cli.corpus.clips import Clip, Corpus


class Collection:
    """The labelled clips of several corpora.

    Iterating looks for them anew, as with `Corpus`; `clips` holds them.

    Parameters
    ----------
    parts : dict of str to Corpus
        By the DATA they were found in, in the order given.
    names : dict of str to str, optional
        Name of the corpus, by its DATA; by default as `corpus_names`.
    """

    def __init__(self, parts: dict[str, Corpus], names: dict[str, str] | None = None) -> None:
        self.parts = parts
        self.labels = ordered(label for corpus in parts.values() for label in corpus.labels)
        self.unreadable = tuple(folder for corpus in parts.values() for folder in corpus.unreadable)
        self._names = names or dict(zip(parts, corpus_names(list(parts)), strict=True))

    def __len__(self) -> int:
        return sum(map(len, self.parts.values()))

    def __iter__(self) -> Iterator[Clip]:
        for data in self.parts:
            yield from self._clips_of(data)

    def _clips_of(self, data: str) -> Iterator[Clip]:
        corpus, name = self.parts[data], self._names[data]
        for clip in corpus:
            told = None if clip.corpus or corpus.names_read else clip_by_name(clip.path)
            yield clip if clip.corpus else _of_corpus(clip, told, name)

    @cached_property
    def clips(self) -> tuple[Clip, ...]:
        """All of them."""
        return tuple(self)

    def only(self, data: Sequence[str]) -> Collection:
        """Return what was found in some of the DATA, under the names it has here."""
        places = {os.path.realpath(one) for one in data}
        parts = {one: part for one, part in self.parts.items() if os.path.realpath(one) in places}
        return Collection(parts, self._names)

    @property
    def unlabelled(self) -> int:
        """Audio files that were left out for want of a label."""
        return sum(corpus.unlabelled for corpus in self.parts.values())

    def counts(self) -> CorpusCounts:
        """Clips, labels and speakers by the name of the corpus."""
        total = CorpusCounts()
        for data, corpus in self.parts.items():
            if corpus.names_read:
                total.merge(corpus.counts, self._names[data])
            else:
                for clip in self._clips_of(data):
                    total.add(clip)
        return total

    @property
    def skipped(self) -> dict[str, int]:
        """What was left out: how many files, by the reason."""
        total: dict[str, int] = {}
        for corpus in self.parts.values():
            for reason, count in corpus.skipped.items():
                total[reason] = total.get(reason, 0) + count
        return total


def find_all(
    data: Sequence[str], *, song: bool = False, label_from: str | None = None, speaker_from: str | None = None
) -> Collection:
    """Find the labelled clips of some folders and manifests.

    Parameters
    ----------
    data : sequence of str
        Each as `find_clips` takes it; one that is named twice counts once.
    song : bool
        Keep RAVDESS's sung clips.
    label_from, speaker_from : str, optional
        As `find_clips`.

    Raises
    ------
    NoInputError, DataError, ConfigError
        As `find_clips`.
    """
    places = {os.path.realpath(one): one for one in reversed(data)}
    return Collection(
        {
            one: find_clips(one, song=song, label_from=label_from, speaker_from=speaker_from)
            for one in reversed(places.values())
        }
    )


def corpus_names(data: Sequence[str]) -> list[str]:
    """Name the corpora after their folders, or manifests; a name that is taken gets a number.

    Parameters
    ----------
    data : sequence of str

    Returns
    -------
    list of str
        One for each; none holds a `/`.
    """
    names: list[str] = []
    for one in data:
        path = Path(os.path.normpath(Path(one).absolute()))
        if path.name.lower() == "manifest.csv":
            path = path.parent
        base = (path.stem if path.suffix.lower() in SUFFIXES and not path.is_dir() else path.name) or "data"
        name, n = base, 1
        while name in names:
            n += 1
            name = f"{base}-{n}"
        names.append(name)
    return names


def _of_corpus(clip: Clip, told: Clip | None, name: str) -> Clip:
    """Add the name of the corpus.

    A listed file that is named as a public corpus names its own is that corpus's, and a speaker that the
    list does not tell is told by its name. RAVDESS's names are never anybody else's.
    """
    if clip.corpus:
        return clip
    if told is None or (clip.speaker not in (None, told.speaker) and told.corpus != RAVDESS):
        return replace(clip, corpus=name)
    return replace(told, label=clip.label, extra=clip.extra)
