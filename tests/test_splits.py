"""Distinct recordings, hold-outs, and the check that nothing leaks from training to test."""

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


def test_distinct_keeps_the_first_copy_of_each_recording_that_was_read() -> None:
    clips = [Clip(path, "sad") for path in ("a", "b", "copy of a", "not read")]
    keys = {"a": "1", "b": "2", "copy of a": "1", "other": "3"}
    examples = [Example(clips[0], "1", "x"), Example(clips[1], "2", "")]
    assert distinct(clips, keys, {"a": "x"}) == (examples, [])


def test_distinct_names_a_recording_under_two_labels_which_is_no_example() -> None:
    clips = [Clip("x", "sad"), Clip("a\n", "sad"), Clip("b", "angry"), Clip("c", "angry"), Clip("d", "sad")]
    examples, conflicts = distinct(clips, {"x": "0", "a\n": "1", "b": "1", "c": "1", "d": "2"}, {})
    assert [example.clip.path for example in examples] == ["x", "d"]
    # The labels stand in the one order, and the name on one line.
    assert conflicts == [r"a\n (labelled sad and angry)"]


# --- hold-outs


@settings(max_examples=30, deadline=None)
@given(
    examples=corpora(),
    split=st.sampled_from(["both", "random", "none"]),
    share=st.sampled_from([0.2, 0.25, 0.3, 0.4]),
    seed=seeds,
)
def test_hold_out_puts_every_clip_on_exactly_one_side(
    examples: list[Example], split: str, share: float, seed: int
) -> None:
    held = hold_out(examples, split, share, seed)
    together = np.concatenate([held.train, held.seen, held.new])
    assert sorted(together.tolist()) == list(range(len(examples)))
    assert len(held.train) > 0
    assert not speakers(examples, held.new) & speakers(examples, [*held.train, *held.seen])
    assert speakers(examples, held.new) == set(held.new_speakers)
    assert set(labels(examples, held.train)) == {example.clip.label for example in examples}
    assert (len(held.seen), len(held.new)) == (0, 0) or split != "none"
    again = hold_out(examples, split, share, seed)
    for one, two in ((held.train, again.train), (held.seen, again.seen), (held.new, again.new)):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(("share", "n"), [(0.1, 2), (0.2, 5), (0.25, 6), (0.5, 12)])
