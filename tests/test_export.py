"""An exported model answers as the model file does, says how to ask it, and appears whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from conftest import Run, built, harmonic

from speechemo_cli import export
from speechemo_cli.cli.export import ExportFormat
from speechemo_cli.config import Config, MfccConfig
from speechemo_cli.corpus.synthetic import synthesise, voice_of
from speechemo_cli.features import FEATURE_SETS
from speechemo_cli.models import model_file, training
from speechemo_cli.models.metadata import ModelMetadata

LABELS = ("neutral", "happy", "angry")


@pytest.fixture(scope="module")
def v1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network that is as sure of itself as a trained one."""
    network = built("v1", np.random.default_rng(0).normal(0, 50, (30, 13)).astype(np.float32), len(LABELS))
    training.divide_logits(network, 0.2)
    config = Config(mfcc=MfccConfig(n_mfcc=13, n_fft=1024)).to_dict()
    metadata = ModelMetadata("v1", LABELS, "mfcc", 1, config, seed=0, epochs=1, temperature=1.25)
    path = tmp_path_factory.mktemp("models") / "v1.keras"
    model_file.save(network, metadata, path)
    return path


loaded = cache(model_file.load)


def own_answer(model: Path, y: np.ndarray) -> np.ndarray:
    """What the model file says of a waveform: features, then Keras."""
    network, metadata = loaded(model)
    features = FEATURE_SETS[metadata.feature_set]
    x = features.compute(y, metadata.resolved_config(), "")
    return training.predict(network, x)[0]


def ask(description: Path, y: np.ndarray) -> np.ndarray:
    """Ask an exported model by nothing but what its JSON says."""
    document = json.loads(description.read_text())
    file, given, wanted = description.with_suffix(""), document["input"]["name"], document["output"]["name"]
    if document["format"] == "onnx":
        import onnxruntime

        return onnxruntime.InferenceSession(file).run([wanted], {given: y[None]})[0][0]
    if document["format"] == "litert":
        from ai_edge_litert.interpreter import Interpreter

        runner = Interpreter(file).get_signature_runner(document["signature"])
        return runner(**{given: y[None]})[wanted][0]
    import tensorflow as tf

    opened = tf.saved_model.load(file)
    return opened.signatures[document["signature"]](**{given: tf.constant(y[None])})[wanted].numpy()[0]


