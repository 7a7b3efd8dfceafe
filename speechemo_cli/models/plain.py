"""How v1 and v2 are fed and trained: whole clips as vectors, Adam at a constant rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from speechemo_cli.models.keras_backend import load_keras

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from speechemo_cli.models import Preset


def training_model(model: Any) -> Any:
    """Return what is trained: the network itself."""
    return model


def compile_model(model: Any, preset: Preset, _steps: int) -> None:
    """Choose optimizer and loss, in place."""
    keras = load_keras()
    model.compile(
        optimizer=keras.optimizers.Adam(preset.learning_rate),
        loss="sparse_categorical_crossentropy",
    )


def batches(
    x: NDArray[np.float32],
    targets: NDArray[np.int64],
    weights: NDArray[np.float32],
    _n_classes: int,
    preset: Preset,
    _seed: int,
    _epochs_done: int,
) -> dict[str, Any]:
    """Return what `keras.Model.fit` is called with: every clip once an epoch, by its weight."""
    return {"x": x, "y": targets, "sample_weight": weights, "batch_size": preset.batch_size}
