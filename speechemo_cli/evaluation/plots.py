"""Pictures of numbers: learning curves, confusion matrices and reliability, as PNG."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.plotting import drawable, drawing, new_figure, save_png

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

# Okabe & Ito's colours, which people with any kind of colour vision can distinguish.
_COLOURS = {"train": "#7f7f7f", "seen": "#0072b2", "new": "#d55e00"}
_NAMES = {"train": "training clips", "seen": "held out, seen speakers", "new": "held out, unseen speakers"}

_NAMED_SPEAKERS = 60  # more names than that would overlap


@drawing()
def learning_curve(history: Mapping[str, Sequence[float]], title: str, path: Path) -> None:
    """Draw accuracy and loss by epoch, one line for each watched set.

    Parameters
    ----------
    history : mapping of str to sequence of float
        `train_accuracy`, `train_loss`, and the same for `seen` and `new` where they were watched.
    title : str
    path : Path
        Where the PNG goes.

    Raises
    ------
    AccessError
        It cannot be written.
    """
    figure = new_figure(9, 3.6)
    left, right = figure.subplots(1, 2)
    for axis, metric, scale, unit in (
        (left, "accuracy", 100.0, "accuracy (%)"),
        (right, "loss", 1.0, "loss (nats)"),
    ):
        for name, colour in _COLOURS.items():
            values = history.get(f"{name}_{metric}")
            if values:
                axis.plot(
                    np.arange(1, len(values) + 1), np.array(values) * scale, color=colour, label=_NAMES[name]
                )
        axis.set_xlabel("epoch")
        axis.set_ylabel(unit)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    left.set_ylim(0, 100)
    left.legend(frameon=False, loc="best")
    figure.suptitle(title)
    save_png(figure, path)


@drawing()
def confusion(matrices: Mapping[str, Sequence[Sequence[int]]], labels: Sequence[str], path: Path) -> None:
    """Draw confusion matrices side by side: shade by share of the true label, counts written in.

    Parameters
    ----------
    matrices : mapping of str to sequence of sequence of int
        By title; rows are the truth, columns the answers.
    labels : sequence of str
    path : Path
        Where the PNG goes.

    Raises
    ------
    AccessError
        It cannot be written.
    """
    size = max(4.5, 0.62 * len(labels) + 1.8)
    figure = new_figure(size * len(matrices), size)
    axes = figure.subplots(1, len(matrices), squeeze=False)[0]
    for axis, (title, matrix) in zip(axes, matrices.items(), strict=True):
        _matrix(axis, np.array(matrix), labels)
        axis.set_title("\n".join(map(drawable, title.split("\n"))), fontsize=10)
    save_png(figure, path)


def _matrix(axis: Any, counts: NDArray[np.int64], labels: Sequence[str]) -> None:
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*counts.shape):
        axis.text(
            column,
            row,
            f"{counts[row, column]}\n{shares[row, column]:.0%}" if counts[row, column] else "·",
            ha="center",
            va="center",
            fontsize=7,
            color="white" if shares[row, column] > 0.55 else "black",
        )
    names = list(map(drawable, labels))
    axis.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axis.set_yticks(range(len(names)), names)
    axis.set_xlabel("answer")
    axis.set_ylabel("truth")


@drawing()
def difference(
    by_speaker: Mapping[str, float],
    pooled: float,
    ci95: tuple[float, float] | None,
    title: str,
    path: Path,
) -> None:
    """Draw what one set of answers gains on another: a dot a speaker, and all of them with the interval.

    Parameters
    ----------
    by_speaker : mapping of str to float
        Differences of accuracy, -1 to 1.
    pooled : float
    ci95 : tuple of float or None
    title : str
    path : Path
        Where the PNG goes.

    Raises
    ------
    AccessError
        It cannot be written.
    """
    order = sorted(by_speaker, key=lambda name: (by_speaker[name], name))
    figure = new_figure(6.5, 1.9 + 0.2 * min(len(order), _NAMED_SPEAKERS))
    axis = figure.subplots()
    values = np.array([by_speaker[name] for name in order]) * 100
    axis.hlines(range(len(order)), 0, values, color=_COLOURS["train"], linewidth=1.5)
    axis.plot(values, range(len(order)), "o", color=_COLOURS["seen"])
    if ci95:
        axis.axvspan(100 * ci95[0], 100 * ci95[1], color=_COLOURS["new"], alpha=0.2, label="95 % interval")
    axis.axvline(100 * pooled, color=_COLOURS["new"], label="all answers")
    axis.axvline(0, color="black", linewidth=0.8)
    names = [drawable(name) for name in order] if len(order) <= _NAMED_SPEAKERS else []
    axis.set_yticks(range(len(names)), names)
    axis.set(xlabel="difference of accuracy (points)", ylabel="speaker")
    axis.grid(axis="x", alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower right", ncols=2, frameon=False)
    figure.suptitle(textwrap.fill(title, 80), fontsize=9)
    save_png(figure, path)


@drawing()
def reliability_diagram(bins: Sequence[tuple[float, float]], title: str, path: Path) -> None:
    """Draw how often answers are right by how sure they are.

    Parameters
    ----------
    bins : sequence of (confidence, accuracy)
        Means of bins of as many answers each, 0 to 1.
    title : str
    path : Path
        Where the PNG goes.

    Raises
    ------
    AccessError
        It cannot be written.
    """
    figure = new_figure(4.8, 4.6)
    axis = figure.subplots()
    draw_reliability(axis, bins)
    axis.legend(frameon=False, loc="upper left")
    axis.set_title(title, fontsize=10)
    save_png(figure, path)


def draw_reliability(axis: Any, bins: Sequence[tuple[float, float]]) -> None:
    """Draw on a matplotlib axis what `reliability_diagram` shows."""
    confidence, accuracy = np.array(bins).T * 100
    axis.plot([0, 100], [0, 100], "--", color=_COLOURS["train"], label="as sure as it is right")
    axis.vlines(confidence, confidence, accuracy, color=_COLOURS["new"], linewidth=1.5)
    axis.plot(confidence, accuracy, "o-", color=_COLOURS["seen"], label="measured")
    axis.set(xlim=(0, 101), ylim=(0, 101), xlabel="mean confidence (%)", ylabel="right answers (%)")
    axis.grid(alpha=0.25)
