"""Pictures of numbers: PNG files, and those of the report as SVG that follows the colours of its page."""

from __future__ import annotations

import io
import re
import textwrap
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.corpus.clips import speaker_names
from speechemo_cli.evaluation.metrics import reliability
from speechemo_cli.files import display_name
from speechemo_cli.formatting import percent
from speechemo_cli.plotting import drawable, drawing, new_figure, save_png

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from speechemo_cli.evaluation.predictions import Comparison
    from speechemo_cli.evaluation.results import ProtocolResult

# Okabe & Ito's colours, which people with any kind of colour vision can distinguish.
_GREY, _BLUE, _ORANGE = "#7f7f7f", "#0072b2", "#d55e00"
_WATCHED = {
    "train": ("training clips", _GREY),
    "seen": ("held out, seen speakers", _BLUE),
    "new": ("held out, unseen speakers", _ORANGE),
}
_NAMED_SPEAKERS = 60  # more names than that would overlap
# Stand-ins in matplotlib for colours that the page decides, so that pictures follow light and dark.
_INK = "#010203"
_PAGE_COLOURS = {_INK: "currentColor", _BLUE: "var(--blue)", _ORANGE: "var(--orange)"}
_SVG_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a label may hold a dollar sign
    "font.size": 10,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
}
_CURVE_POINTS = 150


@drawing()
def learning_curve(history: Mapping[str, Sequence[float]], title: str, path: Path) -> None:
    """Draw accuracy and loss by epoch, of each of `_WATCHED` that the history has, into a PNG."""
    figure = new_figure(9, 3.6)
    left, right = figure.subplots(1, 2)
    for axis, metric, scale, unit in (
        (left, "accuracy", 100.0, "accuracy (%)"),
        (right, "loss", 1.0, "loss (nats)"),
    ):
        for name, (label, colour) in _WATCHED.items():
            values = np.array(history.get(f"{name}_{metric}", ()))
            if len(values):
                axis.plot(np.arange(1, len(values) + 1), values * scale, color=colour, label=label)
        axis.set(xlabel="epoch", ylabel=unit, ylim=(0, None))
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    left.set_ylim(0, 100)
    left.legend(frameon=False, loc="best")
    figure.suptitle(title)
    save_png(figure, path)


@drawing()
def confusion(matrices: Mapping[str, Sequence[Sequence[int]]], labels: Sequence[str], path: Path) -> None:
    """Draw confusion matrices by title side by side into a PNG: rows are the truth, columns the answers."""
    size = max(4.5, 0.62 * len(labels) + 1.8)
    figure = new_figure(size * len(matrices), size)
    axes = figure.subplots(1, len(matrices), squeeze=False)[0]
    names = list(map(drawable, labels))
    for axis, (title, matrix) in zip(axes, matrices.items(), strict=True):
        counts = np.array(matrix)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(*counts.shape):
            n, share = counts[row, column], shares[row, column]
            text, colour = f"{n}\n{share:.0%}" if n else "·", "white" if share > 0.55 else "black"
            axis.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
        axis.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axis.set_yticks(range(len(names)), names)
        axis.set(xlabel="answer", ylabel="truth")
        axis.set_title("\n".join(map(drawable, title.split("\n"))), fontsize=10)
    save_png(figure, path)


@drawing()
def difference(compared: Comparison, title: str, path: Path) -> None:
    """Draw what b gains on a into a PNG: a dot a speaker, and all answers with the interval."""
    by_speaker, ci95 = compared.by_speaker, compared.ci95
    order = sorted(by_speaker, key=lambda name: (by_speaker[name], name))
    figure = new_figure(6.5, 1.9 + 0.2 * min(len(order), _NAMED_SPEAKERS))
    axis = figure.subplots()
    values = np.array([by_speaker[name] for name in order]) * 100
    axis.hlines(range(len(order)), 0, values, color=_GREY, linewidth=1.5)
    axis.plot(values, range(len(order)), "o", color=_BLUE)
    if ci95:
        axis.axvspan(100 * ci95[0], 100 * ci95[1], color=_ORANGE, alpha=0.2, label="95 % interval")
    axis.axvline(100 * compared.difference, color=_ORANGE, label="all answers")
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
    """Draw how often answers are right by how sure they are into a PNG.

    `bins` are mean confidence and accuracy, 0 to 1, of bins of as many answers each.
    """
    figure = new_figure(4.8, 4.6)
    axis = figure.subplots()
    _draw_reliability(axis, bins)
    axis.legend(frameon=False, loc="upper left")
    axis.set_title(title, fontsize=10)
    save_png(figure, path)


def _draw_reliability(axis: Any, bins: Sequence[tuple[float, float]]) -> None:
    confidence, accuracy = np.array(bins).T * 100
    axis.plot([0, 100], [0, 100], "--", color=_GREY, label="as sure as it is right")
    axis.vlines(confidence, confidence, accuracy, color=_ORANGE, linewidth=1.5)
    axis.plot(confidence, accuracy, "o-", color=_BLUE, label="measured")
    axis.set(xlim=(0, 101), ylim=(0, 101), xlabel="mean confidence (%)", ylabel="right answers (%)")
    axis.grid(alpha=0.25)


def reliability_svg(result: ProtocolResult) -> str:
    """Draw for the report what `reliability_diagram` shows."""
    bins = [(sure, right) for _, sure, right in reliability(result.confidence, result.hits)]
    return _svg("reliability", 3.6, partial(_draw_reliability, bins=bins))


