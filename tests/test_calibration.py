"""The temperature is the one that the answers were drawn with, and changes no answer."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss

from speechemo_cli.evaluation.calibration import BOUNDS, apply_temperature, fit_temperature


def drawn(temperature: float, n: int = 6000) -> tuple[np.ndarray, np.ndarray]:
    """Answers that are `temperature` times as sure as the odds the truth was drawn with."""
    rng = np.random.default_rng(17)
    logits = rng.normal(0, 1.5, (n, 5))
    odds = softmax(logits, axis=1)
    truth = (rng.random((n, 1)) > odds.cumsum(axis=1)).sum(axis=1)
    return softmax(temperature * logits, axis=1).astype(np.float32), truth.astype(np.int64)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.0, 5.0])
def test_a_known_temperature_is_found(temperature: float) -> None:
    assert fit_temperature(*drawn(temperature)) == pytest.approx(temperature, rel=0.06)


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_no_temperature_of_a_fine_grid_is_better(temperature: float) -> None:
    p, truth = drawn(temperature, 400)
    logits = np.log(p.astype(np.float64))

    def loss(t: float) -> float:
        return log_loss(truth, softmax(logits / t, axis=1), labels=range(5))

    found = fit_temperature(p, truth)

    assert loss(found) <= min(loss(t) for t in np.geomspace(*BOUNDS, 400)) + 1e-7
    assert loss(found) < loss(1.0)


def test_corrected_answers_need_no_further_correction() -> None:
    p, truth = drawn(3.0, 1000)

    assert fit_temperature(apply_temperature(p, fit_temperature(p, truth)), truth) == pytest.approx(
        1, abs=0.01
    )


def test_answers_that_are_all_right_or_all_wrong_stay_within_bounds() -> None:
    p = np.array([[0.8, 0.2], [0.3, 0.7], [0.9, 0.1]], np.float32)
    low, high = BOUNDS

    assert low <= fit_temperature(p, np.array([0, 1, 0])) < 1.01 * low
    assert 0.99 * high < fit_temperature(p, np.array([1, 0, 1])) <= high


def test_certain_answers_give_a_number() -> None:
    p = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    with np.errstate(all="raise"):
        temperature = fit_temperature(p, np.array([0, 1, 0]))
        corrected = apply_temperature(p, temperature)

    assert BOUNDS[0] <= temperature <= BOUNDS[1]
    np.testing.assert_allclose(corrected.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("temperature", [0.2, 0.7, 1.3, 10.0])
def test_a_temperature_divides_logits_and_keeps_the_answer(temperature: float) -> None:
    logits = np.random.default_rng(5).normal(0, 3, (200, 8))
    p = softmax(logits, axis=1).astype(np.float32)

    corrected = apply_temperature(p, temperature)

    np.testing.assert_allclose(corrected, softmax(logits / temperature, axis=1), atol=1e-5)
    np.testing.assert_allclose(corrected.sum(axis=1), 1, rtol=1e-5)
    assert np.array_equal(corrected.argmax(axis=1), p.argmax(axis=1))
    assert corrected.dtype == np.float32
    # Softer above 1, sharper below.
    assert ((corrected.max(axis=1) < p.max(axis=1)) == (temperature > 1)).mean() > 0.95


def test_a_temperature_of_one_changes_nothing() -> None:
    p, _ = drawn(1.0, 50)

    assert np.array_equal(apply_temperature(p, 1.0), p)