@pytest.mark.parametrize(
    ("format_", "name"),
    [
        ("litert", "v1.tflite"),
        ("onnx", "v1.onnx"),
        pytest.param("savedmodel", "v1-savedmodel", marks=pytest.mark.slow),
    ],
)
def test_export_answers_as_the_model(v1: Path, run: Run, format_: str, name: str) -> None:
    if format_ == "onnx":
        pytest.importorskip("tf2onnx")

    code, out, err = run("export", v1, "--format", format_)

    assert (code, out) == (0, f"{name}\n")
    assert len(err.splitlines()) == 2
    assert f"what goes in and comes out: {name}.json" in err
    assert sorted(path.name for path in Path.cwd().iterdir()) == sorted([name, f"{name}.json"])
    description = Path(f"{name}.json")
    document = json.loads(description.read_text())
    for vector in document["test_vectors"]:
        y = np.array(vector["samples"], np.float32) / vector["scale"]
        assert len(y) == vector["n"]
        assert vector["probabilities"] == pytest.approx(own_answer(v1, y), abs=1e-6)
        assert ask(description, y) == pytest.approx(vector["probabilities"], abs=document["tolerance"])
    for n in (document["input"]["shortest"], 2 * document["sample_rate"]):
        y = harmonic(n / document["sample_rate"], document["sample_rate"], f0=90.0)
        assert ask(description, y) == pytest.approx(own_answer(v1, y), abs=1e-3)
    for file in document["files"]:
        content = Path(file["name"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file["size_bytes"], file["sha256"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format_", "name", "largest_mb"),
    [("litert", "v3.tflite", 12), ("savedmodel", "v3", 85), ("onnx", "v3.onnx", 45)],
)
def test_export_of_the_packaged_model_answers_as_the_model(format_: str, name: str, largest_mb: int) -> None:
    if format_ == "onnx":
        pytest.importorskip("tf2onnx")
    rng = np.random.default_rng(1)
    voice = synthesise(voice_of(8, 0), "angry", 1, 2, rng)
    pause = (1e-4 * rng.standard_normal(16000)).astype(np.float32)
    long = np.concatenate([voice, pause, voice, pause, voice])
    assert len(long) > 7 * 16000

    done = export.write(model_file.PACKAGED, Path(name), format_)

    assert done.difference <= 0.05
    assert done.size_bytes < 1e6 * largest_mb
    description = Path(f"{name}.json")
    document = json.loads(description.read_text())
    assert [document["sample_rate"], document["input"]["shortest"]] == [16000, 201]
    assert document["tolerance"] == 0.05
    for y in (voice[8000:12800], voice[:32000], long):
        received = ask(description, y)
        assert received == pytest.approx(own_answer(model_file.PACKAGED, y), abs=0.05)
        assert received.sum() == pytest.approx(1, abs=1e-5)


# --- the JSON, and what is there afterwards: no format is converted for these ---------------------------


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict]:
    """Converters that take no time, and write what says who wrote it; `stub["off"]` makes them lie."""
    state: dict = {"off": 0.0}
    monkeypatch.setattr(model_file, "load", loaded)

    def convert(source: export.Source, path: Path) -> None:
        state["source"] = source
        path.write_text("new")

    def convert_folder(source: export.Source, path: Path) -> None:
        (path / "variables").mkdir(parents=True)
        convert(source, path / "saved_model.pb")

    def answers(_path: Path) -> export.Answer:
        return lambda waveform: state["source"].answer(waveform[0])[None] + np.float32(state["off"])

    for format_ in ExportFormat:
        own = convert_folder if format_ == "savedmodel" else convert
        stubbed = replace(export.FORMATS[format_], convert=own, open=answers)
        if format_ == "onnx":
            stubbed = replace(stubbed, packages=())  # they need not be installed
        monkeypatch.setitem(export.FORMATS, format_, stubbed)
    return state


def everything() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}


def test_description_tells_all_that_is_needed(v1: Path, stub: dict) -> None:
    export.write(v1, Path("v1.tflite"), "litert")

    text = Path("v1.tflite.json").read_text()
    document = json.loads(text)
    assert document["schema"] == 1
    assert document["labels"] == list(LABELS)
    assert document["sample_rate"] == document["features"]["sr"] == 22050
    assert document["input"] == {
        "name": "waveform",
        "shape": [1, None],
        "dtype": "float32",
        "range": "mono, full scale at 1.0",
        "shortest": 513,
    }
    assert document["output"]["shape"] == [1, 3]
    assert document["calibration"] == {"temperature": 1.25, "included": True}
    assert (document["features"]["set"], document["features"]["n_mfcc"]) == ("mfcc", 13)
    assert document["source"]["model"] == "v1.keras"
    assert document["source"]["sha256"] == hashlib.sha256(v1.read_bytes()).hexdigest()
    assert {"speechemo", "keras", "tensorflow", "ai-edge-litert"} <= document["versions"].keys()
    assert len(text.splitlines()) < 150  # lists of numbers stand on one line


