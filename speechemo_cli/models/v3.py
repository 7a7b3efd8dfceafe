"""v3: a compact 2-D residual network over log-mel frames, with attentive statistics pooling."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.models import Preset, augment
from speechemo_cli.models.backend import load_keras

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# What decides its answers besides this module.
PARTS = (augment,)
PRESET = Preset(
    feature_set="logmel", epochs=120, batch_size=16, learning_rate=2e-3, dropout=0.2, calibrate=True
)

# Frames the network looks at: 2.24 s of speech at 10 ms, the median of RAVDESS's trimmed clips.
FRAMES = 224
_STEM = 32
_WIDTHS = (32, 64, 128)
_EMBEDDING = 256


def prepare(clips: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Bring clips of any length to `FRAMES` frames.

    A longer clip is cut to its middle; a shorter one is padded on both sides with its own minimum,
    which is what silence looks like in that recording.

    Parameters
    ----------
    clips : sequence of np.ndarray [shape=(frames, n_mels), dtype=float32]

    Returns
    -------
    np.ndarray [shape=(clips, FRAMES, n_mels), dtype=float32]
    """
    prepared = np.empty((len(clips), FRAMES, clips[0].shape[1]), np.float32)
    for row, frames in zip(prepared, clips, strict=True):
        row[:] = frames.min()
        n = min(len(frames), FRAMES)
        first, at = (len(frames) - n) // 2, (FRAMES - n) // 2
        row[at : at + n] = frames[first : first + n]
    return prepared


def build(x: NDArray[np.float32], n_classes: int, preset: Preset) -> Any:
    """Build the network, normalised by the clips it is going to be trained on.

    A convolution of 5 x 5 and three residual blocks each halve time and frequency (He et al. 2016, with
    the activation before the convolution). The channels of the four remaining frequency rows are
    joined, and the mean and deviation over time are taken with learnt weights (Okabe et al. 2018,
    attentive statistics pooling): what is said loudest about an emotion is said in a few frames.

    Parameters
    ----------
    x : np.ndarray [shape=(clips, FRAMES, n_mels), dtype=float32]
        Training clips; the mean and deviation of each band are taken from them alone.
    n_classes : int
    preset : Preset

    Returns
    -------
    keras.Model
        (batch, FRAMES, n_mels) -> (batch, n_classes) probabilities.
    """
    keras = load_keras()
    layers = keras.layers
    frames = keras.Input(x.shape[1:], name="logmel")
    normalise = layers.Normalization(name="normalise")
    normalise.adapt(x)
    h = layers.Reshape((*x.shape[1:], 1))(normalise(frames))
    h = layers.Conv2D(_STEM, 5, strides=2, padding="same", use_bias=False)(h)
    for width in _WIDTHS:
        h = _block(layers, h, width)
    h = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(h))
    # (time, frequency, channels) -> (time, everything heard at that time)
    h = layers.Reshape((h.shape[1], h.shape[2] * h.shape[3]))(h)
    h = layers.Dropout(preset.dropout)(h)
    h = layers.Conv1D(_EMBEDDING, 1, use_bias=False)(h)
    h = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(h))
    h = layers.BatchNormalization(momentum=0.9)(_pool(keras, h))
    h = layers.Dropout(preset.dropout)(h)
    return keras.Model(frames, layers.Dense(n_classes, activation="softmax", name="emotion")(h), name="v3")


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
    one_hot = np.eye(n_classes, dtype=np.float32)[targets]

    class Augmented(keras.utils.PyDataset):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
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
            return augment.batch(x[at], one_hot[at], mean, deviation, augment.Augmentation(), rng)

        def on_epoch_end(self) -> None:
            self._begin(self.epoch + 1)

    return {"x": Augmented(), "shuffle": False}


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
