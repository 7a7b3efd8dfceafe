"""The JSON beside an exported model: how to ask it, and what it answers for three signals."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from speechemo_cli.export import formats
from speechemo_cli.files import display_name, sha256_file
from speechemo_cli.models import model_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from speechemo_cli.export.formats import Source

    Samples = NDArray[np.float32]

SCHEMA = 1


class Vector(NamedTuple):
    """A signal to try an exported model with."""

    name: str
    formula: str
    samples: NDArray[np.int16]

    def waveform(self) -> Samples:
        """Return the samples with full scale at 1.0."""
        return self.samples.astype(np.float32) / np.float32(32768)


def signals(sr: int) -> list[Vector]:
    """Make the three signals that go into the JSON, 1.8 s together.

    Parameters
    ----------
    sr : int
        Rate of the model in Hz.
    """
    return [voice(sr, sr // 2), _glide(sr, sr * 7 // 10), _noise(sr * 6 // 10)]


def voice(sr: int, n: int) -> Vector:
    """Make a buzz of five harmonics that swells and fades in faint noise, `n` samples long.

    Between the harmonics of a buzz without noise there is nothing but the last digits of float32, which
    every FFT rounds in its own way, and the logarithm of their silence differs.
    """
    t = np.arange(n) / sr
    hiss = 1e-3 * _noise(n).waveform()
    swell = 0.25 * np.sin(np.pi * np.arange(n) / n)
    return _vector(
        "voice",
        "0.25 sin(pi i / n) sum(sin(2 pi 140 k i / sr) / k for k = 1...5) + noise / 1000: a buzz that swells "
        "and fades in what the signal `noise` is",
        hiss + swell * sum(np.sin(2 * np.pi * 140 * k * t) / k for k in range(1, 6)),
    )


def _glide(sr: int, n: int) -> Vector:
    first = n // 5
    t = (np.arange(n) - first) / sr
    sounds = (t >= 0) & (np.arange(n) < n - first)
    return _vector(
        "glide",
        "0.3 sin(2 pi (200 t + 600 t^2)), t = (i - n // 5) / sr, for n // 5 <= i < n - n // 5, else 0: "
        "a rising tone in silence",
        np.where(sounds, 0.3 * np.sin(2 * np.pi * (200 * t + 600 * t * t)), 0.0),
    )


def _noise(n: int) -> Vector:
    state, values = 1, []
    for _ in range(n):
        state = (1103515245 * state + 12345) % 2**31
        values.append(state // 2**16 - 16384)
    return _vector(
        "noise",
        "s(i) = (1103515245 s(i - 1) + 12345) mod 2^31, s(-1) = 1; s(i) // 65536 - 16384 is the integer",
        np.array(values) / 32768,
    )


def _vector(name: str, formula: str, y: NDArray[np.float64]) -> Vector:
    return Vector(name, formula, np.round(32768 * y).astype(np.int16))


def files(written: Path, name: str) -> list[dict[str, Any]]:
    """Name, size and hash of what was written, by the names it is going to have beside the JSON."""
    paths = sorted(path for path in written.rglob("*") if path.is_file()) if written.is_dir() else [written]
    return [
        {
            "name": (Path(name) / path.relative_to(written)).as_posix(),
            "size_bytes": path.stat().st_size,
            "sha256": sha256_file(path),
        }
        for path in paths
    ]


def describe(
    source: Source,
    format_: str,
    written: list[dict[str, Any]],
    answered: Sequence[tuple[Vector, Samples]],
) -> dict[str, Any]:
    """Say how to ask an exported model.

    Parameters
    ----------
    source : Source
    format_ : str
        One of `choices.ExportFormat`.
    written : list of dict
        As `files` returns it.
    answered : sequence of (Vector, np.ndarray [shape=(n_labels,)])
        Signals, and what the source answers.

    Returns
    -------
    dict
        The fields of docs/export.md.
    """
    metadata = source.metadata
    return {
        "schema": SCHEMA,
        "format": format_,
        "files": written,
        "sample_rate": source.sr,
        "input": {
            "name": formats.INPUT,
            "shape": [1, None],
            "dtype": "float32",
            "range": "mono, full scale at 1.0",
            "shortest": source.shortest,
        },
        "output": {
            "name": formats.ONNX_OUTPUT if format_ == "onnx" else formats.OUTPUT,
            "shape": [1, len(metadata.labels)],
            "dtype": "float32",
        },
        "signature": None if format_ == "onnx" else formats.SIGNATURE,
        "labels": list(metadata.labels),
        "calibration": {"temperature": metadata.temperature, "included": True},
        "features": {
            "set": metadata.feature_set,
            "version": metadata.feature_version,
            "included": True,
            **source.features.settings(source.config),
        },
        "source": {
            "model": display_name(source.path.name),
            "sha256": sha256_file(source.path),
            "version": metadata.version,
            "versions": metadata.versions,
        },
        "versions": {
            **model_file.library_versions(),
            **{package: _version(package) for package in formats.PACKAGES[format_]},
        },
        "tolerance": source.tolerance,
        "test_vectors": [
            {
                "name": vector.name,
                "formula": vector.formula,
                "n": len(vector.samples),
                "scale": 32768,
                "samples": vector.samples.tolist(),
                "probabilities": [round(float(p), 7) for p in probabilities],
            }
            for vector, probabilities in answered
        ],
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # the same module under another name, such as onnxruntime-gpu
        return "unknown"


def as_json(document: dict[str, Any]) -> str:
    """Lay out the JSON for people too: indented, but every list of numbers on one line."""
    lists: list[str] = []

    def hide(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: hide(one) for key, one in value.items()}
        if isinstance(value, list) and value and not isinstance(value[0], dict):
            lists.append(json.dumps(value))
            return f"\0{len(lists) - 1}\0"
        return [hide(one) for one in value] if isinstance(value, list) else value

    pieces = json.dumps(hide(document), indent=2).split('"\\u0000')
    shown = (piece.partition('\\u0000"') for piece in pieces[1:])
    return pieces[0] + "".join(lists[int(number)] + rest for number, _, rest in shown) + "\n"
