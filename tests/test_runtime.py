"""The fast runtime is taken where it can be, says why where it cannot, and answers the same in any order."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import hostile
import numpy as np
import pytest
from conftest import noisy

from speechemo_cli.config import Config
from speechemo_cli.errors import ModelFileError
from speechemo_cli.inference.runtime import LiteRuntime, Runtime, choose
from speechemo_cli.models import model_file, twin

Model = Callable[[str], Path]
HEAVY = ("tensorflow", "keras", "librosa", "numba", "scipy", "sklearn", "joblib", "matplotlib")


@pytest.fixture
def own(model_with_litert: Model) -> Path:
    """A v1 with its twin that a test may spoil."""
    for file in (model_with_litert("v1"), twin.beside(model_with_litert("v1"))):
        shutil.copy(file, file.name)
    return Path("v1.keras")


def opened(path: Path) -> LiteRuntime:
    """A fresh interpreter."""
    return LiteRuntime(twin.beside(path).read_bytes(), path.name, 8)


# --- which one -----------------------------------------------------------------------------------------


def test_auto_takes_the_twin_and_has_nothing_to_say(own: Path) -> None:
    runtime, reason = choose("auto", own, model_file.inspect(own), Config())

    assert (runtime.name, reason) == ("litert", "")


def test_auto_falls_back_and_says_why(own: Path) -> None:
    twin.beside(own).unlink()

    runtime, reason = choose("auto", own, model_file.inspect(own), Config())

    assert runtime.name == "keras"
    assert reason == "the LiteRT twin v1.tflite cannot be read: no such file or directory"


def test_who_asks_for_litert_gets_it_or_an_error(own: Path) -> None:
    assert choose("litert", own, model_file.inspect(own), Config())[0].name == "litert"

    twin.beside(own).write_bytes(b"of another model")

    with pytest.raises(ModelFileError, match=r"v1\.tflite does not belong to v1\.keras\. Train it again"):
        choose("litert", own, model_file.inspect(own), Config())


def test_keras_asks_for_no_twin(own: Path) -> None:
    twin.beside(own).unlink()

    runtime, reason = choose("keras", own, replace(model_file.inspect(own), twin=None), Config())

    assert (runtime.name, reason) == ("keras", "")


def test_where_litert_is_not_installed_keras_answers_and_it_is_said(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)

    runtime, reason = choose("auto", own, model_file.inspect(own), Config())

    assert (runtime.name, reason) == ("keras", "the package ai-edge-litert is missing")
    with pytest.raises(ModelFileError, match=r"ai-edge-litert is missing\. Install it, or take --runtime k"):
        choose("litert", own, model_file.inspect(own), Config())


@pytest.mark.parametrize(
    "content", [b"", b"no twin at all", bytes(5000), b"\x1c\0\0\0TFL3" + bytes(5000), None]
)
def test_a_twin_of_rubbish_that_the_metadata_do_name_is_refused_in_one_line(
    own: Path, content: bytes | None, capfd: pytest.CaptureFixture[str]
) -> None:
    if content is None:
        whole = twin.beside(own).read_bytes()
        content = whole[: len(whole) // 2]
    twin.beside(own).write_bytes(content)
    metadata = replace(model_file.inspect(own), twin=hashlib.sha256(content).hexdigest())

    with pytest.raises(ModelFileError, match=r"^LiteRT refuses the twin of v1\.keras: .+") as refused:
        choose("litert", own, metadata, Config())
    runtime, reason = choose("auto", own, metadata, Config())

    assert "\n" not in str(refused.value)
    assert (runtime.name, reason) == ("keras", refused.value.message)
    assert capfd.readouterr() == ("", "")


def test_a_twin_with_other_labels_is_refused(own: Path) -> None:
    runtime = LiteRuntime(twin.beside(own).read_bytes(), "v1.keras", 3)

    with pytest.raises(ModelFileError, match=r"the LiteRT twin of v1\.keras has 8 outputs, expected 3"):
        runtime.listen(np.ones(22050, np.float32))


# --- what it answers -----------------------------------------------------------------------------------


def test_no_clip_leaves_a_trace_in_the_answer_for_the_next(
    model_with_litert: Model, rng: np.random.Generator
) -> None:
    path, sr = model_with_litert("v1"), 22050
    seconds = [0.2, 3.0, 0.21, 1.0, 1.0, 9.0, 0.2, 2**16 / sr]  # the last is what was planned for at first
    clips = [noisy(rng, s, sr, 90 + 30 * i) for i, s in enumerate(seconds)]
    expected = [opened(path).listen(y) for y in clips]

    one = opened(path)
    for order in (range(len(clips)), reversed(range(len(clips))), rng.permutation(len(clips))):
        for i in order:
            assert np.array_equal(one.listen(clips[i]), expected[i])

    assert np.ptp(expected, axis=0).max() > 0.1


def test_threads_answer_as_one_does(model_with_litert: Model, rng: np.random.Generator) -> None:
    runtime = opened(model_with_litert("v1"))
    clips = [noisy(rng, rng.uniform(0.2, 2.0), 22050, rng.uniform(80, 300)) for _ in range(48)]
    expected = [runtime.listen(y) for y in clips]

    with ThreadPoolExecutor(6) as pool:
        received = list(pool.map(runtime.listen, clips))

    assert np.array_equal(received, expected)
    assert np.array_equal(runtime.answer(received), np.array(expected))


# --- what it costs -------------------------------------------------------------------------------------


def test_an_answer_imports_nothing_heavy_and_nothing_of_litert_is_seen(
    model_with_litert: Model, write_clip: Callable[..., Path]
) -> None:
    clips = [str(write_clip(f"{i}.wav", seconds=0.5 + i, sr=44100)) for i in range(3)]
    arguments = ["predict", *clips, "--model", str(model_with_litert("v1")), "--runtime", "litert", "--quiet"]
    code = (
        "import sys; from speechemo_cli.cli.app import run\n"
        f"code = run({arguments!r})\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], code)\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    *records, last = done.stdout.splitlines()
    assert last == "[] 0"
    assert [json.loads(line)["path"] for line in records] == clips
    assert done.stderr == ""


# --- what it refuses -----------------------------------------------------------------------------------


class Network:
    """Stands for a network that Keras has loaded; it answers as it is told to."""

    def __init__(self, rows: object) -> None:
        self.rows = rows

    def __call__(self, _x: object, training: bool) -> np.ndarray:
        if isinstance(self.rows, Exception):
            raise self.rows
        return np.array(self.rows, np.float32)


def keras_runtime(path: Path, monkeypatch: pytest.MonkeyPatch, rows: object) -> Runtime:
    monkeypatch.setattr(model_file.Checked, "load", lambda _self: Network(rows))
    return choose("keras", path, model_file.inspect(path), Config())[0]


NO_PROBABILITIES = [
    [float("nan")] * 8,
    [float("inf")] + [0.0] * 7,
    [float("-inf"), float("inf")] + [0.0] * 6,
    [3e38] * 8,
    [2.0, -1.0] + [0.0] * 6,
    [0.2] * 8,
    [0.0] * 8,
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("row", NO_PROBABILITIES)
def test_an_answer_that_is_no_probabilities_is_refused(
    model_with_litert: Model, monkeypatch: pytest.MonkeyPatch, row: list[float]
) -> None:
    path = model_with_litert("v1")
    right = [0.125] * 8
    slow, fast = keras_runtime(path, monkeypatch, [right, row]), opened(path)

    for answer in (
        lambda: slow.answer([np.zeros((1, 40), np.float32)] * 2),
        lambda: fast.answer([np.array(one, np.float32) for one in (right, row)]),
    ):
        with pytest.raises(ModelFileError, match=r"v1\.keras does not answer with probabilities"):
            answer()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (type("ResourceExhaustedError", (Exception,), {})("OOM\nwhen allocating"), "takes more memory than"),
        (MemoryError(), "it takes more memory than there is"),
        (ValueError("shapes do\nnot fit"), "shapes do not fit"),
    ],
)
def test_a_network_that_cannot_be_run_is_refused_in_one_line(
    model_with_litert: Model, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    runtime = keras_runtime(model_with_litert("v1"), monkeypatch, error)

    with pytest.raises(ModelFileError, match=rf"v1\.keras cannot be run by Keras: .*{reason}") as refused:
        runtime.answer([np.zeros((1, 40), np.float32)])

    assert str(refused.value).isprintable()


def test_a_twin_that_cannot_be_run_is_refused_in_one_line() -> None:
    runtime = opened(model_file.PACKAGED)

    with pytest.raises(ModelFileError, match=r"LiteRT cannot run the twin of packaged\.keras: .+") as refused:
        runtime.listen(np.ones(1, np.float32))  # cannot be mirrored at its ends

    assert str(refused.value).isprintable()


# --- what it answers with where the file changes ---------------------------------------------------------


def relabelled(path: Path, labels: list[str]) -> None:
    """Exchange the metadata of a model file."""
    path.write_bytes(hostile.with_metadata(labels=labels)(hostile.parts_of(path)))


def test_what_was_checked_answers_whatever_happens_to_the_file_before_the_first_clip(
    own: Path, rng: np.random.Generator
) -> None:
    y = noisy(rng, 1.0, 22050)
    runtime, untouched = (choose("keras", own, model_file.inspect(own), Config())[0] for _ in range(2))
    expected = untouched.answer([untouched.listen(y)])

    own.write_bytes(b"another model")

    assert np.array_equal(runtime.answer([runtime.listen(y)]), expected)


@pytest.mark.parametrize("wanted", ["auto", "keras"])
def test_a_file_that_is_replaced_while_it_is_read_is_refused(own: Path, wanted: str) -> None:
    metadata = model_file.read_metadata(own)
    relabelled(own, [f"other {i}" for i in range(8)])
    twin.beside(own).write_bytes(b"the twin of the other")

    with pytest.raises(ModelFileError, match=r"v1\.keras was replaced while it was read\. Run it again"):
        choose(wanted, own, metadata, Config())
