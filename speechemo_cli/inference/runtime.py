"""What carries a waveform through the network: LiteRT, which starts like a Unix tool, or Keras."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from speechemo_cli.errors import ModelFileError
from speechemo_cli.features import FEATURE_SETS
from speechemo_cli.files import display_name
from speechemo_cli.models import archive, model_file, twin, version_module
from speechemo_cli.models.archive import short
from speechemo_cli.stderr import quiet_stderr

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from speechemo_cli.config import Config
    from speechemo_cli.models.metadata import ModelMetadata

    Samples = NDArray[np.float32]

# How far from 1 the sum of a softmax of a thousand labels may be in float32, by a wide margin.
_TOLERANCE = 1e-3
# Samples to plan the memory for before the first clip is there.
_FIRST_PLAN = 2**16
RUNTIMES = ("auto", "litert", "keras")


class Runtime(Protocol):
    """Answers for waveforms in two steps, so that the first can run in several threads.

    Attributes
    ----------
    name : str
        One of `RUNTIMES`, but never `auto`.
    """

    name: str

    def listen(self, y: Samples) -> Any:
        """Do for one waveform what threads can do side by side.

        Parameters
        ----------
        y : np.ndarray [shape=(n,), dtype=float32]
            Mono samples at the rate of the model's features.
        """
        ...

    def answer(self, heard: Sequence[Any]) -> NDArray[np.float32]:
        """Return the probabilities of what was listened to.

        Returns
        -------
        np.ndarray [shape=(clips, n_labels), dtype=float32]

        Raises
        ------
        ModelFileError
            The network cannot be run, or what comes out are no probabilities.
        """
        ...


class LiteRuntime:
    """Runs the twin. Imports neither TensorFlow nor Keras."""

    name = "litert"

    def __init__(self, content: bytes, source: str, n_labels: int) -> None:
        self._content = content
        self._source = source
        self._n_labels = n_labels
        self._making = threading.Lock()
        # An interpreter holds the tensors of one clip: there are as many as threads that listen at a time.
        self._free = deque([self._interpreter()])

    def _interpreter(self) -> _Interpreter:
        # Its first plan says which delegate it made, and stderr belongs to all threads.
        with self._making, quiet_stderr():
            try:
                return _Interpreter(self._content)
            except (ValueError, RuntimeError, MemoryError) as error:
                raise ModelFileError(f"LiteRT refuses the twin of {self._source}: {_reason(error)}") from None

    def listen(self, y: Samples) -> NDArray[np.float32]:
        """Return the probabilities [shape=(n_labels,)] of one waveform."""
        try:
            interpreter = self._free.pop()
        except IndexError:
            interpreter = self._interpreter()
        try:
            probabilities = interpreter.run(y)
        except (ValueError, RuntimeError, MemoryError) as error:
            raise ModelFileError(f"LiteRT cannot run the twin of {self._source}: {_reason(error)}") from error
        finally:
            self._free.append(interpreter)
        if probabilities.shape != (self._n_labels,):
            raise ModelFileError(
                f"the LiteRT twin of {self._source} has {probabilities.size} outputs, "
                f"expected {self._n_labels}"
            )
        return probabilities

    def answer(self, heard: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Lay the rows under one another."""
        return _probabilities(np.stack(heard), self._source)


class _Interpreter:
    """LiteRT's interpreter, laid out anew where a waveform has another length than the one before."""

    def __init__(self, content: bytes) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_content=content, num_threads=1)
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]
        self._plan(_FIRST_PLAN)

    def _plan(self, samples: int) -> None:
        self._interpreter.resize_tensor_input(self._input, (1, samples))
        self._interpreter.allocate_tensors()
        self._samples = samples

    def run(self, y: Samples) -> Samples:
        if len(y) != self._samples:
            self._plan(len(y))
        self._interpreter.set_tensor(self._input, y[None])
        self._interpreter.invoke()
        probabilities: Samples = self._interpreter.get_tensor(self._output)[0]
        return probabilities


class KerasRuntime:
    """Runs the model file itself. TensorFlow is imported for the first answer, not before."""

    name = "keras"

    def __init__(self, path: str | os.PathLike[str], metadata: ModelMetadata, config: Config) -> None:
        # The first answer loads it: what would be refused is said now, and what is there now is loaded.
        self._checked = model_file.check(path)
        self._source = display_name(path)
        if self._checked.metadata.sha256 != metadata.sha256:
            raise ModelFileError(f"{self._source} was replaced while it was read", "Run it again")
        self._set = FEATURE_SETS[metadata.feature_set]
        self._section = self._set.section(config)
        self._prepare = version_module(metadata.version).prepare
        self._network: Any = None

    def listen(self, y: Samples) -> NDArray[np.float32]:
        """Return the features [shape=(frames, dim)] of one waveform."""
        return self._set.compute(y, self._section.sr, self._section)

    def answer(self, heard: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Run the network on all of them at once."""
        from speechemo_cli.models import training

        if self._network is None:
            self._network = self._checked.load()
            del self._checked  # as large as the file
        x = self._prepare(heard)
        try:
            rows = training.predict(self._network, x)
        except Exception as error:  # every backend of Keras raises errors of its own
            raise ModelFileError(f"{self._source} cannot be run by Keras: {_reason(error)}") from error
        return _probabilities(rows, self._source)


def _reason(error: Exception) -> str:
    """Say in one line why a network cannot be run."""
    # TensorFlow's own name for it, which is not to be imported for that.
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return "it takes more memory than there is"
    return short(" ".join(str(error).split()), 200)


def _probabilities(rows: NDArray[np.float32], source: str) -> NDArray[np.float32]:
    """Refuse what no softmax gives: weights that are numbers one by one can still make others."""
    if (
        not np.all((rows >= 0) & (rows <= 1 + _TOLERANCE))  # NaN is neither
        or np.abs(rows.sum(axis=1) - 1).max() > _TOLERANCE
    ):
        raise ModelFileError(f"{source} does not answer with probabilities", archive.HOSTILE)
    return rows


def choose(
    wanted: str, path: str | os.PathLike[str], metadata: ModelMetadata, config: Config
) -> tuple[Runtime, str]:
    """Return the runtime for a model, and why it is not the fast one where `auto` had to give way.

    Parameters
    ----------
    wanted : str
        One of `RUNTIMES`.
    path : path-like
        The `.keras` file.
    metadata : ModelMetadata
    config : Config
        With the features of the metadata.

    Returns
    -------
    runtime : Runtime
    reason : str
        Empty where there is nothing to say.

    Raises
    ------
    ModelFileError
        `litert` was asked for and there is no twin that belongs to the model, or no LiteRT; or the file
        is not the one any more that the metadata were read from.
    """
    if wanted == "keras":
        return KerasRuntime(path, metadata, config), ""
    try:
        return LiteRuntime(twin.read(path, metadata), display_name(path), len(metadata.labels)), ""
    except ImportError:
        reason = "the package ai-edge-litert is missing"
    except ModelFileError as error:
        if wanted == "litert":
            raise
        reason = error.message
    if wanted == "litert":
        raise ModelFileError(reason, "Install it, or take --runtime keras")
    return KerasRuntime(path, metadata, config), reason
