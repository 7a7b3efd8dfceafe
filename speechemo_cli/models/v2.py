"""v2: v1 with BatchNormalization, stronger dropout, a dense layer and twice the epochs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from speechemo_cli.models import Preset, plain
from speechemo_cli.models.keras_backend import load_keras
from speechemo_cli.models.plain import batches, compile_model, learner, prepare

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["PARTS", "PRESET", "batches", "build", "compile_model", "learner", "prepare"]

PARTS = (plain,)
PRESET = Preset(feature_set="mfcc", epochs=100, batch_size=32, learning_rate=1e-3, dropout=0.4)


def build(x: NDArray[np.float32], n_classes: int, preset: Preset) -> Any:
    """Build the network, normalised by the clips it is going to be trained on.

    Parameters
    ----------
    x : np.ndarray [shape=(clips, n_mfcc), dtype=float32]
        Training clips; the mean and deviation of each coefficient are taken from them alone.
    n_classes : int
    preset : Preset

    Returns
    -------
    keras.Model
        (batch, n_mfcc) -> (batch, n_classes) probabilities.
    """
    keras = load_keras()
    layers = keras.layers
    normalise = layers.Normalization(name="normalise")
    normalise.adapt(x)
    blocks = [
        layer
        for width in (64, 128)
        for layer in (
            layers.Conv1D(width, 5, padding="same", use_bias=False),
            # A short memory: the default would lag four epochs behind on a thousand clips.
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.MaxPooling1D(2),
            layers.Dropout(preset.dropout),
        )
    ]
    return keras.Sequential(
        [
            keras.Input((x.shape[1],), name="mfcc"),
            normalise,
            layers.Reshape((x.shape[1], 1)),
            *blocks,
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dropout(preset.dropout),
            layers.Dense(n_classes, activation="softmax", name="emotion"),
        ],
        name="v2",
    )
