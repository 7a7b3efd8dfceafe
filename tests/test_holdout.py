"""Holding out and scoring, on features that say the label or the speaker outright."""

from __future__ import annotations

import numpy as np
from conftest import told, trained_with

from speechemo_cli.corpus.layouts import Clip
from speechemo_cli.evaluation import holdout


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
    assert set(result.history) == {f"{p}_{m}" for p in ("train", "seen", "new") for m in ("accuracy", "loss")}


def test_the_card_knows_who_was_heard_and_what_was_held_out(rng: np.random.Generator) -> None:
    data = told(rng)

    card = holdout.train_with_holdout("v1", data, trained_with(epochs=1)).card

    parts = [set(card.data[name]) for name in ("train", "seen_speakers", "new_speakers")]
    assert set().union(*parts) == {example.key for example in data.examples}
    assert sum(map(len, parts)) == len(data.examples)
    assert len(card.data["speakers"]) == 5
    assert card.versions["keras"] >= "3.15.1"


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

    result = holdout.score_model(trained.model, trained.card, data)

    # The same clips, so the same numbers as the training reported.
    assert result.trained_on == trained.train
    assert result.seen_speakers == trained.seen
    assert result.new_speakers == trained.new
    assert result.unseen is not None
    assert result.unseen.n == 180 - trained.train.n


def test_a_model_that_knows_every_clip_has_no_unseen_score(rng: np.random.Generator) -> None:
    data = told(rng)
    trained = holdout.train_with_holdout("v1", data, trained_with(split="none", epochs=1))

    result = holdout.score_model(trained.model, trained.card, data)

    assert result.unseen is result.new_speakers is result.seen_speakers is None
    assert result.trained_on is not None


def test_labels_the_model_cannot_answer_are_named(rng: np.random.Generator) -> None:
    card = holdout.train_with_holdout("v1", told(rng), trained_with(epochs=1)).card

    assert holdout.unknown_labels([Clip("a", "bored"), Clip("b", "happy")], card) == ("bored",)
