"""The LiteRT file beside a model file: the same network, which answers without TensorFlow."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.errors import ModelFileError
from speechemo_cli.files import atomic_path, display_name, open_regular, sha256_file
from speechemo_cli.litert import LiteRtModel
from speechemo_cli.models.archive import MAX_BYTES
from speechemo_cli.processes import quiet_stderr

if TYPE_CHECKING:
    import os

    from speechemo_cli.models.metadata import ModelMetadata

SUFFIX = ".tflite"


def beside(model: Path) -> Path:
    """Return where the LiteRT file of a model file is: `models/v3.tflite` for `models/v3.keras`."""
    return model.with_suffix(SUFFIX)


def write(network: Any, path: Path) -> str:
    """Convert a network, complete or not at all.

    Parameters
    ----------
    network : keras.Model
        (batch, dim) -> probabilities, or several outputs.
    path : Path
        Ends in `.tflite`.

    Returns
    -------
    str
        SHA-256 of the file, for the metadata: a LiteRT file that does not have it is not used.

    Raises
    ------
    ModelFileError
        The network cannot be converted, or LiteRT cannot run it: Keras does not run on TensorFlow, say.
    AccessError
        It cannot be written.
    """
    with atomic_path(path) as temp, quiet_stderr():
        try:
            import keras

            spec = keras.InputSpec(shape=(1, *network.input_shape[1:]), dtype="float32", name="features")
            network.export(temp, format="litert", verbose=False, input_signature=[spec])
            # LiteRT says only then whether it can run it.
            LiteRtModel(temp.read_bytes()).run(np.zeros((1, *network.input_shape[1:]), np.float32))
        except OSError:
            raise
        except Exception as error:
            reason = str(error).strip().split("\n")[0][:200]
            raise ModelFileError(f"the network cannot be converted to LiteRT: {reason}") from error
    return sha256_file(path)


def read(model: str | os.PathLike[str], metadata: ModelMetadata) -> bytes:
    """Read the LiteRT file of a model file, if it is the one the model file names.

    Parameters
    ----------
    model : path-like
        The `.keras` file.
    metadata : ModelMetadata
        What it says of itself.

    Returns
    -------
    bytes
        The very bytes that have the hash.

    Raises
    ------
    ModelFileError
        The model was saved without one, there is none, or it is another one.
    """
    path = beside(Path(model))
    name = display_name(path)
    if metadata.litert is None:
        raise ModelFileError(f"{display_name(model)} has no LiteRT file", "Train it again")
    try:
        with open_regular(path) as file:
            content = file.read(MAX_BYTES + 1)  # a longer one has another hash than any that was saved
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ModelFileError(f"the LiteRT file {name} cannot be read: {reason}", "Train it again") from None
    if hashlib.sha256(content).hexdigest() != metadata.litert:
        raise ModelFileError(
            f"the LiteRT file {name} does not belong to {display_name(model)}", "Train it again"
        )
    return content
