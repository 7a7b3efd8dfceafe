"""Protocols, fold by fold, on features that say the label outright."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Fitted, blurred, told, trained_with

from speechemo_cli.corpus.folds import PROTOCOLS
from speechemo_cli.evaluation import protocols, training_cache
from speechemo_cli.evaluation.calibration import apply_temperature, fit_temperature
from speechemo_cli.evaluation.results import ProtocolResult, over_seeds
from speechemo_cli.features.dataset import Dataset
from speechemo_cli.models import training
from speechemo_cli.models.training import Checkpoint


# The larger ones differ in their folds alone, which test_folds.py looks at.
@pytest.mark.parametrize(
    "protocol",
    [
        pytest.param("random-holdout", marks=pytest.mark.slow),
        pytest.param("twin-safe-5fold", marks=pytest.mark.slow),
        "speaker-5fold",
    ],
)
def test_a_protocol_scores_every_fold_and_says_what_it_means(protocol: str, rng: np.random.Generator) -> None:
    data = told(rng)

    result = protocols.run_protocol("v1", protocol, data, trained_with(epochs=20))

    assert result.protocol is PROTOCOLS[protocol]
    assert sum(fold.scores.n for fold in result.folds) == result.pooled.n
    assert result.pooled.n == 180  # five draws of a fifth, or five folds
    assert result.pooled.accuracy > 0.85
    assert all(bool(fold.test_speakers) != result.protocol.shares_speakers for fold in result.folds)
    assert len(result.truth) == len(result.examples) == len(result.probabilities) == 180


def test_spread_is_mean_deviation_and_pooled(rng: np.random.Generator) -> None:
    result = protocols.run_protocol("v1", "random-5fold", told(rng, speakers=5), trained_with(epochs=2))

    values = [fold.scores.accuracy for fold in result.folds]
    assert result.spread("accuracy") == {
        "mean": pytest.approx(np.mean(values)),
        "sd": pytest.approx(np.std(values, ddof=1)),
        "pooled": result.pooled.accuracy,
        "ci95": list(result.everybody.intervals["accuracy"]),
    }


def test_over_seeds_tells_mean_and_range(rng: np.random.Generator, fitted: list[Fitted]) -> None:
    data = blurred(rng, speakers=3)
    results = {
        seed: protocols.run_protocol("v1", "random-5fold", data, replace(trained_with(), seed=seed))
        for seed in (4, 5, 6)
    }

    summary = over_seeds(results)

    assert summary["seeds"] == [4, 5, 6]
    values = [result.pooled.uar for result in results.values()]
    assert len(set(values)) > 1
    assert summary["uar"]["values"] == values
    assert summary["uar"]["mean"] == pytest.approx(np.mean(values))
    assert (summary["uar"]["min"], summary["uar"]["max"]) == (min(values), max(values))


def test_run_protocol_names_a_label_that_was_tested_without_training(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    data = told(rng, speakers=3)
    happy = data.labels.index("happy")
    of_s1 = np.array([example.clip.speaker == "s1" for example in data.examples])
    data = data.subset(np.flatnonzero((data.targets != happy) | of_s1))

    result = protocols.run_protocol("v1", "loso", data, trained_with())

    assert result.untrained_labels == {"happy": ["2"]}
    assert result.fewer_folds == ""
    (caution,) = result.cautions
    assert caution.startswith("happy was tested without a training clip of it")
    assert result.to_dict()["untrained_labels"] == {"happy": ["2"]}


def test_slices_are_scores_of_their_clips(rng: np.random.Generator) -> None:
    result = protocols.run_protocol("v1", "random-5fold", told(rng, speakers=4), trained_with(epochs=2))

    assert set(result.slices) == {"speaker", "gender", "intensity", "statement"}
    assert sum(scores.n for scores in result.slices["speaker"].values()) == result.pooled.n
    men = np.array([example.clip.gender == "m" for example in result.examples])
    right = result.probabilities.argmax(axis=1) == result.truth
    assert result.slices["gender"]["m"].accuracy == pytest.approx(right[men].mean())


def test_slices_are_by_further_columns_that_put_clips_into_groups(rng: np.random.Generator) -> None:
    data = told(rng, speakers=3)
    examples = [
        replace(one, clip=replace(one.clip, extra=(("age", "old" if i % 3 else "young"), ("id", str(i)))))
        for i, one in enumerate(data.examples)
    ]
    examples[0] = replace(examples[0], clip=replace(examples[0].clip, extra=(("same", "x"),)))
    data = replace(data, examples=tuple(examples))

    result = protocols.run_protocol("v1", "random-5fold", data, trained_with(epochs=1))

    assert set(result.slices) == {"speaker", "gender", "intensity", "statement", "age"}
    young = np.array([("age", "young") in example.clip.extra for example in result.examples])
    right = result.probabilities.argmax(axis=1) == result.truth
    assert result.slices["age"]["young"].accuracy == pytest.approx(right[young].mean())
    assert sum(scores.n for scores in result.slices["age"].values()) == result.pooled.n - 1


def test_run_protocol_trains_again_only_what_is_not_kept_whole(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, config = told(rng), trained_with(epochs=2)
    whole = protocols.run_protocol("v1", "random-5fold", data, config)
    kept = sorted(Path("runs").iterdir())
    kept[3].unlink()
    kept[4].write_bytes(kept[4].read_bytes()[:100])
    seen, real = [], training.fit

    def fit(*arguments: object, **more: object) -> object:
        seen.append(arguments)
        return real(*arguments, **more)

    monkeypatch.setattr(training, "fit", fit)
    again = protocols.run_protocol("v1", "random-5fold", data, config)

    assert len(seen) == 2
    # Also those of the three folds whose network was built anew and given the kept weights.
    assert np.array_equal(again.probabilities, whole.probabilities)
    assert [fold.history for fold in again.folds] == [fold.history for fold in whole.folds]


@pytest.mark.parametrize("change", [{"epochs": 3}, {"dropout": 0.3}, {"learning_rate": 0.01}])
def test_other_settings_begin_anew(change: dict, rng: np.random.Generator) -> None:
    data = told(rng, speakers=3)
    protocols.run_protocol("v1", "speaker-5fold", data, trained_with(epochs=2))
    protocols.run_protocol("v1", "speaker-5fold", data, trained_with(**{"epochs": 2, **change}))

    assert len(list(Path("runs").iterdir())) == 6


def test_a_fold_goes_on_at_the_epoch_it_was_killed_in(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, config = told(rng, speakers=2, clips=4), trained_with(epochs=4)
    monkeypatch.setattr(training_cache, "Checkpoint", partial(Checkpoint, every_s=0))

    def killed_at(epoch: int) -> list[int]:
        seen: list[int] = []

        def on_epoch(_stage: str, done: int, _total: int, _values: object) -> None:
            seen.append(done)
            if done == epoch:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            protocols.run_protocol("v1", "loso", data, config, on_epoch)
        return seen

    assert killed_at(2) == [1, 2]
    assert killed_at(4) == [3, 4]


def test_a_run_counts_the_epochs_of_all_its_trainings(rng: np.random.Generator) -> None:
    told_of: list[tuple[int, int]] = []

    protocols.run_protocol(
        *("v1", "speaker-5fold", told(rng, speakers=3, clips=4), trained_with(epochs=2, calibrate=True)),
        on_epoch=lambda _stage, done, total, _values: told_of.append((done, total)),
    )

    # Three folds, each calibrated by two trainings, which leave the same one out of the next folds.
    assert {total for _, total in told_of} == {18}
    assert [done for done, _ in told_of] == [1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 14]


# --- calibration, on a network that costs nothing ------------------------------------------------------


def changed_at(data: Dataset, positions: np.ndarray) -> Dataset:
    """Give some clips other labels."""
    targets = data.targets.copy()
    targets[positions] = (targets[positions] + 1) % len(data.labels)
    examples = tuple(
        replace(example, clip=replace(example.clip, label=data.labels[target]))
        for example, target in zip(data.examples, targets, strict=True)
    )
    return replace(data, targets=targets, examples=examples)


def calibrated(data: Dataset, runs: str = "runs", **more: Any) -> ProtocolResult:
    config = replace(trained_with(calibrate=True), runs=runs)
    return protocols.run_protocol("v1", "speaker-5fold", data, config, **more)


def test_no_training_of_a_fold_or_its_calibration_ever_gets_a_clip_of_its_test_speakers(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    data = blurred(rng, speakers=4)
    who = {row.tobytes(): e.clip.speaker for row, e in zip(data.x, data.examples, strict=True)}
    stages: list[str] = []

    result = calibrated(data, on_epoch=lambda stage, *_: stages.append(stage))

    assert len(stages) == len(fitted) == 10  # four without one speaker, six without two
    assert sum("calibrating" in stage for stage in stages) == 6
    for stage, call in zip(stages, fitted, strict=True):
        heard = {who[row.tobytes()] for row in call.rows.x}
        fold = result.folds[int(stage.removeprefix("fold ")[0]) - 1]
        assert stage.startswith(f"fold {fold.name} of 4")
        assert heard.isdisjoint(fold.test_speakers)
        assert len(heard) == (2 if "calibrating" in stage else 3)


@pytest.mark.parametrize(
    "change",
    [
        lambda data, at: changed_at(data, at),
        lambda data, at: replace(data, x=np.where(np.isin(np.arange(len(data.x)), at)[:, None], 0, data.x)),
    ],
    ids=["labels", "sound"],
)
def test_a_folds_temperature_comes_from_its_training_part_alone(
    change: Callable[..., Dataset], rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    data = blurred(rng, speakers=4)
    before = calibrated(data)

    # Keys of clips stand for their sound, so what is kept of the first run must not be read by the second.
    after = calibrated(change(data, before.folds[0].test), runs="other")

    assert after.folds[0].temperature == before.folds[0].temperature
    assert all(
        one.temperature != other.temperature
        for one, other in zip(before.folds[1:], after.folds[1:], strict=True)
    )


def test_a_folds_answers_are_corrected_by_its_temperature(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    data = blurred(rng, speakers=4)
    config = trained_with(calibrate=False)

    result, plain = calibrated(data), protocols.run_protocol("v1", "speaker-5fold", data, config)

    assert result.calibrated
    assert not plain.calibrated
    for fold, raw in zip(result.folds, plain.folds, strict=True):
        assert raw.temperature is None
        assert fold.temperature is not None
        assert fold.temperature > 1.5  # the network is far too sure of itself
        corrected = apply_temperature(raw.probabilities, fold.temperature)
        np.testing.assert_array_equal(fold.probabilities, corrected)
        assert fold.scores.accuracy == raw.scores.accuracy
    assert result.pooled.nll < plain.pooled.nll
    assert result.pooled.ece < plain.pooled.ece


def test_what_was_trained_for_one_thing_is_not_trained_again_for_another(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    data = blurred(rng, speakers=4)
    first = calibrated(data)
    done = len(fitted)

    again = calibrated(data)
    protocols.run_protocol("v1", "speaker-5fold", data, trained_with(calibrate=False))
    # Of four speakers, five folds leave out one each, as loso does.
    protocols.run_protocol("v1", "loso", data, trained_with(calibrate=True))

    assert len(fitted) == done
    np.testing.assert_array_equal(again.probabilities, first.probabilities)


def test_a_calibration_is_measured_by_temperatures_that_did_not_know_the_truth(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    data, config = blurred(rng, speakers=4), trained_with(calibrate=True)

    found = protocols.calibrate("v1", data, config)

    assert found is not None
    raw = protocols.run_protocol("v1", "speaker-5fold", data, trained_with(calibrate=False))
    assert found.temperature == fit_temperature(raw.probabilities, raw.truth)
    for i, fold in enumerate(found.result.folds):
        others = [other for j, other in enumerate(raw.folds) if j != i]
        own = fit_temperature(
            np.concatenate([other.probabilities for other in others]),
            np.concatenate([data.targets[other.test] for other in others]),
        )
        assert fold.temperature == own
        np.testing.assert_array_equal(fold.probabilities, apply_temperature(raw.folds[i].probabilities, own))
    assert found.result.calibrated
    assert found.result.pooled.n == len(data.examples)


@pytest.mark.parametrize("speaker", ["s0", None], ids=["one speaker", "nobody told"])
def test_without_two_known_speakers_there_is_no_calibration(
    speaker: str | None, rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    data = told(rng, speakers=2)
    examples = tuple(replace(e, clip=replace(e.clip, speaker=speaker)) for e in data.examples)

    assert protocols.calibrate("v1", replace(data, examples=examples), trained_with()) is None
    assert fitted == []


def test_of_two_speakers_none_can_stay_out_of_a_fold_and_answers_are_as_they_were(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    data = blurred(rng, speakers=2)

    result = calibrated(data)

    assert not result.calibrated
    assert [fold.temperature for fold in result.folds] == [None, None]
    plain = protocols.run_protocol("v1", "speaker-5fold", data, trained_with(calibrate=False))
    np.testing.assert_array_equal(result.probabilities, plain.probabilities)


def test_a_protocol_that_shares_speakers_is_not_calibrated(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    data = blurred(rng, speakers=3)

    result = protocols.run_protocol("v1", "random-5fold", data, trained_with(calibrate=True))

    assert not result.calibrated
    assert len(fitted) == 5


def test_what_json_has_is_what_the_scores_are(rng: np.random.Generator, fitted: list[Fitted]) -> None:
    result = calibrated(blurred(rng, speakers=4))

    document = json.loads(json.dumps(result.to_dict()))

    n, answers = len(result.truth), result.probabilities.argmax(axis=1)
    assert document["n_answers"] == document["n_clips"] == n == 120
    assert document["calibrated"] is document["speaker_independent"] is True
    assert document["accuracy"]["pooled"] == pytest.approx((answers == result.truth).mean())
    assert document["n_folds"] == {
        "asked": 5,
        "ran": 4,
        "why_fewer": "4 of 5 folds: the clips have 4 speakers",
    }
    assert document["accuracy"]["ci95"] is None
    assert document["no_interval"] == "4 speakers: no interval"
    assert [fold["temperature"] for fold in document["folds"]] == [fold.temperature for fold in result.folds]
    assert sum(fold["n"] for fold in document["folds"]) == n
    bins = document["reliability"]
    assert sum(part["n"] for part in bins) == n
    right = sum(part["n"] * part["accuracy"] for part in bins)
    assert right == pytest.approx((answers == result.truth).sum())
    sure = [part["confidence"] for part in bins]
    assert sure == sorted(sure)
    gaps = sum(part["n"] * abs(part["confidence"] - part["accuracy"]) for part in bins)
    assert document["ece"]["pooled"] == pytest.approx(gaps / n)


def test_a_clip_that_is_tested_twice_is_one_clip_and_two_answers(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    result = protocols.run_protocol("v1", "random-holdout", told(rng, speakers=3), trained_with())

    document = result.to_dict()

    assert document["n_answers"] == 90  # five draws of a fifth
    assert document["n_clips"] == len({example.key for example in result.examples}) < 90


def test_confidence_is_of_the_answer_and_a_hit_is_a_right_one(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    result = protocols.run_protocol("v1", "speaker-5fold", blurred(rng, speakers=3), trained_with())

    answers = result.probabilities.argmax(axis=1)
    assert result.confidence.tolist() == [
        float(p[a]) for p, a in zip(result.probabilities, answers, strict=True)
    ]
    assert result.hits.mean() == pytest.approx(result.pooled.accuracy)
    assert set(result.hits.tolist()) == {0.0, 1.0}


def under(data: Dataset, **conditions: np.ndarray) -> Dataset:
    """Give clips features under other recording conditions too."""
    return replace(data, others={f"mfcc@{name}": x[:, None] for name, x in conditions.items()})


def test_conditions_are_scored_on_the_same_clips_by_the_same_networks(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    plain = told(rng, speakers=4)
    worse = plain.x + 40 * rng.standard_normal(plain.x.shape).astype(np.float32)
    data = under(plain, louder=plain.x, telephone=worse)

    result = protocols.run_protocol("v1", "speaker-5fold", data, trained_with())
    document = json.loads(json.dumps(result.to_dict()))["conditions"]

    assert set(result.conditions) == set(document) == {"louder", "telephone"}
    assert result.conditions["louder"] == result.pooled  # the same features, so the same answers
    order = np.concatenate([fold.test for fold in result.folds])
    answers = np.concatenate([fold.conditions["telephone"] for fold in result.folds]).argmax(axis=1)
    accuracy = (answers == data.targets[order]).mean()
    assert accuracy < result.pooled.accuracy - 0.1
    assert document["louder"]["cost"] == 0
    assert document["telephone"] == {
        "title": "telephone, G.711",
        "n": 120,
        "accuracy": pytest.approx(accuracy),
        "uar": result.conditions["telephone"].uar,
        "cost": pytest.approx(result.pooled.accuracy - accuracy),
    }
    # They decide nothing: what was trained for them serves without them.
    done = len(fitted)
    assert protocols.run_protocol("v1", "speaker-5fold", plain, trained_with()).conditions == {}
    assert len(fitted) == done


def test_a_temperature_corrects_no_answer_under_a_condition_into_another(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    plain = blurred(rng, speakers=4)

    result = calibrated(under(plain, louder=plain.x))

    assert result.conditions["louder"].accuracy == result.pooled.accuracy
    assert result.conditions["louder"].uar == result.pooled.uar


def test_distances_are_from_the_training_of_the_fold(rng: np.random.Generator, fitted: list[Fitted]) -> None:
    data = told(rng, speakers=3)

    result = protocols.run_protocol("v1", "speaker-5fold", data, trained_with())

    # The network that stands for v1 here does not adapt its normalisation: mean 0, variance 1.
    for fold in result.folds:
        expected = np.square(data.x[fold.test].astype(np.float64)).mean(axis=1)
        np.testing.assert_allclose(fold.distances, expected, rtol=1e-4)


def test_within_names_stages_from_the_outside_in_and_counts_the_epochs_of_the_whole() -> None:
    heard: list[tuple] = []
    outer = protocols.within(lambda *values: heard.append(values), "fold 2 of 5", 10, 50)

    protocols.within(outer, "calibrating", 3, 9)("fold 2 of 4", 1, 3, {})
    outer("", 2, 3, {})
    protocols.within(None, "training", 0, 3)("", 1, 3, {})

    assert heard == [("fold 2 of 5, calibrating, fold 2 of 4", 14, 50, {}), ("fold 2 of 5", 12, 50, {})]
