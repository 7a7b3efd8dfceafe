"""Who trains and who is tested: hold-outs, folds of the protocols, and that nothing leaks into a test.

Every function works on positions in a list of distinct recordings (`Example`), so copies of a clip
cannot fall on both sides; `check_no_leakage` checks that they did not.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from speechemo_cli import choices
from speechemo_cli.corpus import ordered
from speechemo_cli.corpus.known import RAVDESS
from speechemo_cli.errors import DataError, LeakError
from speechemo_cli.files import display_name

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from speechemo_cli.corpus.clips import Clip

    Positions = NDArray[np.int64]
    Pairs = list[tuple[Positions, Positions]]

# Subject-wise folds of Luna-Jimenez et al. (2022), Appl. Sci. 12:327, by RAVDESS actor.
LUNA_JIMENEZ_FOLDS = (
    ("02", "05", "14", "15", "16"),
    ("03", "06", "07", "13", "18"),
    ("10", "11", "12", "19", "20"),
    ("08", "17", "21", "23", "24"),
    ("01", "04", "09", "22"),
)
# Official folds of EmoBox (Ma et al. 2024, Interspeech), by RAVDESS actor.
EMOBOX_FOLDS = (
    ("01", "11", "20", "21"),
    ("04", "10", "12", "14"),
    ("08", "09", "19", "23"),
    ("03", "05", "07", "24"),
    ("02", "15", "16", "18"),
    ("06", "13", "17", "22"),
)
RANDOM_HOLDOUT_DRAWS = 5
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


# --- the protocols: how clips are divided into trainings and tests, and what their numbers mean


@dataclass(frozen=True)
class Protocol:
    """A way to divide clips, and what its numbers mean.

    `shares_speakers`, `shares_repetitions`: whether test speakers, and other recordings of the same sentence
    in the same manner, stand in training. `n_folds` is 0 for one a speaker; `published` are the speakers of
    each fold on RAVDESS, where they are.
    """

    name: str
    shares_speakers: bool
    shares_repetitions: bool
    n_folds: int
    published: tuple[tuple[str, ...], ...] = ()
    description: str = ""

    @property
    def meaning(self) -> str:
        """Say in words what is shared between training and test, or what `description` says of it."""
        if self.description:
            return self.description
        if self.shares_repetitions:
            return "speakers, and mostly a repetition of the same sentence, stand in training too"
        if self.shares_speakers:
            return "speakers stand in training too, but no repetition of a test clip does"
        return "no speaker of the test stands in training"


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(choices.Protocol.random_holdout, True, True, RANDOM_HOLDOUT_DRAWS),
        Protocol(choices.Protocol.random_5fold, True, True, 5),
        Protocol(choices.Protocol.random_10fold, True, True, 10),
        Protocol(choices.Protocol.twin_safe_5fold, True, False, 5),
        Protocol(choices.Protocol.speaker_5fold, False, False, 5, LUNA_JIMENEZ_FOLDS),
        Protocol(choices.Protocol.speaker_6fold, False, False, 6, EMOBOX_FOLDS),
        Protocol(choices.Protocol.loso, False, False, 0),
    )
}


@dataclass(frozen=True)
class Fold:
    """One training and one test of a protocol, with the seed that belongs to it."""

    name: str
    train: Positions
    test: Positions
    seed: int
    test_speakers: tuple[str, ...]  # ids


def folds(examples: Sequence[Example], protocol: str, seed: int) -> list[Fold]:
    """Make the trainings and tests of a protocol. Sung clips beside spoken ones are never tested.

    The protocols are defined for RAVDESS: where it is among several corpora, its clips alone are tested,
    and those of the others stand in every training. So do, where no speaker may be shared, those of a
    corpus that does not tell the speaker of every clip.

    Draw i of `random-holdout` is drawn and trained with `seed + i`, as `train --split random` with that seed
    would. Actors that are not there are left out of published folds; speakers without such are dealt into
    groups.

    DataError: too few labels, clips or speakers. LeakError: a recording, repetition or speaker would stand on
    both sides.
    """
    rules = PROTOCOLS[protocol]
    require_labels(examples)
    may_be_tested = spoken(examples)
    corpora = np.array([examples[i].clip.corpus for i in may_be_tested])
    is_tested = (corpora == RAVDESS) | (RAVDESS not in corpora)
    if not rules.shares_speakers:
        is_tested &= tells_speakers([examples[i] for i in may_be_tested])
    spoken_at, always = may_be_tested[is_tested], may_be_tested[~is_tested]
    made = []
    pairs = _by_label if rules.shares_speakers else _by_speaker
    # No speaker on both sides is no repetition either, whether or not names tell the statements.
    both = rules.shares_speakers and not rules.shares_repetitions
    checks = {"speakers": not rules.shares_speakers, "repetitions": both}
    for i, (train, test) in enumerate(pairs([examples[j] for j in spoken_at], rules, seed)):
        test = spoken_at[test]
        train = add_sung_clips(examples, np.concatenate([spoken_at[train], always]), test, **checks)
        require_labels([examples[j] for j in train])
        check_no_leakage(examples, train, test, **checks)
        seed_of_fold = seed + i if protocol == "random-holdout" else seed
        who = [] if rules.shares_speakers else sorted({str(examples[j].clip.speaker_id) for j in test})
        made.append(Fold(str(i + 1), train, test, seed_of_fold, tuple(who)))
    return made


def _by_label(examples: Sequence[Example], rules: Protocol, seed: int) -> Pairs:
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    n, names, labels = rules.n_folds, None, labels_of(examples)
    if rules.name == "random-holdout":
        return [stratified(np.arange(len(examples)), labels, 0.2, seed + i) for i in range(n)]
    if rules.shares_repetitions:
        kfold, per_label, unit = StratifiedKFold, Counter(labels.tolist()), "clips of each label"
    else:
        groups = [example.repetition_group for example in examples]
        if None in groups:
            raise DataError(
                "twin-safe-5fold needs speaker, intensity and statement of every clip",
                "RAVDESS names tell them; use random-5fold or speaker-5fold elsewhere",
            )
        names = ["/".join(map(str, group)) for group in groups if group is not None]
        per_label = Counter(label for label, _ in set(zip(labels.tolist(), groups, strict=True)))
        kfold, unit = StratifiedGroupKFold, "groups of repetitions a label"
    rarest, count = per_label.most_common()[-1]
    if count < n:
        raise DataError(f"{n} folds need {n} {unit}, found {count} of {rarest!r}")
    return list(kfold(n, shuffle=True, random_state=seed).split(labels, labels, groups=names))


def _by_speaker(examples: Sequence[Example], rules: Protocol, seed: int) -> Pairs:
    of_clip = np.array([str(example.clip.speaker_id) for example in examples])  # everyone is known here
    speakers = sorted(set(of_clip.tolist()))
    if len(speakers) < 2:
        raise DataError(
            f"{rules.name} needs a corpus of at least two speakers, with the speaker of every clip",
            "Tell the speakers by a folder level or the manifest's speaker column",
        )
    published = [{f"{RAVDESS}/{actor}" for actor in group} for group in rules.published]
    groups = [tuple(group.intersection(speakers)) for group in published if group.intersection(speakers)]
    if len(groups) < 2 or sum(map(len, groups)) < len(speakers):
        n = min(rules.n_folds or len(speakers), len(speakers))
        rng = np.random.default_rng(seed)
        pairs = set(zip(of_clip.tolist(), labels_of(examples).tolist(), strict=True))

        def deal() -> list[tuple[str, ...]]:
            dealt = rng.permutation(speakers).tolist()
            return [tuple(dealt[i::n]) for i in range(n)]

        groups = [(who,) for who in speakers]
        if n < len(speakers):
            groups = redrawn(deal, lambda dealt: [x for one in dealt for x in untrained_labels(pairs, one)])
    tests = [np.isin(of_clip, group) for group in groups]
    return [(np.flatnonzero(~test), np.flatnonzero(test)) for test in tests]
