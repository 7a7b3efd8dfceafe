"""Scores, held against scikit-learn and against counts done by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from speechemo_cli.evaluation.metrics import score

LABELS = ("neutral", "calm", "happy")


def test_scores_agree_with_scikit_learn(rng: np.random.Generator) -> None:
    truth, answers = rng.integers(0, 3, 200), rng.integers(0, 3, 200)

    scores = score(truth, answers, LABELS)

    assert scores.accuracy == pytest.approx(sk.accuracy_score(truth, answers))
    assert scores.uar == pytest.approx(sk.balanced_accuracy_score(truth, answers))
    assert scores.macro_f1 == pytest.approx(sk.f1_score(truth, answers, average="macro"))
    assert np.array_equal(scores.confusion, sk.confusion_matrix(truth, answers))
    precision, recall, _, n = sk.precision_recall_fscore_support(truth, answers)
    assert [c.precision for c in scores.per_class] == pytest.approx(precision)
    assert [c.recall for c in scores.per_class] == pytest.approx(recall)
    assert [c.n for c in scores.per_class] == n.tolist()


def test_counts_by_hand() -> None:
    scores = score(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), LABELS)

    assert scores.n == 4
    assert scores.accuracy == 0.75
    assert scores.uar == pytest.approx((2 / 3 + 1) / 2)
    assert scores.confusion == ((2, 1, 0), (0, 1, 0), (0, 0, 0))


def test_a_label_that_does_not_occur_has_no_recall_and_does_not_lower_the_mean() -> None:
    scores = score(np.array([0, 1]), np.array([0, 1]), LABELS)

    assert scores.per_class[2].recall is None
    assert scores.per_class[2].precision is None
    assert scores.uar == scores.macro_f1 == 1.0


def test_accuracy_and_uar_differ_where_classes_are_unbalanced() -> None:
    truth = np.array([0] * 90 + [1] * 10)

    scores = score(truth, np.zeros(100, int), LABELS)

    assert scores.accuracy == 0.9
    assert scores.uar == 0.5
