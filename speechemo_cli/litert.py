"""Run LiteRT files, which start in milliseconds where TensorFlow takes seconds."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from speechemo_cli.processes import quiet_stderr

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float32]

# An interpreter is made while nobody else's output could be held back with its own.
_making = threading.Lock()


class LiteRtModel:
    """A LiteRT file with inputs of fixed shapes, for any number of threads.

    `source` is the path of the file, or what it holds. Without LiteRT it raises an ImportError; a file that
    LiteRT refuses is a ValueError, RuntimeError or MemoryError.
    """

    def __init__(self, source: str | bytes) -> None:
        self._source = source
        first = self._interpreter()
        # A LiteRT file lists its outputs in any order; their names (output_0, output_1) have the network's.
        named = first.get_signature_runner().get_output_details()
        outputs = [named[name] for name in sorted(named)]
        inputs = first.get_input_details()
        # Shapes of the inputs and of the outputs, in the network's order.
        self.shapes = tuple([tuple(map(int, one["shape"])) for one in some] for some in (inputs, outputs))
        self._input: int = inputs[0]["index"]
        self._outputs: list[int] = [output["index"] for output in outputs]
        # An interpreter holds the tensors of one run: there are as many as threads that run at a time.
        self._free = deque([first])

    def _interpreter(self) -> Any:
        from ai_edge_litert.interpreter import Interpreter

        given = {"model_path" if isinstance(self._source, str) else "model_content": self._source}
        # It says on stderr which delegate it made.
        with _making, quiet_stderr():
            interpreter = Interpreter(**given, num_threads=1)
            interpreter.allocate_tensors()
        return interpreter

    def run(self, x: Array) -> tuple[Array, ...]:
        """Carry one input through; returned are copies of the outputs, in the network's order."""
        try:
            interpreter = self._free.pop()
        except IndexError:
            interpreter = self._interpreter()
        try:
            interpreter.set_tensor(self._input, x)
            interpreter.invoke()
            return tuple(interpreter.get_tensor(index) for index in self._outputs)
        finally:
            self._free.append(interpreter)
