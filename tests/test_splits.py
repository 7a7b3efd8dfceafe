"""Distinct recordings, hold-outs, and the check that nothing leaks from training to test."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from conftest import grid
from hypothesis import given, settings
from hypothesis import strategies as st

from speechemo_cli.corpus import EMOTIONS
from speechemo_cli.corpus.clips import Clip
from speechemo_cli.corpus.known import recognise
from speechemo_cli.corpus.splits import (
    PROTOCOLS,
    Example,
    Fold,
    check_no_leakage,
    distinct,
    folds,
    hold_out,
    parted,
)
from speechemo_cli.errors import DataError, LeakError


def ravdess(actors: Any = range(1, 25), channel: int = 1) -> list[Example]:
    """RAVDESS's 60 spoken clips an actor; with channel 2, as many sung ones."""
    examples = []
    for actor, code, *manner in product(actors, range(1, 9), (1, 2), (1, 2), (1, 2)):
        if code > 1 or manner[0] == 1:  # neutral has one intensity
            name = "-".join(f"{part:02d}" for part in (3, channel, code, *manner, actor))
            named = recognise(name)
            assert named is not None
            examples.append(Example(named.clip, name))
    return examples


def with_corpus(examples: list[Example], corpus: str) -> list[Example]:
    return [replace(e, key=f"{corpus} {e.key}", clip=replace(e.clip, corpus=corpus)) for e in examples]


def speakers(examples: list[Example], positions: Any) -> set[str | None]:
    return {examples[i].clip.speaker_id for i in positions}


def actor_number(speaker_id: str) -> int:
    return int(speaker_id.removeprefix("ravdess/"))


def labels(examples: list[Example], positions: Any) -> Counter[str]:
    return Counter(examples[i].clip.label for i in positions)


@st.composite
def corpora(draw: st.DrawFn, speakers_from: int = 2) -> list[Example]:
    """Corpora that are large enough for every split of 20 to 40 %."""
    who = [f"speaker {i}" for i in range(draw(st.integers(speakers_from, 7)))]
    what = EMOTIONS[: draw(st.integers(2, 4))]
    examples = grid({pair: draw(st.integers(5, 8)) for pair in product(who, what)})
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(len(examples))
    return [examples[i] for i in order]


seeds = st.integers(0, 2**32 - 6)

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
    assert not speakers(examples, held.new) & speakers(examples, [*held.train, *held.seen])
    assert speakers(examples, held.new) == set(held.new_speakers)
    assert set(labels(examples, held.train)) == {example.clip.label for example in examples}
    assert (len(held.new) > 0) == (split == "both")
    rest = [*held.train, *held.seen]
    assert len(held.seen) == round((split != "none") * share * len(rest))
    in_rest, in_seen = labels(examples, rest), labels(examples, held.seen)
    assert split == "none" or all(abs(in_seen[label] - share * n) <= 1 for label, n in in_rest.items())
    np.testing.assert_equal(asdict(hold_out(examples, split, share, seed)), asdict(held))


@pytest.mark.parametrize(("share", "n"), [(0.1, 2), (0.2, 5), (0.25, 6), (0.5, 12)])
def test_hold_out_both_draws_speakers_balanced_by_gender_and_the_seed_decides(share: float, n: int) -> None:
    examples = [e for e in ravdess() if (e.clip.statement, e.clip.repetition) == (1, 1)]  # 15 an actor
    drawn, men_drawn = set(), set()
    for seed in range(20):
        held = hold_out(examples, "both", share, seed)
        men = sum(actor_number(actor) % 2 for actor in held.new_speakers)
        assert len(held.new_speakers) == n
        assert abs(men - (n - men)) == n % 2
        assert len(held.new) == 15 * n
        drawn.add(held.new_speakers)
        men_drawn.add(men)
    assert n == 2 or len({actor for who in drawn for actor in who}) == 24
    assert len(drawn) > 15
    # An odd one is not always of the same gender.
    assert men_drawn == ({n // 2, n // 2 + 1} if n % 2 else {n // 2})


def test_hold_out_both_draws_the_same_share_of_the_speakers_of_each_corpus_that_names_them() -> None:
    counts = {(who, label): 5 for who in ("01", "02", None) for label in ("happy", "sad")}
    parts = {"large": ravdess(range(1, 21)), "small": ravdess(range(1, 6)), "single": ravdess([1])}
    parts["nameless"] = grid(counts)
    examples = [example for corpus, part in parts.items() for example in with_corpus(part, corpus)]
    for seed in range(5):
        held = hold_out(examples, "both", 0.2, seed)
        drawn = Counter(who.partition("/")[0] for who in held.new_speakers)
        assert drawn == {"large": 4, "small": 1}
        # The same name in another corpus is another speaker, who stays.
        assert len(held.new) == 5 * 60
        assert speakers(examples, held.new) == set(held.new_speakers)


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


# --- the protocols: who is tested when, and what no test shares with its training

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


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_folds_train_on_songs_and_leave_speech_as_it_is_without_them(protocol: str) -> None:
    spoken = ravdess(range(1, 7))
    examples = [*ravdess([1, 3, 5], channel=2), *spoken]

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


def test_folds_by_speaker_train_on_songs_whose_statement_nobody_tells() -> None:
    examples = [
        replace(one, clip=replace(one.clip, statement=None))
        for one in [*ravdess([1, 3], channel=2), *ravdess(range(1, 7))]
    ]

    for fold in folds(examples, "loso", 0):
        sung_by = {examples[i].clip.speaker_id for i in fold.train if examples[i].clip.song}
        assert sung_by == {"ravdess/01", "ravdess/03"} - set(fold.test_speakers)


def test_folds_test_songs_like_speech_where_they_are_alone() -> None:
    songs = ravdess([1, 3, 5], channel=2)

    check_folds(songs, folds(songs, "loso", 0))
