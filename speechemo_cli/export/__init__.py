"""Convert a model: waveform in, probabilities out, in one file of another format and a JSON beside it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.errors import ConfigError, ModelFileError, SpeechemoError
from speechemo_cli.export import frontend
from speechemo_cli.features import FEATURE_SETS
from speechemo_cli.files import access_error, atomic_folder, atomic_path, display_name, sha256_file
from speechemo_cli.models import model_file, training
from speechemo_cli.processes import quiet_stderr

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Samples = NDArray[np.float32]
    Integers = NDArray[np.int16]
    Answer = Callable[[Samples], Samples]

SCHEMA = 1
SUFFIXES = {"litert": ".tflite", "onnx": ".onnx"}
# Only a folder that holds nothing else is replaced, so that no file of anybody goes with it.
_SAVED_MODEL = {"saved_model.pb", "variables", "assets", "fingerprint.pb"}
INPUT = "waveform"
# What Keras calls the only output of a model, and TensorFlow the way to call it.
_OUTPUT = "output_0"
_SIGNATURE = "serving_default"
_ONNX_OUTPUT = "probabilities"
# The latest that tf2onnx 1.17 writes is 18.
_OPSET = 17

# How far an exported probability may be from the model's own. Whisper's encoder rounds to 8 bits on the way,
# which makes steps of differences in the last digit: samples changed by a millionth of themselves moved the
# model's own answer by up to 0.016, another runtime moved it by up to 0.026 (docs/export.md).
_TOLERANCES = {"mfcc": 1e-3, "whisper": 0.05}


# --- the formats: how each is made, and how it is run to see that it is right


class Source:
    """The model that is exported, and the features its network reads; `model_file.load` raises."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.network, self.metadata = model_file.load(path)
        self.config = self.metadata.resolved_config()
        self.features = FEATURE_SETS[self.metadata.feature_set]
        # Rate in Hz of the samples that it takes, and how many the shortest waveform has: one less could not
        # be mirrored at its ends.
        self.sr, self.shortest = self.features.sr(self.config), self.features.shortest(self.config)
        self.tolerance = _TOLERANCES[self.metadata.feature_set]

    def waveform_model(self, *, quantised: bool = True) -> Any:
        """Put the front end before the network."""
        return frontend.waveform_model(
            self.network, self.metadata.feature_set, self.config, quantised=quantised
        )

    def answer(self, y: Samples) -> Samples:
        """Answer as `predict` does it: features, network."""
        row: Samples = training.predict(self.network, self.features.compute(y, self.config, ""))[0]
        return row


def _waveform_spec() -> Any:
    import tensorflow as tf

    # Told no shape, Keras would declare room for several waveforms, of which the front end reads one.
    return tf.TensorSpec((1, None), tf.float32, name=INPUT)


def _to_litert(source: Source, path: Path) -> None:
    """Write a LiteRT file; that of Whisper's encoder in 8 bits, as the one that `predict` runs."""
    import tensorflow as tf

    rounds = [tf.lite.Optimize.DEFAULT] if source.metadata.feature_set == "whisper" else []
    # What is rounded in the file need not be so in the graph.
    source.waveform_model(quantised=False).export(
        path, format="litert", verbose=False, input_signature=[_waveform_spec()], optimizations=rounds
    )


def _to_savedmodel(source: Source, path: Path) -> None:
    source.waveform_model().export(
        path, format="tf_saved_model", verbose=False, input_signature=[_waveform_spec()]
    )


