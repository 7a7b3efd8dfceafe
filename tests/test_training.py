"""Networks learn what can be learned, repeat themselves with a seed, and learn nothing from watched sets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import built, told

from speechemo_cli.config import TrainConfig
from speechemo_cli.errors import ConfigError, SpeechemoError
from speechemo_cli.evaluation.metrics import apply_temperature
from speechemo_cli.models import VERSIONS, training, version_module
from speechemo_cli.models.keras_backend import load_keras
from speechemo_cli.models.training import Rows


def blobs(rng: np.random.Generator, n: int = 120, dim: int = 40) -> Rows:
    """Three clouds that a straight cut separates, far from zero mean and unit deviation."""
    targets = rng.integers(0, 3, n)
    centres = np.zeros((3, dim))
    for i in range(3):
        centres[i, 13 * i : 13 * i + 13] = 3.0
    x = 500 + 30 * (centres[targets] + rng.standard_normal((n, dim)))
    return Rows(x.astype(np.float32), targets, np.ones(n, np.float32))


def part(rows: Rows, at: slice) -> Rows:
    return Rows(*(values[at] for values in rows))


def short(version: str, **changes: object) -> object:
    return replace(version_module(version).PRESET, epochs=40, **changes)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_every_version_learns_separable_clouds(version: str, rng: np.random.Generator) -> None:
    rows = blobs(rng, 180)

    trained = training.fit(version, short(version), part(rows, slice(120)), 3, seed=1)

    answers = training.predict(trained.model, rows.x[120:])
    assert (answers.argmax(axis=1) == rows.targets[120:]).mean() > 0.9
    assert answers.shape == (60, 3)
    assert np.allclose(answers.sum(axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize("version", ["v1", pytest.param("v2", marks=pytest.mark.slow)])
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    version: str, rng: np.random.Generator
) -> None:
    rows = blobs(rng)
    preset = replace(short(version), epochs=3)

    first, again, other = (
        training.predict(training.fit(version, preset, rows, 3, seed=seed).model, rows.x)
        for seed in (7, 7, 8)
    )

    assert np.array_equal(first, again)
    assert not np.allclose(first, other)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_statistics_are_those_of_the_training_clips(version: str, rng: np.random.Generator) -> None:
    rows = blobs(rng)

    model = training.fit(version, replace(short(version), epochs=1), rows, 3, seed=0).model

    layer = model.get_layer("normalise")
    keras = load_keras()
    assert np.allclose(keras.ops.convert_to_numpy(layer.mean).ravel(), rows.x.mean(axis=0), rtol=1e-4)
    assert np.allclose(keras.ops.convert_to_numpy(layer.variance).ravel(), rows.x.var(axis=0), rtol=1e-3)


def test_v2_is_v1_with_batch_normalization_and_dropout_of_0_4() -> None:
    kinds = {
        version: [
            type(layer).__name__
            for layer in version_module(version).build((40,), 8, version_module(version).PRESET).layers
        ]
        for version in ("v1", "v2")
    }

    assert "BatchNormalization" not in kinds["v1"]
    assert "BatchNormalization" in kinds["v2"]
    assert version_module("v1").PRESET.epochs == 50
    assert version_module("v2").PRESET.epochs == 100
    assert version_module("v2").PRESET.dropout == 0.4


def test_watched_sets_are_measured_and_change_nothing(rng: np.random.Generator) -> None:
    rows = blobs(rng)
    preset = replace(short("v1"), epochs=3)

    alone = training.fit("v1", preset, part(rows, slice(80)), 3, seed=1)
    watched = training.fit(
        "v1", preset, part(rows, slice(80)), 3, seed=1, watch={"new": (rows.x[80:], rows.targets[80:])}
    )

    assert np.array_equal(training.predict(alone.model, rows.x), training.predict(watched.model, rows.x))
    assert len(watched.history["new_accuracy"]) == len(watched.history["train_loss"]) == 3
    loss, accuracy = training.measure(training.predict(watched.model, rows.x[80:]), rows.targets[80:])
    assert watched.history["new_accuracy"][-1] == accuracy
    assert watched.history["new_loss"][-1] == pytest.approx(loss)


def test_every_epoch_is_reported(rng: np.random.Generator) -> None:
    rows = blobs(rng)
    seen: list[tuple[int, int]] = []

    training.fit(
        "v1",
        replace(short("v1"), epochs=3),
        rows,
        3,
        0,
        on_epoch=lambda n, total, _: seen.append((n, total)),
    )

    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_loss_that_is_no_number_stops_the_training(rng: np.random.Generator) -> None:
    rows = blobs(rng)
    rows.x[0, 0] = np.nan

    with pytest.raises(SpeechemoError, match="the loss is nan after epoch 1"):
        training.fit("v1", short("v1"), rows, 3, seed=0)


def test_measure_is_cross_entropy_and_accuracy() -> None:
    p = np.array([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]], np.float32)

    loss, accuracy = training.measure(p, np.array([0, 0, 0]))

    assert loss == pytest.approx(-np.log([0.5, 0.9, 0.2]).mean(), rel=1e-6)
    assert accuracy == pytest.approx(2 / 3)


def test_the_config_lies_over_the_preset() -> None:
    preset = version_module("v2").PRESET.with_config(TrainConfig(epochs=7, dropout=0.0))

    assert (preset.epochs, preset.dropout) == (7, 0.0)
    assert preset.batch_size == version_module("v2").PRESET.batch_size


def test_only_v3_is_calibrated_unless_the_config_says_otherwise() -> None:
    presets = {version: version_module(version).PRESET for version in VERSIONS}

    assert {version for version, preset in presets.items() if preset.calibrate} == {"v3"}
    assert presets["v1"].with_config(TrainConfig(calibrate=True)).calibrate
    assert not presets["v3"].with_config(TrainConfig(calibrate=False)).calibrate


def test_a_row_of_weight_zero_is_not_learned_from(rng: np.random.Generator) -> None:
    rows = blobs(rng)
    # The last third says the opposite of the rest.
    targets = rows.targets.copy()
    targets[80:] = (targets[80:] + 1) % 3
    weights = np.r_[np.ones(80), np.zeros(40)].astype(np.float32)

    model = training.fit("v1", short("v1"), Rows(rows.x, targets, weights), 3, seed=1).model

    assert (training.predict(model, rows.x[80:]).argmax(axis=1) == rows.targets[80:]).mean() > 0.9


def test_rows_of_lays_copies_behind_their_clip_with_its_weight(rng: np.random.Generator) -> None:
    data = told(rng, speakers=3, clips=1)
    sung = tuple(replace(e, clip=replace(e.clip, song=i < 3)) for i, e in enumerate(data.examples))
    copies = rng.standard_normal((9, 2, 40)).astype(np.float32)
    data = replace(data, examples=sung, others={"augment": copies})
    at = np.array([5, 1])

    plain = training.rows_of(data, at, version_module("v1").PRESET)
    rows = training.rows_of(data, at, version_module("v3").PRESET)

    np.testing.assert_array_equal(plain.x, data.x[at])
    np.testing.assert_array_equal(rows.x, [data.x[5], *copies[5], data.x[1], *copies[1]])
    assert rows.targets.tolist() == [data.targets[5]] * 3 + [data.targets[1]] * 3
    assert rows.weights.tolist() == [1.0] * 3 + [0.5] * 3


@pytest.mark.parametrize("version", VERSIONS)
def test_with_distance_adds_the_mean_square_of_z_scores(version: str, rng: np.random.Generator) -> None:
    x = rng.normal(500, 30, (50, 40)).astype(np.float32)
    model = built(version, x, 3)
    far = rng.normal(400, 60, (5, 40)).astype(np.float32)

    answers, distances = training.predict(training.with_distance(model), np.concatenate([x, far]))

    z = (np.concatenate([x, far]).astype(np.float64) - x.mean(axis=0)) / x.std(axis=0)
    np.testing.assert_allclose(distances, np.square(z).mean(axis=1, keepdims=True), rtol=1e-3)
    assert distances[:50].mean() == pytest.approx(1, rel=1e-3)
    np.testing.assert_array_equal(answers, training.predict(model, np.concatenate([x, far])))


@pytest.mark.parametrize("temperature", [0.5, 3.0])
@pytest.mark.parametrize("version", ["v1", "v3"])
def test_divided_logits_answer_as_a_temperature_on_the_answers(
    version: str, temperature: float, rng: np.random.Generator
) -> None:
    x = rng.normal(0, 5, (6, 40)).astype(np.float32)
    model = built(version, x, 3)
    for layer in model.layers:
        if layer.name.startswith("emotion"):
            leaning = np.array([0.5, -1.0, 2.0])  # a network that leans somewhere
            layer.bias.assign(np.broadcast_to(leaning, layer.bias.shape))
    before = training.predict(model, x)

    training.divide_logits(model, temperature)

    after = training.predict(model, x)
    np.testing.assert_allclose(after, apply_temperature(before, temperature), atol=1e-5)
    assert np.abs(after - before).max() > 0.01


def test_an_unknown_version_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="version is 'v9', expected one of v1, v2, v3"):
        version_module("v9")


def test_a_large_set_is_watched_in_part(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = blobs(rng)
    monkeypatch.setattr(training, "_WATCHED_ROWS", 25)
    measured = []
    monkeypatch.setattr(training, "measure", lambda p, t: measured.append(len(t)) or (0.0, 0.0))

    training.fit(
        "v1", replace(short("v1"), epochs=1), rows, 3, seed=0, watch={"new": (rows.x[:7], rows.targets[:7])}
    )

    assert measured == [25, 7]


def test_predictions_do_not_depend_on_the_batches(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = blobs(rng)
    model = training.fit("v1", replace(short("v1"), epochs=1), rows, 3, seed=0).model
    whole = training.predict(model, rows.x)

    monkeypatch.setattr(training, "_PREDICT_CLIPS", 7)

    np.testing.assert_allclose(training.predict(model, rows.x), whole, atol=1e-6)
