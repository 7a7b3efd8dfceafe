"""Train on some corpora, test on others with their own labels."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.corpus.folds import Fold, Protocol
from speechemo_cli.corpus.labels import ordered
from speechemo_cli.corpus.splits import check_no_leakage, require_labels, spoken
from speechemo_cli.errors import NoInputError
from speechemo_cli.evaluation.protocols import OnEpoch, preset_of, run_folds, within

if TYPE_CHECKING:
    from collections.abc import Sequence

    from speechemo_cli.config import Config
    from speechemo_cli.corpus.clips import Clip
    from speechemo_cli.evaluation.results import ProtocolResult
    from speechemo_cli.features.dataset import Dataset


@dataclass(frozen=True)
class _CrossCorpus(Protocol):
    """One training on some corpora, one test on others."""

    told: str = ""

    @property
    def meaning(self) -> str:
        return self.told


@dataclass(frozen=True)
class CrossCorpusResult:
    """Scores on corpora that were not trained on.

    Attributes
    ----------
    result : ProtocolResult
        Its labels are those of the training. UAR is the mean over the labels that both sides have.
    shared_labels : tuple of str
        Labels that both sides have.
    shared_speakers : tuple of str
        Ids of the speakers that both sides have.
    """

    result: ProtocolResult
    shared_labels: tuple[str, ...]
    shared_speakers: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON has: that of a protocol, and what the two sides share."""
        return {
            **self.result.to_dict(),
            "shared_labels": list(self.shared_labels),
            "shared_speakers": list(self.shared_speakers),
        }


def split_by_label(clips: Sequence[Clip], labels: Sequence[str]) -> tuple[list[Clip], dict[str, int]]:
    """Keep the test clips whose labels are trained on.

    Parameters
    ----------
    clips : sequence of Clip
    labels : sequence of str
        Of the training.

    Returns
    -------
    kept : list of Clip
    left_out : dict of str to int
        How many clips have another label, by that label.

    Raises
    ------
    NoInputError
        None is left.
    """
    kept = [clip for clip in clips if clip.label in labels]
    counts = Counter(clip.label for clip in clips if clip.label not in labels)
    left_out = {label: counts[label] for label in ordered(counts)}
    if not kept:
        raise NoInputError(
            f"no test clip has a label of the training: found {', '.join(left_out) or 'no clips'}, "
            f"expected {', '.join(labels)}",
            "Labels of a manifest or of folders can be renamed",
        )
    return kept, left_out


def cross_corpus(
    version: str, train: Dataset, test: Dataset, config: Config, on_epoch: OnEpoch | None = None
) -> CrossCorpusResult:
    """Train a version on every clip of one data set and score it on every clip of another.

    Sung clips beside spoken ones are trained on, never tested. Where the preset says so, confidences are
    corrected by a temperature from speaker-disjoint folds of the training.

    Parameters
    ----------
    version : str
    train, test : Dataset
        With the same list of labels, that of the training.
    config : Config
    on_epoch : callable, optional

    Raises
    ------
    DataError
        The training has fewer than two labels.
    LeakError
        The same recording stands on both sides.
    """
    data = _joined(train, test)
    n = len(train.examples)
    train_at, test_at = np.arange(n), n + spoken(test.examples)
    require_labels(train.examples)
    check_no_leakage(data.examples, train_at, test_at)
    trained, tested = ({data.examples[i].clip.speaker_id for i in at} - {None} for at in (train_at, test_at))
    shared_speakers = tuple(sorted(str(one) for one in trained & tested))
    targets = set(data.targets[train_at].tolist()) & set(data.targets[test_at].tolist())
    shared_labels = tuple(data.labels[i] for i in sorted(targets))
    names = [", ".join(sorted(set(data.corpora[at].tolist()))) for at in (train_at, test_at)]
    told = (
        f"every clip of {names[0]} is trained on and every clip of {names[1]} tested; "
        f"UAR is over the {len(shared_labels)} labels that both have"
    )
    if shared_speakers:
        told += f"; {len(shared_speakers)} speakers stand in both"
    rules = _CrossCorpus("cross-corpus", bool(shared_speakers), False, 1, told=told)
    fold = Fold("1", train_at, test_at, config.seed, tuple(sorted(str(one) for one in tested)))
    result = run_folds(version, rules, [fold], data, config, on_epoch)
    trained_corpora = tuple(sorted(set(train.corpora.tolist())))
    return CrossCorpusResult(replace(result, trained_corpora=trained_corpora), shared_labels, shared_speakers)


def leave_corpora_out(
    version: str, data: Dataset, config: Config, on_epoch: OnEpoch | None = None
) -> dict[str, CrossCorpusResult]:
    """Leave each corpus out of the training in turn and test on it: what a model is worth on other corpora.

    Returns
    -------
    dict of str to CrossCorpusResult
        By the name of the corpus that was left out; empty where there is one corpus alone.
    """
    plain = replace(config, train=replace(config.train, calibrate=False))
    names = sorted(set(data.corpora.tolist()))
    results = {}
    epochs = preset_of(version, plain).epochs
    for i, name in enumerate(names if len(names) > 1 else []):
        train = np.flatnonzero(data.corpora != name)
        test = np.flatnonzero((data.corpora == name) & np.isin(data.targets, data.targets[train]))
        if len(test) and len(set(data.targets[train].tolist())) > 1:
            inside = within(on_epoch, f"without {name}", i * epochs, len(names) * epochs)
            results[name] = cross_corpus(version, data.subset(train), data.subset(test), plain, inside)
    return results


def _joined(one: Dataset, other: Dataset) -> Dataset:
    """Lay two data sets with the same list of labels under one another."""
    return replace(
        one,
        examples=one.examples + other.examples,
        x=np.concatenate([one.x, other.x]),
        targets=np.concatenate([one.targets, other.targets]),
        durations_s=np.concatenate([one.durations_s, other.durations_s]),
        near_copies=tuple(dict.fromkeys(one.near_copies + other.near_copies)),
        # What is tested alone has no augmented copies.
        others={
            name: np.concatenate([rows, np.zeros((len(other.x), *rows.shape[1:]), np.float32)])
            for name, rows in one.others.items()
        },
    )
