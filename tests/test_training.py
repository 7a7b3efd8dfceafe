"""Trainings learn, repeat themselves with a seed, and go on after a kill; v1 and v2 among them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import built, separable

from speechemo_cli.config import TrainConfig
from speechemo_cli.corpus.clips import Clip
from speechemo_cli.corpus.splits import Example
from speechemo_cli.errors import AccessError, ConfigError, SpeechemoError
from speechemo_cli.evaluation.metrics import apply_temperature
from speechemo_cli.models import VERSIONS, load_keras, training, v3, version_module
from speechemo_cli.models.training import Checkpoint, Rows, clip_weights

PRESETS = {version: version_module(version).PRESET for version in VERSIONS}


def blobs(rng: np.random.Generator, n: int = 120, dim: int = 40) -> Rows:
    """Three clouds that a straight cut separates, far from zero mean and unit deviation."""
    targets = rng.integers(0, 3, n)
    centres = np.zeros((3, dim))
    for i in range(3):
        centres[i, 13 * i : 13 * i + 13] = 3.0
    x = 500 + 30 * (centres[targets] + rng.standard_normal((n, dim)))
    return Rows(x.astype(np.float32), targets, np.ones(n, np.float32))


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({("own", False): 4}, [1.0]),
        # Songs beside spoken clips count half; songs alone are all there is.
        ({("own", False): 4, ("own", True): 2}, [1.0, 0.5]),
        ({("own", True): 4}, [1.0]),
        # Another corpus counts a quarter of RAVDESS in all, however large it is, but no clip more than one.
        ({("ravdess", False): 40, ("big", False): 100, ("small", False): 5}, [1.0, 0.1, 1.0]),
        # RAVDESS counts 40 + 0.5 * 20.
        ({("ravdess", False): 40, ("ravdess", True): 20, ("big", False): 50}, [1.0, 0.5, 0.25]),
        # Without it, the largest is what the others are measured by.
        ({("one", False): 100, ("two", False): 50}, [1.0, 0.5]),
    ],
    ids=["one corpus", "songs", "songs alone", "three corpora", "songs and corpora", "no RAVDESS"],
)
def test_clip_weights_let_no_corpus_drown_the_others(
    counts: dict[tuple[str, bool], int], expected: list[float]
) -> None:
    examples = [
        Example(Clip(f"{corpus}/{song}/{i}.wav", "sad", corpus=corpus, song=song), str(i))
        for (corpus, song), n in counts.items()
        for i in range(n)
    ]

    weights = clip_weights(examples)

    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, np.repeat(expected, list(counts.values())), rtol=1e-6)


# v2 is v1 with more layers.
@pytest.mark.parametrize("version", ["v1", pytest.param("v2", marks=pytest.mark.slow), "v3"])
def test_fit_learns_separable_clouds_but_not_from_rows_of_weight_zero(
    version: str, rng: np.random.Generator
) -> None:
    rows = blobs(rng, 220)
    targets, weights = rows.targets.copy(), rows.weights.copy()
    # A third of what is trained on says the opposite of the rest.
    targets[100:160], weights[100:160] = (targets[100:160] + 1) % 3, 0
    train = Rows(rows.x[:160], targets[:160], weights[:160])
    preset = replace(PRESETS[version], epochs=10, batch_size=32)

    model = training.fit(version, preset, train, 3, seed=1).model

    answers = training.predict(model, rows.x[100:])
    assert (answers.argmax(axis=1) == rows.targets[100:]).mean() > 0.9
    assert answers.shape == (120, 3)
    assert np.allclose(answers.sum(axis=1), 1.0, atol=1e-5)
    # The statistics are those of the training clips.
    layer, to_numpy = model.get_layer("normalise"), load_keras().ops.convert_to_numpy
    assert np.allclose(to_numpy(layer.mean).ravel(), train.x.mean(axis=0), rtol=1e-4)
    assert np.allclose(to_numpy(layer.variance).ravel(), train.x.var(axis=0), rtol=1e-3)


def test_fit_repeats_itself_with_a_seed_and_measures_watched_sets_without_learning_from_them(
    eager: None, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, new = blobs(rng, 80), blobs(rng, 7)
    preset = replace(PRESETS["v1"], epochs=2)
    reported: list[tuple[int, int, list[str]]] = []
    alone, other = (training.fit("v1", preset, rows, 3, seed=seed) for seed in (7, 8))
    measured, measure = [], training.measure
    monkeypatch.setattr(training, "measure", lambda *of: measured.append(len(of[1])) or measure(*of))
    monkeypatch.setattr(training, "_WATCHED_ROWS", 25)

    again = training.fit(
        "v1",
        preset,
        rows,
        3,
        seed=7,
        watch={"new": (new.x, new.targets), "none": (new.x[:0], new.targets[:0])},
        on_epoch=lambda done, total, values: reported.append((done, total, sorted(values))),
    )

    first, second, third = (training.predict(each.model, new.x) for each in (alone, again, other))
    assert np.array_equal(first, second)
    assert not np.allclose(first, third)
    names = ["new_accuracy", "new_loss", "train_accuracy", "train_loss"]
    assert reported == [(1, 2, names), (2, 2, names)]
    assert measured == [25, 7, 25, 7]  # of the training clips a part
    assert {name: len(values) for name, values in again.history.items()} == dict.fromkeys(names, 2)
    loss, accuracy = measure(second, new.targets)
    assert again.history["new_accuracy"][-1] == accuracy
    assert again.history["new_loss"][-1] == pytest.approx(loss)


def test_fit_stops_where_the_loss_is_no_number(eager: None, rng: np.random.Generator) -> None:
    rows = blobs(rng, 60)
    rows.x[0, 0] = np.nan

    with pytest.raises(SpeechemoError, match="the loss is nan after epoch 1"):
        training.fit("v1", PRESETS["v1"], rows, 3, seed=0)


def test_v2_is_v1_with_batch_normalization_and_dropout_of_0_4() -> None:
    kinds = {
        version: [type(layer).__name__ for layer in version_module(version).build((40,), 8, preset).layers]
        for version, preset in PRESETS.items()
    }

    assert ["BatchNormalization" in kinds[version] for version in VERSIONS] == [False, True, True]
    assert (PRESETS["v1"].epochs, PRESETS["v2"].epochs) == (50, 100)
    assert PRESETS["v2"].dropout == 0.4


def test_preset_gives_way_to_the_config_and_only_v3_is_calibrated_by_itself() -> None:
    preset = PRESETS["v2"].with_config(TrainConfig(epochs=7, dropout=0.0))

    assert (preset.epochs, preset.dropout, preset.batch_size) == (7, 0.0, PRESETS["v2"].batch_size)
    assert [version for version, preset in PRESETS.items() if preset.calibrate] == ["v3"]
    assert PRESETS["v1"].with_config(TrainConfig(calibrate=True)).calibrate
    assert not PRESETS["v3"].with_config(TrainConfig(calibrate=False)).calibrate


def test_version_module_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="version is 'v9', expected one of v1, v2, v3"):
        version_module("v9")


def test_measure_is_cross_entropy_and_accuracy() -> None:
    p = np.array([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]], np.float32)

    loss, accuracy = training.measure(p, np.array([0, 0, 0]))

    assert loss == pytest.approx(-np.log([0.5, 0.9, 0.2]).mean(), rel=1e-6)
    assert accuracy == pytest.approx(2 / 3)


def test_rows_of_lays_copies_behind_their_clip_with_its_weight(rng: np.random.Generator) -> None:
    data = separable(rng, speakers=3, clips=1)
    sung = tuple(replace(e, clip=replace(e.clip, song=i < 3)) for i, e in enumerate(data.examples))
    copies = rng.standard_normal((9, 2, 40)).astype(np.float32)
    data = replace(data, examples=sung, others={"augment": copies})
    at = np.array([5, 1])

    plain = training.rows_of(data, at, PRESETS["v1"])
    rows = training.rows_of(data, at, PRESETS["v3"])

    np.testing.assert_array_equal(plain.x, data.x[at])
    np.testing.assert_array_equal(rows.x, [data.x[5], *copies[5], data.x[1], *copies[1]])
    assert rows.targets.tolist() == [data.targets[5]] * 3 + [data.targets[1]] * 3
    assert rows.weights.tolist() == [1.0] * 3 + [0.5] * 3


@pytest.mark.parametrize("version", VERSIONS)
def test_with_distance_adds_the_mean_square_of_z_scores(
    version: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = rng.normal(500, 30, (50, 40)).astype(np.float32)
    model = built(version, x, 3)
    both = np.concatenate([x, rng.normal(400, 60, (5, 40)).astype(np.float32)])

    answers, distances = training.predict(training.with_distance(model), both)

    z = (both.astype(np.float64) - x.mean(axis=0)) / x.std(axis=0)
    np.testing.assert_allclose(distances, np.square(z).mean(axis=1, keepdims=True), rtol=1e-3)
    assert distances[:50].mean() == pytest.approx(1, rel=1e-3)
    np.testing.assert_array_equal(answers, training.predict(model, both))
    # Predictions do not depend on the batches.
    monkeypatch.setattr(training, "_PREDICT_CLIPS", 7)
    np.testing.assert_allclose(training.predict(model, both), answers, atol=1e-6)


@pytest.mark.parametrize(("version", "temperature"), [("v1", 0.5), ("v3", 3.0)])
def test_divide_logits_answers_as_a_temperature_on_the_answers(
    version: str, temperature: float, rng: np.random.Generator
) -> None:
    x = rng.normal(0, 5, (6, 40)).astype(np.float32)
    model = built(version, x, 3)
    bias = model.get_layer("emotion").bias
    bias.assign(np.broadcast_to([0.5, -1.0, 2.0], bias.shape))  # a network that leans somewhere
    before = training.predict(model, x)

    training.divide_logits(model, temperature)

    after = training.predict(model, x)
    np.testing.assert_allclose(after, apply_temperature(before, temperature), atol=1e-5)
    assert np.abs(after - before).max() > 0.01


# --- checkpoints --------------------------------------------------------------------------------------

PATH = Path("runs/state.npz")
PRESET = replace(v3.PRESET, epochs=3, batch_size=8)


def test_fit_ends_after_kills_with_the_weights_of_a_training_without_a_break(
    eager: None, rng: np.random.Generator
) -> None:
    x = rng.normal(-12, 4, (24, 10)).astype(np.float32)
    rows = Rows(x, np.arange(24) % 3, rng.choice([0.5, 1.0], 24).astype(np.float32))
    reported: list[int] = []

    def fit(checkpoint: Checkpoint | None, killed_after: int = 0) -> training.Training:
        def on_epoch(done: int, _total: int, _values: object) -> None:
            reported.append(done)
            if done == killed_after:
                raise KeyboardInterrupt

        return training.fit("v3", PRESET, rows, 3, seed=4, on_epoch=on_epoch, checkpoint=checkpoint)

    whole = fit(None)
    reported.clear()
    for epochs in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            fit(Checkpoint(PATH, every_s=0), killed_after=epochs)
    assert reported == [1, 2, 3]

    resumed = fit(Checkpoint(PATH, every_s=0))

    assert reported == [1, 2, 3]
    weights = zip(resumed.model.get_weights(), whole.model.get_weights(), strict=True)
    assert all(np.array_equal(one, other) for one, other in weights)
    assert resumed.history == whole.history
    assert list(PATH.parent.iterdir()) == [PATH]  # until the network is in a file


def compiled(width: int = 6) -> Any:
    """A network with an optimizer that has a state, ready to be trained."""
    keras = load_keras()
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(width, activation="relu"), keras.layers.Dense(3)]
    )
    model.compile(optimizer="adamw")
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What a checkpoint of a network with weights of 7 holds."""
    model, path = compiled(), tmp_path_factory.mktemp("runs") / "state.npz"
    model.layers[0].set_weights([np.full((4, 6), 7.0), np.full(6, 7.0)])
    Checkpoint(path, every_s=0).keep(model, 2, {"train_loss": [1.0, 2.0]})
    return path.read_bytes()


