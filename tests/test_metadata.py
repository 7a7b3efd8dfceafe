"""No hostile or damaged model file gets as far as Keras, and every one is refused in one clear line."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest

from speechemo_cli.cli import app
from speechemo_cli.config import Config, LogmelConfig
from speechemo_cli.features import FEATURE_SETS
from speechemo_cli.models import (
    VERSIONS,
    model_file,
    preflight,
    preflight_network,
    preflight_shapes,
    preflight_weights,
    training,
    version_module,
)

LABELS = ("neutral", "happy", "angry")
HEAVY = ("keras", "tensorflow")


def made(version: str, path: Path) -> tuple[Any, np.ndarray]:
    """Save an untrained network of a version; return it, and clips to ask it about."""
    module, config = version_module(version), Config()
    features = FEATURE_SETS[module.PRESET.feature_set]
    dim, rng = features.dim(features.section(config)), np.random.default_rng(3)
    x = module.prepare([rng.normal(10, 3, (1, dim)).astype(np.float32) for _ in range(4)])
    network = module.build(x, len(LABELS), module.PRESET)
    card = model_file.ModelMetadata(
        version, LABELS, features.name, features.version, config.to_dict(), seed=0, epochs=1
    )
    model_file.save(network, card, path)
    return network, x


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A v1 of a few weights."""
    path = tmp_path_factory.mktemp("good") / "v1.keras"
    made("v1", path)
    return path


@pytest.fixture(scope="module")
def folder(good: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every hostile file."""
    folder = tmp_path_factory.mktemp("hostile")
    hostile.write_all(good, folder)
    hostile.write_odd_files(good, folder)
    return folder


def python(code: str, folder: Path) -> Any:
    """Run code in a folder and in a process of its own; return what it prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False, timeout=500
    )
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def refusals(folder: Path) -> dict[str, Any]:
    """Try to load every hostile file, all in one process: what was said, what was imported, what it took."""
    names = [*(f"{name}.keras" for name in hostile.CASES), *hostile.ODD_FILES]
    (folder / "names.json").write_text(json.dumps(names))
    return python(
        "import json, re, sys\n"
        "from pathlib import Path\n"
        "from speechemo_cli.errors import SpeechemoError\n"
        "from speechemo_cli.models import model_file\n"
        "def said(name):\n"
        "    try:\n"
        "        model_file.load(name)\n"
        "    except SpeechemoError as error:\n"
        "        return [int(error.exit_code), str(error)]\n"
        "    except BaseException as error:\n"
        "        return [1, repr(error)]\n"
        "    return [0, '']\n"
        "refusals = {name: said(name) for name in json.loads(Path('names.json').read_text())}\n"
        f"imported = [name for name in {HEAVY!r} if name in sys.modules]\n"
        # Of this process alone: getrusage would tell of its parent too, which holds TensorFlow.
        "peak_kib = int(re.search(r'VmHWM:\\s*(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        "print(json.dumps({'refusals': refusals, 'imported': imported, 'peak_kib': peak_kib}))\n",
        folder,
    )


# --- what is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", hostile.CASES)
def test_a_hostile_file_is_refused_for_what_is_hostile_in_it(name: str, refusals: dict[str, Any]) -> None:
    code, said = refusals["refusals"][f"{name}.keras"]

    assert code == 4, said
    assert re.match(rf"{name}\.keras .*{hostile.CASES[name][1]}", said), said
    assert "\n" not in said
    assert said.isprintable()
    assert len(said) < 400


@pytest.mark.parametrize("name", hostile.ODD_FILES)
def test_what_is_no_file_of_a_model_is_not_even_read(name: str, refusals: dict[str, Any]) -> None:
    code, said = refusals["refusals"][name]

    assert code == 4, said
    assert re.search(hostile.ODD_FILES[name], said), said
    assert said.isprintable()


def test_all_are_refused_before_keras_is_imported(refusals: dict[str, Any]) -> None:
    assert refusals["imported"] == []


def test_none_of_them_takes_much_memory(refusals: dict[str, Any]) -> None:
    # A terabyte of zeros, 64 MiB that hide in 64 KiB, and shapes of a trillion numbers are among them.
    assert refusals["peak_kib"] < 500 * 1024


def test_none_of_them_leaves_a_trace(folder: Path, refusals: dict[str, Any]) -> None:
    assert not list(folder.parent.rglob("owned"))


