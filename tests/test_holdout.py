"""Holding out, scoring a model file and testing on other corpora, on features that say the label."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import TRAINING_LABELS, Fitted, blurred, separable, trained_with

from speechemo_cli.corpus.clips import Clip
from speechemo_cli.errors import DataError, LeakError, NoInputError
from speechemo_cli.evaluation import holdout
from speechemo_cli.evaluation.holdout import cross_corpus, leave_corpora_out, split_by_label
from speechemo_cli.evaluation.metrics import apply_temperature
from speechemo_cli.features.dataset import Dataset
from speechemo_cli.formatting import GROUPS
from speechemo_cli.models import training


def with_examples(data: Dataset, **changes: object) -> Dataset:
    return replace(data, examples=tuple(replace(e, **changes) for e in data.examples))


def with_clips(data: Dataset, **changes: object) -> Dataset:
    examples = tuple(replace(e, clip=replace(e.clip, **changes)) for e in data.examples)
    return replace(data, examples=examples)


def of_two_corpora(data: Dataset) -> Dataset:
    """The first half of the clips of corpus a, the others of b."""
    n = len(data.examples) // 2
    a, b = (with_clips(data, corpus=corpus).examples for corpus in "ab")
    return replace(data, examples=a[:n] + b[n:])


def test_train_with_holdout_measures_seen_and_unseen_speakers_and_score_model_finds_them_again(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    data = of_two_corpora(blurred(rng))

    made = holdout.train_with_holdout("v1", data, trained_with())
    groups, _ = holdout.score_model(made.model, made.metadata, data)

    parts = (made.holdout.train, made.holdout.seen, made.holdout.new)
    assert sorted(np.concatenate(parts).tolist()) == list(range(180))
    trained, seen, new = ({data.examples[i].clip.speaker_id for i in at} for at in parts)
    assert seen <= trained
    assert new.isdisjoint(trained)
    # One of the three speakers of each corpus stays out.
    assert sorted(new) == sorted(made.holdout.new_speakers)
    assert {corpus: scores.n for corpus, scores in made.new_by_corpus.items()} == {"a": 30, "b": 30}
    steps = made.metadata.data
    assert sum(corpus["clips"] for corpus in steps["corpora"].values()) == made.train.n
    unknown = {name: corpus["of_unknown_speakers"] for name, corpus in steps["corpora"].items()}
    assert unknown == {"a": 0, "b": 0}
    names = ("train", "seen_speakers", "new_speakers")
    assert [steps[name] for name in names] == [[data.examples[i].sha256 for i in at] for at in parts]
    assert steps["train_samples"] == [data.examples[i].key for i in made.holdout.train]
    assert set(steps["speakers"]) == trained
    assert made.metadata.versions["keras"] >= "3.15.1"
    # The same clips, so the same numbers as the training reported; unseen speakers come first.
    assert list(groups) == ["unseen_speakers", "seen_speakers", "trained_on"]
    assert [group.scores for group in groups.values()] == [made.new, made.seen, made.train]
    assert groups["unseen_speakers"].origin == "a: 1 speaker, 30 clips; b: 1 speaker, 30 clips"


def test_train_with_holdout_counts_labels_songs_and_weights(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    data = with_clips(separable(rng, speakers=3), corpus="ravdess")
    sung = tuple(replace(e, clip=replace(e.clip, song=i < 30)) for i, e in enumerate(data.examples))
    one_of_another = (replace(data.examples[0], clip=Clip("a", "happy")), *data.examples[1:])

    result, mixed = (
        holdout.train_with_holdout("v1", replace(data, examples=examples), trained_with(split="none"))
        for examples in (sung, one_of_another)
    )

    assert result.train.n == 90
    assert result.seen is result.new is None
    # A third of each speaker's 30 clips has each label; the first speaker sings.
    assert result.metadata.data["clips"] == {label: {"spoken": 20, "sung": 10} for label in data.labels}
    assert result.metadata.parameters == 40 * 3 + 3 + 2 * 40 + 1  # of the answers and of the normalisation
    assert result.metadata.data["ravdess"] is True
    assert mixed.metadata.data["ravdess"] is False


def test_train_with_holdout_tells_near_copies_of_held_out_clips_and_labels_without_a_clip(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    data = separable(rng, speakers=2)
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


def test_train_with_holdout_corrects_by_a_temperature_from_its_training_clips_alone(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    data = blurred(rng, speakers=5)

    result = holdout.train_with_holdout("v1", data, trained_with(calibrate=True))
    calls = list(fitted)
    plain = holdout.train_with_holdout("v1", data, trained_with(calibrate=False))

    assert result.calibration is not None
    assert plain.calibration is plain.metadata.temperature is plain.metadata.unlike is None
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
    # What is unlike the training is further than 99 of 100 clips of left-out speakers.
    distances = np.concatenate([fold.distances for fold in result.calibration.result.folds])
    assert len(distances) == len(result.holdout.train)
    assert result.metadata.unlike is not None
    assert (distances <= result.metadata.unlike).mean() == pytest.approx(0.99, abs=1 / len(distances))
    # What is said of confidences is what left-out speakers showed.
    confidence, hits = result.calibration.result.confidence, result.calibration.result.hits
    these = [hit for sure, hit in zip(confidence, hits, strict=True) if 0.75 <= sure <= 0.85]
    assert result.calibration.near(0.8) == (len(these), pytest.approx(np.mean(these)))
    assert result.calibration.near(0.0) == (0, 0.0)


def test_train_with_holdout_leaves_each_corpus_out_once(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    data = of_two_corpora(blurred(rng, speakers=6))

    result = holdout.train_with_holdout("v1", data, trained_with(calibrate=True))
    document = json.loads(json.dumps(result.to_dict()))

    train = result.holdout.train
    assert set(document["other_corpora"]) == {"a", "b"}
    for name, one in document["other_corpora"].items():
        crossed = result.other_corpora[name]
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


def test_train_with_holdout_of_one_known_speaker_has_no_calibration(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    config = trained_with(calibrate=True, split="random")

    result = holdout.train_with_holdout("v1", separable(rng, speakers=1), config)

    assert result.calibration is result.metadata.temperature is None
    assert len(fitted) == 1


def test_train_with_holdout_counts_the_epochs_of_all_its_trainings(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    steps: list[tuple[str, int, int]] = []
    config = trained_with(calibrate=True, split="none", epochs=1)

    holdout.train_with_holdout("v1", separable(rng, speakers=3), config, lambda *one: steps.append(one[:3]))

    assert [one[1:] for one in steps] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert steps[0][0] == "calibrating, fold 1 of 3"
    assert steps[-1][0] == "training"


def test_train_with_holdout_gives_up_an_unfinished_training_unless_it_resumes(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    data, config = separable(rng, speakers=3), trained_with()
    unfinished = holdout.unfinished_training("v1", data, config)
    unfinished.path.parent.mkdir()
    unfinished.path.write_bytes(b"epochs")

    assert not holdout.unfinished_training("v1", data, replace(config, seed=1)).exists()
    for resume in (True, False):
        holdout.train_with_holdout("v1", data, config, resume=resume)
        assert unfinished.exists() == resume


# --- model files ------------------------------------------------------------------------------------


HalfTrained = tuple[holdout.HoldoutResult, Dataset]


@pytest.fixture
def half_trained(rng: np.random.Generator, fitted: list[Fitted]) -> HalfTrained:
    """A model trained on 48 clips of two of four speakers of the corpus `own`, and 120 clips of all four."""
    data = with_clips(separable(rng, speakers=4), corpus="own")
    first_two = data.subset(np.arange(60))
    return holdout.train_with_holdout("v1", first_two, trained_with(split="random")), data


@pytest.mark.parametrize(
    ("change", "counts"),  # of unseen, unknown and seen speakers, and of clips it was trained on
    [
        # A clip is known by its content and by its samples.
        (lambda data, _: data, (60, 0, 12, 48)),
        (lambda data, _: with_examples(data, sha256="f" * 64), (60, 0, 12, 48)),
        (lambda data, _: with_examples(data, key="e" * 64), (60, 0, 12, 48)),
        # A speaker is corpus and name: two of four strangers have the names of speakers it was trained on.
        (lambda data, _: with_examples(with_clips(data, corpus="b"), key="e", sha256="f"), (60, 60, 0, 0)),
        # Under another name of the folder, clips it was trained on tell who is seen.
        (lambda data, _: with_clips(data, corpus="b"), (60, 0, 12, 48)),
        (lambda data, _: with_clips(data, speaker=None), (0, 72, 0, 48)),
        # One of the 30 clips of s3 is nearly the same as one it was trained on.
        (
            lambda data, first: replace(data, near_copies=((data.examples[90], data.examples[first]),)),
            (30, 0, 42, 48),
        ),
    ],
)
def test_score_model_tells_seen_from_unseen_speakers(
    change: Any, counts: tuple[int, ...], half_trained: HalfTrained
) -> None:
    made, data = half_trained

    groups, _ = holdout.score_model(made.model, made.metadata, change(data, made.holdout.train[0]))

    found = {name: group.scores.n for name, group in groups.items()}
    assert tuple(found.get(name, 0) for name in GROUPS) == counts


def test_score_model_has_no_unseen_speakers_where_the_model_file_does_not_name_all_speakers(
    half_trained: HalfTrained,
) -> None:
    made, data = half_trained
    some = {**made.metadata.data, "corpora": {"own": {"clips": 48, "of_unknown_speakers": 1}}}

    for steps, corpus in ((some, "own"), ({}, "own"), ({}, "ravdess")):
        metadata = replace(made.metadata, data=steps)
        groups, _ = holdout.score_model(made.model, metadata, with_clips(data, corpus=corpus))
        assert groups["unknown_speakers"].scores.n == (60 if steps else 120)
        assert "unseen_speakers" not in groups


@pytest.mark.parametrize("group", ["unseen_speakers", "trained_on"])
def test_score_model_scores_conditions_on_the_first_group(
    group: str, half_trained: HalfTrained, rng: np.random.Generator
) -> None:
    trained, data = half_trained
    if group == "trained_on":
        data = data.subset(trained.holdout.train)
    worse = data.x + 40 * rng.standard_normal(data.x.shape).astype(np.float32)
    others = {"mfcc@louder": data.x[:, None], "mfcc@telephone": worse[:, None], "augment": worse[:, None]}

    groups, conditions = holdout.score_model(trained.model, trained.metadata, replace(data, others=others))

    assert set(conditions) == {"louder", "telephone"}
    assert next(iter(groups)) == group
    plain = groups[group].scores
    assert conditions["louder"] == plain
    assert conditions["telephone"].accuracy < plain.accuracy


# --- other corpora ----------------------------------------------------------------------------------


def of_corpus(data: Dataset, corpus: str) -> Dataset:
    of_it = with_clips(data, corpus=corpus).examples
    return replace(data, examples=tuple(replace(e, key=f"{corpus} {e.key}") for e in of_it))


def with_labels(data: Dataset, targets: set[int]) -> Dataset:
    return data.subset(np.flatnonzero(np.isin(data.targets, list(targets))))


def test_cross_corpus_says_which_speakers_both_sides_have(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    data = of_corpus(separable(rng), "a")
    train, test = data.subset(np.arange(100)), data.subset(np.arange(100, 180))

    crossed = cross_corpus("v1", train, test, trained_with())

    (call,) = fitted
    np.testing.assert_array_equal(call.rows.x, train.x)
    assert (crossed.trained_corpora, list(crossed.corpora)) == (("a",), ["a"])
    assert crossed.shared_speakers == ("a/s3",)
    assert crossed.to_dict()["protocol"] == "cross-corpus"
    assert crossed.to_dict()["speaker_independent"] is False
    assert "1 speakers stand in both" in crossed.protocol.meaning
    # Seen and unseen speakers are scored separately.
    groups = crossed.groups
    assert {name: group.scores.n for name, group in groups.items()} == {
        "unseen_speakers": 60,
        "seen_speakers": 20,
    }
    assert groups["seen_speakers"].origin == "a: 1 speaker, 20 clips"


def test_cross_corpus_takes_same_names_for_unknown_speakers_and_tells_near_copies(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    train, test = of_corpus(separable(rng, speakers=3), "a"), of_corpus(separable(rng, speakers=4), "b")
    pair = (test.examples[4], train.examples[7])
    inside = (test.examples[1], test.examples[2])

    crossed = cross_corpus("v1", train, replace(test, near_copies=(pair, inside)), trained_with())

    assert {name: group.scores.n for name, group in crossed.groups.items()} == {
        "unseen_speakers": 30,
        "unknown_speakers": 90,
    }
    assert crossed.near_copies == (pair[::-1],)
    assert crossed.to_dict()["speaker_independent"] is False
    assert crossed.to_dict()["n_near_copies"] == 1
    assert "1 near copy of test clips stood in training" in crossed.cautions[-1]


def test_cross_corpus_corrects_by_training_speakers_and_tests_no_sung_clip_beside_spoken_ones(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    train, test = of_corpus(blurred(rng, speakers=3), "a"), of_corpus(separable(rng, speakers=2), "b")
    sung = tuple(replace(e, clip=replace(e.clip, song=i < 30)) for i, e in enumerate(test.examples))

    crossed = cross_corpus("v1", train, replace(test, examples=sung), trained_with(calibrate=True))

    assert crossed.calibrated
    assert len(fitted) == 4
    tested = {row.tobytes() for row in test.x}
    assert all(tested.isdisjoint(row.tobytes() for row in call.rows.x) for call in fitted)
    assert [example.clip.song for example in crossed.examples] == [False] * 30


def test_cross_corpus_refuses_recordings_on_both_sides_and_a_training_of_one_label(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    train, test = of_corpus(separable(rng), "a"), of_corpus(separable(rng, speakers=2), "b")
    leaky = replace(test, examples=(replace(test.examples[0], key=train.examples[3].key), *test.examples[1:]))

    with pytest.raises(LeakError, match=r"1 recordings stand in training and in test: 0/0\.wav"):
        cross_corpus("v1", train, leaky, trained_with())
    with pytest.raises(DataError, match="needs training clips of at least two labels"):
        cross_corpus("v1", with_labels(train, {0}), test, trained_with())
    assert fitted == []


def test_split_by_label_counts_what_is_left_out_and_refuses_to_leave_nothing() -> None:
    clips = [Clip(str(i), label) for i, label in enumerate(["bored", "sad", "calm", "bored"])]

    assert split_by_label(clips, ("sad", "angry")) == ([clips[1]], {"calm": 1, "bored": 2})
    with pytest.raises(NoInputError, match="no test clip has a label of the training: found bored, expected"):
        split_by_label(clips[:1], ("sad", "angry"))


def joined(*parts: Dataset) -> Dataset:
    return replace(
        parts[0],
        examples=tuple(example for part in parts for example in part.examples),
        x=np.concatenate([part.x for part in parts]),
        targets=np.concatenate([part.targets for part in parts]),
        durations_s=np.concatenate([part.durations_s for part in parts]),
    )


def test_leave_corpora_out_tests_each_on_a_training_with_the_others(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    a, b = of_corpus(blurred(rng, speakers=3), "a"), of_corpus(blurred(rng, speakers=2), "b")
    few = of_corpus(with_labels(separable(rng, speakers=2), {0, 1}), "few")
    data, names = joined(a, b, few), ("a", "b", "few")
    stages: list[str] = []

    results = leave_corpora_out(
        "v1", data, trained_with(calibrate=True), lambda stage, *_: stages.append(stage)
    )

    assert tuple(results) == names
    assert [stage.partition(",")[0] for stage in stages] == ["without a", "without b", "without few"]
    for (name, crossed), call in zip(results.items(), fitted, strict=True):
        assert list(crossed.corpora) == [name]
        assert crossed.trained_corpora == tuple(other for other in names if other != name)
        np.testing.assert_array_equal(call.rows.x, data.x[data.corpora != name])
        assert not crossed.calibrated
    assert results["few"].shared_labels == TRAINING_LABELS[:2]


def test_leave_corpora_out_tests_no_label_that_the_others_do_not_have(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    data = joined(
        of_corpus(separable(rng), "a"), of_corpus(with_labels(separable(rng, speakers=2), {0, 1}), "b")
    )

    assert set(leave_corpora_out("v1", data, trained_with())["a"].truth.tolist()) == {0, 1}
    assert leave_corpora_out("v1", of_corpus(separable(rng), "a"), trained_with()) == {}
