"""v1: the baseline, a 1D-CNN over the time-averaged MFCCs."""

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
PRESET = Preset(feature_set="mfcc", epochs=50, batch_size=32, learning_rate=1e-3, dropout=0.1)


def build(x: NDArray[np.float32], n_classes: int, preset: Preset) -> Any:
    """Build the network, normalised by the clips it is going to be trained on.

    Two convolutions run along the coefficients: neighbouring MFCCs describe neighbouring ripples of
    the spectrum's envelope.

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
    return keras.Sequential(
        [
            keras.Input((x.shape[1],), name="mfcc"),
            normalise,
            layers.Reshape((x.shape[1], 1)),
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
