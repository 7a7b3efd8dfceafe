"""What runs the network: LiteRT, which starts at once, or Keras."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.errors import ModelFileError
from speechemo_cli.features import FEATURE_SETS
from speechemo_cli.files import display_name
from speechemo_cli.litert import LiteRtModel
from speechemo_cli.models import archive, model_file

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from speechemo_cli.models.metadata import ModelMetadata

    Rows = NDArray[np.float32]

# How far from 1 the sum of a softmax of a thousand labels may be in float32, by a wide margin.
_TOLERANCE = 1e-3


class Runtime:
    """Answers for features; `name` is one of `choices.Runtime`, but never `auto`."""

    name: str
    source: str

    def answer(self, features: Rows) -> tuple[Rows, Rows]:
        """Return probabilities [shape=(clips, n_labels)] and distances [shape=(clips,)] for features.

        Features are float32 [shape=(clips, dim)]; the distances, from those of the training, are as
        `training.with_distance` has them. Raises ModelFileError if the network cannot be run, or what comes
        out are no probabilities.
        """
        rows, distances = self._run(features)
        # What no softmax gives: weights that are numbers one by one can still make others.
        if (
            not np.all((rows >= 0) & (rows <= 1 + _TOLERANCE))  # NaN is neither
            or np.abs(rows.sum(axis=1) - 1).max() > _TOLERANCE
        ):
            raise ModelFileError(f"{self.source} does not answer with probabilities", archive.HOSTILE)
        return rows, distances[:, 0]

    def _run(self, features: Rows) -> tuple[Rows, Rows]:
        raise NotImplementedError


class LiteRtRuntime(Runtime):
    """Runs the LiteRT file beside a model, one clip after another. Imports neither TensorFlow nor Keras."""

    name = "litert"

    def __init__(self, path: str | os.PathLike[str], metadata: ModelMetadata) -> None:
        self.source = display_name(path)
        content = model_file.read_litert(path, metadata)
        try:
            self._network = LiteRtModel(content)
        except (ValueError, RuntimeError, MemoryError) as error:
            reason = _reason(error)
            raise ModelFileError(f"LiteRT refuses the LiteRT file of {self.source}: {reason}") from None
        dim = FEATURE_SETS[metadata.feature_set].dim(metadata.resolved_config())
        received, expected = self._network.shapes, ([(1, dim)], [(1, len(metadata.labels)), (1, 1)])
        if received != expected:
            raise ModelFileError(
                f"the LiteRT file of {self.source} has inputs and outputs {received}, expected {expected}"
            )

    def _run(self, features: Rows) -> tuple[Rows, Rows]:
        try:
            rows, distances = zip(*(self._network.run(row[None]) for row in features), strict=True)
        except (ValueError, RuntimeError, MemoryError) as error:
            reason = _reason(error)
            raise ModelFileError(f"LiteRT cannot run the LiteRT file of {self.source}: {reason}") from error
        return np.concatenate(rows), np.concatenate(distances)


class KerasRuntime(Runtime):
    """Runs the model file itself. TensorFlow is imported for the first answer, not before."""

    name = "keras"

    def __init__(self, path: str | os.PathLike[str], metadata: ModelMetadata) -> None:
        # The first answer loads it: what would be refused is said now, and what is there now is loaded.
        self._checked = model_file.check(path)
        self.source = display_name(path)
        if self._checked.metadata.sha256 != metadata.sha256:
            raise ModelFileError(f"{self.source} was replaced while it was read", "Run it again")
        self._network: Any = None

    def _run(self, features: Rows) -> tuple[Rows, Rows]:
        from speechemo_cli.models import training

        if self._network is None:
            self._network = training.with_distance(self._checked.load())
            del self._checked  # as large as the file
        try:
            rows, distances = training.predict(self._network, features)
        except Exception as error:  # every backend of Keras raises errors of its own
            raise ModelFileError(f"{self.source} cannot be run by Keras: {_reason(error)}") from error
        return rows, distances


def _reason(error: Exception) -> str:
    """Say in one line why a network cannot be run."""
    # TensorFlow's own name for it, which is not to be imported for that.
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return "it takes more memory than there is"
    return archive.short(" ".join(str(error).split()), 200)


def choose(wanted: str, path: str | os.PathLike[str], metadata: ModelMetadata) -> tuple[Runtime, str]:
    """Return the runtime for a model, and why it is not LiteRT where `auto` was `wanted`; else "".

    Raises ModelFileError if `litert` is wanted and there is no LiteRT file that belongs to the model, or no
    LiteRT; or if the `.keras` file at `path` is not the one any more that the metadata was read from.
    """
    if wanted == "keras":
        return KerasRuntime(path, metadata), ""
    try:
        return LiteRtRuntime(path, metadata), ""
    except ImportError:
        refused = ModelFileError(
            "the package ai-edge-litert is missing", "Install it, or take --runtime keras"
        )
    except ModelFileError as error:
        refused = error
    if wanted == "litert":
        raise refused
    return KerasRuntime(path, metadata), refused.message
