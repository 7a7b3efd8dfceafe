"""v3: heads that are trained each for itself and answer together, on clips drawn by their weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import built, own_weights

from speechemo_cli.models import load_keras, training, v3
from speechemo_cli.models.training import Rows

N_CLASSES = 4
PRESET = replace(v3.PRESET, epochs=8, batch_size=64, dropout=0.2)


@pytest.fixture
def rows(rng: np.random.Generator) -> Rows:
    """Clips far from zero mean and unit deviation."""
    x = rng.normal(7, 3, (256, 24)).astype(np.float32)
    return Rows(x, np.arange(256) % N_CLASSES, np.ones(256, np.float32))


def drawn(rows: Rows, preset: Any = PRESET, seed: int = 0, epoch: int = 0) -> list[Any]:
    """The batches of one epoch."""
    batches = v3.batches(rows, N_CLASSES, preset, seed, epoch)["x"]
    return [batches[i] for i in range(len(batches))]


def test_v3_answer_is_the_geometric_mean_of_the_heads(rows: Rows, rng: np.random.Generator) -> None:
    x = rows.x[:32]
    model = built("v3", x, N_CLASSES)
    own_weights(model, rng)
    trained = v3.training_model(model, PRESET, 10)

    answers = training.predict(model, x)
    heads = training.predict(trained, x).astype(np.float64)

    assert [id(one) for one in trained.variables] == [id(one) for one in model.variables]
    assert heads.shape[0::2] == (32, N_CLASSES)
    assert np.ptp(heads, axis=1).max() > 0.1  # each has weights of its own
    means = np.exp(np.log(heads).mean(axis=1))
    np.testing.assert_allclose(answers, means / means.sum(axis=1, keepdims=True), atol=1e-5)


def test_batches_draw_clips_by_their_weights() -> None:
    n = 40
    weights = np.r_[np.zeros(10), np.full(10, 0.25), np.full(20, 1.0)].astype(np.float32)
    rows = Rows(np.eye(n, dtype=np.float32), np.arange(n) % N_CLASSES, weights)
    preset = replace(PRESET, batch_size=50)

    # Of a mixture of two clips each counts by its part, so that sums of rows count what was drawn.
    counts = sum(x.sum(axis=0) for epoch in range(200) for x, _ in drawn(rows, preset, epoch=epoch))

    expected = 200 * 50 * weights / weights.sum()
    assert counts[:10].max() == 0
    np.testing.assert_allclose(counts[10:20].sum(), expected[10:20].sum(), rtol=0.05)
    np.testing.assert_allclose(counts[20:], expected[20:], rtol=0.2)


@pytest.mark.parametrize(
    ("weights", "steps"), [([1.0] * 256, 4), ([0.5] * 256, 4), ([1.0] * 128 + [0.25] * 128, 3)]
)
def test_batches_are_fewer_where_clips_count_less(weights: list[float], steps: int, rows: Rows) -> None:
    assert len(drawn(rows._replace(weights=np.array(weights, np.float32)))) == steps


def test_batches_mix_clips_and_their_truth_alike(rng: np.random.Generator) -> None:
    targets = rng.integers(0, N_CLASSES, 200)
    # Features that are the truth, so that a mixture of one is the mixture of the other.
    rows = Rows(np.eye(N_CLASSES, dtype=np.float32)[targets], targets, np.ones(200, np.float32))

    for x, truth in drawn(rows):
        assert truth.shape[0::2] == (PRESET.batch_size, N_CLASSES)
        for head in range(truth.shape[1]):
            np.testing.assert_allclose(truth[:, head], x, atol=1e-6)
    assert any(((x > 0.05) & (x < 0.95)).any() for x, _ in drawn(rows))


def test_batches_go_on_at_the_epoch_that_was_reached(rows: Rows) -> None:
    begun = v3.batches(rows, N_CLASSES, PRESET, 3, 0)["x"]
    for _ in range(2):
        begun.on_epoch_end()

    resumed = drawn(rows, seed=3, epoch=2)

    assert len(begun) == len(resumed)
    for i, (x, truth) in enumerate(resumed):
        np.testing.assert_array_equal(begun[i][0], x)
        np.testing.assert_array_equal(begun[i][1], truth)
    # Other epochs and seeds draw others.
    assert not np.array_equal(drawn(rows, seed=3, epoch=3)[0][0], resumed[0][0])
    assert not np.array_equal(drawn(rows, seed=4, epoch=2)[0][0], resumed[0][0])


def test_v3_rate_warms_up_and_falls_to_zero(rows: Rows) -> None:
    model = v3.training_model(built("v3", rows.x, N_CLASSES), PRESET, 10)

    schedule = model.optimizer._learning_rate
    to_numpy = load_keras().ops.convert_to_numpy
    rates = [float(to_numpy(schedule(step))) for step in range(10 * PRESET.epochs + 1)]
    assert int(np.argmax(rates)) == PRESET.epochs  # a tenth of the training
    assert max(rates) == pytest.approx(PRESET.learning_rate, rel=1e-3)
    assert rates[-1] == pytest.approx(0, abs=1e-8)