def test_the_commands_refuse_them_too(folder: Path, write_clip: Any) -> None:
    clip = write_clip("data/happy/a.wav")
    write_clip("data/sad/b.wav", f0=90)
    data = str(clip.parents[1])
    commands = [
        command
        for model in ("lambda.keras", "cut_at_50.keras", "fifo.keras", "external_link.keras")
        for command in (
            ["predict", str(clip), "--model", model, "--runtime", "keras"],
            ["model", "info", model],
            ["evaluate", data, "--model", model],
        )
    ]
    answers = python(
        "import contextlib, io, json, sys\n"
        "from speechemo_cli.cli.app import run\n"
        "answers = []\n"
        f"for command in {commands!r}:\n"
        "    out, err = io.StringIO(), io.StringIO()\n"
        "    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):\n"
        "        code = run(command)\n"
        "    answers.append([code, out.getvalue(), err.getvalue()])\n"
        f"print(json.dumps([answers, [name for name in {HEAVY!r} if name in sys.modules]]))\n",
        folder,
    )

    said, imported = answers
    assert imported == []
    for command, (code, out, err) in zip(commands, said, strict=True):
        assert (code, out) == (4, ""), (command, err)
        (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
        assert ".keras" in line


def test_what_a_file_says_does_not_paint_on_the_terminal(
    good: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    painted = hostile.with_card(data={"speakers": ["\x1b[31mred", "two\nlines"]})
    Path("m.keras").write_bytes(painted(hostile.parts_of(good)))

    assert app.run(["model", "info", "m.keras", "--format", "table"]) == 0

    shown = capfd.readouterr().out
    assert "2: \\x1b[31mred two\\nlines" in shown
    assert "\x1b" not in shown


# --- what passes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_passes_and_answers_as_before(version: str) -> None:
    network, x = made(version, Path("m.keras"))

    loaded, _ = model_file.load("m.keras")

    assert np.array_equal(training.predict(loaded, x), training.predict(network, x))


def test_the_packaged_model_passes() -> None:
    loaded, card = model_file.load(model_file.PACKAGED)

    assert loaded.output_shape == (None, len(card.labels))


# --- damage that comes with the right hashes -----------------------------------------------------------


def test_flipped_bytes_in_a_config_are_refused_or_harmless(good: Path) -> None:
    parts = hostile.parts_of(good)
    refused = 0
    for damaged in hostile.flipped(parts["config.json"], 200):
        try:
            preflight_network.check(preflight.parse(damaged, "config.json"), len(parts["model.weights.h5"]))
        except preflight.UnfitError:
            refused += 1
    assert refused > 100


def test_flipped_bytes_in_the_frame_of_the_weights_are_refused_or_harmless(good: Path) -> None:
    weights = hostile.parts_of(good)["model.weights.h5"]
    refused = 0
    # Superblock and groups come first, arrays last.
    for damaged in hostile.flipped(weights[:20_000], 200):
        try:
            preflight_weights.check(damaged + weights[20_000:])
        except preflight.UnfitError:
            refused += 1
    assert refused > 10


def test_a_number_of_weights_is_that_of_the_network(good: Path) -> None:
    network, _ = made("v2", Path("v2.keras"))
    config = json.loads(hostile.parts_of(Path("v2.keras"))["config.json"])
    # Keras counts a Normalization's count as one; it is as long as two.
    n = network.count_params() + 1

    assert preflight_network.check(config, 4 * n) == ((40,), 3)
    with pytest.raises(preflight.UnfitError, match=f"declares {n} weights, more than its {4 * n - 1} bytes"):
        preflight_network.check(config, 4 * n - 1)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_a_network_makes_of_a_clip_is_what_keras_makes_of_it(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, _ = made(version, Path("m.keras"))
    config = json.loads(hostile.parts_of(Path("m.keras"))["config.json"])
    steps = network.layers if version != "v3" else network.operations[1:]  # v3's input is one of them
    n = sum(math.prod(step.output.shape[1:]) for step in steps)
    monkeypatch.setattr(preflight_shapes, "_MAX_GROWTH", 0)

    monkeypatch.setattr(preflight_shapes, "_MAX_NUMBERS", n)
    assert preflight_network.check(config, 2**30) == (network.input_shape[1:], 3)
    monkeypatch.setattr(preflight_shapes, "_MAX_NUMBERS", n - 1)
    with pytest.raises(preflight.UnfitError, match=f"makes {n} numbers of one clip, at most {n - 1}"):
        preflight_network.check(config, 2**30)


def test_a_number_of_products_is_that_of_the_network(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = json.loads(hostile.parts_of(good)["config.json"])
    # Two convolutions, the pooling between them, and the answer.
    n = 40 * 5 * 1 * 64 + 10 * 4 * 64 + 10 * 5 * 64 * 128 + 1280 * 3

    monkeypatch.setattr(preflight_shapes, "_MAX_PRODUCTS", n)
    assert preflight_network.check(config, 2**30) == ((40,), 3)
    monkeypatch.setattr(preflight_shapes, "_MAX_PRODUCTS", n - 1)
    with pytest.raises(preflight.UnfitError, match=f"multiplies {n} times for one clip"):
        preflight_network.check(config, 2**30)


@pytest.mark.parametrize(
    "features",
    [
        *({"sr": sr} for sr in (4000, 48_000, 192_000)),
        {"n_fft": 8192, "hop_length": 128, "sr": 48_000},
        {"n_fft": 65536, "hop_length": 16384},
        {"n_mels": 512},
    ],
)
def test_unusual_features_are_no_attack(good: Path, features: dict[str, int]) -> None:
    Path("m.keras").write_bytes(hostile.with_features(**features)(hostile.parts_of(good)))

    assert model_file.inspect("m.keras").labels == LABELS


def test_the_largest_v3_there_is_passes() -> None:
    module, config = version_module("v3"), Config(logmel=LogmelConfig(n_mels=512, n_fft=1024))
    x = np.zeros((1, 224, 2048), np.float32)
    card = model_file.ModelMetadata("v3", LABELS, "logmel", 2, config.to_dict(), seed=0, epochs=1)
    model_file.save(module.build(x, len(LABELS), module.PRESET), card, Path("m.keras"))

    assert model_file.inspect("m.keras") == card
