"""The protocols: who is tested when, and what no test shares with its training."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from conftest import actor_number, corpora, grid, labels, ravdess, seeds, speakers
from hypothesis import given, settings

from speechemo_cli.corpus.folds import PROTOCOLS, Fold, folds
from speechemo_cli.corpus.known import recognise
from speechemo_cli.corpus.splits import Example, hold_out
from speechemo_cli.errors import DataError, LeakError

# Luna-Jimenez et al. (2022), Appl. Sci. 12:327, section 4; Ma et al. (2024), Interspeech.
LUNA = [{2, 5, 14, 15, 16}, {3, 6, 7, 13, 18}, {10, 11, 12, 19, 20}, {8, 17, 21, 23, 24}, {1, 4, 9, 22}]
EMOBOX = [{1, 11, 20, 21}, {4, 10, 12, 14}, {8, 9, 19, 23}, {3, 5, 7, 24}, {2, 15, 16, 18}, {6, 13, 17, 22}]


def held_out(result: list[Fold]) -> list[list[int]]:
    return [fold.test.tolist() for fold in result]


def actors_of(result: list[Fold]) -> list[set[int]]:
    return [{actor_number(actor) for actor in fold.test_speakers} for fold in result]


def check_folds(examples: list[Example], result: list[Fold], *, each_once: bool = True) -> None:
    everything = list(range(len(examples)))
    for fold in result:
        assert sorted([*fold.train, *fold.test]) == everything
        assert len(fold.test) > 0
    if each_once:
        assert sorted(np.concatenate([fold.test for fold in result]).tolist()) == everything


@settings(max_examples=30, deadline=None)
@given(examples=corpora(), seed=seeds)
def test_folds_by_speaker_test_every_clip_once_and_share_no_speaker(
    examples: list[Example], seed: int
) -> None:
    result = folds(examples, "speaker-5fold", seed)
    check_folds(examples, result)
    assert len(result) == min(5, len(speakers(examples, range(len(examples)))))
    for fold in result:
        assert not speakers(examples, fold.train) & speakers(examples, fold.test)
        assert set(fold.test_speakers) == speakers(examples, fold.test)


@settings(max_examples=30, deadline=None)
@given(examples=corpora(speakers_from=1), seed=seeds)
def test_folds_at_random_test_every_clip_once_and_every_label_in_each(
    examples: list[Example], seed: int
) -> None:
    result = folds(examples, "random-5fold", seed)
    check_folds(examples, result)
    assert len(result) == 5
    everything = labels(examples, range(len(examples)))
    for fold in result:
        assert fold.test_speakers == ()
        share = labels(examples, fold.test)
        assert all(abs(share[label] - n / 5) < 1 for label, n in everything.items())


@settings(max_examples=20, deadline=None)
@given(examples=corpora(speakers_from=1), seed=seeds)
def test_folds_of_the_random_hold_out_draw_a_fifth_as_trainings_with_their_seeds_do(
    examples: list[Example], seed: int
) -> None:
    result = folds(examples, "random-holdout", seed)
    check_folds(examples, result, each_once=False)
    assert [len(fold.test) for fold in result] == [round(0.2 * len(examples))] * 5
    assert len({tuple(fold.test) for fold in result}) > 1
    assert [fold.seed for fold in result] == [seed + i for i in range(5)]
    for fold in result:
        np.testing.assert_array_equal(fold.test, hold_out(examples, "random", 0.2, fold.seed).seen)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_folds_are_numbered_the_same_for_a_seed_and_refuse_a_planted_copy(protocol: str) -> None:
    examples = ravdess(range(1, 7))
    result, other = folds(examples, protocol, 10), folds(examples, protocol, 400)
    assert [fold.name for fold in result] == [str(i + 1) for i in range(len(result))]
    assert protocol == "random-holdout" or {fold.seed for fold in result} == {10}
    assert held_out(result) == held_out(folds(examples, protocol, 10))
    assert (held_out(result) == held_out(other)) == (not PROTOCOLS[protocol].shares_speakers)

    here, there = result[0].train[0], result[0].test[0]
    examples[there] = Example(examples[there].clip, examples[here].key)
    with pytest.raises(LeakError, match="recordings stand in training and in test"):
        folds(examples, protocol, 10)


@pytest.mark.parametrize(
    ("protocol", "actors", "expected"),
    [
        ("speaker-5fold", range(1, 25), LUNA),
        ("speaker-6fold", range(1, 25), EMOBOX),
        # Actors that are not there are left out of their folds.
        ("speaker-5fold", [1, 2, 3], [{2}, {3}, {1}]),
        ("speaker-5fold", [2, 5, 14, 15, 16, 1], [{2, 5, 14, 15, 16}, {1}]),
        ("speaker-5fold", set(range(1, 25)) - LUNA[2], LUNA[:2] + LUNA[3:]),
    ],
)
def test_folds_of_ravdess_are_the_published_ones_whatever_the_seed(
    protocol: str, actors: Any, expected: list[set[int]]
) -> None:
    examples = ravdess(actors)
    for seed in (0, 1):
        result = folds(examples, protocol, seed)
        assert actors_of(result) == expected
        assert [len(fold.test) for fold in result] == [60 * len(fold) for fold in expected]


def test_folds_deal_actors_anew_where_all_are_of_one_published_fold() -> None:
    result = actors_of(folds(ravdess(sorted(LUNA[0])), "speaker-5fold", 0))
    assert sorted(map(sorted, result)) == [[actor] for actor in sorted(LUNA[0])]


def with_corpus(examples: list[Example], corpus: str) -> list[Example]:
    return [replace(e, key=f"{corpus} {e.key}", clip=replace(e.clip, corpus=corpus)) for e in examples]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_folds_test_ravdess_alone_and_train_on_every_clip_of_other_corpora(protocol: str) -> None:
    # Other people than RAVDESS's, under the same names, and one whose name nobody knows.
    counts = {(who, label): 5 for who in ("01", "02", None) for label in ("happy", "sad", "bored")}
    other, actors = with_corpus(grid(counts), "other"), ravdess(range(1, 7))
    result = folds([*other, *actors], protocol, 0)
    check_folds([*other, *actors], result, each_once=False)
    assert held_out(result) == [
        [len(other) + i for i in test] for test in held_out(folds(actors, protocol, 0))
    ]


def test_folds_deal_the_speakers_of_all_corpora_that_name_them_where_ravdess_is_not_among_them() -> None:
    counts = {(who, label): 2 for who in ("01", "02", "03") for label in ("happy", "sad")}
    nameless = with_corpus(grid({**counts, (None, "sad"): 1}), "nameless")
    examples = [*nameless, *with_corpus(grid(counts), "one"), *with_corpus(grid(counts), "two")]
    result = folds(examples, "loso", 0)
    expected = [(f"{corpus}/{who}",) for corpus in ("one", "two") for who in ("01", "02", "03")]
    assert [fold.test_speakers for fold in result] == expected
    assert all(set(range(len(nameless))) <= set(fold.train.tolist()) for fold in result)


def test_folds_deal_speakers_of_another_corpus_evenly_by_the_seed_whatever_their_names() -> None:
    examples = with_corpus(ravdess(range(1, 14)), "other")
    deals = [[fold.test_speakers for fold in folds(examples, "speaker-5fold", seed)] for seed in range(5)]
    assert all(sorted(map(len, deal)) == [2, 2, 3, 3, 3] for deal in deals)
    assert len({str(deal) for deal in deals}) > 1


def test_folds_deal_speakers_again_where_a_label_would_lose_all_of_them() -> None:
    counts = {(f"s{i}", label): 1 for i in range(10) for label in ("sad", "happy")}
    examples = grid({**counts, ("s3", "angry"): 1, ("s7", "angry"): 1})
    for seed in range(20):
        for fold in folds(examples, "speaker-5fold", seed):
            assert set(labels(examples, fold.test)) <= set(labels(examples, fold.train))


@pytest.mark.parametrize(
    ("protocol", "counts", "message"),
    [
        ("random-5fold", {"a sad": 9, "a angry": 4}, "5 folds need 5 clips of each label, found 4 of 'an"),
        ("random-holdout", {"a sad": 9, "a angry": 1}, "too few clips.*1 of 'angry'"),
        ("twin-safe-5fold", {"a sad": 9, "b angry": 9}, "needs speaker, intensity and statement of every"),
        ("speaker-5fold", {"a sad": 9, "a angry": 9}, "at least two speakers, with the speaker of"),
        ("speaker-5fold", {"a sad": 9, " angry": 9}, "at least two speakers, with the speaker of"),
        ("speaker-5fold", {"a sad": 9, "b sad": 9}, "at least two labels, found sad"),
        ("speaker-5fold", {"a sad": 9, "b angry": 9}, "needs training clips of at least two labels"),
        ("loso-ish", {"a sad": 9, "b angry": 9}, "protocol is 'loso-ish', expected one of random"),
    ],
)
def test_folds_say_why_clips_do_not_allow_a_protocol(
    protocol: str, counts: dict[str, int], message: str
) -> None:
    pairs = {name: name.split(" ") for name in counts}
    with pytest.raises(DataError, match=message):
        folds(grid({(who or None, label): counts[name] for name, (who, label) in pairs.items()}), protocol, 0)


def test_protocols_say_what_they_share() -> None:
    alone = [name for name, rules in PROTOCOLS.items() if not rules.shares_speakers]
    assert alone == ["speaker-5fold", "speaker-6fold", "loso"]
    assert "repetition" in PROTOCOLS["random-5fold"].meaning
    safe = "speakers stand in training too, but no repetition"
    assert PROTOCOLS["twin-safe-5fold"].meaning.startswith(safe)
    assert PROTOCOLS["loso"].meaning == "no speaker of the test stands in training"


def test_folds_twin_safe_keep_repetitions_together_where_random_ones_share_them() -> None:
    examples = ravdess(range(1, 7))
    groups = [example.repetition_group for example in examples]
    result = folds(examples, "twin-safe-5fold", 0)
    check_folds(examples, result)
    for fold in result:
        assert not {groups[i] for i in fold.train} & {groups[i] for i in fold.test}
        assert speakers(examples, fold.train) & speakers(examples, fold.test)

    fold = folds(examples, "random-5fold", 0)[0]
    trained = {groups[i] for i in fold.train}
    # Four of five repetitions of a test clip are expected on the other side.
    assert np.mean([groups[i] in trained for i in fold.test]) == pytest.approx(0.8, abs=0.1)


# --- sung clips


def with_songs() -> list[Example]:
    """The 32 spoken clips of four labels of each of six actors, and the songs of every other one."""
    examples = []
    for actor, channel, emotion, *manner in product(
        range(1, 7), (1, 2), (2, 3, 4, 5), (1, 2), (1, 2), (1, 2)
    ):
        name = "-".join(f"{part:02d}" for part in (3, channel, emotion, *manner, actor))
        named = recognise(name)
        assert named is not None
        if actor % 2 or not named.clip.song:
            examples.append(Example(named.clip, name))
    return examples


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_folds_train_on_songs_and_leave_speech_as_it_is_without_them(protocol: str) -> None:
    examples = with_songs()
    spoken = [example for example in examples if not example.clip.song]

    for joined, alone in zip(folds(examples, protocol, 3), folds(spoken, protocol, 3), strict=True):
        train, test = ([examples[i] for i in part] for part in (joined.train, joined.test))
        sung = [example for example in train if example.clip.song]
        assert test == [spoken[i] for i in alone.test]
        assert [example for example in train if not example.clip.song] == [spoken[i] for i in alone.train]
        assert sung
        if not PROTOCOLS[protocol].shares_speakers:
            sung_by = {example.clip.speaker_id for example in sung}
            assert sung_by == {"ravdess/01", "ravdess/03", "ravdess/05"} - set(joined.test_speakers)
        elif not PROTOCOLS[protocol].shares_repetitions:
            tested = {example.repetition_group for example in test}
            assert sung == [e for e in examples if e.clip.song and e.repetition_group not in tested]


def test_folds_test_songs_like_speech_where_they_are_alone() -> None:
    songs = [example for example in with_songs() if example.clip.song]

    check_folds(songs, folds(songs, "loso", 0))
