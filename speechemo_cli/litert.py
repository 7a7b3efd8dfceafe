"""Run LiteRT files, which start in milliseconds where TensorFlow takes seconds."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from speechemo_cli.processes import quiet_stderr

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float32]

# An interpreter is made while nobody else's output could be held back with its own.
_making = threading.Lock()


class LiteRtModel:
    """A LiteRT file with inputs of fixed shapes, for any number of threads.

    Parameters
    ----------
    source : str or bytes
        Path of the file, or what it holds.

    Raises
    ------
    ImportError
        LiteRT is not installed.
    ValueError, RuntimeError, MemoryError
        As LiteRT refuses it.
    """

    def __init__(self, source: str | bytes) -> None:
        self._source = source
        # An interpreter holds the tensors of one run: there are as many as threads that run at a time.
        self._free = deque([self._interpreter()])
        # A LiteRT file lists its outputs in any order; their names (output_0, output_1) have the network's.
        with self._one() as interpreter:
            outputs = interpreter.get_signature_runner().get_output_details()
        self._outputs = [outputs[name] for name in sorted(outputs)]

    def _interpreter(self) -> Any:
        from ai_edge_litert.interpreter import Interpreter

        given = {"model_path" if isinstance(self._source, str) else "model_content": self._source}
        # It says on stderr which delegate it made.
        with _making, quiet_stderr():
            interpreter = Interpreter(**given, num_threads=1)
            interpreter.allocate_tensors()
        return interpreter

    @contextmanager
    def _one(self) -> Iterator[Any]:
        try:
            interpreter = self._free.pop()
        except IndexError:
            interpreter = self._interpreter()
        try:
            yield interpreter
        finally:
            self._free.append(interpreter)

    @property
    def shapes(self) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
        """Shapes of the inputs and of the outputs, in the network's order."""
        with self._one() as interpreter:
            details = interpreter.get_input_details(), self._outputs
        inputs, outputs = ([tuple(map(int, one["shape"])) for one in some] for some in details)
        return inputs, outputs

    def run(self, x: Array) -> tuple[Array, ...]:
        """Carry one input through.

        Parameters
        ----------
        x : np.ndarray [dtype=float32]
            Of the shape of the first input.

        Returns
        -------
        tuple of np.ndarray [dtype=float32]
            Copies of the outputs, in the network's order.
        """
        with self._one() as interpreter:
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
            interpreter.invoke()
            return tuple(interpreter.get_tensor(output["index"]) for output in self._outputs)
