"""Hold-outs, folds, and the guard against leaks."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechemo_cli.corpus import splits
from speechemo_cli.corpus.labels import EMOTIONS
from speechemo_cli.corpus.layouts import Clip
from speechemo_cli.corpus.splits import Example, Fold, distinct, folds, guard, hold_out
from speechemo_cli.errors import DataError, LeakError

# Luna-Jimenez et al. (2022), Appl. Sci. 12:327, section 4.
PUBLISHED = [{2, 5, 14, 15, 16}, {3, 6, 7, 13, 18}, {10, 11, 12, 19, 20}, {8, 17, 21, 23, 24}, {1, 4, 9, 22}]


def ravdess(actors: Any = range(1, 25)) -> list[Example]:
    """RAVDESS's 60 spoken clips an actor."""
    return [
        Example(
            Clip(
                f"{actor}-{code}-{strength}-{text}-{take}", label, f"{actor:02d}", "m" if actor % 2 else "f"
            ),
            f"key {actor}-{code}-{strength}-{text}-{take}",
        )
        for actor in actors
        for code, label in enumerate(EMOTIONS)
        for strength in ((1,) if label == "neutral" else (1, 2))
        for text in (1, 2)
        for take in (1, 2)
    ]


def grid(counts: dict[tuple[str | None, str], int], gender: str | None = None) -> list[Example]:
    """So many clips for each speaker and label."""
    return [
        Example(Clip(f"{who}/{label}/{i}.wav", label, who, gender), f"{who} {label} {i}")
        for (who, label), n in counts.items()
        for i in range(n)
    ]


def speakers(examples: list[Example], positions: Any) -> set[str | None]:
    return {examples[i].clip.speaker for i in positions}


def labels(examples: list[Example], positions: Any) -> Counter[str]:
    return Counter(examples[i].clip.label for i in positions)


@st.composite
def corpora(draw: st.DrawFn, speakers_from: int = 2) -> list[Example]:
    """Corpora that are large enough for every split of 20 to 40 %."""
    who = [f"speaker {i}" for i in range(draw(st.integers(speakers_from, 7)))]
    what = EMOTIONS[: draw(st.integers(2, 4))]
    counts = {(s, label): draw(st.integers(5, 8)) for s in who for label in what}
    examples = grid(counts)
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(len(examples))
    return [examples[i] for i in order]


seeds = st.integers(0, 2**32 - 6)


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
    men = sum(int(actor) % 2 for actor in held.new_speakers)
    assert len(held.new_speakers) == n
    assert abs(men - (n - men)) == n % 2
    assert len(held.new) == 60 * n
    assert len(held.seen) == round(share * (1440 - 60 * n))


def test_the_odd_held_out_speaker_is_not_always_of_one_gender() -> None:
    examples = ravdess()
    men = {sum(int(a) % 2 for a in hold_out(examples, "both", 0.2, seed).new_speakers) for seed in range(20)}
    assert men == {2, 3}


def test_every_actor_can_be_held_out_and_the_seed_decides() -> None:
    examples = ravdess()
    drawn = [hold_out(examples, "both", 0.2, seed).new_speakers for seed in range(40)]
    assert {actor for who in drawn for actor in who} == {f"{actor:02d}" for actor in range(1, 25)}
    assert len(set(drawn)) > 30


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
    with pytest.raises(DataError, match=r"--split both needs .*speakers, found \d.*--split random"):
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


# --- folds


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


@pytest.mark.parametrize("protocol", splits.PROTOCOLS)
def test_every_fold_has_a_name_and_a_seed_of_its_own(protocol: str) -> None:
    result = folds(ravdess(range(1, 7)), protocol, 10)
    assert [fold.name for fold in result] == [str(i + 1) for i in range(len(result))]
    assert [fold.seed for fold in result] == [10 + i for i in range(len(result))]


@pytest.mark.parametrize("protocol", splits.PROTOCOLS)
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
        assert [{int(actor) for actor in fold.test_speakers} for fold in result] == PUBLISHED
        assert [len(fold.test) for fold in result] == [300, 300, 300, 300, 240]


@pytest.mark.parametrize(
    "actors",
    [[1, 2, 3], [2, 5, 14, 15, 16, 1], [*range(1, 5)], [n for n in range(1, 25) if n not in PUBLISHED[2]]],
)
def test_absent_actors_are_left_out_of_their_published_folds(actors: list[int]) -> None:
    result = folds(ravdess(actors), "speaker-5fold", 0)
    present = [fold & set(actors) for fold in PUBLISHED]
    assert [{int(actor) for actor in fold.test_speakers} for fold in result] == [f for f in present if f]


