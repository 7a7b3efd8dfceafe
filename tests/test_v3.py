"""v3: what goes in, what it learns, and that nothing of it leans on the test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import built

from speechemo_cli.config import Config
from speechemo_cli.features import logmel
from speechemo_cli.models import model_file, training, v3
from speechemo_cli.models.keras_backend import load_keras
from speechemo_cli.models.metadata import ModelMetadata


def voices(rng: np.random.Generator, n: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Log-mel-like frames: a bump that rises, falls or stays over time, at any height."""
    targets = np.arange(n) % 3
    time = np.linspace(-1, 1, v3.FRAMES)[:, None]
    band = np.arange(64)[None, :]
    x = []
    for target in targets:
        centre = rng.uniform(20, 44) + 14 * (0, 1, -1)[target] * time
        bump = np.exp(-(((band - centre) / 4) ** 2))
        seen = np.concatenate([-12 + 6 * bump, np.repeat(-12 + 6 * bump, 2, axis=1), bump], axis=1)
        x.append(seen + 0.3 * rng.standard_normal(seen.shape))
    return np.array(x, np.float32), targets


def test_clips_of_any_length_are_brought_to_one() -> None:
    short = np.arange(10 * 256, dtype=np.float32).reshape(10, 256)
    long = np.arange(500 * 256, dtype=np.float32).reshape(500, 256)

    x = v3.prepare([short, long])

    assert x.shape == (2, v3.FRAMES, 256)
    at = (v3.FRAMES - 10) // 2
    assert np.array_equal(x[0, at : at + 10], short)
    for part in logmel.columns(256):
        assert (x[0, :at, part] == short[:, part].min()).all()
        assert (x[0, at + 10 :, part] == short[:, part].min()).all()
    assert np.array_equal(x[1], long[(500 - v3.FRAMES) // 2 :][: v3.FRAMES])


def test_it_is_small_and_normalised_by_its_training_clips(rng: np.random.Generator) -> None:
    x, _ = voices(rng)

    model = built("v3", x, 8)

    assert model.count_params() < 5_000_000
    mean = load_keras().ops.convert_to_numpy(model.get_layer("normalise").mean).ravel()
    np.testing.assert_allclose(mean, x.mean(axis=(0, 1)), rtol=1e-3)


def test_the_answer_is_the_geometric_mean_of_its_listeners(rng: np.random.Generator) -> None:
    x, _ = voices(rng, 6)
    model = built("v3", x, 3)
    for layer in model.layers:
        if layer.name.startswith("emotion"):
            layer.bias.assign(rng.normal(0, 2, 3))

    one, other = (load_keras().ops.convert_to_numpy(p) for p in v3.training_model(model)(x, training=False))

    mean = np.sqrt(one * other)
    assert np.abs(one - other).max() > 0.1
    expected = mean / mean.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(training.predict(model, x), expected, atol=1e-5)


@pytest.mark.slow
def test_it_learns_what_moves_over_time(rng: np.random.Generator) -> None:
    # The mean over time of a rising and a falling bump is the same: v1 and v2 could not tell them apart.
    x, targets = voices(rng, 144)
    preset = replace(v3.PRESET, epochs=12, batch_size=8)

    trained = training.fit("v3", preset, x[:96], targets[:96], 3, seed=0)

    answers = training.predict(trained.model, x[96:])
    assert (answers.argmax(axis=1) == targets[96:]).mean() > 0.8
    np.testing.assert_allclose(answers.sum(axis=1), 1.0, atol=1e-5)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_answers(rng: np.random.Generator) -> None:
    x, targets = voices(rng, 32)
    preset = replace(v3.PRESET, epochs=1, batch_size=16)  # two steps show it

    one, two = (
        training.predict(training.fit("v3", preset, x, targets, 3, seed=5).model, x) for _ in range(2)
    )

    np.testing.assert_allclose(one, two, atol=1e-5)


def test_the_averaged_weights_are_the_ones_that_stay(rng: np.random.Generator) -> None:
    x, targets = voices(rng, 32)
    last: list[dict[str, float]] = []

    trained = training.fit(
        "v3",
        replace(v3.PRESET, epochs=5, batch_size=4),
        x,
        targets,
        3,
        0,
        on_epoch=lambda *e: last.append(e[2]),
    )

    # What was measured after the last epoch was the network as trained; what is handed over is its average.
    loss, _ = training.measure(training.predict(trained.model, x), targets)
    assert loss != pytest.approx(last[-1]["train_loss"], abs=1e-6)


def test_every_epoch_sees_every_clip_once_and_each_time_another_way(rng: np.random.Generator) -> None:
    x, targets = voices(rng, 40)
    data = v3.batches(x, targets, 3, replace(v3.PRESET, batch_size=16), seed=0, epochs_done=0)["x"]

    first = [data[i] for i in range(len(data))]
    data.on_epoch_end()
    second = [data[i] for i in range(len(data))]

    assert [len(batch[0]) for batch in first] == [16, 16, 8]
    assert not np.allclose(first[0][0], second[0][0])
    for _, mixed in first:
        for of_listener in mixed:
            np.testing.assert_allclose(of_listener.sum(axis=1), 1.0, rtol=1e-5)


def test_an_epoch_is_the_same_whether_others_came_before_it_or_not(rng: np.random.Generator) -> None:
    x, targets = voices(rng, 6)
    preset = replace(v3.PRESET, batch_size=4)
    from_the_start, later = (v3.batches(x, targets, 3, preset, 7, done)["x"] for done in (0, 1))
    from_the_start[0], from_the_start[1]
    from_the_start.on_epoch_end()

    for i in range(2):
        (x_then, truth_then), (x_now, truth_now) = from_the_start[i], later[i]
        np.testing.assert_array_equal(x_now, x_then)
        np.testing.assert_array_equal(truth_now, truth_then)


def test_its_file_holds_no_optimizer_and_answers_the_same(rng: np.random.Generator) -> None:
    x, targets = voices(rng, 16)
    trained = training.fit("v3", replace(v3.PRESET, epochs=1, batch_size=16), x, targets, 3, seed=0)
    metadata = ModelMetadata(
        "v3", ("neutral", "happy", "angry"), "logmel", logmel.VERSION, Config().to_dict(), 0, 1
    )

    model_file.save(trained.model, metadata, Path("v3.keras"))

    loaded, _ = model_file.load("v3.keras")
    np.testing.assert_allclose(training.predict(loaded, x), training.predict(trained.model, x), atol=1e-6)
    # Four bytes a weight and a little: the state of AdamW would take three times as much again.
    assert Path("v3.keras").stat().st_size < 1.3 * 4 * trained.model.count_params()
