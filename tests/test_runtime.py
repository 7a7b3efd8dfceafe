"""The fast runtime is taken where it can be, says why where it cannot, and answers the same in any order."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
from conftest import COMMAND

from speechemo_cli.errors import ModelFileError
from speechemo_cli.inference.runtime import LiteRtRuntime, Runtime, choose
from speechemo_cli.litert import LiteRtModel
from speechemo_cli.models import model_file, training

Model = Callable[[str], Path]


def litert_of(path: Path) -> LiteRtRuntime:
    """A fresh interpreter."""
    return LiteRtRuntime(path, model_file.inspect(path))


def features_of(rng: np.random.Generator, n: int) -> np.ndarray:
    """Features of clips of which no two are answered alike."""
    return rng.normal(0, 60, (n, 40)).astype(np.float32)


# --- which one -----------------------------------------------------------------------------------------


def test_choose_takes_the_litert_file_where_there_is_one_and_keras_is_not_asked_for(own: Path) -> None:
    metadata = model_file.inspect(own)

    for wanted, name in (("auto", "litert"), ("litert", "litert"), ("keras", "keras")):
        runtime, reason = choose(wanted, own, metadata)
        assert (runtime.name, reason) == (name, "")
    # A model that was saved without one has none, whatever is beside it.
    without = replace(metadata, litert=None)
    assert choose("keras", own, without)[1] == ""
    with pytest.raises(ModelFileError, match=r"v1\.keras has no LiteRT file\. Train it again"):
        choose("litert", own, without)


@pytest.mark.parametrize(
    "content", [b"", b"no model at all", bytes(5000), b"\x1c\0\0\0TFL3" + bytes(5000), None]
)
def test_choose_takes_keras_or_refuses_in_one_line_where_litert_refuses_the_file(
    content: bytes | None, own: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = model_file.litert_path(own)
    if content is None:  # half of a good one
        content = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(content)
    metadata = replace(model_file.inspect(own), litert=hashlib.sha256(content).hexdigest())

    with pytest.raises(ModelFileError, match=r"^LiteRT refuses the LiteRT file of v1\.keras: .+$") as refused:
        choose("litert", own, metadata)
    runtime, why = choose("auto", own, metadata)

    assert "\n" not in str(refused.value)
    assert (runtime.name, why) == ("keras", refused.value.message)
    assert capfd.readouterr() == ("", "")


def test_choose_takes_keras_where_litert_is_not_installed_and_says_so(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)

    runtime, reason = choose("auto", own, model_file.inspect(own))

    assert (runtime.name, reason) == ("keras", "the package ai-edge-litert is missing")
    with pytest.raises(ModelFileError, match=r"ai-edge-litert is missing\. Install it, or take --runtime k"):
        choose("litert", own, model_file.inspect(own))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"labels": ("a", "b", "c")}, "([(1, 40)], [(1, 3), (1, 1)])"),
        ({"config": {"mfcc": {"n_mfcc": 39}}}, "([(1, 39)], [(1, 8), (1, 1)])"),
    ],
)
def test_litert_file_of_other_shapes_is_refused(own: Path, changes: Any, expected: str) -> None:
    with pytest.raises(ModelFileError) as refused:
        LiteRtRuntime(own, replace(model_file.inspect(own), **changes))

    assert str(refused.value) == (
        "the LiteRT file of v1.keras has inputs and outputs ([(1, 40)], [(1, 8), (1, 1)]), "
        f"expected {expected}"
    )


@pytest.mark.parametrize("wanted", ["auto", "keras"])
def test_choose_refuses_a_file_that_is_replaced_while_it_is_read(own: Path, wanted: str) -> None:
    metadata = model_file.read_metadata(own)
    own.write_bytes(hostile.with_metadata(labels=[f"other {i}" for i in range(8)])(hostile.parts_of(own)))
    model_file.litert_path(own).write_bytes(b"the LiteRT file of the other")

    with pytest.raises(ModelFileError, match=r"v1\.keras was replaced while it was read\. Run it again"):
        choose(wanted, own, metadata)


# --- what it answers, and what that costs --------------------------------------------------------------


def test_keras_answers_with_what_was_checked_whatever_happens_to_the_file_before_the_first_clip(
    own: Path, rng: np.random.Generator
) -> None:
    features = features_of(rng, 3)
    runtime, untouched = (choose("keras", own, model_file.inspect(own))[0] for _ in range(2))
    expected = untouched.answer(features)

    own.write_bytes(b"another model")

    for received, before in zip(runtime.answer(features), expected, strict=True):
        assert np.array_equal(received, before)


def test_predict_shows_nothing_of_litert(write_clip: Callable[..., Path]) -> None:
    command = [*COMMAND, "predict", str(write_clip()), "--runtime", "litert", "--quiet"]

    done = subprocess.run(command, capture_output=True, check=False)

    assert (done.returncode, done.stderr) == (0, b"")


# --- what it refuses -----------------------------------------------------------------------------------


class Network:
    """Stands for a network that Keras has loaded; it answers as it is told to."""

    def __init__(self, rows: object) -> None:
        self.rows = rows

    def __call__(self, x: np.ndarray, training: bool) -> list[np.ndarray]:
        if isinstance(self.rows, Exception):
            raise self.rows
        return [np.array(self.rows, np.float32), np.zeros((len(x), 1), np.float32)]


def keras_runtime(path: Path, monkeypatch: pytest.MonkeyPatch, rows: object) -> Runtime:
    monkeypatch.setattr(model_file.Checked, "load", lambda _self: Network(rows))
    monkeypatch.setattr(training, "with_distance", lambda network: network)
    return choose("keras", path, model_file.inspect(path))[0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("runtime", ["litert", "keras"])
@pytest.mark.parametrize(
    "row",
    [
        [float("nan")] * 8,
        [float("inf")] + [0.0] * 7,
        [float("-inf"), float("inf")] + [0.0] * 6,
        [3e38] * 8,
        [2.0, -1.0] + [0.0] * 6,
        [0.2] * 8,
        [0.0] * 8,
    ],
)
def test_answer_that_is_no_probabilities_is_refused(
    model_with_litert: Model, monkeypatch: pytest.MonkeyPatch, row: list[float], runtime: str
) -> None:
    path, rows = model_with_litert("v1"), [[0.125] * 8, row]
    if runtime == "keras":
        opened = keras_runtime(path, monkeypatch, rows)
    else:
        outputs = iter(np.array(rows, np.float32)[:, None])
        opened = litert_of(path)
        monkeypatch.setattr(LiteRtModel, "run", lambda *_: (next(outputs), np.zeros((1, 1), np.float32)))

    with pytest.raises(ModelFileError, match=r"v1\.keras does not answer with probabilities"):
        opened.answer(np.zeros((2, 40), np.float32))


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            type("ResourceExhaustedError", (Exception,), {})("OOM\nwhen allocating"),
            "Keras: it takes more memory",
        ),
        (MemoryError(), r"v1\.keras cannot be run by Keras: it takes more memory than there is"),
        (ValueError("shapes do\nnot fit"), "Keras: shapes do not fit"),
        (None, r"^LiteRT cannot run the LiteRT file of .*v1\.keras: .+"),
    ],
)
def test_network_that_cannot_be_run_is_refused_in_one_line(
    model_with_litert: Model, monkeypatch: pytest.MonkeyPatch, error: Exception | None, reason: str
) -> None:
    path = model_with_litert("v1")
    runtime, dim = (keras_runtime(path, monkeypatch, error), 40) if error else (litert_of(path), 39)

    with pytest.raises(ModelFileError, match=reason) as refused:
        runtime.answer(np.zeros((1, dim), np.float32))

    assert str(refused.value).isprintable()
