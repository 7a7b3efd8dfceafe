"""Training on some corpora and testing on others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import TRAINING_LABELS, Fitted, blurred, told, trained_with
from sklearn.metrics import accuracy_score, recall_score

from speechemo_cli.corpus.clips import Clip
from speechemo_cli.errors import DataError, LeakError, NoInputError
from speechemo_cli.evaluation.holdout import cross_corpus, leave_corpora_out, split_by_label
from speechemo_cli.features.dataset import Dataset


def of_corpus(data: Dataset, corpus: str, **changes: object) -> Dataset:
    examples = tuple(
        replace(e, key=f"{corpus} {e.key}", clip=replace(e.clip, corpus=corpus, **changes))
        for e in data.examples
    )
    return replace(data, examples=examples)


def with_labels(data: Dataset, targets: set[int]) -> Dataset:
    return data.subset(np.flatnonzero(np.isin(data.targets, list(targets))))


def test_cross_corpus_trains_on_one_side_and_scores_the_other(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    train = of_corpus(told(rng), "a")
    test = of_corpus(with_labels(blurred(rng, speakers=4), {0, 2}), "b", speaker="anna")

    crossed = cross_corpus("v1", train, test, trained_with())

    (call,) = fitted
    np.testing.assert_array_equal(call.rows.x, train.x)
    result = crossed.result
    answers = result.probabilities.argmax(axis=1)
    np.testing.assert_array_equal(result.truth, test.targets)
    assert result.scores.n == len(test.examples)
    assert result.scores.accuracy == pytest.approx(accuracy_score(test.targets, answers))
    # The label that the test lacks is a possible answer, and no part of UAR.
    assert result.labels == TRAINING_LABELS
    uar = recall_score(test.targets, answers, labels=[0, 2], average="macro")
    assert result.scores.uar == pytest.approx(uar)
    assert crossed.shared_labels == (TRAINING_LABELS[0], TRAINING_LABELS[2])
    assert (result.trained_corpora, result.tested_corpora) == (("a",), ("b",))
    assert crossed.shared_speakers == ()
    document = crossed.to_dict()
    assert document["protocol"] == "cross-corpus"
    assert document["speaker_independent"] is True
    assert document["n_answers"] == len(test.examples)
    assert "every clip of a is trained on and every clip of b tested" in document["meaning"]


def test_cross_corpus_names_recordings_that_stand_on_both_sides(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    train = of_corpus(told(rng), "a")
    test = of_corpus(told(rng, speakers=2), "b")
    copied = replace(test.examples[7], key=train.examples[3].key)
    leaky = replace(test, examples=(*test.examples[:7], copied, *test.examples[8:]))

    with pytest.raises(LeakError, match=r"1 recordings stand in training and in test: 0/7\.wav"):
        cross_corpus("v1", train, leaky, trained_with())
    assert fitted == []


def test_cross_corpus_says_which_speakers_both_sides_have(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    data = of_corpus(told(rng), "a")
    train, test = data.subset(np.arange(100)), data.subset(np.arange(100, 180))

    crossed = cross_corpus("v1", train, test, trained_with())

    assert crossed.shared_speakers == ("a/s3",)
    assert crossed.to_dict()["speaker_independent"] is False
    assert "1 speakers stand in both" in crossed.result.protocol.meaning
    # Seen and unseen speakers are scored apart.
    groups = crossed.result.groups
    assert {name: group.scores.n for name, group in groups.items()} == {
        "unseen_speakers": 60,
        "seen_speakers": 20,
    }
    assert groups["seen_speakers"].whose == "a: 1 speaker, 20 clips"


def test_cross_corpus_takes_a_name_that_both_folders_have_for_no_unseen_speaker(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    train, test = of_corpus(told(rng, speakers=3), "a"), of_corpus(told(rng, speakers=4), "b")

    crossed = cross_corpus("v1", train, test, trained_with())

    groups = crossed.result.groups
    assert {name: group.scores.n for name, group in groups.items()} == {
        "unseen_speakers": 30,
        "unknown_speakers": 90,
    }
    assert crossed.to_dict()["speaker_independent"] is False


def test_cross_corpus_tells_near_copies_of_training_clips(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    train, test = of_corpus(told(rng, speakers=3), "a"), of_corpus(told(rng, speakers=3), "b")
    pair = (test.examples[4], train.examples[7])
    within = (test.examples[1], test.examples[2])

    crossed = cross_corpus("v1", train, replace(test, near_copies=(pair, within)), trained_with())

    assert crossed.result.near_copies == (pair[::-1],)
    assert crossed.to_dict()["n_near_copies"] == 1
    assert "1 near copy of test clips stood in training" in crossed.result.cautions[-1]


def test_cross_corpus_corrects_confidences_by_training_speakers_alone(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    train, test = of_corpus(blurred(rng, speakers=3), "a"), of_corpus(told(rng, speakers=2), "b")

    crossed = cross_corpus("v1", train, test, trained_with(calibrate=True))

    assert crossed.result.calibrated
    assert len(fitted) == 4
    tested = {row.tobytes() for row in test.x}
    assert all(tested.isdisjoint(row.tobytes() for row in call.rows.x) for call in fitted)


def test_cross_corpus_tests_no_sung_clip_beside_spoken_ones(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    test = of_corpus(told(rng, speakers=2), "b")
    sung = tuple(replace(e, clip=replace(e.clip, song=i < 30)) for i, e in enumerate(test.examples))

    crossed = cross_corpus("v1", of_corpus(told(rng), "a"), replace(test, examples=sung), trained_with())

    assert [example.clip.song for example in crossed.result.examples] == [False] * 30


def test_cross_corpus_needs_two_labels_to_train_on(rng: np.random.Generator) -> None:
    train = of_corpus(with_labels(told(rng), {0}), "a")
    with pytest.raises(DataError, match="needs training clips of at least two labels"):
        cross_corpus("v1", train, of_corpus(told(rng), "b"), trained_with())


def test_split_by_label_counts_what_is_left_out() -> None:
    clips = [Clip(str(i), label) for i, label in enumerate(["bored", "sad", "calm", "bored"])]
    kept, left_out = split_by_label(clips, ("sad", "angry"))
    assert kept == [clips[1]]
    assert left_out == {"calm": 1, "bored": 2}


def test_split_by_label_refuses_a_test_without_a_known_label() -> None:
    with pytest.raises(NoInputError, match="no test clip has a label of the training: found bored, expected"):
        split_by_label([Clip("a", "bored")], ("sad", "angry"))


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
    sizes = {"a": 4, "b": 3, "c": 2}
    data = joined(*(of_corpus(blurred(rng, speakers=n), name) for name, n in sizes.items()))
    stages: list[str] = []

    results = leave_corpora_out(
        "v1", data, trained_with(calibrate=True), lambda stage, *_: stages.append(stage)
    )

    assert list(results) == list(sizes)
    assert [stage.partition(",")[0] for stage in stages] == ["without a", "without b", "without c"]
    for (name, crossed), call in zip(results.items(), fitted, strict=True):
        assert crossed.result.tested_corpora == (name,)
        assert crossed.result.trained_corpora == tuple(other for other in sizes if other != name)
        np.testing.assert_array_equal(call.rows.x, data.x[data.corpora != name])
        assert not crossed.result.calibrated
        alone = cross_corpus(
            "v1",
            data.subset(np.flatnonzero(data.corpora != name)),
            data.subset(np.flatnonzero(data.corpora == name)),
            trained_with(calibrate=False),
        )
        np.testing.assert_array_equal(crossed.result.probabilities, alone.result.probabilities)


def test_leave_corpora_out_leaves_out_labels_that_the_others_do_not_have(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    data = joined(of_corpus(told(rng), "a"), of_corpus(with_labels(told(rng, speakers=2), {0, 1}), "b"))

    results = leave_corpora_out("v1", data, trained_with())

    assert set(results["a"].result.truth.tolist()) == {0, 1}
    assert results["b"].shared_labels == TRAINING_LABELS[:2]


def test_leave_corpora_out_of_one_corpus_is_nothing(rng: np.random.Generator, fitted: list[Fitted]) -> None:
    assert leave_corpora_out("v1", of_corpus(told(rng), "a"), trained_with()) == {}
    assert fitted == []
