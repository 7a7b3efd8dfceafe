"""Protocols, fold by fold, on features that say the label outright."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import Fitted, blurred, separable, trained_with

from speechemo_cli.config import AudioConfig, AugmentConfig, Config, MfccConfig
from speechemo_cli.corpus.splits import PROTOCOLS
from speechemo_cli.evaluation import protocols
from speechemo_cli.evaluation.metrics import apply_temperature, fit_temperature
from speechemo_cli.evaluation.results import ProtocolResult
from speechemo_cli.features.dataset import Dataset
from speechemo_cli.models import training, v1
from speechemo_cli.models.training import Checkpoint


@pytest.mark.parametrize("protocol", ["random-holdout", "twin-safe-5fold", "speaker-5fold"])
def test_run_protocol_scores_every_fold(
    protocol: str, rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    result = protocols.run_protocol("v1", protocol, separable(rng, speakers=4), trained_with(calibrate=True))

    assert result.protocol is PROTOCOLS[protocol]
    assert sum(fold.scores.n for fold in result.folds) == result.scores.n == 120
    assert len(result.truth) == len(result.examples) == len(result.probabilities) == 120
    assert result.scores.accuracy > 0.85
    assert all(bool(fold.test_speakers) != result.protocol.shares_speakers for fold in result.folds)
    # Where speakers are shared, nothing can be told of a correction for others.
    assert result.calibrated != result.protocol.shares_speakers
    values = [fold.scores.accuracy for fold in result.folds]
    document = result.to_dict()
    assert document["accuracy"] == {
        "mean": pytest.approx(np.mean(values)),
        "sd": pytest.approx(np.std(values, ddof=1)),
        "pooled": result.scores.accuracy,
        "ci95": None,
    }
    # Five draws of a fifth test some clips twice.
    n_clips = len({example.key for example in result.examples})
    assert (document["n_answers"], document["n_clips"]) == (120, n_clips)
    assert (n_clips < 120) == (protocol == "random-holdout")


def test_run_protocol_goes_on_where_it_was_killed(
    eager: None, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, config = separable(rng, speakers=2, clips=4), trained_with(epochs=2)
    monkeypatch.setattr(protocols, "Checkpoint", partial(Checkpoint, every_s=0))
    epochs: list[int] = []

    def run(killed_at: int) -> None:
        def on_epoch(_stage: str, done: int, _total: int, _values: object) -> None:
            epochs.append(done)
            if done == killed_at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            protocols.run_protocol("v1", "loso", data, config, on_epoch)

    run(killed_at=1)
    run(killed_at=3)  # in the second fold

    assert epochs == [1, 2, 3]
    assert len(list(Path("runs").iterdir())) == 2
    assert len(list(Path("runs").glob("*.fold.npz"))) == 1


def test_run_protocol_counts_the_epochs_of_all_its_trainings(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    steps: list[tuple[int, int]] = []

    protocols.run_protocol(
        *("v1", "speaker-5fold", separable(rng, speakers=3, clips=4), trained_with(epochs=1, calibrate=True)),
        on_epoch=lambda _stage, done, total, _values: steps.append((done, total)),
    )

    # Three folds, each calibrated by two trainings, which leave the same one out of the next folds.
    assert steps == [(done, 9) for done in (1, 2, 3, 4, 6, 7)]


# --- calibration, on a network that costs nothing ------------------------------------------------------


def calibrated(data: Dataset, runs: str = "runs", *, calibrate: bool = True, **more: Any) -> ProtocolResult:
    config = replace(trained_with(calibrate=calibrate), runs=runs)
    return protocols.run_protocol("v1", "speaker-5fold", data, config, **more)


def test_folds_and_their_calibrations_train_on_no_clip_of_the_test_speakers(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    data = blurred(rng, speakers=4)
    who = {row.tobytes(): e.clip.speaker for row, e in zip(data.x, data.examples, strict=True)}
    stages: list[str] = []

    result = calibrated(data, on_epoch=lambda stage, *_: stages.append(stage))

    assert len(stages) == len(fitted) == 10  # four without one speaker, six without two
    assert sum("calibrating" in stage for stage in stages) == 6
    for stage, call in zip(stages, fitted, strict=True):
        trained = {who[row.tobytes()] for row in call.rows.x}
        fold = result.folds[int(stage.removeprefix("fold ")[0]) - 1]
        assert stage.startswith(f"fold {fold.name} of 4")
        assert trained.isdisjoint(fold.test_speakers)
        assert len(trained) == (2 if "calibrating" in stage else 3)


def test_temperature_of_a_fold_comes_from_its_training_part_alone(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    data = blurred(rng, speakers=4)
    before = calibrated(data)
    x, targets = data.x.copy(), data.targets.copy()
    test = [data.examples.index(example) for example in before.folds[0].examples]
    x[test], targets[test] = 0, (targets[test] + 1) % len(data.labels)
    examples = tuple(
        replace(example, clip=replace(example.clip, label=data.labels[target]))
        for example, target in zip(data.examples, targets, strict=True)
    )

    # Keys of clips stand for their sound, so what is kept of the first run must not be read by the second.
    after = calibrated(replace(data, x=x, targets=targets, examples=examples), runs="other")

    same = [
        one.temperature == other.temperature for one, other in zip(before.folds, after.folds, strict=True)
    ]
    assert same == [True, False, False, False]


def test_answers_of_a_fold_are_corrected_by_its_temperature_without_another_training(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    data = blurred(rng, speakers=4)
    result = calibrated(data)
    done = len(fitted)

    again = calibrated(data)
    plain = calibrated(data, calibrate=False)
    # Of four speakers, five folds leave out one each, as loso does.
    protocols.run_protocol("v1", "loso", data, trained_with(calibrate=True))

    assert len(fitted) == done
    np.testing.assert_array_equal(again.probabilities, result.probabilities)
    assert [fold.history for fold in again.folds] == [fold.history for fold in result.folds]
    assert result.calibrated
    assert not plain.calibrated
    for fold, raw in zip(result.folds, plain.folds, strict=True):
        assert raw.temperature is None
        assert fold.temperature is not None
        assert fold.temperature > 1.5  # the network is far too sure of itself
        corrected = apply_temperature(raw.probabilities, fold.temperature)
        np.testing.assert_array_equal(fold.probabilities, corrected)
        assert fold.scores.accuracy == raw.scores.accuracy
    assert result.scores.nll < plain.scores.nll
    assert result.scores.ece < plain.scores.ece

    # What is not whole any more is trained again.
    damaged = next(Path("runs").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:100])
    calibrated(data)
    assert len(fitted) == done + 1


def test_calibrate_measures_by_temperatures_that_did_not_know_the_truth(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    data = blurred(rng, speakers=4)

    found = protocols.calibrate("v1", data, trained_with(calibrate=True))

    assert found is not None
    raw = calibrated(data, calibrate=False)
    assert found.temperature == fit_temperature(raw.probabilities, raw.truth)
    for i, fold in enumerate(found.result.folds):
        others = [other for j, other in enumerate(raw.folds) if j != i]
        own = fit_temperature(
            np.concatenate([other.probabilities for other in others]),
            np.concatenate([other.truth for other in others]),
        )
        assert fold.temperature == own
        np.testing.assert_array_equal(fold.probabilities, apply_temperature(raw.folds[i].probabilities, own))
    assert found.result.calibrated
    assert found.result.scores.n == len(data.examples)


@pytest.mark.parametrize("speaker", ["s0", None], ids=["one speaker", "no known speaker"])
def test_calibrate_needs_two_known_speakers(
    speaker: str | None, rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    data = separable(rng, speakers=2)
    examples = tuple(replace(e, clip=replace(e.clip, speaker=speaker)) for e in data.examples)

    assert protocols.calibrate("v1", replace(data, examples=examples), trained_with()) is None
    assert fitted == []


def test_run_protocol_leaves_answers_as_they_are_where_no_speaker_can_stay_out_of_a_fold(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    data = blurred(rng, speakers=2)

    result = calibrated(data)

    assert not result.calibrated
    assert [fold.temperature for fold in result.folds] == [None, None]
    np.testing.assert_array_equal(result.probabilities, calibrated(data, calibrate=False).probabilities)


def test_distances_are_from_the_training_of_the_fold(rng: np.random.Generator, fitted: list[Fitted]) -> None:
    data = separable(rng, speakers=3)

    result = calibrated(data, calibrate=False)

    # The network that stands for v1 here does not adapt its normalisation: mean 0, variance 1.
    for fold in result.folds:
        test = [data.examples.index(example) for example in fold.examples]
        expected = np.square(data.x[test].astype(np.float64)).mean(axis=1)
        np.testing.assert_allclose(fold.distances, expected, rtol=1e-4)


def test_within_names_stages_from_the_outside_in_and_counts_the_epochs_of_the_whole() -> None:
    calls: list[tuple] = []
    outer = protocols.within(lambda *values: calls.append(values), "fold 2 of 5", 10, 50)

    protocols.within(outer, "calibrating", 3, 9)("fold 2 of 4", 1, 3, {})
    outer("", 2, 3, {})
    protocols.within(None, "training", 0, 3)("", 1, 3, {})

    assert calls == [("fold 2 of 5, calibrating, fold 2 of 4", 14, 50, {}), ("fold 2 of 5", 12, 50, {})]


# --- what is kept of a training --------------------------------------------------------------------------


def changed(data: Dataset, position: int, key: str | None = None, **clip: Any) -> Dataset:
    """Tell something else of one example."""
    examples = list(data.examples)
    one = examples[position]
    examples[position] = replace(one, key=key or one.key, clip=replace(one.clip, **clip))
    return replace(data, examples=tuple(examples))


def path_of_training(data: Dataset, /, **more: Any) -> Path:
    given = {"version": "v1", "data": data, "train": np.arange(18), "seed": 3, "config": Config(), **more}
    return protocols.training_path(**given)


@pytest.mark.parametrize(
    "change",
    [
        lambda data: {"data": changed(data, 0, label="another")},
        lambda data: {"data": changed(data, 0, key="f" * 64)},
        lambda data: {"data": changed(data, 0, song=True)},  # it has another weight
        lambda data: {"data": replace(data, labels=data.labels[::-1])},
        lambda _: {"train": np.arange(17)},
        lambda _: {"config": trained_with(epochs=7)},
        lambda _: {"config": trained_with(epochs=None, batch_size=7)},
        lambda _: {"config": trained_with(epochs=None, learning_rate=0.7)},
        lambda _: {"config": trained_with(epochs=None, dropout=0.7)},
        lambda _: {"seed": 4},
        lambda _: {"config": Config(mfcc=MfccConfig(n_mfcc=20))},
        lambda _: {"config": Config(runs="elsewhere")},
        lambda _: {"version": "v2"},
    ],
)
def test_training_path_differs_by_whatever_decides_the_weights(
    change: Callable[[Dataset], Any], rng: np.random.Generator
) -> None:
    data = separable(rng, speakers=3, clips=3)
    assert path_of_training(data, **change(data)) != path_of_training(data)


@pytest.mark.parametrize(
    "change",
    [
        lambda _: {"config": trained_with(epochs=None, calibrate=True)},
        lambda _: {"config": Config(jobs=3, store="elsewhere", models="nets", data=("clips",))},
        lambda _: {"config": Config(audio=AudioConfig(max_duration_s=50))},
        lambda _: {"config": trained_with(epochs=None, split="none")},
        lambda data: {"data": changed(data, 0, path="moved/a.wav")},
        lambda data: {"data": changed(data, 20, label="another")},  # of a test
        lambda data: {"data": data.subset(np.arange(20))},
    ],
)
def test_training_path_stays_whatever_else_changes(
    change: Callable[[Dataset], Any], rng: np.random.Generator
) -> None:
    data, more_copies = separable(rng, speakers=3, clips=3), Config(augment=AugmentConfig(copies=7))
    assert path_of_training(data, **change(data)) == path_of_training(data)
    # Augmented copies decide where they are trained on.
    assert path_of_training(data, config=more_copies) == path_of_training(data)
    assert path_of_training(data, version="v3", config=more_copies) != path_of_training(data, version="v3")


def test_training_path_differs_by_the_source_of_the_network_and_of_trainings(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = SimpleNamespace(__file__="network.py", PRESET=v1.PRESET)
    monkeypatch.setattr(training, "__file__", "part.py")
    monkeypatch.setattr(protocols, "version_module", lambda _: network)
    data = separable(rng, speakers=3, clips=3)
    paths = set()
    for sources in (("before", "before"), ("before", "after"), ("after", "after")):
        for name, text in zip(("network.py", "part.py"), sources, strict=True):
            Path(name).write_text(text)
        paths.add(path_of_training(data))

    assert len(paths) == 3
