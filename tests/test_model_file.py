"""The model file and the LiteRT file beside it: what goes in comes out, whole or not at all.

What is refused in a model file is in test_hostile_files.py.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
from conftest import Fitted, built, touch

from speechemo_cli.cli import app
from speechemo_cli.config import Config
from speechemo_cli.errors import AccessError, ModelFileError
from speechemo_cli.features import FEATURE_SETS
from speechemo_cli.files import scratch_folder
from speechemo_cli.inference.predictor import Predictor
from speechemo_cli.inference.runtime import choose
from speechemo_cli.models import VERSIONS, load_keras, model_file, training, version_module
from speechemo_cli.models.metadata import ModelMetadata

LABELS = ("neutral", "happy", "angry")
Model = Callable[[str], Path]


def metadata(version: str = "v1", **changes: Any) -> ModelMetadata:
    features = FEATURE_SETS[version_module(version).PRESET.feature_set]
    values: dict[str, Any] = {
        "config": Config(seed=3).to_dict(),
        "seed": 3,
        "epochs": 50,
        "data": {"train": ["a" * 64], "speakers": ["01"]},
        "results": {"test": {}},
        "temperature": 1.75,
        "parameters": 1234,
    }
    return ModelMetadata(version, LABELS, features.name, features.version, **{**values, **changes})


def network_of(version: str) -> tuple[Any, np.ndarray]:
    """An untrained network, and clips to ask it about."""
    features = FEATURE_SETS[version_module(version).PRESET.feature_set]
    dim = features.dim(Config())
    x = np.random.default_rng(0).normal(100, 20, (30, dim)).astype(np.float32)
    return built(version, x, 3), x


@pytest.fixture(scope="module")
def network() -> Any:
    return network_of("v1")[0]


def full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def names() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


# --- what goes in comes out ---------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_load_answers_as_the_saved_network_and_so_does_keras(version: str) -> None:
    network, x = network_of(version)
    model_file.save(network, metadata(version), Path("m.keras"))

    loaded, loaded_metadata = model_file.load("m.keras")

    expected = training.predict(network, x)
    assert np.array_equal(training.predict(loaded, x), expected)
    assert loaded_metadata == metadata(version)
    opened = load_keras().saving.load_model("m.keras", compile=False)
    np.testing.assert_allclose(training.predict(opened, x), expected, atol=1e-6)
    assert not list(scratch_folder().rglob("*.h5"))


def test_load_takes_the_packaged_model() -> None:
    loaded, loaded_metadata = model_file.load(model_file.PACKAGED)

    assert loaded.output_shape == (None, len(loaded_metadata.labels))


def test_metadata_from_before_calibration_are_read(own: Path) -> None:
    older = hostile.with_document(
        lambda document: [document.pop(key) for key in ("temperature", "parameters")]
    )
    own.write_bytes(older(hostile.parts_of(own)))

    received = model_file.inspect(own)

    assert (received.temperature, received.parameters) == (None, 0)


def test_metadata_know_the_hash_that_stands_for_their_file(network: Any, own: Path) -> None:
    received = model_file.inspect(own)
    model_file.save(network, received, Path("again.keras"))
    text = hostile.parts_of(Path("again.keras"))["speechemo.json"]

    assert model_file.inspect("again.keras").sha256 == hashlib.sha256(text).hexdigest()
    assert b"sha256" not in text
    # A file does not say itself which hash it has.
    own.write_bytes(hostile.with_metadata(epochs=51, sha256="f" * 64)(hostile.parts_of(own)))
    assert model_file.inspect(own).sha256 not in (received.sha256, "", "f" * 64)
    assert model_file.read_metadata(own).sha256 == model_file.inspect(own).sha256


def test_inspect_refuses_flipped_bytes_or_they_are_harmless(own: Path) -> None:
    whole, refused = model_file.inspect(own), 0
    for damaged in hostile.flipped(own.read_bytes(), 60):
        own.write_bytes(damaged)
        try:
            assert model_file.inspect(own) == whole
        except ModelFileError:
            refused += 1
    # A zip archive has fields that nobody reads, so a few flips change nothing.
    assert refused > 50


def test_save_leaves_the_old_model_where_it_fails(
    network: Any, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = own.read_bytes()

    with pytest.raises(ModelFileError, match="the results of this training are not numbers"):
        model_file.save(network, metadata(results={"test": {}, "loss": float("nan")}), own)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AccessError, match=r"cannot write v1\.keras: no space left on device"):
        model_file.save(network, metadata(seed=9), own)

    assert own.read_bytes() == before
    assert names() == ["v1.keras", "v1.tflite"]


def test_find_takes_a_path_or_a_version_or_else_the_packaged_model() -> None:
    def found(*names: str | None) -> list[Path]:
        return [model_file.find(name, "models") for name in names]

    packaged = model_file.PACKAGED
    assert found("some/where.keras", "v2") == [Path("some/where.keras"), Path("models/v2.keras")]
    # It is a v3, and no v1 and no v2; an own v3 comes first.
    assert found("v3", "packaged", None) == [packaged] * 3
    touch("models", "v3.keras")
    assert found("v3", "packaged", None) == [Path("models/v3.keras"), packaged, packaged]
    assert model_file.litert_path(Path("models/my.v3.keras")) == Path("models/my.v3.tflite")
    assert model_file.shown(packaged) == "packaged"
    assert model_file.shown(Path("models/v3\n.keras")) == "models/v3\\n.keras"


# --- the LiteRT file ----------------------------------------------------------------------------------


# v2 is v1 with more layers.
@pytest.mark.parametrize("version", ["v1", pytest.param("v2", marks=pytest.mark.slow), "v3"])
def test_litert_file_gives_answers_and_distances_of_the_model_file(
    version: str, model_with_litert: Model, rng: np.random.Generator
) -> None:
    path = model_with_litert(version)
    about = model_file.inspect(path)
    network, _ = model_file.load(path)
    normalise = network.get_layer("normalise")
    deviations = 5 * rng.standard_normal((20, network.input_shape[1]))
    x = np.asarray(normalise.mean + normalise.variance**0.5 * deviations.astype(np.float32))

    received, expected = (choose(name, path, about)[0].answer(x) for name in ("litert", "keras"))

    np.testing.assert_allclose(received[0], expected[0], atol=1e-4)
    np.testing.assert_allclose(received[1], expected[1], rtol=1e-4)
    assert received[1].shape == (20,)
    # Answers that are all the same would say nothing.
    assert np.ptp(expected[0], axis=0).max() > 0.3


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (
            lambda file: file.write_bytes(next(hostile.flipped(file.read_bytes(), 1))),
            r"the LiteRT file v1\.tflite does not belong to v1\.keras\. Train it again",
        ),
        # A terabyte that takes no room on the disk, and must take none in memory.
        (lambda file: os.truncate(file, 2**40), "does not belong to"),
        (lambda file: file.write_bytes(b""), "does not belong to"),
        (Path.unlink, r"the LiteRT file v1\.tflite cannot be read: no such file or directory"),
        (lambda file: [file.unlink(), file.mkdir()], "cannot be read: is a directory"),
        # Nobody writes to it, so that waiting for it would be for ever.
        (lambda file: [file.unlink(), os.mkfifo(file)], "cannot be read: not a regular file"),
    ],
)
def test_read_litert_refuses_a_file_that_is_not_what_it_was(
    own: Path, spoil: Callable[[Path], Any], reason: str
) -> None:
    spoil(model_file.litert_path(own))

    with pytest.raises(ModelFileError, match=reason):
        model_file.read_litert(own, model_file.inspect(own))


@pytest.fixture
def export_as(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Have Keras export this, with talk on stderr, without the seconds it takes."""

    def set_content(content: bytes) -> None:
        def export(_self: object, path: Path, **_: object) -> None:
            os.write(2, b"INFO: talk of a library\n")
            path.write_bytes(content)

        monkeypatch.setattr(load_keras().Model, "export", export)

    return set_content


