"""Who is seen, unseen or unknown to a training, the scores of each group, and what a protocol tells."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import Fitted, blurred, grid, separable, trained_with

from speechemo_cli.corpus.clips import Clip
from speechemo_cli.corpus.splits import Example
from speechemo_cli.evaluation import protocols
from speechemo_cli.evaluation.metrics import score
from speechemo_cli.evaluation.results import Answers, group_of_clips
from speechemo_cli.formatting import SEEN, TRAINED, UNKNOWN, UNSEEN

pytestmark = pytest.mark.usefixtures("fitted")


@pytest.mark.parametrize(
    ("corpus", "speaker", "trained", "nameless", "expected"),
    [
        ("ravdess", "03", {"ravdess/03"}, (), SEEN),
        ("ravdess", "04", {"ravdess/03"}, (), UNSEEN),
        # A public corpus says for certain who is meant, whatever the others are called.
        ("ravdess", "03", {"own/03"}, ("own",), UNSEEN),
        ("own", "03", {"ravdess/03"}, ("ravdess",), UNSEEN),
        ("ravdess", "04", {"ravdess/03"}, ("ravdess",), UNKNOWN),
        # In folders of people's own, the same name may be the same person, and a nameless clip anybody's.
        ("own", "anna", {"own/anna"}, (), SEEN),
        ("new", "Anna", {"own/anna"}, (), UNKNOWN),
        ("new", "ben", {"own/anna"}, (), UNSEEN),
        ("new", "ben", {"own/anna"}, ("own",), UNKNOWN),
        ("own", None, {"own/anna"}, (), UNKNOWN),
        ("", "anna", {"anna"}, (), SEEN),
        ("", "ben", {"anna"}, (), UNSEEN),
    ],
)
def test_group_of_clips_goes_by_corpus_and_name(
    corpus: str, speaker: str | None, trained: set[str], nameless: tuple[str, ...], expected: str
) -> None:
    clip = Clip("a.wav", "sad", speaker, corpus=corpus)
    assert group_of_clips([clip], trained, nameless).tolist() == [expected]


def test_answers_are_scored_by_group(rng: np.random.Generator) -> None:
    labels = ("happy", "sad")
    examples = grid({(f"s{i}", label): 10 for i in range(6) for label in labels})
    truth, probabilities = rng.integers(0, 2, 120), rng.dirichlet((1, 1), 120).astype(np.float32)
    names = rng.choice([UNSEEN, TRAINED, SEEN], 120)

    groups = Answers(labels, examples, truth, probabilities).where(names)

    assert list(groups) == [UNSEEN, SEEN, TRAINED]
    for name, group in groups.items():
        at = names == name
        assert group.scores == score(truth[at], probabilities[at], labels)
        assert group.speakers == [examples[i].clip.speaker_id for i in np.flatnonzero(at)]


def test_answers_tell_their_corpora_and_why_there_is_no_interval() -> None:
    counts = {("own", "anna"): 2, ("own", "ben"): 1, ("nemo", "ben"): 1}
    examples = tuple(
        Example(Clip(f"{i}.wav", "sad", who, corpus=corpus), f"{corpus} {who} {i}")
        for (corpus, who), n in counts.items()
        for i in range(n)
    )
    group = Answers(("sad", "calm"), (*examples, examples[0]), np.zeros(5, int), np.eye(2)[np.zeros(5, int)])

    # A clip that is tested twice is one clip, and ben of another corpus another speaker.
    assert group.origin == "nemo: 1 speaker, 1 clip; own: 2 speakers, 3 clips"
    assert group.summary()["ci95"] is None
    assert group.summary()["no_interval"] == "3 speakers: no interval"


def test_protocol_result_names_a_label_that_was_tested_without_training(rng: np.random.Generator) -> None:
    data = separable(rng, speakers=3)
    happy = data.labels.index("happy")
    of_s1 = np.array([example.clip.speaker == "s1" for example in data.examples])
    data = data.subset(np.flatnonzero((data.targets != happy) | of_s1))

    result = protocols.run_protocol("v1", "loso", data, trained_with())

    assert result.untrained_labels == {"happy": ["2"]}
    assert result.fewer_folds == ""
    (caution,) = result.cautions
    assert caution.startswith("happy was tested without a training clip of it")
    assert result.to_dict()["untrained_labels"] == {"happy": ["2"]}


def test_slices_are_by_what_the_layout_tells_and_by_columns_that_make_groups(
    rng: np.random.Generator,
) -> None:
    data = separable(rng, speakers=3)
    examples = [
        replace(one, clip=replace(one.clip, extra=(("age", "old" if i % 3 else "young"), ("id", str(i)))))
        for i, one in enumerate(data.examples)
    ]
    examples[0] = replace(examples[0], clip=replace(examples[0].clip, extra=(("same", "x"),)))
    data = replace(data, examples=tuple(examples))

    result = protocols.run_protocol("v1", "random-5fold", data, trained_with())

    assert set(result.slices) == {"speaker", "gender", "intensity", "statement", "age"}
    assert sum(scores.n for scores in result.slices["speaker"].values()) == result.scores.n
    assert sum(scores.n for scores in result.slices["age"].values()) == result.scores.n - 1
    right = result.probabilities.argmax(axis=1) == result.truth
    men = np.array([example.clip.gender == "m" for example in result.examples])
    young = np.array([("age", "young") in example.clip.extra for example in result.examples])
    assert result.slices["gender"]["m"].accuracy == pytest.approx(right[men].mean())
    assert result.slices["age"]["young"].accuracy == pytest.approx(right[young].mean())


def test_protocol_result_as_json_has_what_the_scores_are(rng: np.random.Generator) -> None:
    result = protocols.run_protocol(
        "v1", "speaker-5fold", blurred(rng, speakers=4), trained_with(calibrate=True)
    )

    document = json.loads(json.dumps(result.to_dict()))

    n, answers = len(result.truth), result.probabilities.argmax(axis=1)
    assert document["n_answers"] == document["n_clips"] == n == 120
    assert document["calibrated"] is document["speaker_independent"] is True
    assert document["accuracy"]["pooled"] == pytest.approx((answers == result.truth).mean())
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


def test_conditions_are_scored_on_the_same_clips_by_the_same_networks(
    rng: np.random.Generator, fitted: list[Fitted]
) -> None:
    plain = separable(rng, speakers=4)
    worse = plain.x + 40 * rng.standard_normal(plain.x.shape).astype(np.float32)
    data = replace(plain, others={"mfcc@louder": plain.x[:, None], "mfcc@telephone": worse[:, None]})

    result = protocols.run_protocol("v1", "speaker-5fold", data, trained_with())
    document = json.loads(json.dumps(result.to_dict()))["conditions"]

    assert set(result.conditions) == set(document) == {"louder", "telephone"}
    assert result.conditions["louder"] == result.scores  # the same features, so the same answers
    answers = np.concatenate([fold.conditions["telephone"] for fold in result.folds]).argmax(axis=1)
    accuracy = (answers == result.truth).mean()
    assert accuracy < result.scores.accuracy - 0.1
    assert document["louder"]["cost"] == 0
    assert document["telephone"] == {
        "title": "telephone, G.711",
        "n": 120,
        "accuracy": pytest.approx(accuracy),
        "uar": result.conditions["telephone"].uar,
        "cost": pytest.approx(result.scores.accuracy - accuracy),
    }
    # They decide nothing: what was trained for them serves without them.
    done = len(fitted)
    assert protocols.run_protocol("v1", "speaker-5fold", plain, trained_with()).conditions == {}
    assert len(fitted) == done
