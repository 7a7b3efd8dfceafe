"""Who trains and who is tested: hold-outs, folds, and the guard against leaks.

Every function works on positions in a list of distinct recordings (`Example`), so copies of a clip
cannot fall on both sides; `guard` checks that they did not.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from speechemo_cli.corpus.labels import ordered
from speechemo_cli.errors import DataError, LeakError
from speechemo_cli.files import display_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from speechemo_cli.corpus.layouts import Clip

    Positions = NDArray[np.int64]

# Subject-wise folds of Luna-Jimenez et al. (2022), Appl. Sci. 12:327, by RAVDESS actor.
LUNA_JIMENEZ_FOLDS = (
    ("02", "05", "14", "15", "16"),
    ("03", "06", "07", "13", "18"),
    ("10", "11", "12", "19", "20"),
    ("08", "17", "21", "23", "24"),
    ("01", "04", "09", "22"),
)
RANDOM_HOLDOUT_SEEDS = 5
PROTOCOLS = ("random-holdout", "random-5fold", "speaker-5fold")


@dataclass(frozen=True, slots=True)
class Example:
    """A distinct recording: a clip and the hash of its content."""

    clip: Clip
    key: str


@dataclass(frozen=True)
class Holdout:
    """What a training holds out.

    Attributes
    ----------
    train : np.ndarray of int
    seen : np.ndarray of int
        Held-out clips of speakers who also stand in training.
    new : np.ndarray of int
        Every clip of the speakers who were held out whole; empty where none were.
    new_speakers : tuple of str
    """

    train: Positions
    seen: Positions
    new: Positions
    new_speakers: tuple[str, ...]


@dataclass(frozen=True)
class Fold:
    """One training and one test of a protocol, with the seed that belongs to it."""

    name: str
    train: Positions
    test: Positions
    seed: int
    test_speakers: tuple[str, ...]


def distinct(clips: Sequence[Clip], keys: dict[str, str]) -> tuple[list[Example], list[str]]:
    """Keep one clip of each recording.

    Parameters
    ----------
    clips : sequence of Clip
    keys : dict of str to str
        Content hash by path; clips without one are left out.

    Returns
    -------
    examples : list of Example
        In the order of `clips`.
    conflicts : list of str
        Names of recordings that occur under two labels. None of their copies is an example: there
        is no telling which label is right.
    """
    by_key: dict[str, list[Clip]] = {}
    for clip in clips:
        if clip.path in keys:
            by_key.setdefault(keys[clip.path], []).append(clip)
    examples, conflicts = [], []
    for key, copies in by_key.items():
        labels = ordered(copy.label for copy in copies)
        if len(labels) == 1:
            examples.append(Example(copies[0], key))
        else:
            conflicts.append(f"{display_name(copies[0].path)} (labelled {' and '.join(labels)})")
    return examples, conflicts


def hold_out(examples: Sequence[Example], split: str, share: float, seed: int) -> Holdout:
    """Hold out clips for one training.

    Parameters
    ----------
    examples : sequence of Example
    split : str
        `random`: a share of the clips of each label. `both`: a share of the speakers, whole and
        balanced by gender where it is known, and the same share of the remaining clips. `none`.
    share : float
    seed : int

    Returns
    -------
    Holdout

    Raises
    ------
    DataError
        Fewer than two labels, or too few clips or speakers for this split.
    """
    _require_labels(examples)
    everything = np.arange(len(examples))
    nothing = everything[:0]
    if split == "none":
        return Holdout(everything, nothing, nothing, ())
    new_speakers: tuple[str, ...] = ()
    rest = everything
    if split == "both":
        new_speakers = _draw_speakers(examples, share, seed)
        is_new = np.array([example.clip.speaker in new_speakers for example in examples])
        rest = everything[~is_new]
    _require_labels([examples[int(i)] for i in rest])
    train, seen = _stratified(rest, _labels(examples), share, seed)
    new = np.setdiff1d(everything, rest)
    holdout = Holdout(train, seen, new, new_speakers)
    guard(examples, train, seen)
    guard(examples, np.concatenate([train, seen]), new, speakers=True)
    return holdout


def _draw_speakers(examples: Sequence[Example], share: float, seed: int) -> tuple[str, ...]:
    genders = {e.clip.speaker: e.clip.gender for e in examples if e.clip.speaker is not None}
    if len(genders) < 2 or any(example.clip.speaker is None for example in examples):
        raise DataError(
            f"--split both needs clips of at least two known speakers, found {len(genders)}",
            "Use --split random, or tell the speakers (a folder level or the manifest's speaker column)",
        )
    rng = np.random.default_rng(seed)
    n = min(max(1, round(share * len(genders))), len(genders) - 1)
    groups = [
        rng.permutation(sorted(speaker for speaker, gender in genders.items() if gender == wanted)).tolist()
        for wanted in sorted(set(genders.values()), key=str)
    ]
    # One from each group in turn; which group begins is drawn too, so that an odd one goes to either.
    groups = [groups[i] for i in rng.permutation(len(groups))]
    drawn: list[str] = []
    while len(drawn) < n:
        for group in groups:
            if group and len(drawn) < n:
                drawn.append(group.pop())
    return tuple(sorted(drawn))


def _labels(examples: Sequence[Example]) -> NDArray[np.str_]:
    return np.array([example.clip.label for example in examples])


def _require_labels(examples: Sequence[Example]) -> None:
    labels = ordered(example.clip.label for example in examples)
    if len(labels) < 2:
        raise DataError(
            f"needs training clips of at least two labels, found {', '.join(labels) or 'none'}",
            "Labels come from RAVDESS names, folder names or a manifest",
        )


def _stratified(
    positions: Positions, labels: NDArray[np.str_], share: float, seed: int
) -> tuple[Positions, Positions]:
    from sklearn.model_selection import train_test_split

    counts = Counter(labels[positions].tolist())
    rarest, count = min(counts.items(), key=lambda item: item[1])
    n_test = round(share * len(positions))
    if count < 2 or n_test < len(counts) or len(positions) - n_test < len(counts):
        raise DataError(
            f"too few clips to hold out {share:.0%} of each label: "
            f"{len(positions)} clips of {len(counts)} labels, {count} of {rarest!r}",
            "Add clips, or use --split none",
        )
    train, test = train_test_split(positions, test_size=n_test, stratify=labels[positions], random_state=seed)
    return np.sort(train), np.sort(test)


def folds(examples: Sequence[Example], protocol: str, seed: int) -> list[Fold]:
    """Make the trainings and tests of a protocol.

    Parameters
    ----------
    examples : sequence of Example
    protocol : str
        `random-holdout`: five stratified 80/20 draws, seeds `seed` ... `seed + 4`.
        `random-5fold`: stratified 5-fold over clips. `speaker-5fold`: no speaker on both sides; the
        Luna-Jimenez folds on RAVDESS (actors that are not there are left out of their folds),
        elsewhere speakers dealt into five groups.
    seed : int

    Returns
    -------
    list of Fold

    Raises
    ------
    DataError
        Too few labels, clips or speakers.
    """
    from sklearn.model_selection import StratifiedKFold

    _require_labels(examples)
    labels = _labels(examples)
    if protocol == "random-holdout":
        pairs = [
            _stratified(np.arange(len(examples)), labels, 0.2, seed + i) for i in range(RANDOM_HOLDOUT_SEEDS)
        ]
    elif protocol == "random-5fold":
        rarest, count = Counter(labels.tolist()).most_common()[-1]
        if count < 5:
            raise DataError(f"random-5fold needs 5 clips of each label, found {count} of {rarest!r}")
        kfold = StratifiedKFold(5, shuffle=True, random_state=seed)
        pairs = list(kfold.split(labels, labels))
    elif protocol == "speaker-5fold":
        speakers = np.array([example.clip.speaker or "" for example in examples])
        pairs = [
            (np.flatnonzero(~np.isin(speakers, group)), np.flatnonzero(np.isin(speakers, group)))
            for group in _speaker_groups(examples, seed)
        ]
    else:
        raise DataError(f"protocol is {protocol!r}, expected one of {', '.join(PROTOCOLS)}")
    independent = is_speaker_independent(protocol)
    result = []
    for i, (train, test) in enumerate(pairs):
        _require_labels([examples[j] for j in train])
        guard(examples, train, test, speakers=independent)
        who = sorted({examples[j].clip.speaker or "?" for j in test}) if independent else []
        result.append(Fold(str(i + 1), train, test, seed + i, tuple(who)))
    return result


def is_speaker_independent(protocol: str) -> bool:
    """Whether a protocol tests on voices that were not heard in training."""
    return protocol.startswith("speaker-")


def _speaker_groups(examples: Sequence[Example], seed: int) -> list[tuple[str, ...]]:
    speakers = sorted({example.clip.speaker or "" for example in examples})
    if "" in speakers or len(speakers) < 2:
        raise DataError(
            "speaker-5fold needs clips of at least two known speakers",
            "Tell the speakers by a folder level or the manifest's speaker column",
        )
    if set(speakers) <= {actor for fold in LUNA_JIMENEZ_FOLDS for actor in fold}:
        present = [tuple(actor for actor in fold if actor in speakers) for fold in LUNA_JIMENEZ_FOLDS]
        groups = [fold for fold in present if fold]
        if len(groups) > 1:
            return groups
    dealt = np.random.default_rng(seed).permutation(speakers).tolist()
    return [tuple(dealt[i::5]) for i in range(min(5, len(dealt)))]


def guard(examples: Sequence[Example], train: Positions, test: Positions, *, speakers: bool = False) -> None:
    """Refuse a split that lets the test leak into the training.

    Parameters
    ----------
    examples : sequence of Example
    train, test : np.ndarray of int
    speakers : bool
        Also refuse the same speaker on both sides.

    Raises
    ------
    LeakError
        Names recordings, or speakers, that stand on both sides.
    """
    keys = {examples[i].key for i in train}
    both = [display_name(examples[i].clip.path) for i in test if examples[i].key in keys]
    if both:
        raise LeakError(f"{len(both)} recordings stand in training and in test: {', '.join(both[:3])}")
    if speakers:
        voices = {examples[i].clip.speaker for i in train} & {examples[i].clip.speaker for i in test}
        if voices:
            names = ", ".join(sorted(str(voice) for voice in voices)[:5])
            raise LeakError(f"{len(voices)} speakers stand in training and in test: {names}")
