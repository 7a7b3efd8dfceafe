"""v3: two compact 2-D residual networks over log-mel frames, with attentive statistics pooling."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.features import logmel
from speechemo_cli.models import Preset, augment
from speechemo_cli.models.keras_backend import load_keras

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# What decides its answers besides this module.
PARTS = (augment,)
PRESET = Preset(
    feature_set="logmel", epochs=100, batch_size=16, learning_rate=2e-3, dropout=0.2, calibrate=True
)

# Frames the network looks at: 2.24 s of speech at 10 ms, the median of RAVDESS's trimmed clips.
FRAMES = 224
_WIDTHS = (32, 64, 128)
_NARROW = (16, 32, 64)
_LISTENERS = ("emotion_moves", "emotion_tones")
_EMBEDDING = 256


def prepare(clips: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Bring clips of any length to `FRAMES` frames.

    A longer clip is cut to its middle; a shorter one is padded on both sides with its own minimum of
    each part of a frame, which is what silence looks like in that recording.

    Parameters
    ----------
    clips : sequence of np.ndarray [shape=(frames, dim), dtype=float32]

    Returns
    -------
    np.ndarray [shape=(clips, FRAMES, dim), dtype=float32]
    """
    prepared = np.empty((len(clips), FRAMES, clips[0].shape[1]), np.float32)
    for row, frames in zip(prepared, clips, strict=True):
        for part in logmel.columns(frames.shape[1]):
            row[:, part] = frames[:, part].min()
        n = min(len(frames), FRAMES)
        first, at = (len(frames) - n) // 2, (FRAMES - n) // 2
        row[at : at + n] = frames[first : first + n]
    return prepared


def build(input_shape: tuple[int, ...], n_classes: int, preset: Preset) -> Any:
    """Build the network, untrained; its `normalise` layer is still to be adapted.

    Two listeners that share nothing but the clip: one hears the short window and the pitch, the other
    the long window. Each is trained by itself, as members of an ensemble are, and the answer is the
    geometric mean of theirs: they err on different voices. A listener is a convolution and three
    residual blocks that each halve time and frequency (He et al. 2016, with the activation before the
    convolution). The channels of the remaining frequency rows are joined, and the mean and deviation
    over time are taken with learnt weights (Okabe et al. 2018, attentive statistics pooling): what
    is said loudest about an emotion is said in a few frames.

    Parameters
    ----------
    input_shape : tuple of int
        Of one clip: (FRAMES, dim).
    n_classes : int
    preset : Preset

    Returns
    -------
    keras.Model
        (batch, FRAMES, dim) -> (batch, n_classes) probabilities.
    """
    keras = load_keras()
    layers = keras.layers
    frames = keras.Input(input_shape, name="logmel")
    h = layers.Reshape((*input_shape, 1))(layers.Normalization(name="normalise")(frames))
    short, long, pitch = (
        layers.Cropping2D(((0, 0), (part.start, input_shape[1] - part.stop)))(h)
        for part in logmel.columns(input_shape[1])
    )
    moves = layers.Concatenate()([_trunk(layers, short, 5, 2, _WIDTHS), _trunk(layers, pitch, 5, 2, _NARROW)])
    # Twice the bands, so twice the step, to the same number of rows.
    tones = _trunk(layers, long, (5, 7), (2, 4), _WIDTHS)
    logits = [
        layers.Dense(n_classes, name=name)(_listen(keras, heard, preset))
        for name, heard in zip(_LISTENERS, (moves, tones), strict=True)
    ]
    answer = layers.Activation("softmax", name="answer")(layers.Average()(logits))
    return keras.Model(frames, answer, name="v3")


def training_model(model: Any) -> Any:
    """Return what is trained: the same layers, but each listener answers for itself."""
    keras = load_keras()
    return keras.Model(
        model.input,
        [keras.layers.Activation("softmax")(model.get_layer(name).output) for name in _LISTENERS],
    )


def compile_model(model: Any, preset: Preset, steps: int) -> None:
    """Choose optimizer and loss, in place.

    AdamW (Loshchilov & Hutter 2019) with a warm-up and a cosine to zero, clipped gradients, smoothed
    labels, and an exponential average of the weights, which stands in for picking the best epoch:
    that would need clips to pick it by.

    Parameters
    ----------
    model : keras.Model
    preset : Preset
    steps : int
        Batches an epoch.
    """
    keras = load_keras()
    total = steps * preset.epochs
    warm_up = max(1, round(0.15 * total))
    # The average forgets the first weights in a twentieth of a short training, 200 batches of a long one.
    momentum = min(0.995, 1 - 1 / max(1.0, 0.05 * total))
    rate = keras.optimizers.schedules.CosineDecay(
        preset.learning_rate / 25,
        max(1, total - warm_up),
        warmup_target=preset.learning_rate,
        warmup_steps=warm_up,
    )
    model.compile(
        optimizer=keras.optimizers.AdamW(
            rate, weight_decay=1e-3, global_clipnorm=5.0, use_ema=True, ema_momentum=momentum
        ),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
    )


