"""Scores and temperatures, held against scikit-learn, against counts done by hand, and against known odds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from sklearn import metrics as sk

from speechemo_cli.evaluation.metrics import (
    METRICS,
    TEMPERATURE_BOUNDS,
    ClassScore,
    apply_temperature,
    ece,
    fit_temperature,
    intervals,
    no_interval,
    reliability,
    score,
)

LABELS = ("neutral", "calm", "happy")


def sure(answers: list[int] | np.ndarray) -> np.ndarray:
    """Probabilities of somebody who is always sure."""
    return np.eye(3)[np.asarray(answers)]


def test_score_agrees_with_scikit_learn(rng: np.random.Generator) -> None:
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
    assert [c.precision for c in scores.per_class.values()] == pytest.approx(precision)
    assert [c.recall for c in scores.per_class.values()] == pytest.approx(recall)
    assert [c.n for c in scores.per_class.values()] == n.tolist()


def test_score_takes_means_over_the_labels_that_occur() -> None:
    scores = score(np.array([0, 0, 0, 1]), sure([0, 0, 1, 1]), LABELS)

    assert (scores.n, scores.accuracy) == (4, 0.75)
    assert scores.uar == pytest.approx((2 / 3 + 1) / 2)
    assert scores.macro_f1 == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert scores.confusion == ((2, 1, 0), (0, 1, 0), (0, 0, 0))
    assert scores.per_class["happy"] == ClassScore(0, None, None)


def test_ece_is_the_gap_between_confidence_and_accuracy() -> None:
    # Fifteen bins of ten clips, each sure to 0.8 and right seven times of ten.
    confidence = np.full(150, 0.8)
    hits = np.tile([1.0] * 7 + [0.0] * 3, 15)

    assert ece(confidence, hits) == pytest.approx(0.1)
    assert ece(np.ones(10), np.ones(10)) == 0.0
    assert ece(np.ones(10), np.zeros(10)) == 1.0


def test_reliability_bins_have_equal_mass_and_hold_everything(rng: np.random.Generator) -> None:
    confidence = rng.random(1000) ** 8

    n, means, accuracies = zip(*reliability(confidence, np.ones(1000)), strict=True)

    assert list(n) == [67] * 10 + [66] * 5
    assert np.average(means, weights=n) == pytest.approx(confidence.mean())
    assert (list(means), set(accuracies)) == (sorted(means), {1.0})


def test_intervals_over_speakers_are_wider_where_speakers_differ(rng: np.random.Generator) -> None:
    answers = np.repeat(rng.permutation([0] * 6 + [1] * 4), 20)  # all clips of a speaker right or wrong
    truth = np.zeros(200, int)

    low, high = intervals(truth, sure(answers), [f"s{i}" for i in range(200)])["accuracy"]
    over_speakers = intervals(truth, sure(answers), [f"s{i // 20}" for i in range(200)])["accuracy"]

    # Of independent clips, right with probability 0.6, it is the normal one: 0.6 +- 1.96 * sqrt(0.24 / 200).
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.24 / 200), rel=0.15)
    assert low < 0.6 < high
    assert over_speakers[1] - over_speakers[0] > 3 * (high - low)


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
    truth = np.zeros(len(speakers), int)

    assert no_interval(speakers) == why
    assert (intervals(truth, sure(truth), speakers) == {}) == bool(why)


def test_intervals_lie_around_every_metric(rng: np.random.Generator) -> None:
    truth = rng.integers(0, 3, 300)
    probabilities = rng.dirichlet((1, 1, 1), 300) + 0.5 * np.eye(3)[truth]
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    speakers = [f"s{i % 10}" for i in range(300)]

    found = intervals(truth, probabilities, speakers)

    assert set(found) == set(METRICS)
    for name in ("accuracy", "uar", "macro_f1", "nll", "brier"):
        low, high = found[name]
        assert low < getattr(score(truth, probabilities, LABELS), name) < high
    assert found == intervals(truth, probabilities, speakers)


def drawn(temperature: float, n: int = 6000) -> tuple[np.ndarray, np.ndarray]:
    """Answers that are `temperature` times as sure as the odds the truth was drawn with."""
    rng = np.random.default_rng(17)
    logits = rng.normal(0, 1.5, (n, 5))
    odds = softmax(logits, axis=1)
    truth = (rng.random((n, 1)) > odds.cumsum(axis=1)).sum(axis=1)
    return softmax(temperature * logits, axis=1).astype(np.float32), truth.astype(np.int64)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.0, 5.0])
def test_fit_temperature_finds_a_known_one(temperature: float) -> None:
    assert fit_temperature(*drawn(temperature)) == pytest.approx(temperature, rel=0.06)


def test_fit_temperature_finds_a_better_one_than_any_of_a_fine_grid() -> None:
    p, truth = drawn(3.0, 400)

    def loss(temperature: float) -> float:
        return sk.log_loss(truth, softmax(np.log(p.astype(np.float64)) / temperature, axis=1))

    assert loss(fit_temperature(p, truth)) <= min(map(loss, np.geomspace(2, 4, 100))) + 1e-7


def test_fit_temperature_stays_within_bounds_where_all_answers_are_right_or_all_wrong() -> None:
    p = np.array([[0.8, 0.2], [0.3, 0.7], [0.9, 0.1]], np.float32)
    low, high = TEMPERATURE_BOUNDS

    assert low <= fit_temperature(p, np.array([0, 1, 0])) < 1.01 * low
    assert 0.99 * high < fit_temperature(p, np.array([1, 0, 1])) <= high


def test_temperatures_of_certain_answers_are_numbers() -> None:
    p = np.eye(3, dtype=np.float32)
    with np.errstate(all="raise"):
        corrected = apply_temperature(p, fit_temperature(p, np.array([0, 1, 0])))

    np.testing.assert_allclose(corrected.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("temperature", [0.2, 1.0, 1.3, 10.0])
def test_apply_temperature_divides_logits_and_keeps_the_answer(temperature: float) -> None:
    logits = np.random.default_rng(5).normal(0, 3, (200, 8))
    p = softmax(logits, axis=1).astype(np.float32)

    corrected = apply_temperature(p, temperature)

    np.testing.assert_allclose(corrected, softmax(logits / temperature, axis=1), atol=1e-5)
    assert np.array_equal(corrected.argmax(axis=1), p.argmax(axis=1))
    assert corrected.dtype == np.float32
    assert np.array_equal(corrected, p) == (temperature == 1)
