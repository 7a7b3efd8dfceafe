"""The protocols: who is tested when, and what no test shares with its training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import actor_number, corpora, grid, labels, ravdess, seeds, speakers
from hypothesis import given, settings

from speechemo_cli.corpus.clips import Clip
from speechemo_cli.corpus.folds import PROTOCOLS, Fold, folds
from speechemo_cli.corpus.known import recognise
from speechemo_cli.corpus.splits import Example, check_no_leakage, hold_out
from speechemo_cli.errors import DataError, LeakError

# Luna-Jimenez et al. (2022), Appl. Sci. 12:327, section 4.
PUBLISHED = [{2, 5, 14, 15, 16}, {3, 6, 7, 13, 18}, {10, 11, 12, 19, 20}, {8, 17, 21, 23, 24}, {1, 4, 9, 22}]


EMOBOX = [{1, 11, 20, 21}, {4, 10, 12, 14}, {8, 9, 19, 23}, {3, 5, 7, 24}, {2, 15, 16, 18}, {6, 13, 17, 22}]


def check_folds(examples: list[Example], result: list[Fold]) -> None:
    for fold in result:
        assert sorted([*fold.train, *fold.test]) == list(range(len(examples)))
        assert len(fold.test) > 0


@settings(max_examples=50, deadline=None)
@given(examples=corpora(), seed=seeds)
def test_speaker_folds_test_every_clip_once_and_share_no_voice(examples: list[Example], seed: int) -> None:
    result = folds(examples, "speaker-5fold", seed)
    check_folds(examples, result)
    tested = np.concatenate([fold.test for fold in result])
    assert sorted(tested.tolist()) == list(range(len(examples)))
    assert len(result) == min(5, len(speakers(examples, range(len(examples)))))
    for fold in result:
        assert not speakers(examples, fold.train) & speakers(examples, fold.test)
        assert set(fold.test_speakers) == speakers(examples, fold.test)


@settings(max_examples=50, deadline=None)
@given(examples=corpora(speakers_from=1), seed=seeds)
def test_random_folds_test_every_clip_once_and_every_label_in_each(
    examples: list[Example], seed: int
) -> None:
    result = folds(examples, "random-5fold", seed)
    check_folds(examples, result)
    assert len(result) == 5
    tested = np.concatenate([fold.test for fold in result])
    assert sorted(tested.tolist()) == list(range(len(examples)))
    everything = labels(examples, range(len(examples)))
    for fold in result:
        assert fold.test_speakers == ()
        share = labels(examples, fold.test)
        assert all(abs(share[label] - n / 5) < 1 for label, n in everything.items())


@settings(max_examples=30, deadline=None)
@given(examples=corpora(speakers_from=1), seed=seeds)
def test_the_random_hold_out_draws_a_fifth_five_times(examples: list[Example], seed: int) -> None:
    result = folds(examples, "random-holdout", seed)
    check_folds(examples, result)
    assert [len(fold.test) for fold in result] == [round(0.2 * len(examples))] * 5
    assert len({tuple(fold.test) for fold in result}) > 1
    # Each draw is the hold-out that a training with its seed makes.
    for fold in result:
        np.testing.assert_array_equal(fold.test, hold_out(examples, "random", 0.2, fold.seed).seen)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_fold_has_its_name_and_only_draws_have_seeds_of_their_own(protocol: str) -> None:
    result = folds(ravdess(range(1, 7)), protocol, 10)
    assert [fold.name for fold in result] == [str(i + 1) for i in range(len(result))]
    drawn = protocol == "random-holdout"
    assert [fold.seed for fold in result] == [10 + i if drawn else 10 for i in range(len(result))]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_same_seed_gives_the_same_folds(protocol: str) -> None:
    examples = ravdess(range(1, 7))
    one, two = folds(examples, protocol, 4), folds(examples, protocol, 4)
    assert [fold.test.tolist() for fold in one] == [fold.test.tolist() for fold in two]


@pytest.mark.parametrize("protocol", ["random-holdout", "random-5fold"])
def test_another_seed_gives_other_random_folds(protocol: str) -> None:
    examples = ravdess(range(1, 7))
    one, two = folds(examples, protocol, 4), folds(examples, protocol, 400)
    assert [fold.test.tolist() for fold in one] != [fold.test.tolist() for fold in two]


def test_ravdess_gets_the_published_folds_whatever_the_seed() -> None:
    examples = ravdess()
    for seed in (0, 1):
        result = folds(examples, "speaker-5fold", seed)
        assert [{actor_number(actor) for actor in fold.test_speakers} for fold in result] == PUBLISHED
        assert [len(fold.test) for fold in result] == [300, 300, 300, 300, 240]


@pytest.mark.parametrize(
    "actors",
    [[1, 2, 3], [2, 5, 14, 15, 16, 1], [*range(1, 5)], [n for n in range(1, 25) if n not in PUBLISHED[2]]],
)
def test_absent_actors_are_left_out_of_their_published_folds(actors: list[int]) -> None:
    result = folds(ravdess(actors), "speaker-5fold", 0)
    present = [fold & set(actors) for fold in PUBLISHED]
    assert [{actor_number(actor) for actor in fold.test_speakers} for fold in result] == [
        f for f in present if f
    ]


def test_actors_of_one_published_fold_alone_are_dealt_anew() -> None:
    result = folds(ravdess(sorted(PUBLISHED[0])), "speaker-5fold", 0)
    assert sorted(actor_number(actor) for fold in result for actor in fold.test_speakers) == sorted(
        PUBLISHED[0]
    )
    assert len(result) == 5


def with_corpus(examples: list[Example], corpus: str) -> list[Example]:
    return [replace(e, key=f"{corpus} {e.key}", clip=replace(e.clip, corpus=corpus)) for e in examples]


def two_corpora() -> list[Example]:
    """Other people than RAVDESS's, under the same names, and one whose name nobody knows."""
    counts = {(who, label): 5 for who in ("01", "02", None) for label in ("happy", "sad", "bored")}
    return [*with_corpus(grid(counts), "other"), *ravdess(range(1, 7))]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_folds_test_ravdess_alone_and_train_on_every_clip_of_other_corpora(protocol: str) -> None:
    examples = two_corpora()
    other = {i for i, example in enumerate(examples) if example.clip.corpus == "other"}
    alone = folds([e for e in examples if e.clip.corpus == "ravdess"], protocol, 0)
    result = folds(examples, protocol, 0)
    assert [[i - len(other) for i in fold.test] for fold in result] == [fold.test.tolist() for fold in alone]
    for fold in result:
        assert other <= set(fold.train.tolist())
        assert sorted([*fold.train, *fold.test]) == list(range(len(examples)))


