"""Hand a model on: waveform in, probabilities out, in one file of another format and a JSON beside it."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from speechemo_cli.errors import ConfigError, ModelFileError, SpeechemoError
from speechemo_cli.export import description, formats
from speechemo_cli.export.formats import Source
from speechemo_cli.files import access_error, atomic_folder, atomic_path, display_name
from speechemo_cli.models import model_file
from speechemo_cli.processes import quiet_stderr

if TYPE_CHECKING:
    from collections.abc import Callable

SUFFIXES = {"litert": ".tflite", "onnx": ".onnx"}


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes
    ----------
    path : Path
        The file, or the folder of a SavedModel.
    description : Path
        The JSON beside it.
    size_bytes : int
        Of all files but the JSON.
    difference : float
        The largest between a probability of the exported model and the source's own.
    checked : int
        Signals that were compared.
    """

    path: Path
    description: Path
    size_bytes: int
    difference: float
    checked: int


def default_output(model: Path, format_: str) -> Path:
    """Where an export goes unless told otherwise: `v3.tflite`, `v3.onnx` or `v3-savedmodel`, here."""
    return Path(f"{model.stem}{SUFFIXES.get(format_, f'-{format_}')}")


def description_beside(output: Path) -> Path:
    """Return where the JSON of an export is: `v3.onnx.json` for `v3.onnx`."""
    return output.with_name(f"{output.name}.json")


def check(output: Path, format_: str) -> None:
    """Refuse, before the work, what could not be exported in the end.

    Parameters
    ----------
    output : Path
    format_ : str
        One of `choices.ExportFormat`.

    Raises
    ------
    ConfigError
        A package is missing, Keras does not run on TensorFlow, or `output` is there and nothing that
        this export may replace.
    """
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        raise ConfigError(f"KERAS_BACKEND is {backend!r}, expected tensorflow", "Only TensorFlow exports")
    for package in formats.PACKAGES[format_]:
        if importlib.util.find_spec(package.replace("-", "_")) is None:
            extra = "'speechemo[onnx]'" if format_ == "onnx" else package
            raise ConfigError(f"{format_} needs the package {package}", f"Run: pip install {extra}")
    name = display_name(output)
    if output.name in ("", ".."):
        raise ConfigError(f"{name} names nothing to write")
    if format_ != "savedmodel":
        if output.is_dir():
            raise ConfigError(f"{name} is a folder, expected the name of a file")
    elif output.is_dir():
        if not _is_saved_model(output):
            raise ConfigError(f"{name} is a folder with other things in it, and stays", "Name a new one")
    elif output.exists():
        raise ConfigError(f"{name} is a file, expected the name of a folder")


def _is_saved_model(folder: Path) -> bool:
    """Whether a folder holds a SavedModel or nothing, so that no file of anybody goes with it."""
    try:
        names = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise access_error("read", folder, error) from error
    return not names or {"saved_model.pb"} <= names <= {
        "saved_model.pb",
        "variables",
        "assets",
        "fingerprint.pb",
    }


def write(
    model: Path, output: Path, format_: str, on_progress: Callable[[int, int, str], None] | None = None
) -> Exported:
    """Export a model file, and check the export against it.

    Parameters
    ----------
    model : Path
        The `.keras` file.
    output : Path
        With the suffix of the format; for `savedmodel` a folder. What is there is replaced, and the
        JSON beside it too, once everything is written and right.
    format_ : {"litert", "onnx", "savedmodel"}
    on_progress : callable, optional
        Called with (steps done, steps, what comes next).

    Raises
    ------
    ConfigError
        As `check`.
    ModelFileError
        As `model_file.load`, or it cannot be exported, or what was exported answers otherwise.
    AccessError
        It cannot be written; what was there is as it was.
    """
    step = on_progress or (lambda *_: None)
    check(output, format_)
    step(0, 3, "loading")
    network, metadata = model_file.load(model)
    source = Source(model, network, metadata)
    vectors = description.signals(source.sr)
    # The shortest waveform there is, and a longer one, which the JSON has no room for.
    extremes = [description.voice(source.sr, n) for n in (source.shortest, 4 * source.sr)]
    waveforms = [vector.waveform() for vector in (*vectors, *extremes)]
    expected = [source.answer(y) for y in waveforms]
    beside = description_beside(output)
    replacing = atomic_folder if format_ == "savedmodel" else atomic_path
    with atomic_path(beside) as page, replacing(output) as temp:
        step(1, 3, "converting")
        try:
            with quiet_stderr():
                formats.CONVERT[format_](source, temp)
            step(2, 3, "checking")
            with quiet_stderr():
                answer = formats.OPEN[format_](temp)
                received = [answer(y[None])[0] for y in waveforms]
        except (OSError, SpeechemoError):
            raise
        except Exception as error:
            first_line = str(error).strip().split("\n")[0][:200]
            raise ModelFileError(f"the network cannot be exported to {format_}: {first_line}") from error
        difference = float(np.abs(np.array(received) - np.array(expected)).max())
        if not difference <= source.tolerance:  # a NaN is not either
            raise ModelFileError(
                f"what was exported to {format_} does not answer as {model_file.shown(model)}: "
                f"probabilities differ by {difference:.2g}, expected at most {source.tolerance:g}"
            )
        written = description.files(temp, output.name)
        document = description.describe(source, format_, written, list(zip(vectors, expected, strict=False)))
        page.write_text(description.as_json(document), encoding="utf-8", newline="\n")
        step(3, 3, "")
    size_bytes = sum(file["size_bytes"] for file in written)
    return Exported(output, beside, size_bytes, difference, len(expected))
