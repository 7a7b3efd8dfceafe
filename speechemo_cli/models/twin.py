"""The runtime twin of a model file: the network and its front end in one LiteRT file, waveform in."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.config import Config
from speechemo_cli.errors import ModelFileError
from speechemo_cli.files import atomic_path, display_name, open_regular, sha256_file
from speechemo_cli.models.archive import MAX_BYTES
from speechemo_cli.stderr import quiet_stderr

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from speechemo_cli.models.metadata import ModelMetadata

SUFFIX = ".tflite"
# Enough for any window.
_TRIED_SAMPLES = 2**16


def beside(model: Path) -> Path:
    """Return where the twin of a model file is: `models/v3.tflite` for `models/v3.keras`."""
    return model.with_suffix(SUFFIX)


def write(network: Any, metadata: ModelMetadata, path: Path) -> str:
    """Export a network with its front end, complete or not at all.

    Parameters
    ----------
    network : keras.Model
    metadata : ModelMetadata
        Says which features it reads.
    path : Path
        Ends in `.tflite`.

    Returns
    -------
    str
        SHA-256 of the file, for the metadata: a twin that does not have it is not used.

    Raises
    ------
    ModelFileError
        The network cannot be exported, or LiteRT cannot run it: Keras does not run on TensorFlow, say.
    AccessError
        It cannot be written.
    """
    from speechemo_cli.models import frontend

    with atomic_path(path) as temp, quiet_stderr():
        try:
            model = frontend.waveform_model(network, metadata.feature_set, metadata.adopt(Config()))
            model.export(temp, format="litert", verbose=False)
            _try_out(temp)
        except OSError:
            raise
        except Exception as error:
            reason = str(error).strip().split("\n")[0][:200]
            raise ModelFileError(f"the network cannot be exported to LiteRT: {reason}") from error
    return sha256_file(path)


def _try_out(path: Path) -> None:
    """Run it once: LiteRT says only then whether it can."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=path.read_bytes(), num_threads=1)
    (into,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(into["index"], (1, _TRIED_SAMPLES))
    interpreter.allocate_tensors()
    interpreter.set_tensor(into["index"], np.zeros((1, _TRIED_SAMPLES), np.float32))
    interpreter.invoke()


def read(model: str | os.PathLike[str], metadata: ModelMetadata) -> bytes:
    """Read the twin of a model file, if it is the one the model file names.

    Parameters
    ----------
    model : path-like
        The `.keras` file.
    metadata : ModelMetadata
        Its metadata.

    Returns
    -------
    bytes
        The very bytes that have the hash.

    Raises
    ------
    ModelFileError
        The model was saved without a twin, there is none, or it is another one.
    """
    from pathlib import Path

    path = beside(Path(model))
    name = display_name(path)
    if metadata.twin is None:
        raise ModelFileError(f"{display_name(model)} has no LiteRT twin", "Train it again")
    try:
        with open_regular(path) as file:
            content = file.read(MAX_BYTES + 1)  # a longer one has another hash than any that was saved
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ModelFileError(f"the LiteRT twin {name} cannot be read: {reason}", "Train it again") from None
    if hashlib.sha256(content).hexdigest() != metadata.twin:
        raise ModelFileError(
            f"the LiteRT twin {name} does not belong to {display_name(model)}", "Train it again"
        )
    return content
