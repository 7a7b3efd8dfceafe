"""Who trains and who is tested: hold-outs, and the check that nothing leaks from training to test.

Every function works on positions in a list of distinct recordings (`Example`), so copies of a clip
cannot fall on both sides; `check_no_leakage` checks that they did not.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from speechemo_cli.corpus.labels import ordered
from speechemo_cli.errors import DataError, LeakError
from speechemo_cli.files import display_name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from speechemo_cli.corpus.clips import Clip

    Positions = NDArray[np.int64]

# Draws of speakers that are tried so that every label keeps a training clip.
_REDRAWS = 200
Drawn = TypeVar("Drawn")


@dataclass(frozen=True, slots=True)
class Example:
    """A distinct recording.

    `key` is the hash of the decoded samples, `sha256` that of the file's content (empty where it does not
    matter).
    """

    clip: Clip
    key: str
    sha256: str = ""

    @property
    def repetition_group(self) -> tuple[str, str, int | None, int | str] | None:
        """What the repetitions of a sentence share; None where the names do not tell."""
        clip = self.clip
        if clip.speaker_id is None or clip.statement is None:
            return None
        return clip.speaker_id, clip.label, clip.intensity, clip.statement


@dataclass(frozen=True)
class Holdout:
    """What a training holds out.

    `seen` : held-out clips of speakers who also stand in training. `new` : every clip of the speakers who
    were held out whole, `new_speakers` (ids). `untrained_labels` have no training clip, since all their
    speakers were held out.
    """

    train: Positions
    seen: Positions
    new: Positions
    new_speakers: tuple[str, ...]
    untrained_labels: tuple[str, ...] = ()


def distinct(
    clips: Sequence[Clip], keys: Mapping[str, str], contents: Mapping[str, str]
) -> tuple[list[Example], list[str]]:
    """Keep one clip of each recording, in the order of `clips`.

    `keys` : hash of the decoded samples by path; clips without one are left out. `contents` : hash of the
    file's content by path. Also returns the names of recordings that occur under two labels. None of their
    copies is an example: there is no telling which label is right.
    """
    by_key: dict[str, list[Clip]] = {}
    for clip in clips:
        if clip.path in keys:
            by_key.setdefault(keys[clip.path], []).append(clip)
    examples, conflicts = [], []
    for key, copies in by_key.items():
        labels = ordered(copy.label for copy in copies)
        if len(labels) == 1:
            examples.append(Example(copies[0], key, contents.get(copies[0].path, "")))
        else:
            conflicts.append(f"{display_name(copies[0].path)} (labelled {' and '.join(labels)})")
    return examples, conflicts


def hold_out(examples: Sequence[Example], split: str, share: float, seed: int) -> Holdout:
    """Hold out clips for one training. Sung clips beside spoken ones are trained on, never held out.

    `random`: a share of the clips of each label. `both`: a share of the speakers of each corpus,
    whole and balanced by gender where it is known, and the same share of the remaining clips. `none`.
    DataError: fewer than two labels, or too few clips or speakers for this split.
    """
    require_labels(examples)
    everything = np.arange(len(examples))
    if split == "none":
        return Holdout(everything, everything[:0], everything[:0], ())
    rest = candidates = spoken(examples)
    new_speakers: tuple[str, ...] = ()
    if split == "both":
        new_speakers = _draw_speakers([examples[i] for i in candidates], share, seed)
        rest = candidates[[examples[i].clip.speaker_id not in new_speakers for i in candidates]]
    require_labels([examples[i] for i in rest])
    train, seen = stratified(rest, labels_of(examples), share, seed)
    new = np.setdiff1d(candidates, rest)
    train = add_sung_clips(examples, train, new, speakers=True)
    untrained = {examples[i].clip.label for i in new} - {examples[i].clip.label for i in train}
    holdout = Holdout(train, seen, new, new_speakers, ordered(untrained))
    check_no_leakage(examples, train, seen)
    check_no_leakage(examples, np.concatenate([train, seen]), new, speakers=True)
    return holdout


def _draw_speakers(examples: Sequence[Example], share: float, seed: int) -> tuple[str, ...]:
    """Draw the same share of the speakers of each corpus that tells all of them."""
    named = zip(examples, tells_speakers(examples), strict=True)
    clips = {str(e.clip.speaker_id): e.clip for e, has_speakers in named if has_speakers}
    rng = np.random.default_rng(seed)

    def draw() -> list[str]:
        drawn: list[str] = []
        for corpus in sorted({clip.corpus for clip in clips.values()}):
            genders = {who: clip.gender for who, clip in clips.items() if clip.corpus == corpus}
            n = min(max(1, round(share * len(genders))), len(genders) - 1)
            drawn += _balanced(genders, n, rng)
        return drawn

    pairs = {(example.clip.speaker_id, example.clip.label) for example in examples}
    drawn = redrawn(draw, lambda drawn: untrained_labels(pairs, drawn))
    if not drawn:
        raise DataError(
            "--split both needs a corpus of at least two speakers, with the speaker of every clip",
            "Use --split random, or tell the speakers (a folder level or the manifest's speaker column)",
        )
    return tuple(sorted(drawn))


def redrawn(draw: Callable[[], Drawn], faults: Callable[[Drawn], Collection[str]]) -> Drawn:
    """Draw until nothing is at fault; the draw with the fewest faults where that never comes."""
    best = draw()
    for _ in range(_REDRAWS):
        if not faults(best):
            break
        best = min(best, draw(), key=lambda one: len(faults(one)))
    return best


def untrained_labels(pairs: Collection[tuple[str | None, str]], held_out: Collection[str | None]) -> set[str]:
    """Labels of which no clip is left without some speakers; `pairs` are (speaker id, label) of all clips."""
    return {label for _, label in pairs} - {label for who, label in pairs if who not in held_out}


def _balanced(genders: Mapping[str, str | None], n: int, rng: np.random.Generator) -> list[str]:
    """Draw some speakers, balanced by gender."""
    groups = [
        rng.permutation(sorted(who for who, gender in genders.items() if gender == wanted)).tolist()
        for wanted in sorted(set(genders.values()), key=str)
    ]
    # One from each group in turn; which group begins is drawn too, so that an odd one goes to either.
    groups = [groups[i] for i in rng.permutation(len(groups))]
    in_turn = zip_longest(*(reversed(group) for group in groups))
    return [who for turn in in_turn for who in turn if who is not None][:n]


def tells_speakers(examples: Sequence[Example]) -> NDArray[np.bool_]:
    """Whether each clip is of a corpus that names the speaker of every clip.

    In another, whoever is held out may also be among those without a name.
    """
    silent = {example.clip.corpus for example in examples if example.clip.speaker is None}
    return np.array([example.clip.corpus not in silent for example in examples], dtype=bool)


def spoken(examples: Sequence[Example]) -> Positions:
    """Positions of the clips that a test may hold: the spoken ones, or all where none is spoken."""
    is_spoken = np.array([not example.clip.song for example in examples], dtype=bool)
    return np.flatnonzero(is_spoken) if is_spoken.any() else np.arange(len(examples))


def add_sung_clips(
    examples: Sequence[Example],
    train: Positions,
    test: Positions,
    *,
    speakers: bool = False,
    repetitions: bool = False,
) -> Positions:
    """Add to a training what is sung, as further clips; the positions come sorted.

    `speakers` leaves out songs of test speakers, `repetitions` those of a test clip's speaker, label,
    intensity and statement.
    """
    sung = np.setdiff1d(np.arange(len(examples)), spoken(examples))
    tested = {examples[i].clip.speaker_id for i in test} if speakers else set()
    groups = {examples[i].repetition_group for i in test} if repetitions else set()
    joined = [
        i
        for i in sung
        if examples[i].clip.speaker_id not in tested and examples[i].repetition_group not in groups
    ]
    return np.sort(np.concatenate([train, np.array(joined, dtype=np.int64)]))


def labels_of(examples: Sequence[Example]) -> NDArray[np.str_]:
    """Label of each example."""
    return np.array([example.clip.label for example in examples])


def require_labels(examples: Sequence[Example]) -> None:
    """Refuse clips of fewer than two labels: there is nothing to learn."""
    labels = ordered(example.clip.label for example in examples)
    if len(labels) < 2:
        raise DataError(
            f"needs training clips of at least two labels, found {', '.join(labels) or 'none'}",
            "Labels come from RAVDESS names, folder names or a manifest",
        )


def stratified(
    positions: Positions, labels: NDArray[np.str_], share: float, seed: int
) -> tuple[Positions, Positions]:
    """Draw a share of the clips of each label: (the rest, the drawn). DataError: too few clips for that."""
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


def check_no_leakage(
    examples: Sequence[Example],
    train: Positions,
    test: Positions,
    *,
    speakers: bool = False,
    repetitions: bool = False,
) -> None:
    """Raise LeakError where recordings stand in training and in test.

    `speakers`: also where a speaker does. `repetitions`: also where another repetition of a test clip does.
    """
    checks: dict[str, Callable[[Example], Hashable]] = {"recordings": lambda example: example.key}
    if repetitions:
        checks["repetitions"] = lambda example: example.repetition_group
    for what, key in checks.items():
        trained = {key(examples[i]) for i in train} - {None}
        leaked = [examples[i].clip.path for i in test if key(examples[i]) in trained]
        if leaked:
            names = ", ".join(map(display_name, leaked[:3]))
            raise LeakError(f"{len(leaked)} {what} stand in training and in test: {names}")
    if speakers:
        shared = {examples[i].clip.speaker_id for i in train} & {examples[i].clip.speaker_id for i in test}
        if shared:
            names = display_name(", ".join(sorted(map(str, shared))[:5]))
            raise LeakError(f"{len(shared)} speakers stand in training and in test: {names}")


def parted(
    pairs: Iterable[tuple[Example, Example]], train: Iterable[Example], test: Iterable[Example]
) -> tuple[tuple[Example, Example], ...]:
    """Return those pairs of which one stands in training and the other in test, in this order."""
    trained, tested = {example.key for example in train}, {example.key for example in test}
    both_ways = (pair for one, other in pairs for pair in ((one, other), (other, one)))
    return tuple(pair for pair in both_ways if pair[0].key in trained and pair[1].key in tested)
