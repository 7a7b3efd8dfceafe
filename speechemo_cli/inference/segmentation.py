"""Which parts of a recording the model answers for, and how its answers become segments with one label."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from speechemo_cli.audio.vad import FRAMES_A_SECOND

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Long utterances are answered for in windows of three lengths, each at its own share of the hop: the
# long ones find the emotion better, the short ones its beginning and end.
_SCALES = (1.0, 1 / 2, 1 / 3)
# The first and the last window of an utterance reach this share of a window beyond its ends and are
# cut there: an emotion that is over soon would else be in one window with the next alone.
_EDGE = 0.25
# Frames that are given a label together; also how exactly a border is found.
_CELL = 10
# Seconds of right answers that a change of the label must gain. After a pause it is had for less, by
# the factor e every 0.3 s; and where the level dips by 40 dB for a tenth.
_CHANGE_COSTS_S = 0.5
_PAUSE_S = 0.3
_DIP_DB, _DIP_REACH_S, _MOST_OFF = 40.0, 0.3, 0.9


class Windows(NamedTuple):
    """Parts of a recording, in order of time; a scale of 0 means the full length."""

    spans: NDArray[np.int64]  # [shape=(windows, 2)]: first frame of each and the one after its last
    utterance: NDArray[np.int64]  # [shape=(windows,)]: which one it is of
    scale: NDArray[np.int64]  # [shape=(windows,)]: index of _SCALES


class RawSegment(NamedTuple):
    """Frames from `first` up to `last`, of which `speech` are speech, with one label.

    The probabilities [shape=(n_labels,)] are the mean over the speech.
    """

    first: int
    last: int
    probabilities: NDArray[np.float64]
    speech: int


def plan(utterances: NDArray[np.int64], window: int, hop: int) -> Windows:
    """Lay windows over utterances [shape=(utterances, 2)]; none reaches from one into another.

    An utterance that fits into one window is one, as a clip is. All numbers are frames.
    """
    rows = []
    for which, (first, last) in enumerate(utterances.tolist()):
        if last - first <= window:
            rows.append((first, last, which, 0))
            continue
        for scale, share in enumerate(_SCALES):
            half, inside = window * share / 2, window * share * _EDGE
            n = 1 + math.ceil((last - first - 2 * inside) / (hop * share))
            rows += [
                (max(first, round(centre - half)), min(last, round(centre + half)), which, scale)
                for centre in np.linspace(first + inside, last - inside, n).tolist()
            ]
    table = np.array(sorted(rows), np.int64).reshape(-1, 4)
    return Windows(table[:, :2], table[:, 2], table[:, 3])


def cut_by_label(
    runs: NDArray[np.int64],
    utterances: NDArray[np.int64],
    windows: Windows,
    rows: NDArray[np.float32],
    levels: NDArray[np.float32],
    pause: int,
) -> list[RawSegment]:
    """Cut speech into segments with one label each; pauses of more than `pause` frames end one too.

    The probabilities at any time are those of the windows around it. Of all ways to label the speech
    the one is taken that is right for most of the time, as far as the probabilities tell, where every
    change costs something: much in the middle of a word, little in a dip, next to nothing after a
    pause (dynamic programming, as Viterbi's algorithm). So single odd windows change nothing, and
    borders lie in pauses where there is one near.

    `runs` are the speech [shape=(runs, 2)], at least one, each within one of the utterances of `plan`;
    `rows` the probabilities of each window [shape=(windows, n_labels)]; `levels` in dB [shape=(frames,)].
    """
    cells = np.concatenate([_cells(first, last, levels) for first, last in runs.tolist()])
    probabilities = _cell_probabilities(cells, utterances, windows, rows)
    seconds = (cells[:, 1] - cells[:, 0]) / FRAMES_A_SECOND
    gap = cells[1:, 0] - cells[:-1, 1]
    cost = _CHANGE_COSTS_S * np.exp(-gap / (_PAUSE_S * FRAMES_A_SECOND))
    cost *= 1 - _MOST_OFF * np.clip(_dips(levels, cells[1:, 0]) / _DIP_DB, 0, 1)
    path = _best_path(probabilities * seconds[:, None], cost)
    ends = np.flatnonzero((np.diff(path) != 0) | (gap > pause)) + 1
    return [
        RawSegment(
            int(cells[first, 0]),
            int(cells[last - 1, 1]),
            np.average(probabilities[first:last], axis=0, weights=seconds[first:last]),
            int((cells[first:last, 1] - cells[first:last, 0]).sum()),
        )
        for first, last in zip([0, *ends.tolist()], [*ends.tolist(), len(cells)], strict=True)
    ]


def merge_low_confidence(found: list[RawSegment], min_confidence: float, pause: int) -> list[RawSegment]:
    """Make one of neighbours, up to `pause` frames from one another, that are both below the confidence."""
    merged = found[:1]
    for one in found[1:]:
        before = merged[-1]
        confidence = max(one.probabilities.max(), before.probabilities.max())
        if one.first - before.last <= pause and confidence < min_confidence:
            speech = before.speech + one.speech
            weighted = before.probabilities * before.speech + one.probabilities * one.speech
            merged[-1] = RawSegment(before.first, one.last, weighted / speech, speech)
        else:
            merged.append(one)
    return merged


def _dips(levels: NDArray[np.float32], frames: NDArray[np.int64]) -> NDArray[np.float32]:
    """By how many dB each of some frames is below the loudest on either side of it [shape=(n,)]."""
    reach = round(_DIP_REACH_S * FRAMES_A_SECOND)
    near = np.lib.stride_tricks.sliding_window_view(np.pad(levels, reach, mode="edge"), reach)
    loudest = near.max(axis=1)
    return np.asarray(np.minimum(loudest[frames], loudest[frames + reach + 1]) - levels[frames])


def _cells(first: int, last: int, levels: NDArray[np.float32]) -> NDArray[np.int64]:
    """Cut a run into cells that begin where it is quietest [shape=(cells, 2)]."""
    n = math.ceil((last - first) / _CELL)
    edges = np.linspace(first, last, n + 1).round().astype(np.int64)
    if n > 1:
        about = edges[1:-1, None] + np.arange(-(_CELL // 2) + 1, _CELL // 2)
        edges[1:-1] = np.take_along_axis(about, levels[about].argmin(axis=1)[:, None], axis=1)[:, 0]
    return np.stack([edges[:-1], edges[1:]], axis=1)


def _cell_probabilities(
    cells: NDArray[np.int64], utterances: NDArray[np.int64], windows: Windows, rows: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Interpolate between the centres of windows [shape=(cells, n_labels)]: the mean over the scales."""
    middle = cells.mean(axis=1)
    total = np.zeros((len(cells), rows.shape[1]))
    scales = np.zeros((len(cells), 1))
    cell_at = np.searchsorted(middle, utterances).tolist()
    for scale in range(len(_SCALES)):
        of_scale = np.flatnonzero(windows.scale == scale)
        window_at = np.searchsorted(windows.utterance[of_scale], np.arange(len(utterances) + 1))
        for (a, b), these in zip(cell_at, np.split(of_scale, window_at[1:-1]), strict=True):
            if len(these):
                centre = windows.spans[these].mean(axis=1)
                for label, column in enumerate(rows[these].T):
                    total[a:b, label] += np.interp(middle[a:b], centre, column)
                scales[a:b] += 1
    return total / scales


def _best_path(gain: NDArray[np.float64], cost: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the label of each cell that gains most in all [shape=(cells,)].

    `gain` is of each label in each cell [shape=(cells, n_labels)], `cost` of a change between each cell and
    the next [shape=(cells - 1,)].
    """
    labels = np.arange(gain.shape[1])
    came_from = np.empty(gain.shape, np.int16)
    best = gain[0]
    for i in range(1, len(gain)):
        top = int(best.argmax())
        changed = best[top] - cost[i - 1]
        stays = best >= changed
        came_from[i] = np.where(stays, labels, top)
        best = np.where(stays, best, changed) + gain[i]
    path = np.empty(len(gain), np.int64)
    path[-1] = best.argmax()
    for i in range(len(gain) - 1, 0, -1):
        path[i - 1] = came_from[i, path[i]]
    return path
