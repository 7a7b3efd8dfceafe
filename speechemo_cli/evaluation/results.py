"""What a protocol has measured: its folds, all answers together, and several seeds."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.evaluation.groups import Group, by_group
from speechemo_cli.evaluation.metrics import METRICS, Scores, reliability, score
from speechemo_cli.features.augment import CONDITIONS
from speechemo_cli.formatting import UNSEEN, counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from speechemo_cli.corpus.folds import Protocol
    from speechemo_cli.corpus.splits import Example

# What a clip can be grouped by, where its layout tells: the name of the slice and of the clip's value.
SLICES = {
    "corpus": "corpus",
    "speaker": "speaker_id",
    "gender": "gender",
    "intensity": "intensity",
    "statement": "statement",
}
# A further column of a manifest with more values is a number or a text of its own for each clip.
MOST_VALUES = 20


@dataclass(frozen=True)
class FoldResult:
    """One fold: who was tested, what was answered, how the training went.

    Attributes
    ----------
    name : str
    test_speakers : tuple of str
        Empty where the protocol shares speakers.
    test : np.ndarray [shape=(n,), dtype=int64]
        Positions of the test clips in the data set.
    probabilities : np.ndarray [shape=(n, n_labels), dtype=float32]
    history : dict of str to list of float
        Accuracy and loss on the training clips, one value an epoch.
    scores : Scores
    seconds : float
        Of the training; what it took then, where the fold was done by an earlier run.
    temperature : float or None
        What the probabilities were corrected by.
    distances : np.ndarray [shape=(n,), dtype=float32]
        How far each test clip is from those of the training (`training.with_distance`).
    conditions : dict of str to np.ndarray [shape=(n, n_labels), dtype=float32]
        Probabilities for the same clips under other recording conditions.
    groups : np.ndarray [shape=(n,), dtype=str]
        What is known of the speaker of each test clip (`groups.GROUPS`).
    untrained_labels : tuple of str
        Labels that are tested although no training clip has them.
    near_copies : tuple of (Example, Example)
        Training and test clips that are nearly the same recording.
    """

    name: str
    test_speakers: tuple[str, ...]
    test: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    history: dict[str, list[float]]
    scores: Scores
    seconds: float
    temperature: float | None = None
    distances: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
    conditions: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    groups: NDArray[np.str_] = field(default_factory=lambda: np.empty(0, np.str_))
    untrained_labels: tuple[str, ...] = ()
    near_copies: tuple[tuple[Example, Example], ...] = ()


@dataclass(frozen=True)
class ProtocolResult:
    """Scores of a version under a protocol.

    Attributes
    ----------
    version : str
    protocol : Protocol
    labels : tuple of str
    epochs, seed : int
    folds : tuple of FoldResult
    examples : tuple of Example
        The tested clip of each answer, fold after fold.
    truth : np.ndarray [shape=(n,), dtype=int64]
    probabilities : np.ndarray [shape=(n, n_labels), dtype=float32]
    trained_corpora : tuple of str
        Names of the corpora that were trained on.
    """

    version: str
    protocol: Protocol
    labels: tuple[str, ...]
    epochs: int
    seed: int
    folds: tuple[FoldResult, ...]
    examples: tuple[Example, ...]
    truth: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    trained_corpora: tuple[str, ...] = ()

    @property
    def tested_corpora(self) -> tuple[str, ...]:
        """Names of the corpora whose clips were tested."""
        return tuple(sorted({example.clip.corpus for example in self.examples}))

    @cached_property
    def everybody(self) -> Group:
        """The answers of all folds together."""
        return Group(self.labels, self.examples, self.truth, self.probabilities)

    @property
    def pooled(self) -> Scores:
        """Scores of the answers of all folds together."""
        return self.everybody.scores

    @cached_property
    def groups(self) -> dict[str, Group]:
        """The answers by what is known of the speakers: unseen, unknown, seen."""
        names = np.concatenate([fold.groups for fold in self.folds])
        if len(set(names.tolist())) == 1:
            return {str(names[0]): self.everybody}
        return by_group(names, self.labels, self.examples, self.truth, self.probabilities)

    @property
    def no_interval(self) -> str:
        """Why there is no interval; empty where there is one."""
        return self.everybody.no_interval

    @property
    def untrained_labels(self) -> dict[str, list[str]]:
        """Names of the folds by each label that they test although no training clip of theirs has it."""
        found: dict[str, list[str]] = {}
        for fold in self.folds:
            for label in fold.untrained_labels:
                found.setdefault(label, []).append(fold.name)
        return found

    @property
    def near_copies(self) -> tuple[tuple[Example, Example], ...]:
        """Pairs of a training and a test clip of one fold that are nearly the same recording."""
        return tuple(dict.fromkeys(pair for fold in self.folds for pair in fold.near_copies))

    @property
    def fewer_folds(self) -> str:
        """Say why fewer folds ran than the protocol has; empty where all did."""
        asked, ran = self.protocol.n_folds, len(self.folds)
        if ran >= asked:
            return ""
        n = len({example.clip.speaker_id for example in self.examples})
        why = (
            f"the clips have {n} speakers"
            if n < asked
            else "the other published folds have none of the speakers"
        )
        return f"{ran} of {asked} folds: {why}"

    @property
    def cautions(self) -> list[str]:
        """What a reader of the figures must know: too few folds, labels never trained on, near copies."""
        found = [self.fewer_folds] if self.fewer_folds else []
        found += [
            f"{label} was tested without a training clip of it, as all its speakers were held out"
            f" (fold {', '.join(names)})"
            for label, names in self.untrained_labels.items()
        ]
        if self.near_copies:
            n = counted(len(self.near_copies), "near copy", "near copies")
            found.append(f"{n} of test clips stood in training: the figures are too good")
        return found

    def spread(self, metric: str) -> dict[str, Any]:
        """Mean and standard deviation over the folds, the pooled value and its 95 % interval."""
        values = np.array([getattr(fold.scores, metric) for fold in self.folds])
        return {
            "mean": float(values.mean()),
            "sd": float(values.std(ddof=1)) if len(values) > 1 else 0.0,
            "pooled": float(getattr(self.pooled, metric)),
            "ci95": list(self.everybody.intervals.get(metric, ())) or None,
        }

    @cached_property
    def conditions(self) -> dict[str, Scores]:
        """Scores of the same test clips under other recording conditions."""
        return {
            name: score(
                self.truth, np.concatenate([fold.conditions[name] for fold in self.folds]), self.labels
            )
            for name in self.folds[0].conditions
        }

    @cached_property
    def confidence(self) -> NDArray[np.float64]:
        """Probability of each answer."""
        highest: NDArray[np.float64] = self.probabilities.max(axis=1).astype(np.float64)
        return highest

    @cached_property
    def hits(self) -> NDArray[np.float64]:
        """1 where the answer is right, else 0."""
        right: NDArray[np.float64] = (self.probabilities.argmax(axis=1) == self.truth).astype(np.float64)
        return right

    @property
    def calibrated(self) -> bool:
        """Whether every fold's confidences were corrected by a temperature."""
        return all(fold.temperature is not None for fold in self.folds)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON has: the pooled scores with intervals, the folds and the slices."""
        return {
            "version": self.version,
            "protocol": self.protocol.name,
            "speaker_independent": list(self.groups) == [UNSEEN],
            "meaning": self.protocol.meaning,
            "no_interval": self.no_interval,
            "n_folds": {
                "asked": self.protocol.n_folds or len(self.folds),
                "ran": len(self.folds),
                "why_fewer": self.fewer_folds,
            },
            "untrained_labels": self.untrained_labels,
            "n_near_copies": len(self.near_copies),
            "corpora": {"trained_on": list(self.trained_corpora), "tested": list(self.tested_corpora)},
            "seed": self.seed,
            "epochs": self.epochs,
            "calibrated": self.calibrated,
            "labels": list(self.labels),
            "n_clips": len({example.key for example in self.examples}),
            "n_answers": self.pooled.n,
            **{name: self.spread(name) for name in METRICS},
            "per_class": self.pooled.to_dict()["per_class"],
            **conditions_to_dict(self.conditions, self.pooled),
            "confusion": self.pooled.confusion,
            "groups": {name: group.to_dict() for name, group in self.groups.items()},
            "reliability": [
                {"n": len(hits), "confidence": float(sure.mean()), "accuracy": float(hits.mean())}
                for sure, hits in reliability(self.confidence, self.hits)
            ],
            "slices": {
                name: {value: {"n": s.n, "accuracy": s.accuracy, "uar": s.uar} for value, s in parts.items()}
                for name, parts in self.slices.items()
            },
            "folds": [
                {
                    "test_speakers": list(fold.test_speakers),
                    "n": fold.scores.n,
                    "accuracy": fold.scores.accuracy,
                    "uar": fold.scores.uar,
                    "temperature": fold.temperature,
                    "seconds": round(fold.seconds, 1),
                }
                for fold in self.folds
            ],
        }

    @cached_property
    def slices(self) -> dict[str, dict[str, Scores]]:
        """Scores by what the layout tells of the clips, by corpus, and by further columns of a manifest."""
        found: dict[str, dict[str, Scores]] = {}
        values_by = {
            name: [str(getattr(e.clip, value_of) or "") for e in self.examples]
            for name, value_of in SLICES.items()
        }
        extras = [dict(e.clip.extra) for e in self.examples]
        for name in dict.fromkeys(name for extra in extras for name in extra):
            values = [extra.get(name, "") for extra in extras]
            if name not in values_by and 2 <= len(set(values) - {""}) <= MOST_VALUES:
                values_by[name] = values
        for name, values in values_by.items():
            if name == "corpus" and len(self.tested_corpora) == 1:
                continue
            of_clip = np.array(values)
            for value in sorted(set(values) - {""}):
                at = of_clip == value
                one = score(self.truth[at], self.probabilities[at], self.labels)
                found.setdefault(name, {})[value] = one
        return found


def over_seeds(results: Mapping[int, ProtocolResult]) -> dict[str, Any]:
    """Return accuracy and UAR by seed, with mean and range: how much the drawing of lots decides.

    Parameters
    ----------
    results : mapping of int to ProtocolResult
        By seed.
    """
    document: dict[str, Any] = {"seeds": list(results)}
    for metric in ("accuracy", "uar"):
        values = [float(getattr(result.pooled, metric)) for result in results.values()]
        mean = sum(values) / len(values)
        document[metric] = {"mean": mean, "min": min(values), "max": max(values), "values": values}
    return document


def conditions_to_dict(scores: Mapping[str, Scores], plain: Scores) -> dict[str, Any]:
    """Return what JSON has: scores by condition, and the cost in accuracy against the clips as they are."""
    if not scores:
        return {}
    return {
        "conditions": {
            name: {
                "title": CONDITIONS[name].title,
                "n": one.n,
                "accuracy": one.accuracy,
                "uar": one.uar,
                "cost": plain.accuracy - one.accuracy,
            }
            for name, one in scores.items()
        }
    }