def test_signals_are_what_their_formulas_say() -> None:
    voice, glide, noise = (samples for _, samples in export.signals(16000).values())

    i = np.arange(8000)
    buzz = sum(np.sin(2 * np.pi * 140 * k * i / 16000) / k for k in range(1, 6))
    expected = 32768 * 0.25 * np.sin(np.pi * i / 8000) * buzz + noise[:8000] / 1000
    assert np.abs(voice - expected).max() <= 0.51
    assert len(glide) == 11200
    assert not np.r_[glide[:2240], glide[-2240:]].any()
    assert np.abs(glide).max() == pytest.approx(0.3 * 32768, abs=2)
    first = (1103515245 + 12345) % 2**31
    assert noise[0] == first // 65536 - 16384
    assert noise[1] == (1103515245 * first + 12345) % 2**31 // 65536 - 16384
    assert abs(noise.mean()) < 300


@pytest.mark.parametrize(
    ("format_", "name", "off"), [("onnx", "m.onnx", 0.002), ("savedmodel", "m", float("nan"))]
)
def test_export_that_answers_otherwise_does_not_appear(
    v1: Path, run: Run, stub: dict, format_: str, name: str, off: float
) -> None:
    assert run("export", v1, "--format", format_, "-o", name)[0] == 0
    before = everything()

    stub["off"] = off
    code, out, err = run("export", v1, "--format", format_, "-o", name)

    assert (code, out) == (4, "")
    assert f"error: what was exported to {format_} does not answer as {v1}" in err
    assert everything() == before


def test_export_to_a_full_disk_leaves_what_was_there(
    v1: Path, run: Run, stub: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("export", v1, "--format", "savedmodel", "-o", "m")[0] == 0
    before = everything()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, _, err = run("export", v1, "--format", "savedmodel", "-o", "m")

    assert code == 5
    assert "cannot write m: no space left on device" in err
    assert everything() == before


def test_export_leaves_a_folder_with_anything_else_in_it(v1: Path, run: Run) -> None:
    Path("mine").mkdir()
    for name in ("notes.txt", "saved_model.pb"):
        (Path("mine") / name).touch()

        code, _, err = run("export", v1, "--format", "savedmodel", "-o", "mine")

        assert code == 2
        assert "error: mine is a folder with other things in it, and stays. Name a new one" in err
    assert sorted(everything()) == ["mine/notes.txt", "mine/saved_model.pb"]


def test_export_names_the_command_that_brings_a_missing_package(
    v1: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)

    code, out, err = run("export", v1, "--format", "onnx")

    assert (code, out) == (2, "")
    assert err == "error: onnx needs the package tf2onnx. Run: pip install 'speechemo[onnx]'\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere.keras"], 4, "error: nowhere.keras: no such model file"),
        (["v1"], 4, "error: models/v1.keras: no such model file"),
        (["MODEL", "-f", "pb"], 2, "error: Invalid value for '--format' / '-f': 'pb' is not one of"),
        (["MODEL", "-o", "m.bin"], 2, "error: --output is m.bin, expected a name that ends in .tflite"),
        (["MODEL", "-f", "litert", "-o", "m.onnx"], 2, "expected a name that ends in .tflite"),
        (["MODEL", "-f", "savedmodel", "-o", "m.onnx"], 2, "m.onnx, expected the name of a folder"),
        (["MODEL", "-f", "savedmodel", "-o", "file"], 2, "file is a file, expected the name of a folder"),
        (["MODEL", "-f", "savedmodel", "-o", "."], 2, ". names nothing to write"),
        (["MODEL", "-f", "savedmodel", "-o", ".."], 2, ".. names nothing to write"),
        (["MODEL", "-o", "folder.tflite"], 2, "--output is folder.tflite, which is a folder"),
        (["MODEL", "-o", "file/m.tflite"], 5, "error: cannot write to file: file exists"),
    ],
)
def test_export_refuses_nonsense_before_the_work(
    v1: Path, run: Run, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.setattr(model_file, "load", lambda _: pytest.fail("the network was loaded"))
    Path("file").touch()
    Path("folder.tflite").mkdir()

    received, out, err = run("export", *(str(v1) if one == "MODEL" else one for one in arguments))

    assert (received, out) == (code, "")
    assert message in err
    assert len(err.splitlines()) == 1
