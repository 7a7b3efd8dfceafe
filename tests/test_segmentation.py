"""Windows cover the speech and nothing else; labels change where the evidence does, or in a pause near it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechemo_cli.inference.segmentation import RawSegment, Windows, cut_by_label, merge_low_confidence, plan

FLAT = np.full(10_000, -20.0, np.float32)


def one_hot(labels: list[int], n: int = 3) -> np.ndarray:
    return np.eye(n, dtype=np.float32)[labels]


# --- windows


def test_an_utterance_that_fits_is_listened_to_as_a_whole() -> None:
    windows = plan(np.array([[10, 300], [340, 360]]), window=300, hop=100)

    assert windows.spans.tolist() == [[10, 300], [340, 360]]
    assert windows.utterance.tolist() == [0, 1]
    assert windows.scale.tolist() == [0, 0]


@settings(deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(20, 3000), st.integers(0, 400)), min_size=1, max_size=6),
    window=st.integers(50, 600),
    share=st.floats(0.1, 1.0),
)
def test_windows_lie_in_utterances_cover_them_and_come_in_order(
    lengths: list[tuple[int, int]], window: int, share: float
) -> None:
    ends = np.cumsum([part for pair in lengths for part in pair[::-1]])
    utterances = np.stack([ends[::2], ends[1::2]], axis=1)
    hop = max(10, round(share * window))

    windows = plan(utterances, window, hop)

    spans = windows.spans
    inside = utterances[windows.utterance]
    assert (spans[:, 0] >= inside[:, 0]).all()
    assert (spans[:, 1] <= inside[:, 1]).all()
    assert (np.diff(spans[:, 0]) >= 0).all()
    assert (spans[:, 1] - spans[:, 0] <= window + 1).all()
    assert (spans[:, 1] - spans[:, 0] >= min(20, window // 6)).all()
    for which, (first, last) in enumerate(utterances):
        full = spans[(windows.utterance == which) & (windows.scale == 0)]
        assert full[0, 0] == first
        assert full[-1, 1] == last
        assert (np.diff(full.mean(axis=1)) <= hop + 1).all()


# --- stretches


def answer(
    runs: list[list[int]], rows: list[int], levels: np.ndarray = FLAT, pause: int = 100
) -> list[tuple[int, int, int]]:
    """Cut runs that are utterances of one window each, or one utterance with a window every 100 frames."""
    whole = np.array(runs)
    if len(rows) == len(runs):
        windows = Windows(whole, np.arange(len(runs)), np.zeros(len(runs), np.int64))
    else:
        first = np.arange(len(rows)) * 100
        zeros = np.zeros(len(rows), np.int64)
        windows = Windows(np.stack([first, first + 100], axis=1), zeros, zeros)
        whole = np.array([[runs[0][0], runs[-1][1]]])
    found = cut_by_label(np.array(runs), whole, windows, one_hot(rows), levels, pause)
    return [(one.first, one.last, int(one.probabilities.argmax())) for one in found]


def test_each_utterance_between_long_pauses_keeps_its_label() -> None:
    runs = [[0, 200], [350, 400], [550, 800]]

    assert answer(runs, [0, 1, 0]) == [(0, 200, 0), (350, 400, 1), (550, 800, 0)]


def test_neighbours_with_one_label_are_one_stretch_unless_a_pause_is_long() -> None:
    runs = [[0, 200], [250, 400], [550, 800]]

    assert answer(runs, [2, 2, 2]) == [(0, 400, 2), (550, 800, 2)]


def test_in_flowing_speech_the_label_changes_halfway_between_the_windows() -> None:
    ((_, end, before), (start, _, after)) = answer([[0, 800]], [0, 0, 0, 0, 1, 1, 1, 1])

    assert (before, after) == (0, 1)
    assert end == start
    assert start == pytest.approx(400, abs=10)


def test_a_border_moves_to_a_pause_that_is_near() -> None:
    assert answer([[0, 370], [400, 800]], [0, 0, 0, 0, 1, 1, 1, 1]) == [(0, 370, 0), (400, 800, 1)]


def test_a_border_moves_to_a_dip_that_is_near() -> None:
    levels = FLAT.copy()
    levels[428:433] = -60

    ((_, end, _), _) = answer([[0, 800]], [0, 0, 0, 0, 1, 1, 1, 1], levels)

    assert 428 <= end < 433


def test_a_moment_of_another_label_is_no_change_and_a_longer_one_is() -> None:
    def blip(n: int) -> list[tuple[int, int, int]]:
        windows = np.arange(80) * 10
        zeros = np.zeros(80, np.int64)
        labels = [1 if 40 <= i < 40 + n else 0 for i in range(80)]
        found = cut_by_label(
            np.array([[0, 800]]),
            np.array([[0, 800]]),
            Windows(np.stack([windows, windows + 10], axis=1), zeros, zeros),
            one_hot(labels),
            FLAT,
            100,
        )
        return [(one.first, one.last, int(one.probabilities.argmax())) for one in found]

    assert blip(8) == [(0, 800, 0)]
    assert [label for _, _, label in blip(14)] == [0, 1, 0]


def test_probabilities_are_means_over_the_speech() -> None:
    runs = np.array([[0, 300], [350, 450]])
    rows = np.array([[0.6, 0.4], [0.9, 0.1]], np.float32)
    windows = Windows(runs, np.arange(2), np.zeros(2, np.int64))

    (one,) = cut_by_label(runs, runs, windows, rows, FLAT, pause=100)

    assert one.speech == 400
    np.testing.assert_allclose(one.probabilities, [0.675, 0.325], atol=1e-6)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32 - 1))
def test_whatever_is_answered_stretches_hold_all_speech_and_their_label_is_the_likeliest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    edges = np.cumsum(rng.integers(20, 900, 2 * rng.integers(1, 8)))
    runs = edges.reshape(-1, 2)
    windows = plan(runs, 300, 100)
    rows = rng.dirichlet(np.full(4, 0.3), len(windows.spans)).astype(np.float32)
    levels = rng.normal(-40, 15, int(edges[-1]) + 5).astype(np.float32)

    found = cut_by_label(runs, runs, windows, rows, levels, pause=100)

    assert sum(one.speech for one in found) == (runs[:, 1] - runs[:, 0]).sum()
    assert found[0].first == runs[0, 0]
    assert found[-1].last == runs[-1, 1]
    for one, following in pairwise(found):
        assert one.first < one.last <= following.first
        apart = following.first - one.last > 100
        assert apart or one.probabilities.argmax() != following.probabilities.argmax()
    for one in found:
        assert one.speech <= one.last - one.first
        assert one.probabilities.sum() == pytest.approx(1, abs=1e-5)


# --- doubt


def test_doubtful_neighbours_become_one_and_sure_ones_stay() -> None:
    doubtful = RawSegment(0, 100, np.array([0.6, 0.4]), 100)
    other = RawSegment(120, 220, np.array([0.3, 0.7]), 50)
    sure = RawSegment(230, 300, np.array([0.9, 0.1]), 70)
    late = RawSegment(500, 600, np.array([0.5, 0.5]), 100)

    later = RawSegment(610, 700, np.array([0.5, 0.5]), 90)

    joined = merge_low_confidence([doubtful, other, sure, late, later], 0.8, pause=50)

    assert [(one.first, one.last, one.speech) for one in joined] == [
        (0, 220, 150),
        (230, 300, 70),
        (500, 700, 190),
    ]
    np.testing.assert_allclose(joined[0].probabilities, [0.5, 0.5])
    assert len(merge_low_confidence([doubtful, other], 0.5, pause=50)) == 2
    assert len(merge_low_confidence([doubtful, other], 0.8, pause=10)) == 2
    assert merge_low_confidence([], 0.8, pause=10) == []
