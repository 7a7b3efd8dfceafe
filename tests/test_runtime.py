"""The fast runtime is taken where it can be, says why where it cannot, and answers with probabilities."""

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
from speechemo_cli.models import model_file, training

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
    features = rng.normal(0, 60, (3, 40)).astype(np.float32)
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


class Told(Runtime):
    """Answers as it is told to."""

    source = "v1.keras"

    def __init__(self, rows: list[list[float]]) -> None:
        self.rows = np.array(rows, np.float32)

    def _run(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.rows, np.zeros((len(features), 1), np.float32)


@pytest.mark.filterwarnings("error")
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
def test_answer_that_is_no_probabilities_is_refused(row: list[float]) -> None:
    with pytest.raises(ModelFileError, match=r"^v1\.keras does not answer with probabilities"):
        Told([[0.125] * 8, row]).answer(np.zeros((2, 40), np.float32))


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ("litert", r"^LiteRT cannot run the LiteRT file of v1\.keras: .+"),
        ("keras", r"^v1\.keras cannot be run by Keras: .+"),
    ],
)
def test_network_that_cannot_be_run_is_refused_in_one_line(wanted: str, reason: str, own: Path) -> None:
    runtime, _ = choose(wanted, own, model_file.inspect(own))

    with pytest.raises(ModelFileError, match=reason) as refused:
        runtime.answer(np.zeros((1, 39), np.float32))

    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "error",
    [type("ResourceExhaustedError", (Exception,), {})("OOM\nwhen allocating"), MemoryError()],
)
def test_network_that_takes_too_much_memory_is_refused_for_that(
    error: Exception, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def predict(*_: object) -> None:
        raise error

    monkeypatch.setattr(training, "predict", predict)
    runtime, _ = choose("keras", own, model_file.inspect(own))

    with pytest.raises(ModelFileError, match="cannot be run by Keras: it takes more memory than there is"):
        runtime.answer(np.zeros((1, 40), np.float32))
