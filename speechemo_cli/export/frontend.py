"""The feature sets, Whisper's encoder too, as Keras layers: a network is exported with its front end in it.

Every shape follows from the number of samples alone, never from what they hold: a runtime can plan its
memory only then.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.features import mfcc, whisper
from speechemo_cli.features.spectrum import hann_window, mel_filter_bank
from speechemo_cli.models import load_keras

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from speechemo_cli.config import Config, MfccConfig

    Array = NDArray[np.float32]

# Radford et al. 2022, arXiv 2212.04356: `tiny` has heads of 64 numbers.
_HEAD_DIM = 64
_EPSILON = 1e-5  # of every layer normalisation, as PyTorch's default


def waveform_model(network: Any, feature_set: str, config: Config, *, quantised: bool = False) -> Any:
    """Put the front end before a network (batch, dim) -> (batch, n_classes).

    The result takes mono samples (1, samples) at the rate of the feature set, full scale at 1.0, of any
    length from `FeatureSet.shortest` on. `quantised`: whether the encoder of `whisper` computes with the
    rounded numbers of its LiteRT file.
    """
    keras = load_keras()
    encoder = packaged_encoder(quantised) if feature_set == "whisper" else None

    class FrontEnd(keras.layers.Layer):  # type: ignore[misc, name-defined]
        """(1, samples) -> (1, dim)."""

        def __init__(self) -> None:
            super().__init__(name="front_end", trainable=False)
            self.encoder = encoder

        def call(self, waveform: Any) -> Any:
            if self.encoder is not None:
                return _whisper(keras.ops, waveform, self.encoder)
            return _mfcc(keras.ops, waveform, config.mfcc)

        def compute_output_shape(self, _input_shape: Any) -> tuple[int, ...]:
            return (1, *network.input_shape[1:])

    waveform = keras.Input((None,), batch_size=1, name="waveform")
    return keras.Model(waveform, network(FrontEnd()(waveform)), name=network.name)


def _power(ops: Any, waveform: Any, n_fft: int, hop_length: int, pad_mode: str) -> Any:
    """Power spectra of centred frames: (1, samples) -> (frames, 1 + n_fft // 2).

    A transform of `rows * points` samples is two of `rows` and of `points` with a turn between them (Cooley
    and Tukey 1965), as products of small matrices: LiteRT's FFT takes powers of two only, and the converter
    to ONNX knows none.
    """
    half, points = n_fft // 2, math.gcd(n_fft, 32)
    rows = n_fft // points
    row, point = np.arange(rows), np.arange(points)
    turns = np.outer(row, row) / rows + point[:, None, None] * row / n_fft
    first = np.exp(-2j * np.pi * turns) * hann_window(n_fft).reshape(rows, points).T[:, :, None]
    second = np.exp(-2j * np.pi * np.outer(point, point) / points)
    first = np.concatenate([first.real, first.imag], axis=2)
    second = np.block([[second.real, second.imag], [-second.imag, second.real]])

    padded = ops.pad(waveform, ((0, 0), (half, half)), mode=pad_mode)
    frames = ops.reshape(ops.extract_sequences(padded, n_fft, hop_length)[0], (-1, rows, points))
    # (points, frames, rows) -> (points, frames, real and imaginary of rows) -> (frames, rows, both of points)
    turned = ops.matmul(ops.transpose(frames, (2, 0, 1)), _unrounded(ops, first, waveform))
    turned = ops.transpose(ops.reshape(turned, (points, -1, 2, rows)), (1, 3, 2, 0))
    parts = ops.square(
        ops.matmul(ops.reshape(turned, (-1, rows, 2 * points)), _unrounded(ops, second, waveform))
    )
    power = ops.transpose(parts[..., :points] + parts[..., points:], (0, 2, 1))
    return ops.reshape(power, (-1, n_fft))[:, : half + 1]


def _unrounded(ops: Any, constant: Any, waveform: Any) -> Any:
    """Keep LiteRT's converter from rounding a matrix to 8 bits, as it does where it knows the values."""
    one = ops.cast(ops.shape(waveform)[1] > 0, "float32")
    return constant.astype(np.float32) * one


def _log(ops: Any, power: Any, floor: float) -> Any:
    """Logarithm to base 10."""
    return ops.log(ops.maximum(power, floor)) * float(1.0 / np.log(10.0))


def _mfcc(ops: Any, waveform: Any, section: MfccConfig) -> Any:
    """`features.mfcc.compute`: (1, samples) -> (1, n_mfcc)."""
    power = _power(ops, waveform, section.n_fft, section.hop_length, "constant")
    bank = mel_filter_bank(section.sr, section.n_fft, section.n_mels)
    decibel = 10.0 * _log(ops, ops.matmul(power, bank.T), mfcc.AMIN)
    decibel = ops.maximum(decibel, ops.max(decibel) - mfcc.TOP_DB)
    transform = mfcc.dct(section.n_mels)[:, : section.n_mfcc].astype(np.float32)
    return ops.matmul(ops.mean(decibel, axis=0, keepdims=True), transform)


def _whisper(ops: Any, waveform: Any, encoder: Any) -> Any:
    """`features.whisper.compute`: (1, samples) -> (1, 3072)."""
    power = _power(ops, waveform, whisper.N_FFT, whisper.HOP_LENGTH, "reflect")[:-1]
    bank = mel_filter_bank(whisper.SR, whisper.N_FFT, whisper.N_MELS)
    power = ops.matmul(power, _unrounded(ops, bank.T, waveform))
    speech = _is_speech(ops, power)
    windows, valid = _windows(ops, *_fixed_level(ops, _log(ops, power, whisper.AMIN), speech), speech)

    outputs = encoder(windows)
    share = ops.cast(valid, "float32")[:, None, :, None]
    share = share / ops.sum(share)
    mean = ops.sum(outputs * share, axis=(0, 2), keepdims=True)
    deviation = ops.sqrt(ops.sum(ops.square(outputs - mean) * share, axis=(0, 2)))
    return ops.reshape(ops.concatenate([mean[0, :, 0], deviation], axis=1), (1, -1))


def _is_speech(ops: Any, power: Any) -> Any:
    """`features.whisper.is_speech`: (frames, 80) -> (frames,)."""

    def highest(x: Any, n: int) -> Any:
        return ops.max_pool(x[None, :, None], n, 1, "same")[0, :, 0]

    def lowest(x: Any, n: int) -> Any:
        return -highest(-x, n)

    n_frames = ops.shape(power)[0]
    level = 10.0 * _log(ops, ops.sum(power[:, whisper.FIRST_BAND :], axis=1), whisper.AMIN)
    side = whisper.SMOOTH_FRAMES // 2
    level = ops.concatenate([ops.repeat(level[:1], side), level, ops.repeat(level[-1:], side)])
    level = ops.average_pool(level[None, :, None], whisper.SMOOTH_FRAMES, 1)[0, :, 0]
    ordered = ops.sort(level)
    loudest = ops.take(ordered, ops.maximum(n_frames - 1 - whisper.LOUDER_FRAMES, 0))
    quiet = ops.take(ordered, n_frames // round(1 / whisper.QUIET_SHARE))
    threshold = ops.maximum(
        loudest - whisper.TRIM_DB,
        ops.minimum(quiet + whisper.ABOVE_QUIET_DB, loudest - whisper.SURE_DB),
    )
    near = ops.cast(level >= threshold, "float32")
    speech = highest(lowest(near, whisper.CLICK_FRAMES), whisper.CLICK_FRAMES)
    gap = whisper.GAP_FRAMES
    speech = lowest(highest(ops.pad(speech, (gap, gap)), gap), gap)[gap:-gap]
    return ops.where(ops.max(speech) > 0, speech, near) > 0


def _fixed_level(ops: Any, frames: Any, speech: Any) -> tuple[Any, Any]:
    """`features.whisper.fixed_level`, by the frames with speech; and their lowest value."""
    far = float(2 * np.log10(whisper.AMIN))  # below every frame
    n_frames, n_speech = ops.shape(frames)[0], ops.sum(ops.cast(speech, "int32"))
    ordered = ops.sort(ops.where(speech, ops.max(frames, axis=1), far))
    loudest = ops.take(ordered, n_frames - 1 - ops.minimum(whisper.LOUDER_FRAMES, n_speech - 1))
    relative = ops.maximum(frames - loudest, -whisper.RANGE)
    levelled = (relative + (whisper.LOUDEST + 4.0)) / 4.0
    return levelled, ops.min(ops.where(speech, ops.min(levelled, axis=1), ops.max(levelled)))


def _windows(ops: Any, frames: Any, lowest: Any, speech: Any) -> tuple[Any, Any]:
    """`features.whisper.windows` of the frames with speech, and which outputs of the encoder count.

    (windows, 300, 80), as many as a clip that is speech throughout has, filled up with the lowest value;
    and (windows, 150).
    """
    length, hop = whisper.WINDOW, whisper.WINDOW_HOP
    n_frames, n_speech = ops.shape(frames)[0], ops.sum(ops.cast(speech, "int32"))
    position = ops.arange(n_frames, dtype="int32")
    # Sorted so, the frames with speech come first and stay in order.
    order = ops.sort(ops.where(speech, position, position + n_frames)) % n_frames
    window = ops.arange(1 + ops.maximum(n_frames - length + hop - 1, 0) // hop, dtype="int32")[:, None]
    start = ops.minimum(hop * window, ops.maximum(n_speech - length, 0))
    row = start + np.arange(length, dtype=np.int32)
    inside = row < n_speech
    held = ops.take(frames, ops.take(order, ops.minimum(row, n_frames - 1)), axis=0)
    used = ops.logical_or(window == 0, n_speech > hop * window + (length - hop))
    return ops.where(inside[..., None], held, lowest), ops.logical_and(inside[:, ::2], used)


# --- Whisper's audio encoder, built from the arrays that come with the package ---------------------------


def packaged_encoder(quantised: bool = False) -> Any:
    """Build the encoder that feature set `whisper` runs, for windows of its length.

    (batch, frames, n_mels) -> (batch, n_blocks, frames // 2, width): what each block gives. In the arrays
    `linear_0` of an attention is query, key and value in one, convolutions are (out, in, width), dense layers
    (out, in). `quantised`: whether weights and what they are multiplied with are rounded to 8 bits, as LiteRT
    does it when it runs `features/whisper_encoder.tflite`.
    """
    keras = load_keras()
    layers, ops = keras.layers, keras.ops
    with np.load(whisper.ENCODER.with_suffix(".npz")) as arrays:
        weights = {name: np.asarray(values, np.float32) for name, values in arrays.items()}
    if quantised:
        weights = {name: _rounded(w) if name.endswith(".weight") else w for name, w in weights.items()}
    width, n_mels, _ = weights["conv1.weight"].shape
    n_blocks = sum(name.endswith(".ffn.layer_norm.gamma") for name in weights)
    n_heads, length = width // _HEAD_DIM, whisper.WINDOW // 2
    assign: list[tuple[Any, list[Array]]] = []

    def rounded(x: Any, axis: Any) -> Any:
        """Round to 256 steps from the lowest to the highest number, of which one is zero."""
        if not quantised:
            return x
        low = ops.minimum(ops.min(x, axis, keepdims=True), 0)
        high = ops.maximum(ops.max(x, axis, keepdims=True), 0)
        step = ops.maximum(high - low, 1e-9) / 255
        zero = ops.round(-low / step)
        return (ops.clip(ops.round(x / step) + zero, 0, 255) - zero) * step

    def dense(x: Any, name: str, rows: slice = slice(None), scale: float = 1.0) -> Any:
        kernel, bias = weights[f"{name}.weight"][rows].T * scale, weights[f"{name}.bias"][rows] * scale
        layer = layers.Dense(kernel.shape[1])
        assign.append((layer, [kernel, bias]))
        return layer(rounded(x, -1))

    def conv(x: Any, name: str, stride: int) -> Any:
        layer = layers.Conv1D(width, 3, strides=stride)
        assign.append((layer, [weights[f"{name}.weight"].transpose(2, 1, 0), weights[f"{name}.bias"]]))
        # PyTorch pads one frame at both ends; "same" would pad the second convolution at its end alone.
        return gelu(layer(rounded(layers.ZeroPadding1D(1)(x), (1, 2))))

    def normalise(x: Any, name: str) -> Any:
        layer = layers.LayerNormalization(epsilon=_EPSILON)
        assign.append((layer, [weights[f"{name}.gamma"], weights[f"{name}.beta"]]))
        return layer(x)

    def gelu(x: Any) -> Any:
        return ops.gelu(x, approximate=False)

    def heads(x: Any) -> Any:
        return ops.transpose(ops.reshape(x, (-1, length, n_heads, _HEAD_DIM)), (0, 2, 1, 3))

    def attention(x: Any, name: str) -> Any:
        # The square root of the head's width, half of it on each side, as Whisper does it.
        query = heads(dense(x, f"{name}.linear_0", slice(0, width), _HEAD_DIM**-0.5))
        key = heads(dense(x, f"{name}.linear_0", slice(width, 2 * width)))
        value = heads(dense(x, f"{name}.linear_0", slice(2 * width, 3 * width)))
        shares = ops.softmax(ops.matmul(query, ops.transpose(key, (0, 1, 3, 2))))
        mixed = ops.transpose(ops.matmul(shares, value), (0, 2, 1, 3))
        return dense(ops.reshape(mixed, (-1, length, width)), f"{name}.linear_1")

    mel = keras.Input((whisper.WINDOW, n_mels), name="log_mel")
    x = conv(conv(mel, "conv1", 1), "conv2", 2) + weights["position_encodings.encodings"][:length]
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


def _rounded(weights: Array) -> Array:
    """Round to 255 steps about zero, for each output."""
    step = np.abs(weights).max(axis=tuple(range(1, weights.ndim)), keepdims=True) / np.float32(127)
    rounded: Array = np.round(weights / step) * step
    return rounded
