"""Whisper's audio encoder as a Keras network, built from the arrays that come with the package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.models.keras_backend import load_keras

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

# Radford et al. 2022, arXiv 2212.04356: `tiny` has heads of 64 numbers.
_HEAD_DIM = 64
_EPSILON = 1e-5  # of every layer normalisation, as PyTorch's default


def build_encoder(arrays: Mapping[str, NDArray[np.floating[Any]]], n_frames: int) -> Any:
    """Build the encoder for a fixed number of log-mel frames.

    Parameters
    ----------
    arrays : mapping of str to np.ndarray
        Named as in `features/whisper_encoder.npz`: `linear_0` of an attention is query, key and value in
        one, convolutions are (out, in, width), dense layers (out, in).
    n_frames : int
        Log-mel frames of 10 ms that go in; even.

    Returns
    -------
    keras.Model
        (batch, n_frames, n_mels) -> (batch, n_blocks, n_frames // 2, width): what each block gives.
    """
    keras = load_keras()
    layers, ops = keras.layers, keras.ops
    weights = {name: np.asarray(values, np.float32) for name, values in arrays.items()}
    width, n_mels, _ = weights["conv1.weight"].shape
    n_blocks = len(
        {name.split(".")[0] for name in weights if name.startswith("layer_") and name[6].isdigit()}
    )
    n_heads = width // _HEAD_DIM
    assign: list[tuple[Any, list[NDArray[np.float32]]]] = []

    def dense(x: Any, name: str, rows: slice = slice(None), scale: float = 1.0) -> Any:
        kernel, bias = weights[f"{name}.weight"][rows].T * scale, weights[f"{name}.bias"][rows] * scale
        layer = layers.Dense(kernel.shape[1])
        assign.append((layer, [kernel, bias]))
        return layer(x)

    def conv(x: Any, name: str, stride: int) -> Any:
        layer = layers.Conv1D(width, 3, strides=stride)
        assign.append((layer, [weights[f"{name}.weight"].transpose(2, 1, 0), weights[f"{name}.bias"]]))
        # PyTorch pads one frame at both ends; "same" would pad the second convolution at its end alone.
        return gelu(layer(layers.ZeroPadding1D(1)(x)))

    def normalise(x: Any, name: str) -> Any:
        layer = layers.LayerNormalization(epsilon=_EPSILON)
        assign.append((layer, [weights[f"{name}.gamma"], weights[f"{name}.beta"]]))
        return layer(x)

    def gelu(x: Any) -> Any:
        return ops.gelu(x, approximate=False)

    def heads(x: Any) -> Any:
        return ops.transpose(ops.reshape(x, (-1, n_frames // 2, n_heads, _HEAD_DIM)), (0, 2, 1, 3))

    def attention(x: Any, name: str) -> Any:
        # The square root of the head's width, half of it on each side, as Whisper does it.
        query = heads(dense(x, f"{name}.linear_0", slice(0, width), _HEAD_DIM**-0.5))
        key = heads(dense(x, f"{name}.linear_0", slice(width, 2 * width)))
        value = heads(dense(x, f"{name}.linear_0", slice(2 * width, 3 * width)))
        shares = ops.softmax(ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))))
        mixed = ops.transpose(ops.matmul(shares, value), (0, 2, 1, 3))
        return dense(ops.reshape(mixed, (-1, n_frames // 2, width)), f"{name}.linear_1")

    mel = keras.Input((n_frames, n_mels), name="log_mel")
    x = conv(conv(mel, "conv1", 1), "conv2", 2) + weights["position_encodings.encodings"][: n_frames // 2]
    outputs = []
    for i in range(n_blocks):
        block = f"layer_{i}"
        x = x + attention(normalise(x, f"{block}.self_attention.layer_norm"), f"{block}.self_attention")
        inner = gelu(dense(normalise(x, f"{block}.ffn.layer_norm"), f"{block}.ffn.linear_0"))
        x = x + dense(inner, f"{block}.ffn.linear_1")
        outputs.append(x)
    model = keras.Model(mel, ops.stack(outputs, axis=1), name="whisper_encoder")
    for layer, values in assign:
        layer.set_weights(values)
    return model
