"""Hold-outs, folds, and the guard against leaks."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from conftest import actor_number, corpora, grid, labels, ravdess, seeds, speakers
from hypothesis import given, settings
from hypothesis import strategies as st

from speechemo_cli.corpus.clips import Clip
from speechemo_cli.corpus.splits import Example, check_no_leakage, distinct, hold_out, parted
from speechemo_cli.errors import DataError, LeakError

# --- distinct recordings


def test_a_copy_is_counted_once_and_the_first_one_stays() -> None:
    clips = [Clip("a", "sad"), Clip("b", "sad"), Clip("copy of a", "sad"), Clip("c", "angry")]
    examples, conflicts = distinct(clips, {"a": "1", "b": "2", "copy of a": "1", "c": "3"})
    assert [example.clip.path for example in examples] == ["a", "b", "c"]
    assert [example.key for example in examples] == ["1", "2", "3"]
    assert conflicts == []


def test_a_recording_under_two_labels_is_a_conflict_and_no_example() -> None:
    clips = [Clip("x", "sad"), Clip("a\n", "sad"), Clip("b", "angry"), Clip("c", "angry"), Clip("d", "sad")]
    examples, conflicts = distinct(clips, {"x": "0", "a\n": "1", "b": "1", "c": "1", "d": "2"})
    assert [example.clip.path for example in examples] == ["x", "d"]
    # The labels stand in the one order, and the name on one line.
    assert conflicts == [r"a\n (labelled sad and angry)"]


def test_clips_that_could_not_be_read_are_left_out() -> None:
    examples, conflicts = distinct([Clip("a", "sad"), Clip("b", "sad")], {"b": "1", "other": "2"})
    assert [example.clip.path for example in examples] == ["b"]
    assert conflicts == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.sampled_from(["sad", "angry", "calm"])), max_size=30))
def test_examples_and_conflicts_are_all_the_recordings(drawn: list[tuple[int, str]]) -> None:
    clips = [Clip(str(i), label) for i, (_, label) in enumerate(drawn)]
    examples, conflicts = distinct(clips, {str(i): f"key {key}" for i, (key, _) in enumerate(drawn)})
    by_key: dict[str, set[str]] = {}
    for key, label in drawn:
        by_key.setdefault(f"key {key}", set()).add(label)
    assert [example.key for example in examples] == [key for key, seen in by_key.items() if len(seen) == 1]
    assert len(conflicts) == sum(len(seen) > 1 for seen in by_key.values())


# --- hold-outs


@settings(max_examples=60, deadline=None)
@given(
    examples=corpora(),
    split=st.sampled_from(["both", "random", "none"]),
    share=st.sampled_from([0.2, 0.25, 0.3, 0.4]),
    seed=seeds,
)
def test_a_hold_out_puts_every_clip_on_exactly_one_side(
    examples: list[Example], split: str, share: float, seed: int
) -> None:
    held = hold_out(examples, split, share, seed)
    together = np.concatenate([held.train, held.seen, held.new])
    assert sorted(together.tolist()) == list(range(len(examples)))
    assert len(held.train) > 0
    assert not speakers(examples, held.new) & speakers(examples, [*held.train, *held.seen])
    assert speakers(examples, held.new) == set(held.new_speakers)
    assert set(labels(examples, held.train)) == {example.clip.label for example in examples}
    again = hold_out(examples, split, share, seed)
    for one, two in ((held.train, again.train), (held.seen, again.seen), (held.new, again.new)):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("share", "n"), [(0.1, 2), (0.2, 5), (0.25, 6), (0.5, 12)])
def test_the_speakers_of_split_both_are_balanced_by_gender(seed: int, share: float, n: int) -> None:
    examples = ravdess()
    held = hold_out(examples, "both", share, seed)
    men = sum(actor_number(actor) % 2 for actor in held.new_speakers)
    assert len(held.new_speakers) == n
    assert abs(men - (n - men)) == n % 2
    assert len(held.new) == 60 * n
    assert len(held.seen) == round(share * (1440 - 60 * n))


def test_the_odd_held_out_speaker_is_not_always_of_one_gender() -> None:
    examples = ravdess()
    men = {
        sum(actor_number(a) % 2 for a in hold_out(examples, "both", 0.2, seed).new_speakers)
        for seed in range(20)
    }
    assert men == {2, 3}


def test_every_actor_can_be_held_out_and_the_seed_decides() -> None:
    examples = ravdess()
    drawn = [hold_out(examples, "both", 0.2, seed).new_speakers for seed in range(40)]
    assert {actor for who in drawn for actor in who} == {f"ravdess/{actor:02d}" for actor in range(1, 25)}
    assert len(set(drawn)) > 30


def test_hold_out_draws_the_same_share_of_the_speakers_of_each_corpus() -> None:
    examples = [
        replace(e, key=f"{corpus} {e.key}", clip=replace(e.clip, corpus=corpus))
        for corpus, n in (("large", 20), ("small", 5), ("single", 1))
        for e in ravdess(range(1, 1 + n))
    ]
    for seed in range(5):
        held = hold_out(examples, "both", 0.2, seed)
        drawn = Counter(who.partition("/")[0] for who in held.new_speakers)
        assert drawn == {"large": 4, "small": 1}
        # The same name in another corpus is another speaker, who stays.
        assert len(held.new) == 5 * 60
        assert speakers(examples, held.new) == set(held.new_speakers)


def test_hold_out_draws_no_speaker_of_a_corpus_with_nameless_clips() -> None:
    counts = {(who, label): 5 for who in ("01", "02", None) for label in ("happy", "sad")}
    nameless = [replace(e, clip=replace(e.clip, corpus="other")) for e in grid(counts)]
    for seed in range(5):
        held = hold_out([*nameless, *ravdess(range(1, 7))], "both", 0.2, seed)
        assert [who.partition("/")[0] for who in held.new_speakers] == ["ravdess"]


def test_one_gender_alone_is_held_out_too() -> None:
    held = hold_out(ravdess(range(1, 12, 2)), "both", 0.5, 0)
    assert len(held.new_speakers) == 3


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_split_random_takes_the_same_share_of_each_label(share: float) -> None:
    examples = ravdess()
    held = hold_out(examples, "random", share, 3)
    assert held.new.size == 0
    assert held.new_speakers == ()
    assert len(held.seen) == round(share * 1440)
    everything = labels(examples, range(1440))
    for label, n in labels(examples, held.seen).items():
        assert abs(n - share * everything[label]) <= 1
    assert speakers(examples, held.seen) <= speakers(examples, held.train)


def test_split_none_trains_on_everything() -> None:
    examples = grid({("a", "sad"): 1, ("a", "angry"): 1})
    held = hold_out(examples, "none", 0.2, 0)
    assert held.train.tolist() == [0, 1]
    assert held.seen.size == held.new.size == 0


@pytest.mark.parametrize("split", ["both", "random", "none"])
@pytest.mark.parametrize(
    ("counts", "message"),
    [({}, "at least two labels, found none"), ({("a", "sad"): 9, ("b", "sad"): 9}, "labels, found sad")],
)
def test_one_label_is_nothing_to_learn(split: str, counts: dict[Any, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        hold_out(grid(counts), split, 0.2, 0)


@pytest.mark.parametrize(
    "counts",
    [
        {("a", "sad"): 20, ("a", "angry"): 20},
        {(None, "sad"): 20, (None, "angry"): 20},
        {("a", "sad"): 20, ("b", "angry"): 20, (None, "angry"): 1},
    ],
)
def test_split_both_needs_two_speakers_and_no_clip_without_one(counts: dict[Any, int]) -> None:
    with pytest.raises(
        DataError, match=r"--split both needs a corpus of at least two speakers, .*--split random"
    ):
        hold_out(grid(counts), "both", 0.2, 0)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({("a", "sad"): 20, ("a", "angry"): 1}, "1 of 'angry'"),
        ({("a", "sad"): 2, ("a", "angry"): 2}, "4 clips of 2 labels"),
    ],
)
def test_too_few_clips_for_a_share_say_how_many_there_are(counts: dict[Any, int], message: str) -> None:
    with pytest.raises(DataError, match=f"too few clips to hold out 20% of each label.*{message}"):
        hold_out(grid(counts), "random", 0.2, 0)


# --- the guard


def leaky() -> list[Example]:
    return [
        Example(Clip("a/one.wav", "sad", "a"), "1"),
        Example(Clip("b/two.wav", "sad", "b"), "2"),
        Example(Clip("c/copy\nof one.wav", "sad", "c"), "1"),
        Example(Clip("a/three.wav", "sad", "a"), "3"),
    ]


def test_the_guard_refuses_a_recording_on_both_sides_by_name() -> None:
    with pytest.raises(LeakError, match=r"1 recordings stand in training and in test: c/copy\\nof one\.wav"):
        check_no_leakage(leaky(), np.array([0, 1]), np.array([2, 3]))


def test_the_guard_refuses_the_very_same_position_on_both_sides() -> None:
    with pytest.raises(LeakError, match=r"b/two\.wav"):
        check_no_leakage(leaky(), np.array([0, 1]), np.array([1]))


def test_the_guard_refuses_a_voice_on_both_sides_when_asked() -> None:
    train, test = np.array([0, 1]), np.array([3])
    check_no_leakage(leaky(), train, test)
    with pytest.raises(LeakError, match=r"1 speakers stand in training and in test: a$"):
        check_no_leakage(leaky(), train, test, speakers=True)


def test_the_guard_takes_an_unknown_speaker_for_a_voice() -> None:
    examples = grid({(None, "sad"): 2})
    with pytest.raises(LeakError, match="speakers"):
        check_no_leakage(examples, np.array([0]), np.array([1]), speakers=True)


def test_the_guard_lets_clean_splits_pass() -> None:
    check_no_leakage(leaky(), np.array([0, 3]), np.array([1]), speakers=True)
    check_no_leakage(leaky(), np.array([], dtype=int), np.array([0, 1, 2, 3]), speakers=True)


@pytest.mark.parametrize(("split", "planted"), [("random", "seen"), ("both", "seen"), ("both", "new")])
def test_a_copy_never_stands_on_both_sides(split: str, planted: str) -> None:
    examples = ravdess(range(1, 7))
    held = hold_out(examples, split, 0.3, 0)
    here, there = held.train[0], getattr(held, planted)[0]
    examples[there] = Example(examples[there].clip, examples[here].key)
    # Examples that were not made distinct first: the guard is the second line of defence.
    with pytest.raises(LeakError, match="recordings stand in training and in test"):
        hold_out(examples, split, 0.3, 0)


def test_one_speaker_always_stays_in_training() -> None:
    examples = [
        Example(Clip(f"{speaker}{i}.wav", ("happy", "sad")[i % 2], speaker=speaker), f"{speaker}{i}")
        for speaker in "ab"
        for i in range(20)
    ]

    assert len(hold_out(examples, "both", 0.9, 0).new_speakers) == 1


def test_speakers_who_each_have_a_label_of_their_own_cannot_be_held_out() -> None:
    examples = [
        Example(Clip(f"{speaker}{i}.wav", label, speaker=speaker), f"{speaker}{i}")
        for speaker, label in (("a", "happy"), ("b", "sad"))
        for i in range(10)
    ]

    with pytest.raises(DataError, match="needs training clips of at least two labels"):
        hold_out(examples, "both", 0.5, 0)


def one_voice_for_angry(n: int = 5) -> list[Example]:
    counts = {(f"s{i}", label): 10 for i in range(n) for label in ("happy", "sad")}
    return grid({**counts, ("s1", "angry"): 10})


def test_hold_out_draws_again_where_a_label_would_lose_its_only_speaker() -> None:
    examples = one_voice_for_angry()
    for seed in range(20):
        held = hold_out(examples, "both", 0.4, seed)
        assert "s1" not in held.new_speakers
        assert held.untrained_labels == ()


def test_hold_out_names_a_label_that_keeps_no_training_clip_in_any_draw() -> None:
    counts = {(who, label): 10 for who in ("a", "b") for label in ("happy", "sad")}
    examples = grid({**counts, ("a", "angry"): 10, ("b", "calm"): 10})
    held = hold_out(examples, "both", 0.5, 0)
    lost = {"a": "angry", "b": "calm"}[held.new_speakers[0]]
    assert held.untrained_labels == (lost,)


def test_parted_keeps_pairs_on_both_sides_training_first() -> None:
    a, b, c, d = grid({(who, "sad"): 1 for who in "abcd"})
    assert parted([(a, b), (c, a), (c, d)], train=[a, c], test=[b, d]) == ((a, b), (c, d))
    assert parted([(b, a)], train=[a], test=[b]) == ((a, b),)


# --- sung clips


@pytest.mark.parametrize("split", ["both", "random"])
def test_songs_join_the_training_but_for_those_of_new_voices(split: str) -> None:
    examples = [
        Example(Clip(f"{who} {label} {song} {i}", label, who, song=song), f"{who} {label} {song} {i}")
        for who in "abcdef"
        for label in ("sad", "angry")
        for song in (False, True)
        for i in range(6)
    ]

    holdout = hold_out(examples, split, 0.2, 0)

    for part in (holdout.seen, holdout.new):
        assert not any(examples[i].clip.song for i in part)
    sung_by = {examples[i].clip.speaker for i in holdout.train if examples[i].clip.song}
    assert sung_by == set("abcdef") - set(holdout.new_speakers)
    assert (len(holdout.new) > 0) == (split == "both")


def test_without_a_hold_out_songs_are_clips_like_any_other() -> None:
    examples = [Example(Clip(f"{i}", "sad" if i % 2 else "angry", "a", song=i > 5), f"{i}") for i in range(9)]

    assert hold_out(examples, "none", 0.2, 0).train.tolist() == list(range(9))
