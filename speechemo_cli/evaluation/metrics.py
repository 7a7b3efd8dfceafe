"""Scores of a set of answers, and how sure one can be of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.formatting import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    Targets = NDArray[np.int64]
    Probabilities = NDArray[np.floating[Any]]

# Bins of equal mass: with equal widths, most of a sure network's answers fall into one bin.
ECE_BINS = 15
# The metrics that get an interval.
METRICS = ("accuracy", "uar", "macro_f1", "nll", "brier", "ece")
# Drawn anew, fewer speakers give an interval that says little but how much these few differ.
MIN_SPEAKERS = 5
_DRAWS = 1000


@dataclass(frozen=True)
class ClassScore:
    """Precision and recall of one label; None where nothing was answered so, or nothing is so."""

    label: str
    n: int
    precision: float | None
    recall: float | None


@dataclass(frozen=True)
class Scores:
    """What a set of answers is worth.

    Attributes
    ----------
    n : int
        Clips.
    accuracy : float
        Share of right answers (WA in the field's papers).
    uar : float
        Unweighted average recall: the mean of the recalls of the labels that occur.
    macro_f1 : float
        Mean F1 of the labels that occur.
    nll : float
        Mean negative logarithm of the probability given to the truth, in nats.
    brier : float
        Mean squared distance of the probabilities from the truth, 0 to 2 (Brier 1950).
    ece : float
        Expected calibration error: mean difference of confidence and accuracy, in
        `ECE_BINS` bins of equal mass (Nguyen & O'Connor 2015).
    per_class : tuple of ClassScore
    confusion : tuple of tuple of int
        Rows are the truth, columns the answers.
    """

    n: int
    accuracy: float
    uar: float
    macro_f1: float
    nll: float
    brier: float
    ece: float
    per_class: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, with `per_class` by label."""
        per_class = {
            c.label: {"n": c.n, "precision": c.precision, "recall": c.recall} for c in self.per_class
        }
        return {**asdict(self), "per_class": per_class}


def score(truth: Targets, probabilities: Probabilities, labels: Sequence[str]) -> Scores:
    """Score answers against the truth.

    Parameters
    ----------
    truth : np.ndarray [shape=(n,), dtype=int64]
        Positions in `labels`; at least one.
    probabilities : np.ndarray [shape=(n, n_labels)]
        Rows sum to 1; the answer is the largest.
    labels : sequence of str
    """
    from sklearn.metrics import confusion_matrix

    matrix = confusion_matrix(truth, probabilities.argmax(axis=1), labels=range(len(labels)))
    right, true_n, answered_n = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    per_class = tuple(
        ClassScore(
            label,
            int(true_n[i]),
            float(right[i] / answered_n[i]) if answered_n[i] else None,
            float(right[i] / true_n[i]) if true_n[i] else None,
        )
        for i, label in enumerate(labels)
    )
    rows = tuple(tuple(int(n) for n in row) for row in matrix)
    return Scores(
        n=len(truth),
        **_from_matrix(matrix),
        **_of_confidence(truth, probabilities),
        per_class=per_class,
        confusion=rows,
    )


def _from_matrix(matrix: NDArray[np.int64]) -> dict[str, float]:
    right, true_n, answered_n = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    present = true_n > 0
    f1 = 2 * right[present] / (true_n + answered_n)[present]
    return {
        "accuracy": float(right.sum() / true_n.sum()),
        "uar": float((right[present] / true_n[present]).mean()),
        "macro_f1": float(f1.mean()),
    }


def _of_confidence(truth: Targets, probabilities: Probabilities) -> dict[str, float]:
    p = probabilities.astype(np.float64)
    of_truth = p[np.arange(len(truth)), truth]
    distance = (p**2).sum(axis=1) - 2 * of_truth + 1
    hits = (p.argmax(axis=1) == truth).astype(np.float64)
    return {
        "nll": float(-np.log(np.maximum(of_truth, 1e-12)).mean()),
        "brier": float(distance.mean()),
        "ece": ece(p.max(axis=1), hits),
    }


def ece(confidence: NDArray[np.float64], hits: NDArray[np.float64], bins: int = ECE_BINS) -> float:
    """Return the expected calibration error in bins of equal mass.

    Parameters
    ----------
    confidence : np.ndarray [shape=(n,)]
        Probability of the answer.
    hits : np.ndarray [shape=(n,)]
        1 where the answer is right, else 0.
    bins : int

    Returns
    -------
    float
        Mean over the clips of |accuracy - confidence| of their bin.
    """
    return sum(
        len(h) * abs(float(h.mean() - c.mean())) for c, h in reliability(confidence, hits, bins)
    ) / len(hits)


def reliability(
    confidence: NDArray[np.float64], hits: NDArray[np.float64], bins: int = ECE_BINS
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Sort answers by confidence and cut them into bins of equal mass: (confidences, hits) of each."""
    order = np.argsort(confidence, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    return [(confidence[part], hits[part]) for part in parts]


def bootstrap_groups(groups: Sequence[str | None]) -> NDArray[np.intp]:
    """Give each clip its unit of a bootstrap: its speaker, or the clip itself where nobody told.

    Parameters
    ----------
    groups : sequence of str or None
        The speaker of each clip; None or empty where nobody told.

    Returns
    -------
    np.ndarray [shape=(n,)]
        The unit of each clip, from 0.
    """
    names = np.array([f"speaker {group}" if group else f"clip {i}" for i, group in enumerate(groups)])
    return np.unique(names, return_inverse=True)[1]


def no_interval(groups: Iterable[str | None]) -> str:
    """Say why there is no interval over so few speakers: `2 speakers: no interval`; empty where there is."""
    n = len({group for group in groups if group})
    if n >= MIN_SPEAKERS:
        return ""
    return f"{counted(n, 'speaker')}: no interval" if n else "speakers not known: no interval"


def intervals(
    truth: Targets,
    probabilities: Probabilities,
    groups: Sequence[str | None],
    seed: int = 0,
    draws: int = _DRAWS,
) -> dict[str, tuple[float, float]]:
    """95 % intervals of every metric, by bootstrap over speakers.

    Clips of one speaker are right or wrong together, so clips drawn one by one would give intervals
    far too narrow. Speakers are drawn with replacement, with all their clips (Efron & Tibshirani
    1993, ch. 8); clips whose speaker is not known are drawn one by one. The calibration error of a
    draw is larger than that of the clips it was drawn from, so its interval leans upwards.

    Parameters
    ----------
    truth : np.ndarray [shape=(n,), dtype=int64]
    probabilities : np.ndarray [shape=(n, n_labels)]
    groups : sequence of str or None
        The speaker of each clip.
    seed, draws : int

    Returns
    -------
    dict of str to (low, high)
        Empty where fewer than `MIN_SPEAKERS` speakers are known.
    """
    if no_interval(groups):
        return {}
    inverse = bootstrap_groups(groups)
    members = [np.flatnonzero(inverse == i) for i in range(inverse.max() + 1)]
    n_labels = probabilities.shape[1]
    answers = probabilities.argmax(axis=1)
    rng = np.random.default_rng(seed)
    values: dict[str, list[float]] = {name: [] for name in METRICS}
    for _ in range(draws):
        at = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        cells = np.bincount(truth[at] * n_labels + answers[at], minlength=n_labels**2)
        drawn = {
            **_from_matrix(cells.reshape(n_labels, n_labels)),
            **_of_confidence(truth[at], probabilities[at]),
        }
        for name in METRICS:
            values[name].append(drawn[name])
    return {
        name: (float(np.quantile(drawn, 0.025)), float(np.quantile(drawn, 0.975)))
        for name, drawn in values.items()
    }
