"""The feature sets as Keras layers, so that a network can be exported with its front end in it.

Every shape follows from the number of samples alone, never from what they hold: a runtime can plan its
memory only then.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.export.encoder import packaged_encoder
from speechemo_cli.features import FEATURE_SETS, mfcc, whisper
from speechemo_cli.features.spectrum import hann_window, mel_filter_bank
from speechemo_cli.models.keras_backend import load_keras

if TYPE_CHECKING:
    from speechemo_cli.config import Config, MfccConfig


def waveform_model(network: Any, feature_set: str, config: Config, *, quantised: bool = False) -> Any:
    """Put the front end before a network.

    Parameters
    ----------
    network : keras.Model
        (batch, dim) -> (batch, n_classes)
    feature_set : {"mfcc", "whisper"}
    config : Config
        The features the network was trained on.
    quantised : bool
        Whether the encoder of `whisper` computes with the rounded numbers of its LiteRT file.

    Returns
    -------
    keras.Model
        (1, samples) -> (1, n_classes): mono samples at the rate of the feature set, full scale at 1.0, of
        any length from `FeatureSet.shortest` on.
    """
    keras = load_keras()
    section = FEATURE_SETS[feature_set].section(config)
    encoder = packaged_encoder(quantised) if feature_set == "whisper" else None

    class FrontEnd(keras.layers.Layer):  # type: ignore[misc, name-defined]
        """(1, samples) -> (1, dim)."""

        def __init__(self) -> None:
            super().__init__(name="front_end", trainable=False)
            self.encoder = encoder

        def call(self, waveform: Any) -> Any:
            if self.encoder is not None:
                return _whisper(keras.ops, waveform, self.encoder)
            return _mfcc(keras.ops, waveform, section)

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
    """`features.whisper.windows` of the frames with speech, filled up with their lowest value.

    Returns
    -------
    windows : tensor [shape=(windows, 300, 80)]
        As many as a clip that is speech throughout has.
    valid : tensor [shape=(windows, 150), dtype=bool]
        Which outputs of the encoder count.
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
