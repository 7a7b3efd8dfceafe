"""Pictures are drawn, whole, and react to what they show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from speechemo_cli.errors import AccessError
from speechemo_cli.evaluation import plots
from speechemo_cli.plotting import drawable


@pytest.mark.parametrize("label", ["\u5feb\u4e50", "$x$", "$\\\\frac$", "\u0915\u094d\u0937", "\U0001f600"])
def test_confusion_draws_labels_of_any_alphabet_without_a_word(
    label: str, recwarn: pytest.WarningsRecorder
) -> None:
    plots.confusion({f"v1: {label}": [[1, 0], [0, 1]]}, (label, "sad"), Path("matrix.png"))

    assert imread("matrix.png").std() > 0.05
    assert list(recwarn) == []


def test_drawable_escapes_what_no_font_has_and_nothing_else() -> None:
    assert drawable("J\u00fcrgen \u03b1\U000f0000\n") == "J\u00fcrgen \u03b1\\U000f0000\\n"


def history(epochs: int, *sets: str) -> dict[str, list[float]]:
    values = np.linspace(0.2, 0.9, epochs).tolist()
    return {f"{name}_{metric}": values for name in sets for metric in ("accuracy", "loss")}


def test_learning_curve_has_a_line_for_each_watched_set() -> None:
    plots.learning_curve(history(10, "train"), "v1", Path("one.png"))
    plots.learning_curve(history(10, "train", "new"), "v1", Path("two.png"))

    picture = imread("two.png")
    assert picture.shape[0] > 400
    assert picture.shape[1] > 1000
    assert picture[..., :3].std() > 0.05
    assert not np.array_equal(imread("one.png"), picture)


def test_confusion_shades_the_diagonal_of_a_good_matrix_and_stands_groups_side_by_side() -> None:
    good, bad = np.eye(3, dtype=int) * 9, 9 - np.eye(3, dtype=int) * 9
    plots.confusion({"good": good.tolist()}, ("a", "b", "c"), Path("good.png"))
    plots.confusion({"good": good.tolist(), "bad": bad.tolist()}, ("a", "b", "c"), Path("both.png"))

    one, both = imread("good.png")[..., 0], imread("both.png")[..., 0]
    assert both.shape[1] == 2 * one.shape[1]
    # Three dark cells of nine against six half-dark ones.
    halves = np.split(both, 2, axis=1)
    assert halves[0].mean() != pytest.approx(halves[1].mean(), abs=1e-3)


def test_confusion_does_not_divide_by_zero_where_a_label_never_occurs() -> None:
    with np.errstate(all="raise"):
        plots.confusion({"half empty": [[3, 0], [0, 0]]}, ("a", "b"), Path("half.png"))

    assert Path("half.png").stat().st_size > 0


def test_reliability_diagram_shows_the_bins_and_gives_the_same_bytes_again() -> None:
    for name, right in (("good", 1.0), ("sure", 0.6), ("again", 0.6)):
        bins = [(share, right * share) for share in (0.3, 0.5, 0.7, 0.9)]
        plots.reliability_diagram(bins, "answers", Path(f"{name}.png"))

    good, sure = imread("good.png"), imread("sure.png")
    assert min(good.shape[:2]) > 300
    assert good.shape == sure.shape
    assert not np.array_equal(good, sure)
    assert Path("sure.png").read_bytes() == Path("again.png").read_bytes()


def test_learning_curve_raises_access_error_where_its_folder_cannot_be_made() -> None:
    Path("file").write_text("in the way")

    with pytest.raises(AccessError, match=r"cannot write file/curve\.png"):
        plots.learning_curve(history(3, "train"), "v1", Path("file/curve.png"))
