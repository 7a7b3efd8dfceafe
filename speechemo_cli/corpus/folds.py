"""The protocols: how clips are divided into trainings and tests, and what their numbers mean."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from speechemo_cli import choices
from speechemo_cli.corpus.known import RAVDESS
from speechemo_cli.corpus.splits import (
    add_sung_clips,
    check_no_leakage,
    labels_of,
    redrawn,
    require_labels,
    spoken,
    stratified,
    tells_speakers,
    untrained_labels,
)
from speechemo_cli.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from speechemo_cli.corpus.splits import Example, Positions

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

    `random-holdout`: five stratified 80/20 draws; draw i is drawn and trained with `seed + i`, as
    `train --split random` with that seed would. `random-5fold`, `random-10fold`: stratified over
    clips. `twin-safe-5fold`: the same, but clips of one speaker, label, intensity and statement
    stay together. `speaker-5fold` (Luna-Jimenez folds on RAVDESS), `speaker-6fold` (EmoBox
    folds): no speaker on both sides; actors that are not there are left out of their folds, and
    without RAVDESS the speakers of all corpora are dealt into groups. `loso`: leave one speaker out.

    DataError: no such protocol, or too few labels, clips or speakers for it. LeakError: a recording,
    repetition or speaker would stand on both sides.
    """
    if protocol not in PROTOCOLS:
        raise DataError(f"protocol is {protocol!r}, expected one of {', '.join(PROTOCOLS)}")
    rules = PROTOCOLS[protocol]
    require_labels(examples)
    may_be_tested = spoken(examples)
    corpora = np.array([examples[i].clip.corpus for i in may_be_tested])
    is_tested = (corpora == RAVDESS) | (RAVDESS not in corpora)
    if not rules.shares_speakers:
        is_tested &= tells_speakers([examples[i] for i in may_be_tested])
    spoken_at, always = may_be_tested[is_tested], may_be_tested[~is_tested]
    drawn = protocol == "random-holdout"
    made = []
    for i, (train, test) in enumerate(_pairs([examples[j] for j in spoken_at], rules, seed)):
        checks = {"speakers": not rules.shares_speakers, "repetitions": not rules.shares_repetitions}
        test = spoken_at[test]
        train = add_sung_clips(examples, np.concatenate([spoken_at[train], always]), test, **checks)
        require_labels([examples[j] for j in train])
        check_no_leakage(examples, train, test, **checks)
        who = [] if rules.shares_speakers else sorted({examples[j].clip.speaker_id or "?" for j in test})
        made.append(Fold(str(i + 1), train, test, seed + i if drawn else seed, tuple(who)))
    return made


def _pairs(examples: Sequence[Example], rules: Protocol, seed: int) -> Pairs:
    labels = labels_of(examples)
    if not rules.shares_speakers:
        return _by_speaker(examples, labels, rules, seed)
    if rules.name == "random-holdout":
        everything = np.arange(len(examples))
        return [stratified(everything, labels, 0.2, seed + i) for i in range(RANDOM_HOLDOUT_DRAWS)]
    return _by_label(examples, labels, rules, seed)


def _by_label(examples: Sequence[Example], labels: NDArray[np.str_], rules: Protocol, seed: int) -> Pairs:
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    n, names = rules.n_folds, None
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


def _by_speaker(examples: Sequence[Example], labels: NDArray[np.str_], rules: Protocol, seed: int) -> Pairs:
    of_clip = np.array([example.clip.speaker_id or "" for example in examples])
    speakers = sorted(set(of_clip.tolist()))
    if "" in speakers or len(speakers) < 2:
        raise DataError(
            f"{rules.name} needs a corpus of at least two speakers, with the speaker of every clip",
            "Tell the speakers by a folder level or the manifest's speaker column",
        )
    published = [{f"{RAVDESS}/{actor}" for actor in group} for group in rules.published]
    groups = [tuple(group.intersection(speakers)) for group in published if group.intersection(speakers)]
    if len(groups) < 2 or sum(map(len, groups)) < len(speakers):
        n = min(rules.n_folds or len(speakers), len(speakers))
        rng = np.random.default_rng(seed)
        pairs = set(zip(of_clip.tolist(), labels.tolist(), strict=True))

        def deal() -> list[tuple[str, ...]]:
            dealt = rng.permutation(speakers).tolist()
            return [tuple(dealt[i::n]) for i in range(n)]

        groups = [(who,) for who in speakers]
        if n < len(speakers):
            groups = redrawn(deal, lambda dealt: [x for one in dealt for x in untrained_labels(pairs, one)])
    tests = [np.isin(of_clip, group) for group in groups]
    return [(np.flatnonzero(~test), np.flatnonzero(test)) for test in tests]