def comparison(result: ProtocolResult, published: Sequence[Mapping[str, Any]]) -> str:
    """Draw accuracy and UAR with intervals and folds, and below them what was published."""

    def draw(axis: Any) -> None:
        names = []
        for y, (metric, name) in enumerate((("accuracy", "accuracy"), ("uar", "UAR"))):
            spread = result.spread(metric)
            if spread["ci95"]:
                axis.plot(np.array(spread["ci95"]) * 100, [y, y], color=_ORANGE, linewidth=3)
            of_folds = [getattr(fold.scores, metric) * 100 for fold in result.folds]
            axis.plot(of_folds, [y] * len(of_folds), "|", color=_INK, alpha=0.5, markersize=11)
            axis.plot(spread["pooled"] * 100, y, "D", color=_ORANGE, markersize=8)
            names.append((f"{result.version}, {name}", spread["pooled"]))
        for y, one in enumerate(published, start=len(names)):
            face = _BLUE if one.get("pretrained") else "none"
            colour = _BLUE if "pretrained" in one else _INK
            axis.plot(one["value"] * 100, y, "o", markerfacecolor=face, markeredgecolor=colour)
            names.append((one["system"] + (", UAR" if one["metric"] == "UAR" else ""), one["value"]))
        for y, (_, value) in enumerate(names):
            axis.text(102, y, percent(value), va="center")
        axis.axvline(100 / len(result.labels), color=_INK, linestyle="--", alpha=0.6)
        axis.set_yticks(range(len(names)), [name for name, _ in names])
        axis.set(xlim=(0, 100), ylim=(len(names) - 0.4, -0.6), xlabel="accuracy or UAR (%)")
        axis.grid(axis="x", color=_INK, alpha=0.15)

    return _svg("accuracy beside published results", 0.9 + 0.25 * (2 + len(published)), draw)


def speaker_bars(result: ProtocolResult) -> str:
    """Draw a bar a speaker, best on top; nothing where speakers are not known."""
    parts = result.slices.get("speaker", {})
    genders = {e.clip.speaker_id: e.clip.gender for e in result.examples}
    shown = speaker_names(parts)
    order = sorted(parts, key=lambda name: (parts[name].accuracy, name))
    groups = (("m", "men", _BLUE, ""), ("f", "women", _ORANGE, "////"), (None, "not known", _INK, ""))

    def draw(axis: Any) -> None:
        for gender, name, colour, hatch in groups:
            at = [i for i, speaker in enumerate(order) if genders[speaker] == gender]
            values = [parts[order[i]].accuracy * 100 for i in at]
            if at:
                axis.barh(at, values, 0.75, label=name, hatch=hatch, facecolor=colour, alpha=0.8)
        axis.axvline(result.scores.accuracy * 100, color=_INK, linestyle="--", label="all answers")
        names = [display_name(shown[one])[:24] for one in order] if len(order) <= _NAMED_SPEAKERS else []
        axis.set_yticks(range(len(names)), names)
        axis.set(xlim=(0, 100), ylim=(-0.6, len(order) - 0.4), xlabel="accuracy (%)", ylabel="speaker")
        axis.figure.legend(loc="outside upper center", ncols=4)

    return _svg("accuracy by speaker", 1.1 + 0.19 * min(len(order), _NAMED_SPEAKERS), draw) if order else ""


def risk_curve(coverage: NDArray[np.float64], risk: NDArray[np.float64]) -> str:
    """Draw the share of wrong answers by the share of answers kept."""

    def draw(axis: Any) -> None:
        axis.plot(coverage * 100, risk * 100, color=_BLUE)
        axis.axhline(risk[-1] * 100, color=_INK, linestyle="--", alpha=0.6)
        axis.set(xlim=(0, 101), ylim=(0, None), xlabel="answers kept (%)", ylabel="wrong among them (%)")
        axis.grid(color=_INK, alpha=0.15)

    return _svg("risk by coverage", 3.6, draw)


def training_curve(result: ProtocolResult, metric: str) -> str:
    """Draw accuracy or loss on the training clips by epoch."""
    scale = 100 if metric == "accuracy" else 1
    lines = np.array([fold.history[f"train_{metric}"] for fold in result.folds]) * scale
    at = np.unique(np.linspace(0, lines.shape[1] - 1, _CURVE_POINTS).astype(np.int64))

    def draw(axis: Any) -> None:
        axis.plot(at + 1, lines[:, at].T, color=_INK, alpha=0.35, linewidth=0.8)
        axis.plot(at + 1, lines.mean(axis=0)[at], color=_BLUE, linewidth=2.5)
        axis.set(xlabel="epoch", ylabel={"accuracy": "accuracy (%)", "loss": "loss (nats)"}[metric])
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_ylim(0, 100 if metric == "accuracy" else None)
        axis.grid(color=_INK, alpha=0.15)

    return _svg(f"training {metric} by epoch", 3.0, draw)


def _svg(title: str, height: float, draw: Callable[[Any], None]) -> str:
    """Draw on an axis of 4.6 inches' width, and return SVG markup that stands inside HTML."""
    from markupsafe import Markup, escape

    with drawing(), io.StringIO() as out:
        import matplotlib as mpl

        mpl.rcdefaults()  # a person's own style would change the bytes
        # Identifiers come from the salt; pictures on one page must not share them.
        mpl.rcParams.update({**_SVG_STYLE, "svg.hashsalt": title})
        figure = new_figure(4.6, height)
        draw(figure.add_subplot())
        figure.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
        text = out.getvalue()
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None
    inner = text[text.index(">", text.index("<svg")) + 1 :]
    inner = re.sub(r"(?s)<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", inner)
    inner = re.sub(r'<g id="[^"]*"', "<g", inner).replace("xlink:href", "href")
    inner = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), inner)
    for drawn, shown in _PAGE_COLOURS.items():
        inner = inner.replace(drawn, shown)
    return Markup(f'<svg role="img" aria-label="{escape(title)}" {box[0]}>{inner}')  # noqa: S704
