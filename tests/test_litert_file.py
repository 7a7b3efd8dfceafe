"""A LiteRT file answers as its model does, belongs to it and to no other, and is never half of itself."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Fitted, built, noisy

from speechemo_cli.cli import app
from speechemo_cli.errors import AccessError, ModelFileError
from speechemo_cli.inference.predictor import Predictor
from speechemo_cli.inference.runtime import choose
from speechemo_cli.models import VERSIONS, model_file, training

Model = Callable[[str], Path]


@pytest.fixture
def own(model_with_litert: Model) -> Path:
    """A v1 with its LiteRT file that a test may spoil."""
    for file in (model_with_litert("v1"), model_file.litert_path(model_with_litert("v1"))):
        shutil.copy(file, file.name)
    return Path("v1.keras")


def names(folder: str = ".") -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


# --- what it answers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_its_answers_are_those_of_the_model_file(
    version: str, model_with_litert: Model, rng: np.random.Generator
) -> None:
    path = model_with_litert(version)
    fast, slow = Predictor.open(path, runtime="litert"), Predictor.open(path, runtime="keras")
    clips = [
        (noisy(rng, seconds, sr, f0), sr)
        for seconds, sr, f0 in (
            *((0.2, fast.sr, 100), (0.37, fast.sr, 250), (1.0, fast.sr, 80), (9.1, fast.sr, 120)),
            *((0.9, 8000, 220), (2.25, 44100, 160), (1.7, 48000, 300)),
        )
    ]
    # Digital silence around the voice, a voice that stops at once, and nothing but noise.
    voice = noisy(rng, 1.0, fast.sr)
    clips.append((np.concatenate([np.zeros(fast.sr), voice, np.zeros(fast.sr // 2)]), fast.sr))
    clips.append((voice[: len(voice) // 2], fast.sr))
    clips.append((rng.standard_normal(fast.sr) * 0.1, fast.sr))

    received, expected = (
        np.array([list(predictor.predict_samples(y, sr).probabilities.values()) for y, sr in clips])
        for predictor in (fast, slow)
    )

    np.testing.assert_allclose(received, expected, atol=1e-4)
    # Answers that are all the same would say nothing.
    assert np.ptp(expected, axis=0).max() > 0.3


def test_its_distances_are_those_of_the_model_file(
    model_with_litert: Model, rng: np.random.Generator
) -> None:
    path = model_with_litert("v1")
    metadata = model_file.inspect(path)
    x = rng.normal(0, 50, (5, 40)).astype(np.float32)

    (_, received), (_, expected) = (choose(name, path, metadata)[0].answer(x) for name in ("litert", "keras"))

    np.testing.assert_allclose(received, expected, rtol=1e-4)
    assert received.shape == (5,)


# --- whose it is ---------------------------------------------------------------------------------------


def test_it_is_read_as_the_very_bytes_that_the_metadata_name(model_with_litert: Model) -> None:
    path = model_with_litert("v1")
    metadata = model_file.inspect(path)

    content = model_file.read_litert(path, metadata)

    assert content == path.with_suffix(".tflite").read_bytes()
    assert hashlib.sha256(content).hexdigest() == metadata.litert


def test_its_name_is_the_models_whatever_dots_are_in_it() -> None:
    assert model_file.litert_path(Path("models/v3.keras")) == Path("models/v3.tflite")
    assert model_file.litert_path(Path("my.best.v3.keras")) == Path("my.best.v3.tflite")


def change_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def cut_it(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def make_it_huge(file: Path) -> None:
    os.truncate(file, 2**40)  # a terabyte that takes no room on the disk, and must take none in memory


def make_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def make_a_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)  # nobody writes to it, so that waiting for it would be for ever


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (change_a_byte, r"the LiteRT file v1\.tflite does not belong to v1\.keras\. Train it again"),
        (Path.unlink, r"the LiteRT file v1\.tflite cannot be read: no such file or directory"),
        (cut_it, "does not belong to"),
        (make_it_huge, "does not belong to"),
        (make_a_folder, r"the LiteRT file v1\.tflite cannot be read: is a directory"),
        (make_a_fifo, r"the LiteRT file v1\.tflite cannot be read: not a regular file"),
        (lambda file: file.write_bytes(b""), "does not belong to"),
    ],
)
def test_a_litert_file_that_is_not_what_it_was_is_refused(
    own: Path, spoil: Callable[[Path], Any], reason: str
) -> None:
    spoil(model_file.litert_path(own))

    with pytest.raises(ModelFileError, match=reason):
        model_file.read_litert(own, model_file.inspect(own))


def test_the_litert_file_of_another_model_is_refused(own: Path, model_with_litert: Model) -> None:
    shutil.copy(model_file.litert_path(model_with_litert("v2")), model_file.litert_path(own))

    with pytest.raises(ModelFileError, match="does not belong to"):
        model_file.read_litert(own, model_file.inspect(own))


def test_a_model_that_was_saved_without_one_has_none_whatever_is_beside_it(own: Path) -> None:
    metadata = replace(model_file.inspect(own), litert=None)

    with pytest.raises(ModelFileError, match=r"v1\.keras has no LiteRT file\. Train it again"):
        model_file.read_litert(own, metadata)


# --- how it is written ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def network() -> Any:
    x = np.random.default_rng(0).normal(0, 50, (30, 40)).astype(np.float32)
    return training.with_distance(built("v1", x, 3))


@pytest.fixture
def export_as(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Have Keras export this, with talk on stderr, without the seconds it takes."""
    from speechemo_cli.models.keras_backend import load_keras

    def set_content(content: bytes) -> None:
        def export(_self: object, path: Path, **_: object) -> None:
            os.write(2, b"INFO: talk of a library\n")
            path.write_bytes(content)

        monkeypatch.setattr(load_keras().Model, "export", export)

    return set_content


