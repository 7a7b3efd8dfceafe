"""The one order of the emotions, and the words for them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechemo_cli.corpus import EMOTIONS, canonical, emotion_in, ordered


@pytest.mark.parametrize(
    ("label", "words"),
    {
        "neutral": ["neutrality"],
        "happy": ["Happiness", "gioia", "χαρά"],
        "sad": ["Tristesse", "грусть"],
        "angry": [
            *("angry", "  ANGRY\n", "Angray", "Wut", "Ärger", "A\u0308RGER", "colère", "Złość", "ΘΥΜΟΣ"),
            *("kızgın", "愤怒", "गुस्सा"),
        ],
        "fearful": ["fear", "miedo"],
        "disgust": ["nojo"],
        "surprised": ["pleasant_surprise", "Pleasant  surprise", "ps", "ŞAŞKIN"],
        "boredom": ["Langeweile"],
    }.items(),
)
def test_canonical_and_emotion_in_know_words_for_emotions(label: str, words: list[str]) -> None:
    assert [canonical(word) for word in words] == [label] * len(words)
    assert [emotion_in(word) for word in words] == [label] * len(words)


@pytest.mark.parametrize(
    ("word", "label"), [(" Awe ", "awe"), ("Actor_01", "actor_01"), ("e\u0301lan", "élan"), ("", "")]
)
def test_canonical_leaves_an_unknown_word_in_lower_case(word: str, label: str) -> None:
    assert canonical(word) == label
    assert emotion_in(word) is None


@pytest.mark.parametrize(
    ("name", "label"),
    [
        *((name, "angry") for name in ("01_angry", "20190610_angry-03", "愤怒01")),
        *(("HappyVoice", "happy"), ("OAF_Pleasant_surprise", "surprised"), ("sad_sadness", "sad")),
        *((name, None) for name in ("happy_sad", "not_angry", "angrybirds", "toronto emotional speech set")),
    ],
)
def test_emotion_in_finds_the_one_word_in_a_name(name: str, label: str | None) -> None:
    assert emotion_in(name) == label


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=20) | st.sampled_from(EMOTIONS))
def test_canonical_leaves_a_label_as_it_is(word: str) -> None:
    assert canonical(canonical(word)) == canonical(word)
    assert word not in EMOTIONS or canonical(word) == word


def test_ordered_gives_each_label_once_emotions_first_then_the_alphabet() -> None:
    assert EMOTIONS == ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
    names = ["zeal", "sad", "boredom", *reversed(EMOTIONS), "awe", "zeal"]
    assert ordered(iter(names)) == (*EMOTIONS, "awe", "boredom", "zeal")
    assert ordered(["sad", "calm", "sad"]) == ("calm", "sad")
    assert ordered([]) == ()
