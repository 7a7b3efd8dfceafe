"""v3: small dense networks over statistics of Whisper's encoder, averaged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.models import Preset, load_keras, training

if TYPE_CHECKING:
    from speechemo_cli.models.training import Rows

PRESET = Preset(
    "whisper", epochs=30, batch_size=256, learning_rate=2e-3, dropout=0.5, augmented="augment", calibrate=True
)

_HEADS = 3
_WIDTH = 256
# Parameter of the Beta distribution that weights of mixed clips are drawn from (mixup, Zhang et al. 2018).
_MIXUP = 0.4
_SMOOTHING = 0.1
_WEIGHT_DECAY = 1e-2


def build(input_shape: tuple[int, ...], n_classes: int, preset: Preset) -> Any:
    """Build the network.

    Each head is one dense layer between two dropouts, trained for itself, as members of an ensemble
    are; the answer is the geometric mean of theirs. The dense layers of all heads are one, which takes a
    third of the time.
    """
    keras = load_keras()
    layers = keras.layers
    features = keras.Input(input_shape, name="whisper")
    h = layers.Normalization(name="normalise")(features)
    h = layers.Dense(_HEADS * _WIDTH, use_bias=False)(layers.Dropout(preset.dropout)(h))
    h = layers.Activation("gelu")(layers.BatchNormalization(momentum=0.9)(h))
    h = layers.Reshape((_HEADS, _WIDTH))(layers.Dropout(preset.dropout)(h))
    logits = layers.EinsumDense("bhw,hwc->bhc", (_HEADS, n_classes), bias_axes="hc", name="emotion")(h)
    answer = layers.Activation("softmax", name="answer")(layers.GlobalAveragePooling1D()(logits))
    return keras.Model(features, answer, name="v3")


def training_model(model: Any, preset: Preset, steps: int) -> Any:
    """Return what is trained, compiled: the same layers, but each head answers for itself.

    AdamW (Loshchilov & Hutter 2019) with a warm-up and a cosine to zero, at so many steps an epoch, and
    smoothed labels.
    """
    keras = load_keras()
    logits = model.get_layer("emotion").output
    trained = keras.Model(model.inputs[0], keras.layers.Activation("softmax")(logits))
    total = steps * preset.epochs
    warm_up = max(1, round(0.1 * total))
    rate = keras.optimizers.schedules.CosineDecay(
        preset.learning_rate / 25,
        max(1, total - warm_up),
        warmup_target=preset.learning_rate,
        warmup_steps=warm_up,
    )
    trained.compile(
        optimizer=keras.optimizers.AdamW(rate, weight_decay=_WEIGHT_DECAY),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=_SMOOTHING),
    )
    return trained


def batches(rows: Rows, n_classes: int, preset: Preset, seed: int, epochs_done: int) -> dict[str, Any]:
    """Return what `keras.Model.fit` is called with: clips drawn by their weights and mixed in pairs."""
    keras = load_keras()
    x, targets, weights = rows
    one_hot = np.eye(n_classes, dtype=np.float32)[targets]
    share = np.cumsum(weights, dtype=np.float64)
    steps = training.steps_an_epoch(weights, preset.batch_size)

    class Mixed(keras.utils.PyDataset):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            # With one worker Keras lets tf.data look for the best number, and wait for that search.
            super().__init__(workers=2)
            self.epoch = epochs_done

        def __len__(self) -> int:
            return steps

        def __getitem__(self, i: int) -> Any:
            # Seeded by epoch and batch, so that a training that was broken off goes on as it would have.
            rng = np.random.default_rng((seed, self.epoch, i))
            drawn = rng.random(preset.batch_size) * share[-1]
            at = np.minimum(np.searchsorted(share, drawn, side="right"), len(x) - 1)
            other = rng.permutation(at)
            part = rng.beta(_MIXUP, _MIXUP, (preset.batch_size, 1)).astype(np.float32)
            truth = part * one_hot[at] + (1 - part) * one_hot[other]
            return part * x[at] + (1 - part) * x[other], np.repeat(truth[:, None], _HEADS, axis=1)

        def on_epoch_end(self) -> None:
            self.epoch += 1

    return {"x": Mixed(), "shuffle": False}
