"""Scores of a set of answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


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
    per_class : tuple of ClassScore
    confusion : tuple of tuple of int
        Rows are the truth, columns the answers.
    """

    n: int
    accuracy: float
    uar: float
    macro_f1: float
    per_class: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]


def score(truth: NDArray[np.int64], answers: NDArray[np.int64], labels: Sequence[str]) -> Scores:
    """Score answers against the truth.

    Parameters
    ----------
    truth, answers : np.ndarray [shape=(n,), dtype=int64]
        Positions in `labels`; at least one.
    labels : sequence of str

    Returns
    -------
    Scores
    """
    from sklearn.metrics import confusion_matrix, f1_score

    confusion = confusion_matrix(truth, answers, labels=range(len(labels)))
    right, true_n, answered_n = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    present = np.flatnonzero(true_n)
    per_class = tuple(
        ClassScore(
            label,
            int(true_n[i]),
            float(right[i] / answered_n[i]) if answered_n[i] else None,
            float(right[i] / true_n[i]) if true_n[i] else None,
        )
        for i, label in enumerate(labels)
    )
    return Scores(
        n=len(truth),
        accuracy=float(right.sum() / len(truth)),
        uar=float((right[present] / true_n[present]).mean()),
        macro_f1=float(f1_score(truth, answers, labels=present, average="macro", zero_division=0.0)),
        per_class=per_class,
        confusion=tuple(tuple(int(n) for n in row) for row in confusion),
    )
