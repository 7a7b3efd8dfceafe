"""Signals and corpora that tests share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run every test in a folder of its own, without the settings of the person who runs it."""
    for name in list(os.environ):
        if name.startswith("SPEECHEMO_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(440)


def harmonic(seconds: float, sr: int, f0: float = 140.0, amplitude: float = 0.3) -> np.ndarray:
    """A buzz of five harmonics that swells and fades: the simplest thing with a voice's structure."""
    t = np.arange(round(seconds * sr)) / sr
    y = sum(np.sin(2 * np.pi * f0 * k * t) / k for k in range(1, 6))
    return (amplitude / 2.3 * y * np.sin(np.pi * np.clip(t / max(seconds, 1e-9), 0, 1))).astype(np.float32)


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
