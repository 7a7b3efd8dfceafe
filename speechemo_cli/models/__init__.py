"""The networks, their training and their files. A version of the network is a module: v1, v2, ..."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from speechemo_cli.choices import Version
from speechemo_cli.errors import ConfigError

if TYPE_CHECKING:
    from speechemo_cli.config import TrainConfig

VERSIONS = tuple(Version)


@dataclass(frozen=True)
class Preset:
    """What a version is trained with unless the config says otherwise."""

    feature_set: str  # that the network reads
    epochs: int
    batch_size: int
    learning_rate: float  # of Adam
    dropout: float
    augmented: str = ""  # the set with augmented copies of the clips that it is trained on too
    calibrate: bool = False  # whether its confidences are corrected by a temperature

    @property
    def others(self) -> tuple[str, ...]:
        """Names of the feature sets that a training needs besides `feature_set`."""
        return (self.augmented,) if self.augmented else ()

    def with_config(self, config: TrainConfig) -> Preset:
        """Lay what the config sets over the preset."""
        names = ("epochs", "batch_size", "learning_rate", "dropout", "calibrate")
        given = {name: getattr(config, name) for name in names}
        return replace(self, **{name: value for name, value in given.items() if value is not None})


def version_module(version: str) -> Any:
    """Return the module of a version; ConfigError where there is none.

    It has `PRESET`, `build(input_shape, n_classes, preset)`, whose (batch, dim) -> (batch, n_classes)
    probabilities have a layer `normalise` that is not adapted yet, `training_model(model)` for what of it is
    trained, `compile_model(training_model, preset, steps)` and `batches(rows, n_classes, preset, seed,
    epochs_done)`, which gives the arguments of `keras.Model.fit`.
    """
    if version not in VERSIONS:
        raise ConfigError(f"version is {version!r}, expected one of {', '.join(VERSIONS)}")
    return importlib.import_module(f"speechemo_cli.models.{version}")
