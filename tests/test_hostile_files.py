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
from conftest import built, run_each

from speechemo_cli.cli import app
from speechemo_cli.config import Config
from speechemo_cli.errors import ModelFileError
from speechemo_cli.models import archive, load_keras, model_file, training
from speechemo_cli.models.metadata import ModelMetadata

LABELS = ("neutral", "happy", "angry")
HEAVY = ("keras", "tensorflow", "librosa", "sklearn", "scipy")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A v1 of a few weights."""
    path = tmp_path_factory.mktemp("good") / "v1.keras"
    network = built("v1", np.random.default_rng(3).normal(10, 3, (4, 40)).astype(np.float32), len(LABELS))
    model_file.save(
        network, ModelMetadata("v1", LABELS, "mfcc", 1, Config().to_dict(), seed=0, epochs=1), path
    )
    return path


@pytest.fixture(scope="module")
def folder(good: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every hostile file."""
    folder = tmp_path_factory.mktemp("hostile")
    hostile.write_all(good, folder)
    (folder / "good.keras").write_bytes(good.read_bytes())
    return folder


@pytest.fixture(scope="module")
def refusals(folder: Path) -> dict[str, Any]:
    """Try to load every hostile file, all in one process: the message, what was imported, what it took."""
    code = (
        "import json, re, sys\n"
        "from pathlib import Path\n"
        "from speechemo_cli.errors import SpeechemoError\n"
        "from speechemo_cli.models import model_file\n"
        "model_file.inspect('good.keras')\n"
        "def refusal_of(name):\n"
        "    try:\n"
        "        model_file.load(name)\n"
        "    except SpeechemoError as error:\n"
        "        return [int(error.exit_code), str(error)]\n"
        "    except BaseException as error:\n"
        "        return [1, repr(error)]\n"
        "    return [0, '']\n"
        "refusals = {name: refusal_of(name) for name in json.load(sys.stdin)}\n"
        f"imported = [name for name in {HEAVY!r} if name in sys.modules]\n"
        # Of this process alone: getrusage would tell of its parent too, which holds TensorFlow.
        "peak_kib = int(re.search(r'VmHWM:\\s*(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        "print(json.dumps({'refusals': refusals, 'imported': imported, 'peak_kib': peak_kib}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps([*hostile.MESSAGES]),
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return json.loads(done.stdout)


# --- what is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", hostile.MESSAGES)
def test_load_refuses_a_hostile_file_for_what_is_hostile_in_it(name: str, refusals: dict[str, Any]) -> None:
    code, message = refusals["refusals"][name]

    assert code == 4, message
    assert re.search(hostile.MESSAGES[name], message), message
    assert message.isprintable()
    assert len(message) < 400


def test_load_refuses_before_keras_is_imported_with_little_memory_and_no_trace(
    folder: Path, refusals: dict[str, Any]
) -> None:
    assert refusals["imported"] == []  # nor does `inspect` import anything for a good file
    # A terabyte of zeros, 64 MiB that hide in 64 KiB, and shapes of a trillion numbers are among them.
    assert refusals["peak_kib"] < 500 * 1024
    assert not list(folder.parent.rglob("owned"))


def test_commands_refuse_hostile_files(folder: Path, write_clip: Any) -> None:
    clip = write_clip("data/happy/a.wav")
    write_clip("data/sad/b.wav", f0=90)
    commands = [
        f"predict {clip} --model labels_0.keras --runtime keras",
        "model info fifo.keras",
        f"evaluate {clip.parents[1]} --model virtual.keras",
    ]

    for command, (code, out, err, heavy) in zip(commands, run_each(commands, folder), strict=True):
        assert (code, out) == (4, ""), (command, err)
        assert not {"keras", "tensorflow"} & {*heavy}
        (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
        assert ".keras" in line


def test_model_info_does_not_paint_on_the_terminal(good: Path, capfd: pytest.CaptureFixture[str]) -> None:
    painted = hostile.with_metadata(data={"speakers": ["\x1b[31mred", "two\nlines"]})
    Path("m.keras").write_bytes(painted(hostile.parts_of(good)))

    assert app.run(["model", "info", "m.keras", "--format", "table"]) == 0

    shown = capfd.readouterr().out
    assert "2: \\x1b[31mred two\\nlines" in shown
    assert "\x1b" not in shown


# --- what is seen when the network is built ------------------------------------------------------------


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


@pytest.mark.parametrize("message", hostile.UNLIKE)
def test_load_refuses_weights_of_another_network(message: str, good: Path) -> None:
    Path("m.keras").write_bytes(hostile.UNLIKE[message](hostile.parts_of(good)))

    with pytest.raises(ModelFileError, match=rf"other weights than its network: /layers/.*{message}"):
        model_file.load("m.keras")


def test_load_refuses_features_that_leave_nothing_to_pool(good: Path) -> None:
    Path("m.keras").write_bytes(hostile.with_features(n_mfcc=1)(hostile.parts_of(good)))

    with pytest.raises(ModelFileError, match=r"m\.keras has a network that cannot be built: .*") as refused:
        model_file.load("m.keras")

    assert str(refused.value).isprintable()


# --- damage with the right hashes, and what only looks hostile -----------------------------------------


def test_read_weights_refuses_flipped_bytes_or_they_are_harmless(good: Path) -> None:
    content = hostile.parts_of(good)["model.weights.h5"]
    refused = 0
    # Superblock and groups come first, arrays last.
    for damaged in hostile.flipped(content[:20_000], 100):
        try:
            archive.read_weights(damaged + content[20_000:])
        except archive.UnfitError:
            refused += 1
    assert refused > 5


@pytest.mark.parametrize(
    "features",
    [
        *({"sr": sr} for sr in (4000, 48_000, 192_000)),
        {"n_fft": 8192, "hop_length": 128, "sr": 48_000},
        {"n_fft": 65536, "hop_length": 16384},
        {"n_mels": 512},
    ],
)
def test_inspect_takes_unusual_features(good: Path, features: dict[str, int]) -> None:
    Path("m.keras").write_bytes(hostile.with_features(**features)(hostile.parts_of(good)))

    assert model_file.inspect("m.keras").labels == LABELS