def batches(
    x: NDArray[np.float32],
    targets: NDArray[np.int64],
    n_classes: int,
    preset: Preset,
    seed: int,
    epochs_done: int,
) -> dict[str, Any]:
    """Return what `keras.Model.fit` is called with: every clip once an epoch, each time another way."""
    keras = load_keras()
    mean, deviation = x.mean(axis=(0, 1)), x.std(axis=(0, 1))
    parts = _parts(x.shape[2])
    one_hot = np.eye(n_classes, dtype=np.float32)[targets]

    class Augmented(keras.utils.PyDataset):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            # Two threads bend the next batches while the network learns from this one. With one, Keras
            # lets tf.data look for the best number, and wait for that search after every epoch.
            super().__init__(workers=2)
            self._begin(epochs_done)

        def _begin(self, epoch: int) -> None:
            # Seeded by epoch and batch, so that a training that was broken off goes on as it would have,
            # and a batch that Keras looks at beforehand changes nothing.
            self.epoch = epoch
            self.order = np.random.default_rng((seed, epoch)).permutation(len(x))

        def __len__(self) -> int:
            return math.ceil(len(x) / preset.batch_size)

        def __getitem__(self, i: int) -> Any:
            at = self.order[i * preset.batch_size : (i + 1) * preset.batch_size]
            rng = np.random.default_rng((seed, self.epoch, i))
            bent, truth = augment.batch(x[at], one_hot[at], mean, deviation, parts, rng)
            return bent, (truth,) * len(_LISTENERS)

        def on_epoch_end(self) -> None:
            self._begin(self.epoch + 1)

    return {"x": Augmented(), "shuffle": False}


def _parts(dim: int) -> list[tuple[slice, augment.Augmentation]]:
    """How far each part of a frame may be bent: twice the bands move twice as far.

    A voice's pitch says little about the length of its vocal tract, so it is moved by itself.
    """
    rules = augment.Augmentation()
    short, long, pitch = logmel.columns(dim)
    return [
        (short, rules),
        (long, replace(rules, shift=2 * rules.shift, bands=2 * rules.bands)),
        (pitch, replace(rules, warp=(1.0, 1.0), shift=4 * rules.shift, tilt=0.0)),
    ]


def _trunk(layers: Any, h: Any, kernel: Any, strides: Any, widths: tuple[int, ...]) -> Any:
    """(frames, bands, 1) -> (time, everything heard at that time)."""
    h = layers.Conv2D(widths[0], kernel, strides=strides, padding="same", use_bias=False)(h)
    for width in widths:
        h = _block(layers, h, width)
    h = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(h))
    return layers.Reshape((h.shape[1], h.shape[2] * h.shape[3]))(h)


def _listen(keras: Any, h: Any, preset: Preset) -> Any:
    """(time, channels) -> what a listener makes of the clip."""
    layers = keras.layers
    h = layers.Dropout(preset.dropout)(h)
    h = layers.Conv1D(_EMBEDDING, 1, use_bias=False)(h)
    h = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(h))
    h = layers.BatchNormalization(momentum=0.9)(_pool(keras, h))
    return layers.Dropout(preset.dropout)(h)


def _block(layers: Any, h: Any, width: int) -> Any:
    """Halve time and frequency in a residual block of two 3 x 3 convolutions."""
    shortcut = layers.Conv2D(width, 1, use_bias=False)(layers.AveragePooling2D(2)(h))
    h = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(h))
    h = layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False)(h)
    h = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(h))
    h = layers.Conv2D(width, 3, padding="same", use_bias=False)(h)
    return layers.Add()([h, shortcut])


def _pool(keras: Any, h: Any) -> Any:
    """Weighted mean and deviation over time, one set of weights a channel."""
    layers, ops = keras.layers, keras.ops
    weights = layers.Conv1D(64, 1, activation="tanh")(h)
    weights = layers.Softmax(axis=1)(layers.Conv1D(h.shape[-1], 1)(weights))
    mean = ops.sum(weights * h, axis=1)
    variance = ops.sum(weights * ops.square(h), axis=1) - ops.square(mean)
    return layers.Concatenate()([mean, ops.sqrt(ops.maximum(variance, 1e-5))])
