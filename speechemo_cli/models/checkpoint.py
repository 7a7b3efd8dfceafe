"""The state of an unfinished training, kept so that a killed one can go on."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from speechemo_cli.files import atomic_path, open_regular
from speechemo_cli.models.keras_backend import load_keras

if TYPE_CHECKING:
    from pathlib import Path

History = dict[str, list[float]]

# A kill costs at most so much work; writing 8 MB takes seconds on a slow disk.
_EVERY_S = 60.0


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

        Parameters
        ----------
        model : keras.Model

        Returns
        -------
        epochs : int
            How many are done; 0 where there is no file, or none that fits.
        history : dict of str to list of float
            One value an epoch.
        """
        model.optimizer.build(model.trainable_variables)
        variables = _variables(model)
        try:
            with open_regular(self.path) as handle, np.load(handle, allow_pickle=False) as stored:
                values = [stored[f"v{i}"] for i in range(len(variables))]
                epochs, history = int(stored["epochs"]), json.loads(str(stored["history"]))
                seconds = float(stored["seconds"])
        except Exception:
            return 0, {}  # whatever is wrong with it, the training can begin anew
        if any(value.shape != tuple(v.shape) for value, v in zip(values, variables, strict=True)):
            return 0, {}
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        self._started_at = time.monotonic() - seconds
        return epochs, history

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
        values = {f"v{i}": to_numpy(variable) for i, variable in enumerate(_variables(model))}
        with atomic_path(self.path, durable=False) as temp, temp.open("wb") as handle:
            np.savez(
                handle,
                epochs=np.array(epochs),
                history=np.array(json.dumps(history)),
                seconds=np.array(self.seconds),
                **values,
            )
        self._written_at = time.monotonic()

    def drop(self) -> None:
        """Delete the file: the training is in a file of its own, or shall begin anew."""
        self.path.unlink(missing_ok=True)


def _variables(model: Any) -> list[Any]:
    # The states of the random generators behind dropout are among the model's.
    return [*model.variables, *model.optimizer.variables]
