"""Holding out and scoring, on features that say the label or the speaker outright."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from conftest import Fitted, blurred, told, trained_with

from speechemo_cli.corpus.clips import Clip
from speechemo_cli.evaluation import holdout
from speechemo_cli.evaluation.metrics import apply_temperature
from speechemo_cli.features.dataset import Dataset
from speechemo_cli.models import training
from speechemo_cli.models.training import Checkpoint


def test_split_both_measures_known_and_new_voices_side_by_side(rng: np.random.Generator) -> None:
    data = told(rng)

    result = holdout.train_with_holdout("v1", data, trained_with())

    assert result.seen is not None
    assert result.new is not None
    assert result.train.n + result.seen.n + result.new.n == len(data.examples)
    assert len(result.holdout.new_speakers) == 1
    assert result.new.n == 30
    assert result.seen.accuracy > 0.9
    assert result.new.accuracy > 0.9
    assert set(result.metadata.history) == {
        f"{p}_{m}" for p in ("train", "seen", "new") for m in ("accuracy", "loss")
    }


def test_the_metadata_know_who_was_heard_and_what_was_held_out(rng: np.random.Generator) -> None:
    data = told(rng)

    metadata = holdout.train_with_holdout("v1", data, trained_with(epochs=1)).metadata

    parts = [set(metadata.data[name]) for name in ("train", "seen_speakers", "new_speakers")]
    assert set().union(*parts) == {example.sha256 for example in data.examples}
    assert sum(map(len, parts)) == len(data.examples)
    samples = {example.sha256: example.key for example in data.examples}
    assert metadata.data["train_samples"] == [samples[content] for content in metadata.data["train"]]
    assert len(metadata.data["speakers"]) == 5
    assert metadata.versions["keras"] >= "3.15.1"


def test_what_is_tied_to_the_voice_holds_on_known_voices_alone(rng: np.random.Generator) -> None:
    data = told(rng, by_voice=True)

    result = holdout.train_with_holdout("v1", data, trained_with(epochs=60))

    assert result.seen is not None
    assert result.new is not None
    assert result.seen.accuracy > result.new.accuracy + 0.2


def test_split_none_holds_nothing_out(rng: np.random.Generator) -> None:
    result = holdout.train_with_holdout("v1", told(rng), trained_with(split="none", epochs=1))

    assert result.train.n == 180
    assert result.seen is result.new is None


def test_a_model_is_scored_apart_on_what_it_was_trained_on(rng: np.random.Generator) -> None:
    data = told(rng)
    trained = holdout.train_with_holdout("v1", data, trained_with())

    result = holdout.score_model(trained.model, trained.metadata, data)

    # The same clips, so the same numbers as the training reported; unseen speakers come first.
    assert {name: group.scores for name, group in result.groups.items()} == {
        "unseen_speakers": trained.new,
        "seen_speakers": trained.seen,
        "trained_on": trained.train,
    }
    assert list(result.groups) == ["unseen_speakers", "seen_speakers", "trained_on"]
    assert result.groups["unseen_speakers"].whose == "data: 1 speaker, 30 clips"


@pytest.fixture
def half_trained(rng: np.random.Generator, fitted: list[Fitted]) -> tuple[holdout.HoldoutResult, Dataset]:
    """A model trained on two of four speakers of the corpus `own`, and the clips of all four."""
    data = with_clips(told(rng, speakers=4), corpus="own")
    first_two = data.subset(np.arange(60))
    return holdout.train_with_holdout("v1", first_two, trained_with(split="random")), data


def sizes(result: holdout.ModelResult) -> tuple[int, ...]:
    names = ("trained_on", "seen_speakers", "unseen_speakers", "unknown_speakers")
    return tuple(result.groups[name].scores.n if name in result.groups else 0 for name in names)


def test_score_model_knows_a_clip_by_its_samples_and_by_its_content(
    half_trained: tuple[holdout.HoldoutResult, Dataset],
) -> None:
    trained, data = half_trained
    converted = replace(data, examples=tuple(replace(e, sha256="f" * 64) for e in data.examples))
    relisted = replace(data, examples=tuple(replace(e, key="e" * 64) for e in data.examples))
    for same in (data, converted, relisted):
        assert sizes(holdout.score_model(trained.model, trained.metadata, same)) == (48, 12, 60, 0)


def test_score_model_takes_a_speaker_by_corpus_and_name(
    half_trained: tuple[holdout.HoldoutResult, Dataset],
) -> None:
    trained, data = half_trained
    other = with_clips(data, corpus="other")
    strangers = replace(other, examples=tuple(replace(e, key="e", sha256="f") for e in other.examples))
    # Two of the four have the names of speakers it was trained on.
    assert sizes(holdout.score_model(trained.model, trained.metadata, strangers)) == (0, 0, 60, 60)
    # Under another name of the folder, clips it was trained on tell who is seen.
    assert sizes(holdout.score_model(trained.model, trained.metadata, other)) == (48, 12, 60, 0)


@pytest.mark.parametrize("group", ["unseen_speakers", "trained_on"])
def test_score_model_scores_conditions_on_the_first_group(
    group: str, half_trained: tuple[holdout.HoldoutResult, Dataset], rng: np.random.Generator
) -> None:
    trained, data = half_trained
    if group == "trained_on":
        data = data.subset(trained.holdout.train)
    worse = data.x + 40 * rng.standard_normal(data.x.shape).astype(np.float32)
    others = {"mfcc@louder": data.x[:, None], "mfcc@telephone": worse[:, None], "augment": worse[:, None]}

    result = holdout.score_model(trained.model, trained.metadata, replace(data, others=others))

    assert set(result.conditions) == {"louder", "telephone"}
    assert next(iter(result.groups)) == group
    plain = result.groups[group].scores
    assert result.conditions["louder"] == plain
    assert result.conditions["telephone"].accuracy < plain.accuracy


def test_score_model_calls_nobody_unseen_where_a_speaker_is_not_known(
    half_trained: tuple[holdout.HoldoutResult, Dataset],
) -> None:
    trained, data = half_trained
    nameless = with_clips(data, speaker=None)
    assert sizes(holdout.score_model(trained.model, trained.metadata, nameless)) == (48, 0, 0, 72)
    told_of = {**trained.metadata.data, "corpora": {"own": {"clips": 48, "of_unknown_speakers": 1}}}
    assert sizes(holdout.score_model(trained.model, replace(trained.metadata, data=told_of), data)) == (
        48,
        12,
        0,
        60,
    )


def test_score_model_calls_nobody_unseen_where_the_model_file_tells_nothing(
    half_trained: tuple[holdout.HoldoutResult, Dataset],
) -> None:
    trained, data = half_trained
    silent = replace(trained.metadata, data={})
    for corpus in ("own", "ravdess"):
        assert sizes(holdout.score_model(trained.model, silent, with_clips(data, corpus=corpus))) == (
            0,
            0,
            0,
            120,
        )


def test_score_model_takes_a_near_copy_of_a_training_clip_and_its_speaker_for_seen(
    half_trained: tuple[holdout.HoldoutResult, Dataset],
) -> None:
    trained, data = half_trained
    # One of the 30 clips of s3, who was not trained on, is a copy of a training clip of s0 or s1.
    copy, original = data.examples[90], data.examples[trained.holdout.train[0]]

    result = holdout.score_model(
        trained.model, trained.metadata, replace(data, near_copies=((copy, original),))
    )

    assert sizes(result) == (48, 12 + 30, 30, 0)


def test_a_training_tells_near_copies_of_held_out_clips_and_labels_it_has_no_clip_of(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    data = told(rng, speakers=2)
    # Each speaker has a label that the other lacks, so whoever is held out takes one along.
    own = {"s0": data.labels[0], "s1": data.labels[1]}
    kept = [e.clip.label in (data.labels[2], own[e.clip.speaker]) for e in data.examples]
    data = data.subset(np.flatnonzero(kept))
    plain = holdout.train_with_holdout("v1", data, trained_with())
    trained, held_out = (data.examples[at[0]] for at in (plain.holdout.train, plain.holdout.new))

    result = holdout.train_with_holdout(
        "v1", replace(data, near_copies=((held_out, trained),)), trained_with()
    )

    lost = own[plain.holdout.new_speakers[0]]
    assert result.cautions == [
        f"{lost} has no training clip, as all its speakers were held out",
        "1 near copy of held-out clips stood in training: the figures are too good",
    ]
    assert result.to_dict()["untrained_labels"] == [lost]
    assert result.to_dict()["n_near_copies"] == 1


def test_unseen_speakers_are_scored_by_corpus_too(rng: np.random.Generator, fitted: list[Fitted]) -> None:
    data = told(rng)
    halves = tuple(
        replace(e, clip=replace(e.clip, corpus="ab"[i >= 90])) for i, e in enumerate(data.examples)
    )
    result = holdout.train_with_holdout("v1", replace(data, examples=halves), trained_with())
    assert {corpus: scores.n for corpus, scores in result.new_by_corpus.items()} == {"a": 30, "b": 30}
    told_of = result.metadata.data["corpora"]
    assert sum(corpus["clips"] for corpus in told_of.values()) == result.train.n
    assert {name: corpus["of_unknown_speakers"] for name, corpus in told_of.items()} == {"a": 0, "b": 0}


def with_clips(data: Dataset, **changes: object) -> Dataset:
    examples = tuple(replace(e, clip=replace(e.clip, **changes)) for e in data.examples)
    return replace(data, examples=examples)


def test_the_metadata_count_labels_and_weights(rng: np.random.Generator, fitted: list[Fitted]) -> None:
    data = told(rng, speakers=3)
    examples = [replace(e, clip=replace(e.clip, song=i < 30)) for i, e in enumerate(data.examples)]

    trained = holdout.train_with_holdout(
        "v1", replace(data, examples=tuple(examples)), trained_with(split="none")
    )

    # A third of each speaker's 30 clips has each label; the first speaker sings.
    assert trained.metadata.data["clips"] == {label: {"spoken": 20, "sung": 10} for label in data.labels}
    assert trained.metadata.parameters == 40 * 3 + 3 + 2 * 40 + 1  # of the answers and of the normalisation


def test_the_metadata_tell_whether_every_clip_is_of_ravdess(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    data, config = with_clips(told(rng, speakers=3), corpus="ravdess"), trained_with(split="none")
    one_of_another = replace(
        data, examples=(replace(data.examples[0], clip=Clip("a", "happy")), *data.examples[1:])
    )

    for clips, expected in ((data, True), (one_of_another, False)):
        assert holdout.train_with_holdout("v1", clips, config).metadata.data["ravdess"] is expected


def test_the_network_is_corrected_by_a_temperature_from_its_training_clips_alone(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    data = blurred(rng, speakers=5)

    result = holdout.train_with_holdout("v1", data, trained_with(calibrate=True))
    calls = list(fitted)
    plain = holdout.train_with_holdout("v1", data, trained_with(calibrate=False))

    assert result.calibration is not None
    assert plain.calibration is plain.metadata.temperature is None
    assert result.metadata.temperature == result.calibration.temperature > 1.5
    expected = apply_temperature(training.predict(plain.model, data.x), result.metadata.temperature)
    np.testing.assert_allclose(training.predict(result.model, data.x), expected, atol=1e-5)
    # The scores are those of the network that is handed over.
    assert result.new is not None
    assert plain.new is not None
    assert result.new.accuracy == plain.new.accuracy
    assert result.new.nll < plain.new.nll
    # Four speakers are trained on: one training with all, and one without each of them.
    held_out = {data.x[i].tobytes() for i in (*result.holdout.seen, *result.holdout.new)}
    assert len(calls) == 5
    assert all(held_out.isdisjoint(row.tobytes() for row in call.rows.x) for call in calls)
    assert result.calibration.result.scores.n == len(result.holdout.train)


def test_clips_are_unlike_the_training_above_what_99_of_100_of_left_out_speakers_have(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    data = blurred(rng, speakers=5)

    result = holdout.train_with_holdout("v1", data, trained_with(calibrate=True))

    assert result.calibration is not None
    folds = result.calibration.result.folds
    distances = np.concatenate([fold.distances for fold in folds])
    assert len(distances) == len(result.holdout.train)
    assert result.metadata.unlike is not None
    assert (distances <= result.metadata.unlike).mean() == pytest.approx(0.99, abs=1 / len(distances))
    plain = holdout.train_with_holdout("v1", data, trained_with(calibrate=False))
    assert plain.metadata.unlike is None


def test_each_corpus_of_the_training_is_left_out_once(rng: np.random.Generator, fitted: list[Fitted]) -> None:
    data = blurred(rng, speakers=6)
    halves = tuple(
        replace(e, clip=replace(e.clip, corpus="ab"[i >= 90])) for i, e in enumerate(data.examples)
    )
    data = replace(data, examples=halves)

    result = holdout.train_with_holdout("v1", data, trained_with(calibrate=True))
    document = json.loads(json.dumps(result.to_dict()))

    train = result.holdout.train
    assert set(document["other_corpora"]) == {"a", "b"}
    for name, one in document["other_corpora"].items():
        crossed = result.other_corpora[name].result
        assert one["n"] == (data.corpora[train] == name).sum()
        assert one["accuracy"] == pytest.approx(
            (crossed.probabilities.argmax(axis=1) == crossed.truth).mean()
        )
        assert one["labels"] == list(data.labels)
        assert one["unlike"] == (crossed.folds[0].distances > result.metadata.unlike).mean()
    # What a training without a corpus was tested on is never a clip that was held out.
    held_out = {data.x[i].tobytes() for i in (*result.holdout.seen, *result.holdout.new)}
    assert all(held_out.isdisjoint(row.tobytes() for row in call.rows.x) for call in fitted)
    assert document["test"]["new_speakers"]["by_corpus"].keys() == {"a", "b"}
    assert document["cross_validated"]["n_answers"] == len(train)
    assert document["train"] == {"accuracy": result.train.accuracy, "n": len(train)}


def test_held_out_clips_do_not_move_the_temperature(rng: np.random.Generator, fitted: list[Fitted]) -> None:
    data = blurred(rng, speakers=4)
    config = trained_with(calibrate=True)
    before = holdout.train_with_holdout("v1", data, config)
    x = data.x.copy()
    x[before.holdout.new] *= 100
    x[before.holdout.seen] *= 100

    after = holdout.train_with_holdout("v1", replace(data, x=x), replace(config, runs="other"))

    assert after.metadata.temperature == before.metadata.temperature


def test_one_known_speaker_is_trained_without_a_calibration(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    config = trained_with(calibrate=True, split="random")

    result = holdout.train_with_holdout("v1", told(rng, speakers=1), config)

    assert result.calibration is result.metadata.temperature is None
    assert len(fitted) == 1


def test_a_calibrated_training_counts_the_epochs_of_all_its_trainings(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    told_of: list[tuple[str, int, int]] = []
    config = trained_with(calibrate=True, split="none", epochs=1)

    holdout.train_with_holdout("v1", told(rng, speakers=3), config, lambda *one: told_of.append(one[:3]))

    assert [one[1:] for one in told_of] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert told_of[0][0] == "calibrating, fold 1 of 3"
    assert told_of[-1][0] == "training"


def test_what_is_said_of_confidences_is_what_left_out_speakers_showed(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    calibration = holdout.train_with_holdout(
        "v1", blurred(rng), trained_with(calibrate=True, split="none")
    ).calibration

    assert calibration is not None
    confidence, hits = calibration.result.confidence, calibration.result.hits
    these = [hit for sure, hit in zip(confidence, hits, strict=True) if 0.75 <= sure <= 0.85]
    assert calibration.near(0.8) == (len(these), pytest.approx(np.mean(these)))
    assert calibration.near(0.0) == (0, 0.0)


def test_a_killed_training_is_gone_on_with_only_when_asked(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, config = told(rng, speakers=3, clips=4), trained_with(epochs=3)
    monkeypatch.setattr(holdout, "Checkpoint", partial(Checkpoint, every_s=0))

    def train(killed_at: int | None, *, resume: bool) -> list[int]:
        seen: list[int] = []

        def on_epoch(_stage: str, done: int, _total: int, _values: object) -> None:
            seen.append(done)
            if done == killed_at:
                raise KeyboardInterrupt

        if killed_at is None:
            holdout.train_with_holdout("v1", data, config, on_epoch, resume=resume)
        else:
            with pytest.raises(KeyboardInterrupt):
                holdout.train_with_holdout("v1", data, config, on_epoch, resume=resume)
        return seen

    assert train(2, resume=True) == [1, 2]  # there is nothing yet to go on with
    assert holdout.unfinished_training("v1", data, config).exists()
    assert not holdout.unfinished_training("v1", data, replace(config, seed=1)).exists()
    assert train(1, resume=False) == [1]
    assert train(None, resume=True) == [2, 3]
    assert train(None, resume=True) == []  # until the caller has saved the network
