"""The feature sets as Keras layers, so that a network can be handed on with its front end in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.features import FEATURE_SETS, logmel, mfcc
from speechemo_cli.features.spectrum import mel_filter_bank
from speechemo_cli.models import dft
from speechemo_cli.models.keras_backend import load_keras

if TYPE_CHECKING:
    from speechemo_cli.config import Config, LogmelConfig, MfccConfig


def waveform_model(network: Any, feature_set: str, config: Config) -> Any:
    """Put the front end before a network.

    The features are those of `FeatureSet.compute` and the clip is brought to the frames the network
    looks at as its version's `prepare` does it; only the place where it is computed is another.

    Parameters
    ----------
    network : keras.Model
        (batch, frames, dim) or (batch, dim) -> (batch, n_classes)
    feature_set : str
    config : Config
        The features the network was trained on.

    Returns
    -------
    keras.Model
        (1, samples) -> (1, n_classes): mono samples at `section.sr`, full scale at 1.0, of any length
        of at least half an FFT window.
    """
    keras = load_keras()
    section = FEATURE_SETS[feature_set].section(config)
    compute: Any = {"logmel": _logmel, "mfcc": _mfcc}[feature_set]
    shape = network.input_shape[1:]

    class FrontEnd(keras.layers.Layer):  # type: ignore[misc, name-defined]
        """(1, samples) -> what the network reads of one clip, with a batch axis of 1."""

        def call(self, waveform: Any) -> Any:
            return keras.ops.reshape(compute(keras.ops, waveform, section, shape[0]), (1, *shape))

        def compute_output_shape(self, _input_shape: Any) -> tuple[int, ...]:
            return (1, *shape)

    waveform = keras.Input((None,), batch_size=1, name="waveform")
    front_end = FrontEnd(name="front_end", trainable=False)
    return keras.Model(waveform, network(front_end(waveform)), name=network.name)


def _mel(ops: Any, power: tuple[Any, Any], bank: Any) -> Any:
    """Sum power spectra, as `dft.power` gives them, by a filter bank [shape=(n_mels, bins)]."""
    spectra, column_of = power
    weights = np.zeros((spectra.shape[1], len(bank)), np.float32)
    weights[column_of] = bank.T
    return ops.matmul(spectra, weights)


def _logmel(ops: Any, waveform: Any, section: LogmelConfig, length: int) -> Any:
    """`features.logmel.compute` and v3's `prepare`: (1, samples) -> (length, 4 * n_mels)."""
    how: dict[str, Any] = {"hop_length": section.hop_length, "pad_mode": "reflect"}
    n_fft, n_mels = section.n_fft, section.n_mels

    def log_mel(power: Any, n_fft: int, n_mels: int) -> Any:
        bank = mel_filter_bank(section.sr, n_fft, n_mels, section.fmin, section.fmax)
        return ops.log(_mel(ops, power, bank) + logmel.FLOOR)

    short = log_mel(
        dft.power(ops, waveform, n_fft=n_fft, win_length=section.win_length, **how), n_fft, n_mels
    )
    power = dft.power(ops, waveform, n_fft=2 * n_fft, win_length=2 * n_fft, **how)
    long = log_mel(power, 2 * n_fft, 2 * n_mels)
    harmonics, comb = logmel.pitch_comb(section.sr, 2 * n_fft, n_mels)
    spectra, column_of = power
    magnitude = ops.sqrt(ops.take(spectra, column_of[harmonics], axis=1))
    total = ops.sum(magnitude, axis=1, keepdims=True) + logmel.NO_MAGNITUDE
    pitch = ops.matmul(magnitude, comb) / total
    n_frames = ops.shape(short)[0]
    first, last = 0, n_frames
    if section.trim_nepers:
        level = ops.mean(short, axis=1)
        side = logmel.SMOOTH_FRAMES // 2
        edges = (ops.repeat(level[:1], side), level, ops.repeat(level[-1:], side))
        smooth = ops.average_pool(ops.concatenate(edges)[None, :, None], logmel.SMOOTH_FRAMES, 1)[0, :, 0]
        near = ops.cast(smooth >= ops.max(smooth) - section.trim_nepers, "int32")
        first, last = ops.argmax(near), n_frames - ops.argmax(ops.flip(near))
    parts = [_window(ops, part, first, last, length) for part in (short, long, pitch)]
    return ops.concatenate(parts, axis=1)


def _mfcc(ops: Any, waveform: Any, section: MfccConfig, _length: int) -> Any:
    """`features.mfcc.compute`: (1, samples) -> (1, n_mfcc)."""
    power = dft.power(
        ops,
        waveform,
        n_fft=section.n_fft,
        win_length=section.n_fft,
        hop_length=section.hop_length,
        pad_mode="constant",
    )
    mel = _mel(ops, power, mel_filter_bank(section.sr, section.n_fft, section.n_mels, 0.0, section.sr / 2))
    decibel = ops.log(ops.maximum(mel, mfcc.AMIN)) * float(10.0 / np.log(10.0))
    decibel = ops.maximum(decibel, ops.max(decibel) - mfcc.TOP_DB)
    transform = mfcc.dct(section.n_mels)[:, : section.n_mfcc].astype(np.float32)
    return ops.matmul(ops.mean(decibel, axis=0, keepdims=True), ops.convert_to_tensor(transform))


def _window(ops: Any, frames: Any, first: Any, last: Any, length: int) -> Any:
    """Cut frames first to last to their middle, or pad them on both sides with their minimum.

    Every shape follows from the number of samples alone, never from what they say: a runtime can plan
    its memory and use its fast kernels only then.

    Returns
    -------
    tensor [shape=(length, dim)]
    """
    position = ops.arange(ops.shape(frames)[0], dtype="int32")[:, None]
    speech = ops.logical_and(position >= first, position < last)
    lowest = ops.min(ops.where(speech, frames, ops.max(frames)))
    n = last - first
    skipped = ops.where(n >= length, (n - length) // 2, -((length - n) // 2))
    row = first + skipped + np.arange(length, dtype=np.int32)
    held = ops.take(frames, ops.clip(row, first, last - 1), axis=0)
    return ops.where(ops.logical_and(row >= first, row < last)[:, None], held, lowest)
