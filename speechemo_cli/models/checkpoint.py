"""What is kept of a training, so that a killed one goes on and a finished one is not done again."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from speechemo_cli.files import atomic_path, open_regular
from speechemo_cli.models.keras_backend import load_keras

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

History = dict[str, list[float]]

# A kill costs at most so much work; writing 8 MB takes seconds on a slow disk.
_EVERY_S = 60.0


class TrainingState(NamedTuple):
    """A training after some epochs.

    Attributes
    ----------
    values : list of np.ndarray
        Weights in Keras's order; of an unfinished training every variable, the optimizer's too.
    epochs : int
        How many are done.
    history : dict of str to list of float
        One value an epoch.
    seconds : float
        It took so far.
    """

    values: list[NDArray[Any]]
    epochs: int
    history: History
    seconds: float

    @classmethod
    def read(cls, path: Path) -> TrainingState | None:
        """Read what `write` wrote; None where there is nothing, or nothing whole."""
        try:
            with open_regular(path) as handle, np.load(handle, allow_pickle=False) as stored:
                return cls(
                    [stored[f"v{i}"] for i in range(len(stored.files) - 3)],
                    int(stored["epochs"]),
                    json.loads(str(stored["history"])),
                    float(stored["seconds"]),
                )
        except Exception:
            return None  # whatever is wrong with it, the training can be done again

    def write(self, path: Path, *, durable: bool = True) -> None:
        """Write it, complete or not at all.

        Raises
        ------
        AccessError
            It cannot be written.
        """
        arrays: dict[str, Any] = {
            "epochs": np.array(self.epochs),
            "history": np.array(json.dumps(self.history)),
            "seconds": np.array(self.seconds),
            **{f"v{i}": values for i, values in enumerate(self.values)},
        }
        with atomic_path(path, durable=durable) as temp, temp.open("wb") as handle:
            np.savez(handle, **arrays)


class Checkpoint:
    """One file with the weights, the optimizer's state and the history of a training.

    Parameters
    ----------
    path : Path
        Its name must tell what decides the training, so that no other one can go on from it.
    every_s : float
        Seconds between two writes; 0 writes after every epoch.

    Attributes
    ----------
    seconds : float
        Spent so far, before a break too.
    """

    def __init__(self, path: Path, every_s: float = _EVERY_S) -> None:
        self.path = path
        self._every_s = every_s
        self._written_at = self._started_at = time.monotonic()

    @property
    def seconds(self) -> float:  # noqa: D102
        return time.monotonic() - self._started_at

    def exists(self) -> bool:
        """Whether there is something to go on from."""
        return self.path.is_file()

    def restore(self, model: Any) -> tuple[int, History]:
        """Bring a freshly compiled model to where it was.

        Returns
        -------
        epochs : int
            How many are done; 0 where there is no file, or none that fits.
        history : dict of str to list of float
            One value an epoch.
        """
        model.optimizer.build(model.trainable_variables)
        variables = _variables(model)
        state = TrainingState.read(self.path)
        if state is None or [v.shape for v in state.values] != [tuple(v.shape) for v in variables]:
            return 0, {}  # the training can begin anew
        for variable, value in zip(variables, state.values, strict=True):
            variable.assign(value)
        self._started_at = time.monotonic() - state.seconds
        return state.epochs, state.history

    def keep(self, model: Any, epochs: int, history: History) -> None:
        """Write the state after an epoch, if the last time is long enough ago.

        Raises
        ------
        AccessError
            It cannot be written.
        """
        if time.monotonic() - self._written_at >= self._every_s:
            self.write(model, epochs, history)

    def write(self, model: Any, epochs: int, history: History) -> None:
        """Write the state now; as `keep`."""
        to_numpy = load_keras().ops.convert_to_numpy
        values = [to_numpy(variable) for variable in _variables(model)]
        TrainingState(values, epochs, history, self.seconds).write(self.path, durable=False)
        self._written_at = time.monotonic()

    def drop(self) -> None:
        """Delete the file: the training is in a file of its own, or shall begin anew."""
        self.path.unlink(missing_ok=True)


def _variables(model: Any) -> list[Any]:
    # The states of the random generators behind dropout are among the model's.
    return [*model.variables, *model.optimizer.variables]