def test_write_returns_the_hash_of_the_file_and_says_nothing(
    network: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    digest = model_file.write_litert(network, Path("new/v1.tflite"))

    assert digest == hashlib.sha256(Path("new/v1.tflite").read_bytes()).hexdigest()
    assert names("new") == ["v1.tflite"]
    assert capfd.readouterr() == ("", "")


def test_write_leaves_the_old_file_where_litert_does_not_take_the_new_one(
    network: Any, export_as: Callable[[bytes], None], capfd: pytest.CaptureFixture[str]
) -> None:
    export_as(b"no model at all")
    Path("new").mkdir()
    Path("new/v1.tflite").write_bytes(b"the old one")

    with pytest.raises(ModelFileError, match=r"cannot be converted to LiteRT: .*not a valid Flatbuffer"):
        model_file.write_litert(network, Path("new/v1.tflite"))

    assert Path("new/v1.tflite").read_bytes() == b"the old one"
    assert names("new") == ["v1.tflite"]
    assert capfd.readouterr() == ("", "")


def test_write_leaves_the_old_file_on_a_full_disk(
    own: Path, network: Any, export_as: Callable[[bytes], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = model_file.litert_path(own).read_bytes()
    export_as(before)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AccessError, match=r"cannot write v1\.tflite: no space left on device"):
        model_file.write_litert(network, model_file.litert_path(own))

    assert model_file.litert_path(own).read_bytes() == before
    assert names() == ["v1.keras", "v1.tflite"]


# --- `train` writes it ---------------------------------------------------------------------------------


@pytest.fixture
def train(
    write_clip: Callable[..., Path], capfd: pytest.CaptureFixture[str], fitted: list[Fitted]
) -> Callable[..., tuple[int, str]]:
    """Train a v1 on four clips: (exit code, stderr)."""
    for label in ("happy", "sad"):
        for i in range(2):
            write_clip(f"data/{label}/{i}.wav", seconds=0.4, f0=(200 if label == "happy" else 90) + i)

    def call(*more: str) -> tuple[int, str]:
        capfd.readouterr()
        code = app.run(["train", "--version", "v1", "--split", "none", "--jobs", "1", *more])
        return code, capfd.readouterr().err

    return call


def test_a_trained_model_has_a_litert_file_and_answers_with_it(train: Callable[..., tuple[int, str]]) -> None:
    code, err = train()

    assert code == 0, err
    assert "warning" not in err
    predictor = Predictor.open("models/v1.keras", runtime="litert")
    answers = list(predictor.predict(["data/happy/0.wav", "data/sad/0.wav"]))
    assert [answer.label for answer in answers] == ["happy", "sad"]  # type: ignore[union-attr]


def test_a_training_that_cannot_have_a_litert_file_keeps_its_model_and_says_so(
    train: Callable[..., tuple[int, str]], export_as: Callable[[bytes], None]
) -> None:
    Path("models").mkdir()
    Path("models/v1.tflite").write_bytes(b"of an earlier model")
    export_as(b"no model at all")

    code, err = train()

    assert code == 0, err
    (warning,) = (line for line in err.splitlines() if line.startswith("warning: "))
    assert warning.startswith("warning: the network cannot be converted to LiteRT: ")
    assert warning.endswith(". predict will run it with Keras, which takes longer to start")
    assert model_file.inspect("models/v1.keras").litert is None
    predictor = Predictor.open("models/v1.keras")
    assert (predictor.runtime, predictor.slow_because) == ("keras", "models/v1.keras has no LiteRT file")


def test_a_litert_file_that_cannot_be_written_costs_no_training(
    train: Callable[..., tuple[int, str]],
) -> None:
    Path("models/v1.tflite").mkdir(parents=True)

    code, err = train()

    assert code == 0, err
    assert "warning: cannot write models/v1.tflite: is a directory. predict will run it with Keras" in err
    assert model_file.inspect("models/v1.keras").labels == ("happy", "sad")
