"""Fit a network on some clips and watch how it does on others; go on where a killed training was.

What v1 and v2 share stands at the end.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from speechemo_cli.corpus.known import RAVDESS
from speechemo_cli.errors import AccessError, SpeechemoError
from speechemo_cli.files import atomic_path, open_regular
from speechemo_cli.models import Preset, load_keras, version_module

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from speechemo_cli.corpus.splits import Example
    from speechemo_cli.features.dataset import Dataset

    Features = NDArray[np.float32]
    Targets = NDArray[np.int64]

# The training clips' own curve is measured on so many of them, so that it costs little.
_WATCHED_ROWS = 2**11
# Clips that go through a network at a time, so that its activations fit into memory.
_PREDICT_CLIPS = 2**10
# A kill costs at most so much work; writing 8 MB takes seconds on a slow disk.
_CHECKPOINT_EVERY_S = 60.0

OnEpoch = Callable[[int, int, Mapping[str, float]], None]
History = dict[str, list[float]]  # a value an epoch


class Rows(NamedTuple):
    """What a network is trained on: clips, and augmented copies of them."""

    x: Features  # [shape=(rows, dim)]
    targets: Targets  # positions in the list of labels
    weights: Features  # how much each counts


def rows_of(data: Dataset, positions: NDArray[np.int64], preset: Preset) -> Rows:
    """Lay some clips and their augmented copies under one another, each copy with the weight of its clip."""
    x = data.x[positions][:, None]
    if preset.augmented:
        x = np.concatenate([x, data.others[preset.augmented][positions]], axis=1)
    n = x.shape[1]
    weights = clip_weights([data.examples[i] for i in positions])
    return Rows(
        x.reshape(len(positions) * n, -1), np.repeat(data.targets[positions], n), np.repeat(weights, n)
    )


# What a song counts, in parts of a spoken clip; and what each further corpus counts at most, in parts of
# RAVDESS or, without it, of the largest corpus, so that none drowns the others.
SONG_WEIGHT = 0.5
CORPUS_WEIGHT = 0.25


def clip_weights(examples: Sequence[Example]) -> Features:
    """How much each clip of a training counts in it [shape=(clips,)].

    Songs beside spoken clips count half. A corpus counts in all at most a quarter of what RAVDESS does,
    or, where that is not there, the largest.
    """
    songs = np.array([example.clip.song for example in examples])
    corpora = np.array([example.clip.corpus for example in examples])
    weights = np.where(songs & (~songs).any(), SONG_WEIGHT, 1.0)
    totals = {name: float(weights[corpora == name].sum()) for name in sorted(set(corpora.tolist()))}
    main = RAVDESS if RAVDESS in totals else max(totals, key=totals.__getitem__)
    for name, total in totals.items():
        if name != main:
            weights[corpora == name] *= min(1.0, CORPUS_WEIGHT * totals[main] / total)
    return weights.astype(np.float32)


@dataclass
class Training:
    """A trained network (keras.Model) and how it got there."""

    model: Any
    history: History  # of `train_accuracy`, `train_loss` (nats), and the same of each watched set


def fit(
    version: str,
    preset: Preset,
    rows: Rows,
    n_classes: int,
    seed: int,
    watch: Mapping[str, tuple[Features, Targets]] | None = None,
    on_epoch: OnEpoch | None = None,
    checkpoint: Checkpoint | None = None,
) -> Training:
    """Train a version of the network for a fixed number of epochs.

    The seed decides the weights, the order of the clips and the dropout. The sets to `watch` (x, targets) are
    measured after every epoch, never used: no epoch is picked by them and nothing stops early. `on_epoch`
    is called with the epochs done, all epochs, and the values of the last.

    The training goes on from the checkpoint and is kept in it; the caller drops it once the network is in a
    file. v3 ends with the weights it would have had without the break; v1 and v2, whose clips Keras
    shuffles, with others as good. Raises SpeechemoError where the loss is not a number any more.
    """
    keras = load_keras()
    keras.utils.set_random_seed(seed)
    network = version_module(version)
    model = network.build(rows.x.shape[1:], n_classes, preset)
    model.get_layer("normalise").adapt(rows.x)
    trained = network.training_model(model, preset, steps_an_epoch(rows.weights, preset.batch_size))
    epochs_done, history = checkpoint.restore(trained) if checkpoint else (0, {})
    some = np.random.default_rng(seed).permutation(len(rows.x))[:_WATCHED_ROWS]
    watched = {
        "train": (rows.x[some], rows.targets[some]),
        **{name: pair for name, pair in (watch or {}).items() if len(pair[1])},
    }

    def after_epoch(epoch: int, logs: Mapping[str, float]) -> None:
        if not math.isfinite(logs["loss"]):
            raise SpeechemoError(
                f"the loss is {logs['loss']} after epoch {epoch + 1}", "Lower train.learning_rate"
            )
        values = {}
        for name, (inputs, truth) in watched.items():
            # Measured after the epoch and without dropout, so that the curves can be compared.
            values[f"{name}_loss"], values[f"{name}_accuracy"] = measure(predict(model, inputs), truth)
        for name, value in values.items():
            history.setdefault(name, []).append(value)
        if checkpoint:
            checkpoint.keep(trained, epoch + 1, history)
        if on_epoch:
            on_epoch(epoch + 1, preset.epochs, values)

    trained.fit(
        **network.batches(rows, n_classes, preset, seed, epochs_done),
        initial_epoch=epochs_done,
        epochs=preset.epochs,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=after_epoch)],
    )
    if checkpoint:
        with suppress(AccessError):  # the network itself can still be written, maybe elsewhere
            checkpoint.write(trained, preset.epochs, history)
    return Training(model, history)


def steps_an_epoch(weights: Features, batch_size: int) -> int:
    """How many batches let a row that counts fully be seen once; fewer where others count less."""
    return math.ceil(float(weights.sum(dtype=np.float64) / weights.max()) / batch_size)


def measure(probabilities: Features, targets: Targets) -> tuple[float, float]:
    """Mean cross-entropy (nats) and accuracy."""
    of_truth = probabilities[np.arange(len(targets)), targets]
    loss = float(-np.log(np.maximum(of_truth, 1e-7)).mean())
    return loss, float((probabilities.argmax(axis=1) == targets).mean())


def predict(model: Any, x: Features) -> Any:
    """Class probabilities [shape=(clips, n_classes)]; a tuple of arrays for a model of several outputs."""
    to_numpy = load_keras().ops.convert_to_numpy
    batches = [
        model(x[start : start + _PREDICT_CLIPS], training=False) for start in range(0, len(x), _PREDICT_CLIPS)
    ]
    if not isinstance(batches[0], list | tuple):
        return np.concatenate([to_numpy(batch) for batch in batches])
    return tuple(np.concatenate([to_numpy(one) for one in some]) for some in zip(*batches, strict=True))


def set_weights(model: Any, weights: Sequence[Features]) -> None:
    """Put back what `model.get_weights()` gave, in place; ValueError where they are another network's."""
    model.set_weights(weights)
    # It computes with copies of its mean and variance, which are not made anew by themselves.
    model.get_layer("normalise").finalize_state()


