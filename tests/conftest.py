"""Signals and corpora that tests share."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partialmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import soundfile
from xdist.scheduler import LoadFileScheduling

from speechemo_cli.cli import app, terminal
from speechemo_cli.config import Config, TrainConfig
from speechemo_cli.corpus import EMOTIONS
from speechemo_cli.corpus.clips import Clip
from speechemo_cli.corpus.splits import Example
from speechemo_cli.features.dataset import Dataset
from speechemo_cli.features.extraction import Extraction

if TYPE_CHECKING:
    from speechemo_cli.models.training import Rows


def _set_up_numba() -> None:
    """Let librosa's functions be compiled quickly, into a cache of each test process.

    Two that fill the same one may each write half of an entry, which then crashes whoever loads it
    (numba/numba#10128).
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    os.environ["NUMBA_CACHE_DIR"] = str(Path(__file__).parents[1] / "build" / "numba" / worker)
    os.environ["NUMBA_OPT"] = "0"  # compiled in two thirds of the time, and called a few times only


_set_up_numba()

# Files whose tests take longest, the longest first: both test processes then end at about the same time.
LONGEST = ("test_docs", "test_mfcc", "test_cli", "test_terminal", "test_training", "test_protocols")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files."""
    rank = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


class ByFile(LoadFileScheduling):
    """Let each test process take whole files, and one of them all that call librosa.

    That compiles for half a minute what it needs.
    """

    def _split_scope(self, nodeid: str) -> str:
        return _group_of_file(super()._split_scope(nodeid))


@cache  # asked for at every test, and again when it has ended
def _group_of_file(file: str) -> str:
    content = (Path(__file__).parents[1] / file).read_text("utf-8")
    return "librosa" if re.search(r"\blibrosa\.[a-z]", content) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    return ByFile(config, log)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run every test in a folder of its own, without settings of the user or of the test before it."""
    terminal.shown = terminal.Shown()
    for name in list(os.environ):
        if name.startswith("SPEECHEMO_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(440)


# A command line in this process, as the fixture `run` runs it.
Run = Callable[..., tuple[int, str, str]]
# How a test runs a command in a process of its own.
COMMAND = (sys.executable, "-m", "speechemo_cli")


def harmonic(seconds: float, sr: int, f0: float = 140.0, amplitude: float = 0.3) -> np.ndarray:
    """A buzz of five harmonics that swells and fades: the simplest thing with a voice's structure."""
    t = np.arange(round(seconds * sr)) / sr
    y = sum(np.sin(2 * np.pi * f0 * k * t) / k for k in range(1, 6))
    return (amplitude / 2.3 * y * np.sin(np.pi * np.clip(t / max(seconds, 1e-9), 0, 1))).astype(np.float32)


@contextmanager
def running_server(*arguments: str, **how: Any) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `speechemo serve` on a free port: the process and its address."""
    command = [*COMMAND, "serve", "--port", "0", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **how) as process:
        assert process.stderr is not None
        try:
            lines = iter(process.stderr.readline, "")
            line = next((line for line in lines if line.startswith("serving on ")), "")
            assert line, "it ended before it served"
            yield process, line.split()[2]
        finally:
            process.kill()


# What only the whole install has, as it is imported: predict does without.
ABSENT = (
    *("tensorflow", "keras", "librosa", "scipy", "sklearn", "joblib", "matplotlib", "h5py", "jinja2"),
    *("numba", "pooch", "requests", "pandas"),
)
# What no command loads before it has to.
HEAVY = (*ABSENT, "distributed", "numpy", "soundfile")


def run_each(
    command_lines: list[str], folder: Path, before: str = ""
) -> list[tuple[int, str, str, list[str]]]:
    """Run command lines one after the other in a new process, which runs some code before.

    Returns exit code, stdout, stderr and what is loaded of `HEAVY`, for each.
    """
    script = (
        f"{before}\n"
        "import contextlib, io, json, shlex, sys\n"
        "from speechemo_cli.cli.app import run\n"
        "told = []\n"
        "for line in json.load(sys.stdin):\n"
        "    out, err = io.StringIO(), io.StringIO()\n"
        "    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):\n"
        "        code = run(shlex.split(line))\n"
        f"    heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "    told.append((code, out.getvalue(), err.getvalue(), heavy))\n"
        "json.dump(told, sys.stdout)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(command_lines),
        capture_output=True,
        text=True,
        check=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    return json.loads(done.stdout)


def path_with_speechemo(folder: Path) -> str:
    """Make the command `speechemo` in a folder; return a PATH that begins with it and with this Python's."""
    folder.mkdir(exist_ok=True)
    command = folder / "speechemo"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m speechemo_cli "$@"\n')
    command.chmod(0o755)
    return f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"


def until(true: Callable[[], object], seconds: float) -> float:
    """Wait for something; return how long it took."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, "it never came"
        time.sleep(0.02)
    return time.monotonic() - began


def read_terminal(terminal: int) -> bytes:
    """Read what is shown on a pseudo-terminal until the other side has gone."""
    shown = b""
    while True:
        try:
            shown += os.read(terminal, 65536)
        except OSError:
            return shown


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process: (exit code, stdout, stderr)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = app.run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Put bytes on stdin, through a pipe."""

    def put(content: bytes) -> None:
        reading, writing = os.pipe()
        os.write(writing, content)
        os.close(writing)
        monkeypatch.setattr(sys, "stdin", os.fdopen(reading))

    return put


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Run some code before each clip is read, in every process that is started."""

    def write(code: str) -> None:
        lines = "\n".join(f"    {line}" for line in code.strip().splitlines())
        folder = tmp_path / "planted"
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(
            "import os, signal, time\nfrom pathlib import Path\nfrom speechemo_cli.audio import reader\n"
            "original = reader.read_channels\n"
            f"def planted(path, *more):\n{lines}\n    return original(path, *more)\n"
            "reader.read_channels = planted\n"
        )
        monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)

    return write


@pytest.fixture
def write_clip(tmp_path: Path) -> Callable[..., Path]:
    """Write a clip and return its path: `write_clip("a.wav", seconds=1.0, sr=16000)`."""

    def write(
        name: str = "clip.wav",
        seconds: float = 1.0,
        sr: int = 16000,
        y: np.ndarray | None = None,
        f0: float = 140.0,
        subtype: str | None = "PCM_16",
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, harmonic(seconds, sr, f0) if y is None else y, sr, subtype=subtype)
        return path

    return write


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four synthetic actors, 60 clips each, in RAVDESS layout. Treat it as read-only."""
    from speechemo_cli.corpus.synthetic import write_corpus

    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder, actors=4, seed=0)
    return folder


def touch(root: Path | str, *names: str) -> None:
    """Make empty files: finding clips never opens them."""
    for name in names:
        path = Path(root) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def grid(counts: dict[tuple[str | None, str], int]) -> list[Example]:
    """So many clips for each speaker and label."""
    return [
        Example(Clip(f"{who}/{label}/{i}.wav", label, who), f"{who} {label} {i}")
        for (who, label), n in counts.items()
        for i in range(n)
    ]


TRAINING_LABELS = EMOTIONS[2:5]


def separable(rng: np.random.Generator, speakers: int = 6, clips: int = 10) -> Dataset:
    """A dataset in which the features give the label away."""
    examples, rows, targets = [], [], []
    for s in range(speakers):
        for i in range(3 * clips):
            target = i % 3
            manner = (i // 3) % 4  # two intensities of two statements, and repetitions of each
            clip = Clip(
                f"{s}/{i}.wav",
                TRAINING_LABELS[target],
                f"s{s}",
                "mf"[s % 2],
                1 + manner % 2,
                1 + manner // 2,
                i,
            )
            examples.append(Example(clip, f"{s:032d}{i:032d}", f"{i:032d}{s:032d}"))
            row = np.zeros(40)
            row[13 * target : 13 * target + 13] = 5
            rows.append(row + rng.standard_normal(40))
            targets.append(target)
    return Dataset(
        tuple(examples),
        np.array(rows, np.float32),
        np.array(targets),
        TRAINING_LABELS,
        Extraction(len(examples)),
        np.full(len(examples), 2.5),
    )


def trained_with(**train: object) -> Config:
    """A config whose trainings are short."""
    return Config(train=TrainConfig(**{"epochs": 30, **train}))


class Fitted(NamedTuple):
    """What a training was given."""

    rows: Rows
    seed: int


@pytest.fixture
def fitted(monkeypatch: pytest.MonkeyPatch) -> list[Fitted]:
    """Make v1 the nearest mean of each label, which takes no time; tell what its trainings were given."""
    from speechemo_cli.models import load_keras, training, v1

    calls: list[Fitted] = []

    def build(input_shape: tuple[int, ...], n_classes: int, _preset: Any) -> Any:
        layers = load_keras().layers
        answers = layers.Dense(n_classes, activation="softmax", name="emotion")
        return load_keras().Sequential(
            [load_keras().Input(input_shape), layers.Normalization(name="normalise"), answers]
        )

    def fit(
        _version: str,
        preset: Any,
        rows: training.Rows,
        n_classes: int,
        seed: int,
        watch: Any = None,
        on_epoch: Any = None,
        checkpoint: Any = None,
    ) -> training.Training:
        calls.append(Fitted(rows, seed))
        x, targets, _ = rows
        # A label that no clip has is far from all.
        nowhere = np.full((1, x.shape[1]), 1e3)
        means = np.array(
            [(x[targets == i] if i in targets else nowhere).mean(axis=0) for i in range(n_classes)]
        )
        variance = x.var(axis=0) / 3  # three times as sure as it may be
        model = build(x.shape[1:], n_classes, preset)
        model.get_layer("emotion").set_weights([(means / variance).T, -(means**2 / variance).sum(axis=1) / 2])
        if on_epoch:
            on_epoch(1, 1, {"train_accuracy": 0.5, "train_loss": 1.0})
        return training.Training(model, {"train_accuracy": [0.5], "train_loss": [1.0]})

    monkeypatch.setattr(v1, "build", build)
    monkeypatch.setattr(training, "fit", fit)
    return calls


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train step by step: the same numbers without the seconds in which TensorFlow compiles a training."""
    from speechemo_cli.models import load_keras

    model = load_keras().Model
    monkeypatch.setattr(model, "compile", partialmethod(model.compile, run_eagerly=True))


def blurred(rng: np.random.Generator, deviation: float = 12.0, **more: Any) -> Dataset:
    """Like `separable`, but under so much noise that answers are often wrong."""
    data = separable(rng, **more)
    noise = deviation * rng.standard_normal(data.x.shape)
    return replace(data, x=(data.x + noise).astype(np.float32))


def noisy(rng: np.random.Generator, seconds: float, sr: int, f0: float = 140.0) -> np.ndarray:
    """A buzz in a room."""
    y = harmonic(seconds, sr, f0)
    return (y + 0.01 * rng.standard_normal(len(y))).astype(np.float32)


def built(version: str, x: np.ndarray, n_classes: int) -> Any:
    """Build an untrained network of a version, normalised by its clips."""
    from speechemo_cli.models import version_module

    module = version_module(version)
    network = module.build(x.shape[1:], n_classes, module.PRESET)
    network.get_layer("normalise").adapt(x)
    return network


def own_weights(network: Any, rng: np.random.Generator) -> None:
    """Give a network weights that make it sure of itself, and other answers for other clips."""
    for layer in network.layers:
        shapes = [weights.shape for weights in layer.get_weights()]
        if type(layer).__name__ == "BatchNormalization":
            layer.set_weights(
                [
                    rng.uniform(0.5, 1.5, shapes[0]),
                    *(rng.normal(0, 0.3, shape) for shape in shapes[1:3]),
                    rng.uniform(0.5, 2, shapes[3]),
                ]
            )
        elif type(layer).__name__ != "Normalization":
            layer.set_weights(
                [
                    rng.normal(0, (2 / math.prod(shape[:-1])) ** 0.5 if shape[1:] else 0.1, shape)
                    for shape in shapes
                ]
            )


@pytest.fixture(scope="session")
def model_with_litert(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Make an untrained model of a version, and its LiteRT file beside it: `model_with_litert("v1")`.

    Each is made once, in a folder of its own. Treat it as read-only.
    """
    from speechemo_cli.features import FEATURE_SETS
    from speechemo_cli.models import model_file, training, version_module
    from speechemo_cli.models.metadata import ModelMetadata

    @cache
    def make(version: str) -> Path:
        rng = np.random.default_rng(440)
        module, config = version_module(version), Config()
        features = FEATURE_SETS[module.PRESET.feature_set]
        sr = features.sr(config)
        clips = [noisy(rng, 0.5 + i / 8, sr, 80 + 15 * i) for i in range(16)]
        x = np.concatenate([features.compute(y, config, "") for y in clips])
        network = built(version, x, len(EMOTIONS))
        own_weights(network, rng)
        path = tmp_path_factory.mktemp("models") / f"{version}.keras"
        metadata = ModelMetadata(
            version, EMOTIONS, features.name, features.version, config.to_dict(), seed=0, epochs=1
        )
        sha256 = model_file.write_litert(training.with_distance(network), model_file.litert_path(path))
        metadata = replace(metadata, litert=sha256)
        model_file.save(network, metadata, path)
        return path

    return make


@pytest.fixture
def own(model_with_litert: Callable[[str], Path]) -> Path:
    """A v1 with its LiteRT file, in the folder of the test, which may spoil both."""
    for suffix in (".keras", ".tflite"):
        shutil.copy(model_with_litert("v1").with_suffix(suffix), f"v1{suffix}")
    return Path("v1.keras")
