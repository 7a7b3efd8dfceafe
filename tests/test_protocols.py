"""Holding out, folding and scoring, on features that say the label or the speaker outright."""

from __future__ import annotations

import numpy as np
import pytest

from speechemo_cli.config import Config, TrainConfig
from speechemo_cli.corpus.labels import EMOTIONS
from speechemo_cli.corpus.layouts import Clip
from speechemo_cli.corpus.splits import PROTOCOLS, Example
from speechemo_cli.evaluation import protocols
from speechemo_cli.features.dataset import Dataset
from speechemo_cli.features.extraction import Extraction

LABELS = EMOTIONS[2:5]


def dataset(rng: np.random.Generator, speakers: int = 6, clips: int = 10, by_voice: bool = False) -> Dataset:
    """Clips whose features give the label away, or only the pairing of speaker and label."""
    examples, rows, targets = [], [], []
    for s in range(speakers):
        order = rng.permutation(3)
        for i in range(3 * clips):
            target = i % 3
            clip = Clip(f"{s}/{i}.wav", LABELS[target], speaker=f"s{s}", gender="mf"[s % 2])
            examples.append(Example(clip, f"{s:032d}{i:032d}"))
            row = np.zeros(40)
            if by_voice:
                # A fingerprint that means one label here and another with the next speaker.
                row[12 * order[target] : 12 * order[target] + 6] = 5
                row[36 + s % 4] = 10
            else:
                row[13 * target : 13 * target + 13] = 5
            rows.append(row + rng.standard_normal(40))
            targets.append(target)
    return Dataset(
        tuple(examples), np.array(rows, np.float32), np.array(targets), LABELS, Extraction(len(examples))
    )


def config(**train: object) -> Config:
    return Config(train=TrainConfig(**{"epochs": 30, **train}))


def test_split_both_measures_known_and_new_voices_side_by_side(rng: np.random.Generator) -> None:
    data = dataset(rng)

    result = protocols.train_with_holdout("v1", data, config())

    assert result.seen is not None
    assert result.new is not None
    assert result.train.n + result.seen.n + result.new.n == len(data.examples)
    assert len(result.holdout.new_speakers) == 1
    assert result.new.n == 30
    assert result.seen.accuracy > 0.9
    assert result.new.accuracy > 0.9
    assert set(result.history) == {f"{p}_{m}" for p in ("train", "seen", "new") for m in ("accuracy", "loss")}


def test_the_card_knows_who_was_heard_and_what_was_held_out(rng: np.random.Generator) -> None:
    data = dataset(rng)

    card = protocols.train_with_holdout("v1", data, config(epochs=1)).card

    parts = [set(card.data[name]) for name in ("train", "seen_speakers", "new_speakers")]
    assert set().union(*parts) == {example.key for example in data.examples}
    assert sum(map(len, parts)) == len(data.examples)
    assert len(card.data["speakers"]) == 5
    assert card.versions["keras"] >= "3.15.1"


def test_what_is_tied_to_the_voice_holds_on_known_voices_alone(rng: np.random.Generator) -> None:
    data = dataset(rng, by_voice=True)

    result = protocols.train_with_holdout("v1", data, config(epochs=60))

    assert result.seen is not None
    assert result.new is not None
    assert result.seen.accuracy > result.new.accuracy + 0.2


def test_split_none_holds_nothing_out(rng: np.random.Generator) -> None:
    result = protocols.train_with_holdout("v1", dataset(rng), config(split="none", epochs=1))

    assert result.train.n == 180
    assert result.seen is result.new is None


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_protocol_scores_every_fold_and_says_what_it_means(protocol: str, rng: np.random.Generator) -> None:
    data = dataset(rng)

    result = protocols.run_protocol("v1", protocol, data, config(epochs=25))

    assert result.speaker_independent == (protocol == "speaker-5fold")
    assert sum(fold.scores.n for fold in result.folds) == result.pooled.n
    assert result.pooled.n == 180  # five draws of a fifth, or five folds
    assert result.pooled.accuracy > 0.9
    assert protocols.MEANING[protocol]
    assert all(bool(fold.test_speakers) == result.speaker_independent for fold in result.folds)


def test_spread_is_mean_deviation_and_pooled(rng: np.random.Generator) -> None:
    result = protocols.run_protocol("v1", "random-5fold", dataset(rng, speakers=3), config(epochs=2))

    values = [fold.scores.accuracy for fold in result.folds]
    assert result.spread("accuracy") == {
        "mean": pytest.approx(np.mean(values)),
        "sd": pytest.approx(np.std(values, ddof=1)),
        "pooled": result.pooled.accuracy,
    }


def test_a_model_is_scored_apart_on_what_it_was_trained_on(rng: np.random.Generator) -> None:
    data = dataset(rng)
    trained = protocols.train_with_holdout("v1", data, config())

    result = protocols.score_model(trained.model, trained.card, data)

    # The same clips, so the same numbers as the training reported.
    assert result.trained_on == trained.train
    assert result.seen_speakers == trained.seen
    assert result.new_speakers == trained.new
    assert result.unseen is not None
    assert result.unseen.n == 180 - trained.train.n


def test_a_model_that_knows_every_clip_has_no_unseen_score(rng: np.random.Generator) -> None:
    data = dataset(rng)
    trained = protocols.train_with_holdout("v1", data, config(split="none", epochs=1))

    result = protocols.score_model(trained.model, trained.card, data)

    assert result.unseen is result.new_speakers is result.seen_speakers is None
    assert result.trained_on is not None


def test_labels_the_model_cannot_answer_are_named(rng: np.random.Generator) -> None:
    card = protocols.train_with_holdout("v1", dataset(rng), config(epochs=1)).card

    assert protocols.unknown_labels([Clip("a", "bored"), Clip("b", "happy")], card) == ("bored",)
