"""How v1 and v2 are fed and trained: whole clips as vectors, Adam at a constant rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.models.keras_backend import load_keras

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from speechemo_cli.models import Preset


def prepare(clips: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Lay clips of one frame each under one another: (clips, dim)."""
    return np.concatenate(clips)


def learner(model: Any) -> Any:
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
    _n_classes: int,
    preset: Preset,
    _seed: int,
    _epochs_done: int,
) -> dict[str, Any]:
    """Return what `keras.Model.fit` is called with: every clip once an epoch, as it is."""
    return {"x": x, "y": targets, "batch_size": preset.batch_size}
