"""The networks, their training and their files. A version of the network is a module: v1, v2, ..."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from speechemo_cli.choices import Version
from speechemo_cli.errors import ConfigError
from speechemo_cli.files import scratch_folder
from speechemo_cli.processes import quiet_stderr

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    probabilities have a layer `normalise` that is not adapted yet, `training_model(model, preset, steps)` for
    what of it is trained, compiled, and `batches(rows, n_classes, preset, seed, epochs_done)` for the
    arguments of `keras.Model.fit`.
    """
    if version not in VERSIONS:
        raise ConfigError(f"version is {version!r}, expected one of {', '.join(VERSIONS)}")
    return importlib.import_module(f"speechemo_cli.models.{version}")


@contextmanager
def deferred_interrupt() -> Iterator[None]:
    """Let Ctrl-C wait until the block is through.

    TensorFlow's import swallows an interrupt in one place and, in another, leaves the interpreter
    determined to end by the signal. It takes three seconds; what follows would take hours.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is ever interrupted
        return
    pressed = []
    before = signal.signal(signal.SIGINT, lambda *_: pressed.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


def load_keras() -> Any:
    """Import `keras` once, silently, on the backend that KERAS_BACKEND names, else TensorFlow.

    The settings of the user's home are not read: `~/.keras/keras.json` could change the float type under a
    saved model, and where HOME cannot be written Keras falls back to a folder in /tmp that anybody could
    have prepared.
    """
    if "keras" in sys.modules:
        return sys.modules["keras"]
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ["KERAS_HOME"] = str(scratch_folder())
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # The same seed gives the same weights: no sum whose order depends on which thread is first.
    os.environ.setdefault("TF_DETERMINISTIC_OPS", "1")
    with deferred_interrupt(), quiet_stderr():
        import keras

        # Its messages are for programmers.
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
        # The first operation makes TensorFlow look for devices, and print what it finds.
        keras.ops.convert_to_numpy(keras.ops.zeros(1))
    return keras