def test_folds_deal_the_speakers_of_all_corpora_where_ravdess_is_not_among_them() -> None:
    counts = {(who, label): 1 for who in ("01", "02", "03") for label in ("happy", "sad")}
    examples = [*with_corpus(grid(counts), "one"), *with_corpus(grid(counts), "other")]
    result = folds(examples, "loso", 0)
    expected = [(f"{corpus}/{who}",) for corpus in ("one", "other") for who in ("01", "02", "03")]
    assert [fold.test_speakers for fold in result] == expected


def test_folds_by_speaker_train_on_every_clip_of_a_corpus_with_nameless_clips() -> None:
    counts = {(who, label): 2 for who in ("01", "02") for label in ("happy", "sad")}
    nameless = with_corpus(grid({**counts, (None, "sad"): 1}), "nameless")
    examples = [*nameless, *with_corpus(grid(counts), "named")]
    result = folds(examples, "loso", 0)
    assert [fold.test_speakers for fold in result] == [("named/01",), ("named/02",)]
    assert all(set(range(len(nameless))) <= set(fold.train.tolist()) for fold in result)


def test_folds_of_another_corpus_with_numbers_for_names_are_not_the_published_ones() -> None:
    examples = with_corpus(ravdess(), "other")
    drawn = [[fold.test_speakers for fold in folds(examples, "speaker-5fold", seed)] for seed in (0, 1)]
    assert drawn[0] != drawn[1]


