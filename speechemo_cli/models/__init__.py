"""The networks, their training and their files. A version of the network is a module: v1, v2, ..."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from speechemo_cli.choices import Version
from speechemo_cli.errors import ConfigError

if TYPE_CHECKING:
    from speechemo_cli.config import TrainConfig

VERSIONS = tuple(Version)


@dataclass(frozen=True)
class Preset:
    """What a version is trained with unless the config says otherwise.

    Attributes
    ----------
    feature_set : str
        Name of the feature set the network reads.
    augmented : str
        Name of the set with augmented copies of the clips that it is trained on too; empty for none.
    epochs, batch_size : int
    learning_rate : float
        Of Adam.
    dropout : float
    calibrate : bool
        Whether its confidences are corrected by a temperature.
    """

    feature_set: str
    epochs: int
    batch_size: int
    learning_rate: float
    dropout: float
    augmented: str = ""
    calibrate: bool = False

    @property
    def others(self) -> tuple[str, ...]:
        """Names of the feature sets that a training needs besides `feature_set`."""
        return (self.augmented,) if self.augmented else ()

    def with_config(self, config: TrainConfig) -> Preset:
        """Lay what the config sets over the preset."""
        from dataclasses import replace

        given = {
            name: value
            for name in ("epochs", "batch_size", "learning_rate", "dropout", "calibrate")
            if (value := getattr(config, name)) is not None
        }
        return replace(self, **given)


def version_module(version: str) -> Any:
    """Return the module of a version.

    It has `PRESET`, `build(input_shape, n_classes, preset)`, `training_model(model)` for what of it is
    trained, `compile_model(training_model, preset, steps)` and
    `batches(x, targets, weights, n_classes, preset, seed, epochs_done)`, which gives the arguments of
    `keras.Model.fit`. Modules that decide its answers besides itself stand in `PARTS`.

    Raises
    ------
    ConfigError
        No such version.
    """
    if version not in VERSIONS:
        raise ConfigError(f"version is {version!r}, expected one of {', '.join(VERSIONS)}")
    return importlib.import_module(f"speechemo_cli.models.{version}")