def test_hold_out_both_draws_speakers_balanced_by_gender_and_the_seed_decides(share: float, n: int) -> None:
    examples = ravdess()
    drawn, men_drawn = set(), set()
    for seed in range(20):
        held = hold_out(examples, "both", share, seed)
        men = sum(actor_number(actor) % 2 for actor in held.new_speakers)
        assert len(held.new_speakers) == n
        assert abs(men - (n - men)) == n % 2
        assert len(held.new) == 60 * n
        assert len(held.seen) == round(share * (1440 - 60 * n))
        drawn.add(held.new_speakers)
        men_drawn.add(men)
    assert n == 2 or len({actor for who in drawn for actor in who}) == 24
    assert len(drawn) > 15
    # An odd one is not always of the same gender.
    assert men_drawn == ({n // 2, n // 2 + 1} if n % 2 else {n // 2})


def test_hold_out_both_draws_the_same_share_of_the_speakers_of_each_corpus_that_names_them() -> None:
    counts = {(who, label): 5 for who in ("01", "02", None) for label in ("happy", "sad")}
    parts = {"large": ravdess(range(1, 21)), "small": ravdess(range(1, 6)), "single": ravdess([1])}
    examples = [
        replace(e, key=f"{corpus} {e.key}", clip=replace(e.clip, corpus=corpus))
        for corpus, clips in (*parts.items(), ("nameless", grid(counts)))
        for e in clips
    ]
    for seed in range(5):
        held = hold_out(examples, "both", 0.2, seed)
        drawn = Counter(who.partition("/")[0] for who in held.new_speakers)
        assert drawn == {"large": 4, "small": 1}
        # The same name in another corpus is another speaker, who stays.
        assert len(held.new) == 5 * 60
        assert speakers(examples, held.new) == set(held.new_speakers)


def test_hold_out_both_draws_of_one_gender_alone_too_and_keeps_one_speaker() -> None:
    assert len(hold_out(ravdess(range(1, 12, 2)), "both", 0.5, 0).new_speakers) == 3
    examples = grid({(who, label): 10 for who in "ab" for label in ("happy", "sad")})
    assert len(hold_out(examples, "both", 0.9, 0).new_speakers) == 1


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_hold_out_random_takes_the_same_share_of_each_label(share: float) -> None:
    examples = ravdess()
    held = hold_out(examples, "random", share, 3)
    assert (held.new.size, held.new_speakers) == (0, ())
    assert len(held.seen) == round(share * 1440)
    everything = labels(examples, range(1440))
    for label, n in labels(examples, held.seen).items():
        assert abs(n - share * everything[label]) <= 1
    assert speakers(examples, held.seen) <= speakers(examples, held.train)


@pytest.mark.parametrize(
    ("splits", "counts", "message"),
    [
        (["both", "random", "none"], {}, "at least two labels, found none"),
        (["both", "random", "none"], {("a", "sad"): 9}, "at least two labels, found sad"),
        (["both"], {("a", "sad"): 20, ("a", "angry"): 20}, "at least two speakers, .*--split random"),
        (["both"], {(None, "sad"): 20, (None, "angry"): 20}, "at least two speakers, .*--split random"),
        (["both"], {("a", "sad"): 9, ("b", "angry"): 9, (None, "sad"): 1}, "at least two speakers, with the"),
        # Speakers who each have a label of their own.
        (["both"], {("a", "happy"): 10, ("b", "sad"): 10}, "training clips of at least two labels"),
        (["random"], {("a", "sad"): 20, ("a", "angry"): 1}, "too few clips to hold out 20% .*1 of 'angry'"),
        (["random"], {("a", "sad"): 2, ("a", "angry"): 2}, "too few clips to hold out 20% .*4 clips of 2"),
    ],
)
def test_hold_out_says_why_clips_do_not_allow_a_split(splits: list[str], counts: Any, message: str) -> None:
    for split in splits:
        with pytest.raises(DataError, match=message):
            hold_out(grid(counts), split, 0.2, 0)


def test_hold_out_draws_again_where_a_label_would_lose_its_only_speaker() -> None:
    counts = {(f"s{i}", label): 10 for i in range(5) for label in ("happy", "sad")}
    examples = grid({**counts, ("s1", "angry"): 10})
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


@pytest.mark.parametrize("split", ["both", "random", "none"])
def test_hold_out_trains_on_songs_but_for_those_of_held_out_speakers(split: str) -> None:
    speech = grid({(who, label): 6 for who in "abcdef" for label in ("sad", "angry")})
    songs = [replace(e, key=f"sung {e.key}", clip=replace(e.clip, song=True)) for e in speech]
    examples = [*speech, *songs]

    holdout = hold_out(examples, split, 0.2, 0)

    for part in (holdout.seen, holdout.new):
        assert not any(examples[i].clip.song for i in part)
    sung_by = {examples[i].clip.speaker for i in holdout.train if examples[i].clip.song}
    assert sung_by == set("abcdef") - set(holdout.new_speakers)
    assert (len(holdout.new) > 0) == (split == "both")
    assert (len(holdout.train) == len(examples)) == (split == "none")


# --- leaks


LEAKY = [
    Example(Clip("a/one.wav", "sad", "a", "f", 1, 1, 1), "1"),
    Example(Clip("b/two.wav", "sad", "b"), "2"),
    Example(Clip("c/copy\nof one.wav", "sad", "c"), "1"),
    Example(Clip("a/three.wav", "sad", "a", "f", 1, 1, 2), "3"),
    *grid({(None, "sad"): 2}),
]


@pytest.mark.parametrize(
    ("train", "test", "checks", "message"),
    [
        ([0, 1], [2, 3], [], r"1 recordings stand in training and in test: c/copy\\nof one\.wav"),
        ([0, 1], [1], [], r"b/two\.wav"),
        ([0, 1], [3], ["speakers"], r"1 speakers stand in training and in test: a$"),
        ([4], [5], ["speakers"], "1 speakers"),  # who is not known may be the same
        ([0, 1], [3], ["repetitions"], r"1 repetitions stand in training and in test: a/three\.wav"),
    ],
)
def test_check_no_leakage_refuses_what_stands_on_both_sides(
    train: list[int], test: list[int], checks: list[str], message: str
) -> None:
    asked = dict.fromkeys(checks, True)
    with pytest.raises(LeakError, match=message):
        check_no_leakage(LEAKY, np.array(train), np.array(test), **asked)
    if checks:
        check_no_leakage(LEAKY, np.array(train), np.array(test))


def test_check_no_leakage_lets_clean_splits_pass() -> None:
    both = {"speakers": True, "repetitions": True}
    check_no_leakage(LEAKY, np.array([0, 3]), np.array([1]), **both)
    check_no_leakage(LEAKY, np.array([], dtype=int), np.arange(6), **both)


@pytest.mark.parametrize(("split", "planted"), [("random", "seen"), ("both", "seen"), ("both", "new")])
def test_hold_out_refuses_a_planted_copy(split: str, planted: str) -> None:
    examples = ravdess(range(1, 7))
    held = hold_out(examples, split, 0.3, 0)
    here, there = held.train[0], getattr(held, planted)[0]
    examples[there] = Example(examples[there].clip, examples[here].key)
    # Examples that were not made distinct first: the check is the second line of defence.
    with pytest.raises(LeakError, match="recordings stand in training and in test"):
        hold_out(examples, split, 0.3, 0)


def test_parted_keeps_pairs_on_both_sides_training_first() -> None:
    a, b, c, d = grid({(who, "sad"): 1 for who in "abcd"})
    assert parted([(a, b), (c, a), (c, d)], train=[a, c], test=[b, d]) == ((a, b), (c, d))
    assert parted([(b, a)], train=[a], test=[b]) == ((a, b),)
