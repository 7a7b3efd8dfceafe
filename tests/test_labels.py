"""The one order of the emotions, and the words for them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechemo_cli.corpus.labels import EMOTIONS, canonical, is_emotion, ordered


def test_the_order_is_that_of_the_ravdess_codes() -> None:
    assert EMOTIONS == ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")


@pytest.mark.parametrize(
    ("word", "label"),
    [
        ("angry", "angry"),
        ("Anger", "angry"),
        ("  ANGRY\n", "angry"),
        ("fear", "fearful"),
        ("Happiness", "happy"),
        ("joy", "happy"),
        ("sadness", "sad"),
        ("neutrality", "neutral"),
        ("calmness", "calm"),
        ("disgusted", "disgust"),
        ("surprise", "surprised"),
        ("pleasant_surprise", "surprised"),
        ("ps", "surprised"),
    ],
)
def test_synonyms_mean_one_of_the_eight(word: str, label: str) -> None:
    assert canonical(word) == label
    assert is_emotion(word)


@pytest.mark.parametrize(
    ("word", "label"), [("boredom", "boredom"), (" Boredom ", "boredom"), ("Actor_01", "actor_01"), ("", "")]
)
def test_an_unknown_word_stays_itself_in_lower_case(word: str, label: str) -> None:
    assert canonical(word) == label
    assert not is_emotion(word)


def test_every_emotion_is_its_own_label() -> None:
    assert [canonical(emotion) for emotion in EMOTIONS] == list(EMOTIONS)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=20))
def test_a_label_is_its_own_label(word: str) -> None:
    assert canonical(canonical(word)) == canonical(word)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([*EMOTIONS, "boredom", "awe", "zeal"])))
def test_ordered_gives_each_label_once_emotions_first_then_the_alphabet(labels: list[str]) -> None:
    result = ordered(labels)
    assert set(result) == set(labels)
    assert len(result) == len(set(labels))
    one_order = [*EMOTIONS, "awe", "boredom", "zeal"]
    places = [one_order.index(label) for label in result]
    assert all(a < b for a, b in itertools.pairwise(places))


def test_ordered_takes_any_iterable_even_an_empty_one() -> None:
    assert ordered(iter(["sad", "calm", "sad"])) == ("calm", "sad")
    assert ordered([]) == ()