def test_write_litert_leaves_the_old_file_where_it_fails_and_says_nothing(
    own: Path,
    network: Any,
    export_as: Callable[[bytes], None],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = model_file.litert_path(own)
    before = path.read_bytes()

    export_as(b"no model at all")
    with pytest.raises(ModelFileError, match=r"cannot be converted to LiteRT: .*not a valid Flatbuffer"):
        model_file.write_litert(network, path)
    export_as(before)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AccessError, match=r"cannot write v1\.tflite: no space left on device"):
        model_file.write_litert(network, path)

    assert path.read_bytes() == before
    assert names() == ["v1.keras", "v1.tflite"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("beside", "can_be_run", "reason"),
    [
        (Path.touch, False, "the network cannot be converted to LiteRT: .+"),
        (Path.mkdir, True, r"cannot write models/v1\.tflite: is a directory"),
    ],
)
def test_train_keeps_a_model_that_cannot_have_a_litert_file_and_says_so(
    beside: Callable[[Path], None],
    can_be_run: bool,
    reason: str,
    own: Path,
    export_as: Callable[[bytes], None],
    write_clip: Callable[..., Path],
    capfd: pytest.CaptureFixture[str],
    fitted: list[Fitted],
) -> None:
    for label, f0 in (("happy", 200), ("sad", 90)):
        for i in range(2):
            write_clip(f"data/{label}/{i}.wav", seconds=0.4, f0=f0 + i)
    Path("models").mkdir()
    beside(Path("models/v1.tflite"))
    export_as(model_file.litert_path(own).read_bytes() if can_be_run else b"no model at all")

    code = app.run(["train", "--version", "v1", "--split", "none", "--jobs", "1"])

    err = capfd.readouterr().err
    assert code == 0, err
    (warning,) = (line for line in err.splitlines() if line.startswith("warning: "))
    assert re.fullmatch(
        rf"warning: {reason}\. predict will run it with Keras, which takes longer to start", warning
    )
    assert model_file.inspect("models/v1.keras").litert is None
    predictor = Predictor.open("models/v1.keras")
    assert (predictor.runtime, predictor.slow_because) == ("keras", "models/v1.keras has no LiteRT file")