def test_actors_of_one_published_fold_alone_are_dealt_anew() -> None:
    result = folds(ravdess(sorted(PUBLISHED[0])), "speaker-5fold", 0)
    assert sorted(int(actor) for fold in result for actor in fold.test_speakers) == sorted(PUBLISHED[0])
    assert len(result) == 5


def test_speakers_of_other_corpora_are_dealt_evenly_by_the_seed() -> None:
    examples = grid({(f"voice {i}", label): 1 for i in range(13) for label in ("sad", "angry")})
    deals = [[fold.test_speakers for fold in folds(examples, "speaker-5fold", seed)] for seed in range(5)]
    assert all(sorted(map(len, deal)) == [2, 2, 3, 3, 3] for deal in deals)
    assert len({str(deal) for deal in deals}) > 1


@pytest.mark.parametrize(
    ("protocol", "counts", "message"),
    [
        ("random-5fold", {("a", "sad"): 9, ("a", "angry"): 4}, "5 clips of each label, found 4 of 'angry'"),
        ("random-holdout", {("a", "sad"): 9, ("a", "angry"): 1}, "too few clips.*1 of 'angry'"),
        ("speaker-5fold", {("a", "sad"): 9, ("a", "angry"): 9}, "at least two known speakers"),
        ("speaker-5fold", {("a", "sad"): 9, (None, "angry"): 9}, "at least two known speakers"),
        ("speaker-5fold", {("a", "sad"): 9, ("b", "sad"): 9}, "at least two labels, found sad"),
        ("loso-ish", {("a", "sad"): 9, ("b", "angry"): 9}, "protocol is 'loso-ish', expected one of random"),
    ],
)
def test_a_protocol_that_the_clips_do_not_allow_says_why(
    protocol: str, counts: dict[Any, int], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        folds(grid(counts), protocol, 0)


def test_only_the_speaker_protocol_is_speaker_independent() -> None:
    independent = [name for name in splits.PROTOCOLS if splits.is_speaker_independent(name)]
    assert independent == ["speaker-5fold"]


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
        guard(leaky(), np.array([0, 1]), np.array([2, 3]))


def test_the_guard_refuses_the_very_same_position_on_both_sides() -> None:
    with pytest.raises(LeakError, match=r"b/two\.wav"):
        guard(leaky(), np.array([0, 1]), np.array([1]))


def test_the_guard_refuses_a_voice_on_both_sides_when_asked() -> None:
    train, test = np.array([0, 1]), np.array([3])
    guard(leaky(), train, test)
    with pytest.raises(LeakError, match=r"1 speakers stand in training and in test: a$"):
        guard(leaky(), train, test, speakers=True)


def test_the_guard_takes_an_unknown_speaker_for_a_voice() -> None:
    examples = grid({(None, "sad"): 2})
    with pytest.raises(LeakError, match="speakers"):
        guard(examples, np.array([0]), np.array([1]), speakers=True)


def test_the_guard_lets_clean_splits_pass() -> None:
    guard(leaky(), np.array([0, 3]), np.array([1]), speakers=True)
    guard(leaky(), np.array([], dtype=int), np.array([0, 1, 2, 3]), speakers=True)


@pytest.mark.parametrize(("split", "planted"), [("random", "seen"), ("both", "seen"), ("both", "new")])
def test_a_copy_never_stands_on_both_sides(split: str, planted: str) -> None:
    examples = ravdess(range(1, 7))
    held = hold_out(examples, split, 0.3, 0)
    here, there = held.train[0], getattr(held, planted)[0]
    examples[there] = Example(examples[there].clip, examples[here].key)
    # Examples that were not made distinct first: the guard is the second line of defence.
    with pytest.raises(LeakError, match="recordings stand in training and in test"):
        hold_out(examples, split, 0.3, 0)


@pytest.mark.parametrize("protocol", splits.PROTOCOLS)
def test_folds_refuse_a_planted_copy(protocol: str) -> None:
    examples = ravdess(range(1, 7))
    first = folds(examples, protocol, 0)[0]
    here, there = first.train[0], first.test[0]
    examples[there] = Example(examples[there].clip, examples[here].key)
    with pytest.raises(LeakError, match="recordings stand in training and in test"):
        folds(examples, protocol, 0)


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
    with pytest.raises(DataError, match="needs training clips of at least two labels"):
        folds(examples, "speaker-5fold", 0)
