"""Import Keras quietly and from a clean slate."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from speechemo_cli.files import scratch_folder
from speechemo_cli.processes import quiet_stderr

if TYPE_CHECKING:
    from collections.abc import Iterator


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
