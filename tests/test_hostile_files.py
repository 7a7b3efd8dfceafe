"""Hostile and damaged model files are refused in one clear line, before Keras is there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
from conftest import built

from speechemo_cli.cli import app
from speechemo_cli.config import Config
from speechemo_cli.errors import ModelFileError
from speechemo_cli.features import FEATURE_SETS
from speechemo_cli.models import VERSIONS, archive, model_file, training, version_module
from speechemo_cli.models.keras_backend import load_keras
from speechemo_cli.models.metadata import ModelMetadata

LABELS = ("neutral", "happy", "angry")
HEAVY = ("keras", "tensorflow")


def made(version: str, path: Path) -> tuple[Any, np.ndarray]:
    """Save an untrained network of a version; return it, and clips to ask it about."""
    module, config = version_module(version), Config()
    features = FEATURE_SETS[module.PRESET.feature_set]
    dim, rng = features.dim(features.section(config)), np.random.default_rng(3)
    x = rng.normal(10, 3, (4, dim)).astype(np.float32)
    network = built(version, x, len(LABELS))
    metadata = ModelMetadata(
        version, LABELS, features.name, features.version, config.to_dict(), seed=0, epochs=1
    )
    model_file.save(network, metadata, path)
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
        for model in ("labels_as_text.keras", "cut_at_50.keras", "fifo.keras", "external_link.keras")
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
    painted = hostile.with_metadata(data={"speakers": ["\x1b[31mred", "two\nlines"]})
    Path("m.keras").write_bytes(painted(hostile.parts_of(good)))

    assert app.run(["model", "info", "m.keras", "--format", "table"]) == 0

    shown = capfd.readouterr().out
    assert "2: \\x1b[31mred two\\nlines" in shown
    assert "\x1b" not in shown


# --- what passes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_load_answers_as_the_saved_network(version: str) -> None:
    network, x = made(version, Path("m.keras"))

    loaded, _ = model_file.load("m.keras")

    assert np.array_equal(training.predict(loaded, x), training.predict(network, x))


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_keras_itself_opens_a_model_file(version: str) -> None:
    network, x = made(version, Path("m.keras"))

    opened = load_keras().saving.load_model("m.keras", compile=False)

    np.testing.assert_allclose(training.predict(opened, x), training.predict(network, x), atol=1e-6)


def test_load_ignores_what_the_config_says(good: Path) -> None:
    keras = load_keras()
    parts, x = hostile.parts_of(good), np.ones((2, 40), np.float32)
    # What comes to a layer of code is run when the layer is made.
    code = keras.layers.Lambda(lambda x: [x, __import__("pathlib").Path("owned").touch()][0])
    config = keras.saving.serialize_keras_object(keras.Sequential([keras.Input((40,)), code]))
    Path("owned").unlink()
    layers = [{"module": "os", "class_name": "system", "config": {"command": "touch owned"}}]
    expected = training.predict(model_file.load(good)[0], x)
    for content in (config, {**config, "config": {"layers": layers}}, []):
        Path("m.keras").write_bytes(hostile.packed({**parts, "config.json": json.dumps(content).encode()}))

        assert np.array_equal(training.predict(model_file.load("m.keras")[0], x), expected)
        assert not Path("owned").exists()


@pytest.mark.parametrize("name", hostile.UNLIKE)
def test_load_refuses_weights_of_another_network(name: str, good: Path) -> None:
    make, reason = hostile.UNLIKE[name]
    Path("m.keras").write_bytes(make(hostile.parts_of(good)))

    with pytest.raises(ModelFileError, match=rf"m\.keras has other weights than its network: {reason}"):
        model_file.load("m.keras")


def test_load_refuses_weights_without_a_word_of_keras(good: Path, tmp_path: Path) -> None:
    make, reason = hostile.UNLIKE["extra"]
    (tmp_path / "m.keras").write_bytes(make(hostile.parts_of(good)))

    # Fails if anything is written to stderr, as TensorFlow does when it is imported.
    code, said = python(
        "import json\n"
        "from speechemo_cli.errors import ModelFileError\n"
        "from speechemo_cli.models import model_file\n"
        "try:\n"
        "    model_file.load('m.keras')\n"
        "except ModelFileError as error:\n"
        "    print(json.dumps([int(error.exit_code), str(error)]))\n",
        tmp_path,
    )

    assert code == 4
    assert reason in said


def test_load_refuses_features_that_leave_nothing_to_pool(good: Path) -> None:
    Path("m.keras").write_bytes(hostile.with_features(n_mfcc=1)(hostile.parts_of(good)))

    with pytest.raises(ModelFileError, match=r"m\.keras has a network that cannot be built: .*") as refused:
        model_file.load("m.keras")

    assert str(refused.value).isprintable()


def test_the_packaged_model_passes() -> None:
    loaded, metadata = model_file.load(model_file.PACKAGED)

    assert loaded.output_shape == (None, len(metadata.labels))


# --- damage that comes with the right hashes -----------------------------------------------------------


def test_flipped_bytes_in_the_frame_of_the_weights_are_refused_or_harmless(good: Path) -> None:
    content = hostile.parts_of(good)["model.weights.h5"]
    refused = 0
    # Superblock and groups come first, arrays last.
    for damaged in hostile.flipped(content[:20_000], 200):
        try:
            archive.read_weights(damaged + content[20_000:])
        except archive.UnfitError:
            refused += 1
    assert refused > 10


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