def _to_onnx(source: Source, path: Path) -> None:
    """Freeze the graph, convert it with tf2onnx and give its input a name.

    Keras' own export hands tf2onnx a function instead, whose constants (the mean and deviation of a
    Normalization layer) then are inputs that somebody would have to feed.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    model = source.waveform_model()
    function = tf.function(
        lambda waveform: model(waveform, training=False), input_signature=[_waveform_spec()]
    )
    frozen = convert_variables_to_constants_v2(function.get_concrete_function())
    given, wanted = frozen.inputs[0].name, frozen.outputs[0].name
    onnx_model, _ = importlib.import_module("tf2onnx.convert").from_graph_def(
        frozen.graph.as_graph_def(add_shapes=True),
        name=source.metadata.version,
        input_names=[given],
        output_names=[wanted],
        tensors_to_rename={given: INPUT, wanted: _ONNX_OUTPUT},
        opset=_OPSET,
        custom_op_handlers={"Erfc": (_erfc, [])},
    )
    onnx_model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "samples"
    importlib.import_module("onnx").checker.check_model(onnx_model, full_check=True)
    path.write_bytes(onnx_model.SerializeToString())


def _erfc(graph: Any, node: Any, _name: str, _args: Any) -> None:
    """Say 1 - erf(x) for erfc(x), which gelu consists of and ONNX has not."""
    one = graph.make_const(f"{node.name}_one", np.ones((), np.float32)).output[0]
    erf = graph.make_node("Erf", node.input)
    graph.remove_node(node.name)
    graph.make_node("Sub", [one, erf.output[0]], name=node.name, outputs=node.output)


def _open_litert(path: Path) -> Answer:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_content=path.read_bytes()).get_signature_runner(_SIGNATURE)
    return lambda waveform: runner(**{INPUT: waveform})[_OUTPUT]


def _open_onnx(path: Path) -> Answer:
    session = importlib.import_module("onnxruntime").InferenceSession(
        path.read_bytes(), providers=["CPUExecutionProvider"]
    )
    return lambda waveform: session.run([_ONNX_OUTPUT], {INPUT: waveform})[0]


def _open_savedmodel(path: Path) -> Answer:
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    # The variables live as long as `loaded` does, not its signature.
    return lambda waveform: loaded.signatures[_SIGNATURE](**{INPUT: tf.constant(waveform)})[_OUTPUT].numpy()


@dataclass(frozen=True)
class Format:
    """One of `choices.ExportFormat`."""

    convert: Callable[[Source, Path], None]
    open: Callable[[Path], Answer]
    # What has to be installed, by pip's names. TensorFlow is, or there would be no model.
    packages: tuple[str, ...] = ()
    output: str = _OUTPUT
    signature: str | None = _SIGNATURE


FORMATS = {
    "litert": Format(_to_litert, _open_litert, ("ai-edge-litert",)),
    "onnx": Format(_to_onnx, _open_onnx, ("tf2onnx", "onnx", "onnxruntime"), _ONNX_OUTPUT, None),
    "savedmodel": Format(_to_savedmodel, _open_savedmodel),
}


# --- the export


@dataclass(frozen=True)
class Exported:
    """What was written."""

    size_bytes: int  # of all files but the JSON
    difference: float  # the largest between a probability of the exported model and the source's own
    checked: int  # signals that were compared


def description_beside(output: Path) -> Path:
    """Return where the JSON of an export is: `v3.onnx.json` for `v3.onnx`."""
    return Path(f"{output}.json")


def check(output: Path, format_: str) -> None:
    """Refuse (ConfigError), before the work, what could not be exported in the end."""
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        raise ConfigError(f"KERAS_BACKEND is {backend!r}, expected tensorflow", "Only TensorFlow exports")
    for package in FORMATS[format_].packages:
        if importlib.util.find_spec(package.replace("-", "_")) is None:
            extra = "'speechemo[onnx]'" if format_ == "onnx" else package
            raise ConfigError(f"{format_} needs the package {package}", f"Run: pip install {extra}")
    if format_ != "savedmodel":
        return  # the name of a file is checked as that of any other output
    name = display_name(output)
    if output.name in ("", ".."):
        raise ConfigError(f"{name} names nothing to write")
    if output.is_dir():
        try:
            names = {path.name for path in output.iterdir()}
        except OSError as error:
            raise access_error("read", output, error) from error
        if names and not {"saved_model.pb"} <= names <= _SAVED_MODEL:
            raise ConfigError(f"{name} is a folder with other things in it, and stays", "Name a new one")
    elif output.exists():
        raise ConfigError(f"{name} is a file, expected the name of a folder")


def write(
    model: Path, output: Path, format_: str, on_progress: Callable[[int, int, str], None] | None = None
) -> Exported:
    """Export a model file, and check the export against it.

    What is at `output` (for `savedmodel` a folder) is replaced, and the JSON beside it too, once everything
    is written and right (AccessError). `on_progress` is called with the steps done, all steps, and what comes
    next. Raises as `model_file.load` does, and ModelFileError where it cannot be exported or what was
    exported answers otherwise.
    """
    step = on_progress or (lambda *_: None)
    step(0, 3, "loading")
    source = Source(model)
    vectors = signals(source.sr)
    # The shortest waveform there is, and a longer one, which the JSON has no room for.
    extremes = (_voice(source.sr, n) for n in (source.shortest, 4 * source.sr))
    waveforms = [_waveform(y) for y in (*(samples for _, samples in vectors.values()), *extremes)]
    expected = [source.answer(y) for y in waveforms]
    beside = description_beside(output)
    replacing = atomic_folder if format_ == "savedmodel" else atomic_path
    with atomic_path(beside) as page, replacing(output) as temp:
        step(1, 3, "converting")
        try:
            with quiet_stderr():
                FORMATS[format_].convert(source, temp)
            step(2, 3, "checking")
            with quiet_stderr():
                answer = FORMATS[format_].open(temp)
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
        files = _files(temp, output.name)
        answered = [
            {
                "name": name,
                "formula": formula,
                "n": len(samples),
                "scale": 32768,
                "samples": samples.tolist(),
                "probabilities": [round(float(p), 7) for p in probabilities],
            }
            for (name, (formula, samples)), probabilities in zip(vectors.items(), expected, strict=False)
        ]
        document = {**_describe(source, format_, files), "test_vectors": answered}
        page.write_text(_as_json(document), encoding="utf-8", newline="\n")
        step(3, 3, "")
    return Exported(sum(file["size_bytes"] for file in files), difference, len(expected))


# --- the JSON beside it: how to ask it, and what it answers for three signals -------------------------


def _files(written: Path, name: str) -> list[dict[str, Any]]:
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


def _describe(source: Source, format_: str, files: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the fields of docs/export.md, without the signals."""
    about = source.metadata
    return {
        "schema": SCHEMA,
        "format": format_,
        "files": files,
        "sample_rate": source.sr,
        "input": {
            "name": INPUT,
            "shape": [1, None],
            "dtype": "float32",
            "range": "mono, full scale at 1.0",
            "shortest": source.shortest,
        },
        "output": {"name": FORMATS[format_].output, "shape": [1, len(about.labels)], "dtype": "float32"},
        "signature": FORMATS[format_].signature,
        "labels": list(about.labels),
        "calibration": {"temperature": about.temperature, "included": True},
        "features": {
            "set": about.feature_set,
            "version": about.feature_version,
            "included": True,
            **source.features.settings(source.config),
        },
        "source": {
            "model": display_name(source.path.name),
            "sha256": sha256_file(source.path),
            "version": about.version,
            "versions": about.versions,
        },
        "versions": {
            **model_file.library_versions(),
            **{package: _version(package) for package in FORMATS[format_].packages},
        },
        "tolerance": source.tolerance,
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # the same module under another name, such as onnxruntime-gpu
        return "unknown"


def _as_json(document: dict[str, Any]) -> str:
    """Lay out the JSON for people too: indented, but every list of plain values on one line."""
    text = r'"(?:[^"\\]|\\.)*"'
    one_line = rf'{text}|\[(?:{text}|[^][{{}}"])*\]'
    indented = json.dumps(document, indent=2)
    return re.sub(one_line, lambda found: json.dumps(json.loads(found[0])), indented) + "\n"


def signals(sr: int) -> dict[str, tuple[str, Integers]]:
    """Make the three signals that go into the JSON, 1.8 s together: formulas and samples by name."""
    return {
        "voice": (
            "0.25 sin(pi i / n) sum(sin(2 pi 140 k i / sr) / k for k = 1...5) + noise / 1000: "
            "a buzz that swells and fades in what the signal `noise` is",
            _voice(sr, sr // 2),
        ),
        "glide": (
            "0.3 sin(2 pi (200 t + 600 t^2)), t = (i - n // 5) / sr, for n // 5 <= i < n - n // 5, else 0: "
            "a rising tone in silence",
            _glide(sr, sr * 7 // 10),
        ),
        "noise": (
            "s(i) = (1103515245 s(i - 1) + 12345) mod 2^31, s(-1) = 1; s(i) // 65536 - 16384 is the integer",
            _noise(sr * 6 // 10),
        ),
    }


def _voice(sr: int, n: int) -> Integers:
    """Make `n` samples of a buzz of five harmonics that swells and fades in faint noise.

    Between the harmonics of a buzz without noise there is nothing but the last digits of float32, which
    every FFT rounds in its own way, and the logarithm of their silence differs.
    """
    t = np.arange(n) / sr
    swell = 0.25 * np.sin(np.pi * np.arange(n) / n)
    buzz = swell * sum(np.sin(2 * np.pi * 140 * k * t) / k for k in range(1, 6))
    return np.round(32768 * (1e-3 * _waveform(_noise(n)) + buzz)).astype(np.int16)


def _glide(sr: int, n: int) -> Integers:
    first = n // 5
    t = (np.arange(n) - first) / sr
    tone = 0.3 * np.sin(2 * np.pi * (200 * t + 600 * t * t))
    sounds = (t >= 0) & (np.arange(n) < n - first)
    return np.round(32768 * np.where(sounds, tone, 0.0)).astype(np.int16)


def _noise(n: int) -> Integers:
    state, values = 1, []
    for _ in range(n):
        state = (1103515245 * state + 12345) % 2**31
        values.append(state // 2**16 - 16384)
    return np.array(values, np.int16)


def _waveform(samples: Integers) -> Samples:
    """Return samples with full scale at 1.0."""
    return samples.astype(np.float32) / np.float32(32768)
