"""Scores, held against scikit-learn and against counts done by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from speechemo_cli.evaluation.metrics import METRICS, ece, intervals, no_interval, reliability, score

LABELS = ("neutral", "calm", "happy")


def sure(answers: list[int] | np.ndarray) -> np.ndarray:
    """Probabilities of somebody who is always sure."""
    return np.eye(3)[np.asarray(answers)]


def test_scores_agree_with_scikit_learn(rng: np.random.Generator) -> None:
    truth, probabilities = rng.integers(0, 3, 200), rng.dirichlet((1, 1, 1), 200)
    answers = probabilities.argmax(axis=1)

    scores = score(truth, probabilities, LABELS)

    assert scores.nll == pytest.approx(sk.log_loss(truth, probabilities))
    assert scores.brier == pytest.approx(((probabilities - np.eye(3)[truth]) ** 2).sum(axis=1).mean())

    assert scores.accuracy == pytest.approx(sk.accuracy_score(truth, answers))
    assert scores.uar == pytest.approx(sk.balanced_accuracy_score(truth, answers))
    assert scores.macro_f1 == pytest.approx(sk.f1_score(truth, answers, average="macro"))
    assert np.array_equal(scores.confusion, sk.confusion_matrix(truth, answers))
    precision, recall, _, n = sk.precision_recall_fscore_support(truth, answers)
    assert [c.precision for c in scores.per_class] == pytest.approx(precision)
    assert [c.recall for c in scores.per_class] == pytest.approx(recall)
    assert [c.n for c in scores.per_class] == n.tolist()


def test_counts_by_hand() -> None:
    scores = score(np.array([0, 0, 0, 1]), sure([0, 0, 1, 1]), LABELS)

    assert scores.n == 4
    assert scores.accuracy == 0.75
    assert scores.uar == pytest.approx((2 / 3 + 1) / 2)
    assert scores.confusion == ((2, 1, 0), (0, 1, 0), (0, 0, 0))


def test_a_label_that_does_not_occur_has_no_recall_and_does_not_lower_the_mean() -> None:
    scores = score(np.array([0, 1]), sure([0, 1]), LABELS)

    assert scores.per_class[2].recall is None
    assert scores.per_class[2].precision is None
    assert scores.uar == scores.macro_f1 == 1.0


def test_accuracy_and_uar_differ_where_classes_are_unbalanced() -> None:
    truth = np.array([0] * 90 + [1] * 10)

    scores = score(truth, sure(np.zeros(100, int)), LABELS)

    assert scores.accuracy == 0.9
    assert scores.uar == 0.5


def test_ece_is_the_gap_between_confidence_and_accuracy() -> None:
    # Fifteen bins of ten clips, each sure to 0.8 and right seven times of ten.
    confidence = np.full(150, 0.8)
    hits = np.tile([1.0] * 7 + [0.0] * 3, 15)

    assert ece(confidence, hits) == pytest.approx(0.1)
    assert ece(np.ones(10), np.ones(10)) == 0.0
    assert ece(np.ones(10), np.zeros(10)) == 1.0


def test_answers_drawn_from_the_probabilities_are_calibrated(rng: np.random.Generator) -> None:
    confidence = rng.uniform(0.3, 1.0, 20_000)
    hits = (rng.random(20_000) < confidence).astype(float)

    assert ece(confidence, hits) < 0.02
    assert ece(np.minimum(1.0, confidence + 0.2), hits) > 0.1


def test_bins_have_equal_mass_and_hold_everything(rng: np.random.Generator) -> None:
    confidence = rng.random(1000) ** 8

    bins = reliability(confidence, np.ones(1000))

    assert [len(c) for c, _ in bins] == [67] * 10 + [66] * 5
    assert np.array_equal(np.concatenate([c for c, _ in bins]), np.sort(confidence))


def test_intervals_hold_the_truth_of_independent_clips(rng: np.random.Generator) -> None:
    # 400 clips, right with probability 0.7: the normal interval is 0.7 +- 1.96 * sqrt(0.21 / 400).
    truth = np.zeros(400, int)
    answers = (rng.random(400) > 0.7).astype(int)

    low, high = intervals(truth, sure(answers), [f"s{i}" for i in range(400)])["accuracy"]

    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.21 / 400), rel=0.15)
    assert low < (answers == 0).mean() < high


def test_intervals_over_speakers_are_wider_where_voices_differ(rng: np.random.Generator) -> None:
    speakers = [f"s{i // 40}" for i in range(400)]
    answers = np.repeat(rng.permutation([0] * 6 + [1] * 4), 40)  # whole voices right or wrong
    truth = np.zeros(400, int)

    over_speakers = intervals(truth, sure(answers), speakers)["accuracy"]
    over_clips = intervals(truth, sure(answers), [f"s{i}" for i in range(400)])["accuracy"]

    assert over_speakers[1] - over_speakers[0] > 3 * (over_clips[1] - over_clips[0])


@pytest.mark.parametrize(
    ("speakers", "why"),
    [
        (["a", "b", "c", "d"], "4 speakers: no interval"),
        (["a", None], "1 speaker: no interval"),
        ([None, ""], "speakers not known: no interval"),
        (["a", "b", "c", "d", "e"], ""),
    ],
)
def test_intervals_need_five_speakers(speakers: list[str | None], why: str) -> None:
    groups = speakers * 20
    truth = np.zeros(len(groups), int)

    assert no_interval(groups) == why
    assert (intervals(truth, sure(truth), groups, draws=3) == {}) == bool(why)


def test_every_metric_has_an_interval_around_it(rng: np.random.Generator) -> None:
    truth = rng.integers(0, 3, 300)
    probabilities = rng.dirichlet((1, 1, 1), 300) + 0.5 * np.eye(3)[truth]
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    scores = score(truth, probabilities, LABELS)

    found = intervals(truth, probabilities, [f"s{i % 10}" for i in range(300)], seed=1)

    assert set(found) == set(METRICS)
    for name in ("accuracy", "uar", "macro_f1", "nll", "brier"):
        assert found[name][0] < getattr(scores, name) < found[name][1]
    assert found == intervals(truth, probabilities, [f"s{i % 10}" for i in range(300)], seed=1)
