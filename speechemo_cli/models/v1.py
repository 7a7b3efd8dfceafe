"""v1: the baseline, a 1D-CNN over the time-averaged MFCCs."""

from __future__ import annotations

from typing import Any

from speechemo_cli.models import Preset, load_keras
from speechemo_cli.models.training import batches, training_model

__all__ = ["PRESET", "batches", "build", "training_model"]

PRESET = Preset(feature_set="mfcc", epochs=50, batch_size=32, learning_rate=1e-3, dropout=0.1)


def build(input_shape: tuple[int, ...], n_classes: int, preset: Preset) -> Any:
    """Build the network for features [shape=(n_mfcc,)].

    Two convolutions run along the coefficients: neighbouring MFCCs describe neighbouring ripples of
    the spectrum's envelope.
    """
    keras = load_keras()
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(input_shape, name="mfcc"),
            layers.Normalization(name="normalise"),
            layers.Reshape((*input_shape, 1)),
            layers.Conv1D(64, 5, padding="same", activation="relu"),
            layers.Dropout(preset.dropout),
            layers.MaxPooling1D(4),
            layers.Conv1D(128, 5, padding="same", activation="relu"),
            layers.Dropout(preset.dropout),
            layers.Flatten(),
            layers.Dense(n_classes, activation="softmax", name="emotion"),
        ],
        name="v1",
    )