def test_speakers_of_other_corpora_are_dealt_evenly_by_the_seed() -> None:
    examples = grid({(f"voice {i}", label): 1 for i in range(13) for label in ("sad", "angry")})
    deals = [[fold.test_speakers for fold in folds(examples, "speaker-5fold", seed)] for seed in range(5)]
    assert all(sorted(map(len, deal)) == [2, 2, 3, 3, 3] for deal in deals)
    assert len({str(deal) for deal in deals}) > 1


def test_speakers_are_dealt_again_where_a_label_would_lose_all_its_speakers() -> None:
    counts = {(f"s{i}", label): 1 for i in range(10) for label in ("sad", "happy")}
    examples = grid({**counts, ("s3", "angry"): 1, ("s7", "angry"): 1})
    for seed in range(20):
        for fold in folds(examples, "speaker-5fold", seed):
            assert set(labels(examples, fold.test)) <= set(labels(examples, fold.train))


@pytest.mark.parametrize(
    ("protocol", "counts", "message"),
    [
        (
            "random-5fold",
            {("a", "sad"): 9, ("a", "angry"): 4},
            "5 folds need 5 clips of each label, found 4 of 'angry'",
        ),
        ("random-holdout", {("a", "sad"): 9, ("a", "angry"): 1}, "too few clips.*1 of 'angry'"),
        ("speaker-5fold", {("a", "sad"): 9, ("a", "angry"): 9}, "at least two speakers, with the speaker of"),
        (
            "speaker-5fold",
            {("a", "sad"): 9, (None, "angry"): 9},
            "at least two speakers, with the speaker of",
        ),
        ("speaker-5fold", {("a", "sad"): 9, ("b", "sad"): 9}, "at least two labels, found sad"),
        ("loso-ish", {("a", "sad"): 9, ("b", "angry"): 9}, "protocol is 'loso-ish', expected one of random"),
    ],
)
def test_a_protocol_that_the_clips_do_not_allow_says_why(
    protocol: str, counts: dict[Any, int], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        folds(grid(counts), protocol, 0)


def test_what_a_protocol_shares_is_said() -> None:
    assert [name for name, rules in PROTOCOLS.items() if not rules.shares_speakers] == [
        "speaker-5fold",
        "speaker-6fold",
        "loso",
    ]
    assert "repetition" in PROTOCOLS["random-5fold"].meaning
    assert PROTOCOLS["twin-safe-5fold"].meaning.startswith(
        "speakers stand in training too, but no repetition"
    )
    assert PROTOCOLS["loso"].meaning == "no speaker of the test stands in training"


def test_the_six_folds_are_those_of_emobox() -> None:
    result = folds(ravdess(), "speaker-6fold", 0)

    assert [{actor_number(actor) for actor in fold.test_speakers} for fold in result] == EMOBOX
    assert [len(fold.test) for fold in result] == [240] * 6


def test_loso_leaves_each_speaker_out_once() -> None:
    result = folds(ravdess(range(1, 8)), "loso", 0)

    assert [fold.test_speakers for fold in result] == [(f"ravdess/{actor:02d}",) for actor in range(1, 8)]


def test_twin_safe_folds_keep_both_repetitions_together_and_share_speakers() -> None:
    examples = ravdess(range(1, 7))
    result = folds(examples, "twin-safe-5fold", 0)

    check_folds(examples, result)
    tested = np.concatenate([fold.test for fold in result])
    assert sorted(tested.tolist()) == list(range(len(examples)))
    for fold in result:
        groups = [{examples[i].repetition_group for i in part} for part in (fold.train, fold.test)]
        assert not groups[0] & groups[1]
        assert speakers(examples, fold.train) & speakers(examples, fold.test)


def test_random_folds_do_share_repetitions() -> None:
    examples = ravdess(range(1, 7))
    fold = folds(examples, "random-5fold", 0)[0]

    trained = {examples[i].repetition_group for i in fold.train}
    share = np.mean([examples[i].repetition_group in trained for i in fold.test])
    # Four of five repetitions of a test clip are expected on the other side.
    assert share == pytest.approx(0.8, abs=0.1)


def test_twin_safe_folds_need_to_know_what_a_repetition_is() -> None:
    examples = grid({(who, label): 9 for who in "ab" for label in ("sad", "angry")})

    with pytest.raises(DataError, match="needs speaker, intensity and statement of every clip"):
        folds(examples, "twin-safe-5fold", 0)


def test_the_guard_refuses_a_repetition_on_both_sides_when_asked() -> None:
    clips = [Clip(f"{take}.wav", "sad", "01", "m", 1, 1, take) for take in (1, 2)]
    clips_of_one = [Example(clip, clip.path) for clip in clips]

    check_no_leakage(clips_of_one, np.array([0]), np.array([1]))
    with pytest.raises(LeakError, match=r"1 repetitions stand in training and in test: 2\.wav"):
        check_no_leakage(clips_of_one, np.array([0]), np.array([1]), repetitions=True)


def test_speakers_who_each_have_a_label_of_their_own_allow_no_speaker_folds() -> None:
    examples = grid({("a", "happy"): 10, ("b", "sad"): 10})

    with pytest.raises(DataError, match="needs training clips of at least two labels"):
        folds(examples, "speaker-5fold", 0)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_folds_refuse_a_planted_copy(protocol: str) -> None:
    examples = ravdess(range(1, 7))
    first = folds(examples, protocol, 0)[0]
    here, there = first.train[0], first.test[0]
    examples[there] = Example(examples[there].clip, examples[here].key)
    with pytest.raises(LeakError, match="recordings stand in training and in test"):
        folds(examples, protocol, 0)


# --- sung clips


def with_songs(actors: int = 6) -> list[Example]:
    """Every actor's 32 spoken clips of four labels, and the songs of every other actor."""
    examples = []
    for actor in range(1, actors + 1):
        for channel in (1, 2) if actor % 2 else (1,):
            for emotion in (2, 3, 4, 5):
                for manner in range(8):
                    intensity, statement, repetition = 1 + manner // 4, 1 + manner // 2 % 2, 1 + manner % 2
                    name = f"03-0{channel}-0{emotion}-0{intensity}-0{statement}-0{repetition}-{actor:02d}.wav"
                    named = recognise(name)
                    assert named is not None
                    examples.append(Example(named.clip, name))
    return examples


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_songs_are_trained_on_and_never_tested(protocol: str) -> None:
    examples = with_songs()

    for fold in folds(examples, protocol, 0):
        assert not any(examples[i].clip.song for i in fold.test)
        assert any(examples[i].clip.song for i in fold.train)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_songs_move_no_spoken_clip_to_another_fold(protocol: str) -> None:
    examples = with_songs()
    spoken = [example for example in examples if not example.clip.song]

    for joined, alone in zip(folds(examples, protocol, 3), folds(spoken, protocol, 3), strict=True):
        assert [examples[i] for i in joined.test] == [spoken[i] for i in alone.test]
        said = [examples[i] for i in joined.train if not examples[i].clip.song]
        assert said == [spoken[i] for i in alone.train]


@pytest.mark.parametrize("protocol", ["speaker-5fold", "speaker-6fold", "loso"])
def test_a_test_speaker_sings_in_no_training(protocol: str) -> None:
    examples = with_songs()

    for fold in folds(examples, protocol, 0):
        sung_by = {examples[i].clip.speaker_id for i in fold.train if examples[i].clip.song}
        assert sung_by == {"ravdess/01", "ravdess/03", "ravdess/05"} - set(fold.test_speakers)


def test_twin_safe_folds_keep_songs_of_a_test_sentence_out() -> None:
    examples = with_songs()

    for fold in folds(examples, "twin-safe-5fold", 0):
        tested = {examples[i].repetition_group for i in fold.test}
        sung = [
            example for example in examples if example.clip.song and example.repetition_group not in tested
        ]
        assert [examples[i] for i in fold.train if examples[i].clip.song] == sung


def test_songs_alone_are_tested_like_speech() -> None:
    songs = [example for example in with_songs() if example.clip.song]

    check_folds(songs, folds(songs, "loso", 0))
