"""Windows cover the speech and nothing else; labels change where probabilities do, or in a pause near it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speechemo_cli.inference.segmentation import RawSegment, Windows, cut_by_label, merge_low_confidence, plan

FLAT = np.full(10_000, -20.0, np.float32)


@settings(deadline=None, max_examples=50)
@given(
    lengths=st.lists(st.tuples(st.integers(20, 3000), st.integers(0, 400)), min_size=1, max_size=6),
    window=st.integers(50, 600),
    share=st.floats(0.1, 1.0),
)
def test_plan_covers_utterances_with_windows_within_them_in_order(
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
        assert last - first > window or len(full) == (windows.utterance == which).sum() == 1


def labelled(
    runs: list[list[int]], labels: list[int], window: int = 100, levels: np.ndarray = FLAT
) -> list[tuple[int, int, int]]:
    """Cut one utterance that is answered for in windows which follow one another."""
    first = np.arange(len(labels)) * window
    zeros = np.zeros(len(labels), np.int64)
    windows = Windows(np.stack([first, first + window], axis=1), zeros, zeros)
    rows = np.eye(3, dtype=np.float32)[labels]
    found = cut_by_label(np.array(runs), np.array([[runs[0][0], runs[-1][1]]]), windows, rows, levels, 100)
    return [(one.first, one.last, int(one.probabilities.argmax())) for one in found]


def test_cut_by_label_changes_halfway_between_windows_or_in_a_pause_or_dip_that_is_near() -> None:
    labels = [0, 0, 0, 0, 1, 1, 1, 1]
    dip = FLAT.copy()
    dip[428:433] = -60

    ((_, end, before), (start, _, after)) = labelled([[0, 800]], labels)
    assert (before, after) == (0, 1)
    assert end == start == pytest.approx(400, abs=10)
    assert labelled([[0, 370], [400, 800]], labels) == [(0, 370, 0), (400, 800, 1)]
    ((_, end, _), _) = labelled([[0, 800]], labels, levels=dip)
    assert 428 <= end < 433


@pytest.mark.parametrize(("n", "expected"), [(8, [0]), (14, [0, 1, 0])])
def test_cut_by_label_takes_a_moment_of_another_label_for_no_change(n: int, expected: list[int]) -> None:
    labels = [1 if 40 <= i < 40 + n else 0 for i in range(80)]

    assert [label for *_, label in labelled([[0, 800]], labels, window=10)] == expected


def test_cut_by_label_gives_the_mean_probabilities_over_the_speech() -> None:
    runs = np.array([[0, 300], [350, 450]])
    rows = np.array([[0.6, 0.4], [0.9, 0.1]], np.float32)
    windows = Windows(runs, np.arange(2), np.zeros(2, np.int64))

    (one,) = cut_by_label(runs, runs, windows, rows, FLAT, pause=100)

    assert one.speech == 400
    np.testing.assert_allclose(one.probabilities, [0.675, 0.325], atol=1e-6)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32 - 1))
def test_cut_by_label_keeps_all_speech_under_the_likeliest_label(seed: int) -> None:
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
        far = following.first - one.last > 100
        assert far or one.probabilities.argmax() != following.probabilities.argmax()
    for one in found:
        assert one.speech <= one.last - one.first
        assert one.probabilities.sum() == pytest.approx(1, abs=1e-5)


def test_merge_low_confidence_makes_one_of_near_neighbours_and_keeps_confident_ones() -> None:
    low = RawSegment(0, 100, np.array([0.6, 0.4]), 100)
    other = RawSegment(120, 220, np.array([0.3, 0.7]), 50)
    high = RawSegment(230, 300, np.array([0.9, 0.1]), 70)
    late = RawSegment(500, 600, np.array([0.5, 0.5]), 100)
    later = RawSegment(610, 700, np.array([0.5, 0.5]), 90)

    merged = merge_low_confidence([low, other, high, late, later], 0.8, pause=50)

    assert [(one.first, one.last, one.speech) for one in merged] == [
        (0, 220, 150),
        (230, 300, 70),
        (500, 700, 190),
    ]
    np.testing.assert_allclose(merged[0].probabilities, [0.5, 0.5])
    assert len(merge_low_confidence([low, other], 0.5, pause=50)) == 2
    assert len(merge_low_confidence([low, other], 0.8, pause=10)) == 2
    assert merge_low_confidence([], 0.8, pause=10) == []
