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


def test_a_learning_curve_is_a_png_of_some_size() -> None:
    plots.learning_curve(history(10, "train", "seen", "new"), "v1", Path("curve.png"))

    picture = imread("curve.png")
    assert picture.shape[0] > 400
    assert picture.shape[1] > 1000
    assert picture[..., :3].std() > 0.05


def test_a_watched_set_adds_its_line() -> None:
    plots.learning_curve(history(10, "train"), "v1", Path("one.png"))
    plots.learning_curve(history(10, "train", "new"), "v1", Path("two.png"))

    assert not np.array_equal(imread("one.png"), imread("two.png"))


def test_the_diagonal_of_a_good_confusion_matrix_is_dark() -> None:
    good, bad = np.eye(3, dtype=int) * 9, 9 - np.eye(3, dtype=int) * 9
    plots.confusion({"good": good.tolist()}, ("a", "b", "c"), Path("good.png"))
    plots.confusion({"bad": bad.tolist()}, ("a", "b", "c"), Path("bad.png"))

    # Three dark cells of nine against six half-dark ones.
    assert imread("good.png")[..., 0].mean() != pytest.approx(imread("bad.png")[..., 0].mean(), abs=1e-3)


def test_confusion_matrices_of_two_groups_stand_side_by_side() -> None:
    matrix = [[3, 1], [0, 2]]
    plots.confusion({"one": matrix}, ("a", "b"), Path("one.png"))
    plots.confusion({"one": matrix, "other": matrix}, ("a", "b"), Path("two.png"))

    assert imread("two.png").shape[1] == 2 * imread("one.png").shape[1]


def test_labels_that_never_occur_do_not_divide_by_zero() -> None:
    with np.errstate(all="raise"):
        plots.confusion({"half empty": [[3, 0], [0, 0]]}, ("a", "b"), Path("half.png"))

    assert Path("half.png").stat().st_size > 0


def test_a_reliability_diagram_tells_a_sure_network_from_a_well_measured_one() -> None:
    for name, right in (("good", 1.0), ("sure", 0.6)):
        bins = [(share, right * share) for share in (0.3, 0.5, 0.7, 0.9)]
        plots.reliability_diagram(bins, "answers", Path(f"{name}.png"))

    good, sure = imread("good.png"), imread("sure.png")
    assert min(good.shape[:2]) > 300
    assert good.shape == sure.shape
    assert not np.array_equal(good, sure)


def test_the_same_reliability_gives_the_same_bytes() -> None:
    for name in ("one", "two"):
        plots.reliability_diagram([(0.4, 0.3), (0.9, 0.7)], "answers", Path(f"{name}.png"))

    assert Path("one.png").read_bytes() == Path("two.png").read_bytes()


def test_a_folder_that_cannot_be_made_is_an_access_error() -> None:
    Path("file").write_text("in the way")

    with pytest.raises(AccessError, match=r"cannot write file/curve\.png"):
        plots.learning_curve(history(3, "train"), "v1", Path("file/curve.png"))