@pytest.fixture(scope="module")
def fresh() -> Any:
    return compiled()


def cut(share: float) -> Any:
    return lambda path: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(4 * np.float32(7).tobytes())] ^= 0xFF
    path.write_bytes(bytes(content))


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(cut(0), id="empty"),
        pytest.param(cut(0.99), id="cut"),
        pytest.param(flip, id="flipped"),
        pytest.param(lambda path: Checkpoint(path, every_s=0).keep(compiled(width=5), 2, {}), id="shapes"),
        pytest.param(lambda path: np.savez(path, something=np.arange(3)), id="foreign"),
        pytest.param(pipe, id="pipe"),
        pytest.param(lambda path: path.write_text("text"), id="text"),
        pytest.param(Path.unlink, id="gone"),
    ],
)
def test_checkpoint_that_does_not_fit_means_a_fresh_start(damage: Any, checkpoint: bytes, fresh: Any) -> None:
    before = fresh.get_weights()
    PATH.parent.mkdir()
    PATH.write_bytes(checkpoint)
    damage(PATH)

    assert Checkpoint(PATH).restore(fresh) == (0, {})

    assert all(np.array_equal(a, b) for a, b in zip(fresh.get_weights(), before, strict=True))
    assert fresh.optimizer.iterations == 0


def test_checkpoint_is_written_no_more_often_than_asked_and_counts_the_time_before_a_break(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(training, "time", SimpleNamespace(monotonic=lambda: now[0]))
    model, checkpoint = compiled(), Checkpoint(PATH, every_s=20)

    for at, epochs, exists in ((119.0, 1, False), (130.0, 2, True), (140.0, 3, True)):
        now[0] = at
        checkpoint.keep(model, epochs, {})
        assert checkpoint.exists() == exists

    now[0] = 1000.0
    after = Checkpoint(PATH)
    assert after.restore(model) == (2, {})
    now[0] = 1007.0
    assert after.seconds == 37
    after.drop()
    after.drop()  # can be done twice
    assert not after.exists()


def test_checkpoint_that_cannot_be_written_is_an_access_error() -> None:
    Path("runs").write_text("in the way")

    with pytest.raises(AccessError, match=r"cannot write runs/state\.npz"):
        Checkpoint(PATH, every_s=0).keep(compiled(), 1, {})