def divide_logits(model: Any, temperature: float) -> None:
    """Make a network less sure of itself by a temperature above 1, surer by one below, in place.

    softmax((W h + b) / T) is softmax(W' h + b') with W' = W / T and b' = b / T, so the temperature
    goes into the last layer, `emotion`, and stays with the network wherever it is taken (Guo et al. 2017).
    """
    last = model.get_layer("emotion")
    last.set_weights([weights / np.float32(temperature) for weights in last.get_weights()])


def with_distance(model: Any) -> Any:
    """Let a network tell, beside its answer, how far a clip is from those it was trained on.

    The distance [shape=(clips, 1)] is the mean square of the normalised features, which is 1 on average over
    the training: a Mahalanobis distance that takes the features as independent.
    """
    keras = load_keras()
    normalised = model.get_layer("normalise")(model.inputs[0])
    distance = keras.ops.mean(keras.ops.square(normalised), axis=-1, keepdims=True)
    return keras.Model(model.inputs[0], [model.outputs[0], distance], name=model.name)


class TrainingState(NamedTuple):
    """A training after some epochs."""

    values: list[NDArray[Any]]  # in Keras's order; of an unfinished training the optimizer's too
    epochs: int
    history: History
    seconds: float

    @classmethod
    def read(cls, path: Path) -> TrainingState | None:
        """Read what `write` wrote; None where there is nothing, or nothing whole."""
        try:
            with open_regular(path) as handle, np.load(handle, allow_pickle=False) as stored:
                return cls(
                    [stored[f"arr_{i}"] for i in range(len(stored.files) - 3)],
                    int(stored["epochs"]),
                    json.loads(str(stored["history"])),
                    float(stored["seconds"]),
                )
        except Exception:
            return None  # whatever is wrong with it, the training can be done again

    def write(self, path: Path, *, durable: bool = True) -> None:
        """Write it, complete or not at all (AccessError)."""
        progress: dict[str, Any] = {
            "epochs": self.epochs,
            "history": json.dumps(self.history),
            "seconds": self.seconds,
        }
        with atomic_path(path, durable=durable) as temp, temp.open("wb") as handle:
            np.savez(handle, *self.values, **progress)


class Checkpoint:
    """One file with the state of a training, written when `every_s` seconds have gone since the last time.

    Its name must tell what decides the training, so that no other one can go on from it.
    """

    def __init__(self, path: Path, every_s: float = _CHECKPOINT_EVERY_S) -> None:
        self.path = path
        self._every_s = every_s
        self._written_at = self._started_at = time.monotonic()

    @property
    def seconds(self) -> float:
        """Spent so far, before a break too."""
        return time.monotonic() - self._started_at

    def exists(self) -> bool:
        """Whether there is something to go on from."""
        return self.path.is_file()

    def restore(self, model: Any) -> tuple[int, History]:
        """Bring a freshly compiled model to where it was: epochs done (0 if nothing fits) and history."""
        model.optimizer.build(model.trainable_variables)
        variables = _variables(model)
        state = TrainingState.read(self.path)
        if state is None or [v.shape for v in state.values] != [tuple(v.shape) for v in variables]:
            return 0, {}
        for variable, value in zip(variables, state.values, strict=True):
            variable.assign(value)
        self._started_at = time.monotonic() - state.seconds
        return state.epochs, state.history

    def keep(self, model: Any, epochs: int, history: History) -> None:
        """Write the state after an epoch (AccessError), if the last time is long enough ago."""
        if time.monotonic() - self._written_at >= self._every_s:
            self.write(model, epochs, history)

    def write(self, model: Any, epochs: int, history: History) -> None:
        """Write the state now (AccessError)."""
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


def training_model(model: Any, preset: Preset, _steps: int) -> Any:
    """Compile v1 or v2, with Adam at a constant rate, and return it: the network itself is trained."""
    adam = load_keras().optimizers.Adam(preset.learning_rate)
    model.compile(optimizer=adam, loss="sparse_categorical_crossentropy")
    return model


def batches(rows: Rows, _n_classes: int, preset: Preset, _seed: int, _epochs_done: int) -> dict[str, Any]:
    """Return what `keras.Model.fit` is called with for v1 and v2: every clip once an epoch, by its weight."""
    x, targets, weights = rows
    return {"x": x, "y": targets, "sample_weight": weights, "batch_size": preset.batch_size}
