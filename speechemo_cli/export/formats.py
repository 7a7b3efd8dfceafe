"""The formats a model is exported to: how each is made, and how it is run to see that it is right."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.export import frontend
from speechemo_cli.features import FEATURE_SETS
from speechemo_cli.models import model_file, training

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Samples = NDArray[np.float32]
    Answer = Callable[[Samples], Samples]

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
