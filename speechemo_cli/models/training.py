"""Fit a network on some clips and watch how it does on others; what v1 and v2 share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from speechemo_cli.errors import AccessError, SpeechemoError
from speechemo_cli.features.dataset import clip_weights
from speechemo_cli.models import Preset, version_module
from speechemo_cli.models.keras_backend import load_keras

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from speechemo_cli.features.dataset import Dataset
    from speechemo_cli.models.checkpoint import Checkpoint

    Features = NDArray[np.float32]
    Targets = NDArray[np.int64]

# The training clips' own curve is measured on so many of them, so that it costs little.
_WATCHED_ROWS = 2**11
# Clips that go through a network at a time, so that its activations fit into memory.
_PREDICT_CLIPS = 2**10

OnEpoch = Callable[[int, int, Mapping[str, float]], None]


class Rows(NamedTuple):
    """What a network is trained on: clips, and augmented copies of them.

    Attributes
    ----------
    x : np.ndarray [shape=(rows, dim), dtype=float32]
    targets : np.ndarray [shape=(rows,), dtype=int64]
        Positions in the list of labels.
    weights : np.ndarray [shape=(rows,), dtype=float32]
        How much each counts.
    """

    x: Features
    targets: Targets
    weights: NDArray[np.float32]


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


@dataclass
class Training:
    """A trained network and how it got there.

    Attributes
    ----------
    model : keras.Model
    history : dict of str to list of float
        One value an epoch: `train_accuracy`, `train_loss`, and the same for every watched set.
    """

    model: Any
    history: dict[str, list[float]] = field(default_factory=dict)


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

    The watched sets are measured, never used: no epoch is picked by them and nothing stops early.

    Parameters
    ----------
    version : str
    preset : Preset
    rows : Rows
        What is trained on.
    n_classes : int
    seed : int
        Seeds the weights, the order of the clips and the dropout.
    watch : mapping of str to (x, targets), optional
        Sets to measure after every epoch.
    on_epoch : callable, optional
        Called with (epochs done, epochs, the epoch's values).
    checkpoint : Checkpoint, optional
        Where the training goes on from, and is kept; the caller drops it once the network is in a file.
        v3 ends with the weights it would have had without the break; v1 and v2, whose clips Keras
        shuffles, with others as good.

    Raises
    ------
    SpeechemoError
        The loss is not a number any more.
    """
    keras = load_keras()
    keras.utils.set_random_seed(seed)
    network = version_module(version)
    model = network.build(rows.x.shape[1:], n_classes, preset)
    model.get_layer("normalise").adapt(rows.x)
    trained = network.training_model(model)
    network.compile_model(trained, preset, steps_an_epoch(rows.weights, preset.batch_size))
    epochs_done, history = checkpoint.restore(trained) if checkpoint else (0, {})
    training = Training(model, history)
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
            training.history.setdefault(name, []).append(value)
        if checkpoint:
            checkpoint.keep(trained, epoch + 1, training.history)
        if on_epoch:
            on_epoch(epoch + 1, preset.epochs, values)

    trained.fit(
        **network.batches(*rows, n_classes, preset, seed, epochs_done),
        initial_epoch=epochs_done,
        epochs=preset.epochs,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=after_epoch)],
    )
    if checkpoint:
        with suppress(AccessError):  # the network itself can still be written, maybe elsewhere
            checkpoint.write(trained, preset.epochs, training.history)
    return training


def steps_an_epoch(weights: NDArray[np.float32], batch_size: int) -> int:
    """How many batches let a row that counts fully be seen once; fewer where others count less."""
    return math.ceil(float(weights.sum(dtype=np.float64) / weights.max()) / batch_size)


def set_weights(model: Any, weights: Sequence[NDArray[np.float32]]) -> None:
    """Put back what `model.get_weights()` gave, in place.

    Parameters
    ----------
    model : keras.Model
    weights : sequence of np.ndarray
        In Keras's order.

    Raises
    ------
    ValueError
        They are those of another network.
    """
    model.set_weights(weights)
    # It computes with copies of its mean and variance, which are not made anew by themselves.
    model.get_layer("normalise").finalize_state()


def divide_logits(model: Any, temperature: float) -> None:
    """Make a network less sure of itself by a temperature above 1, surer by one below, in place.

    softmax((W h + b) / T) is softmax(W' h + b') with W' = W / T and b' = b / T, so the temperature
    goes into the last Dense layers and stays with the network wherever it is taken (Guo et al. 2017).

    Parameters
    ----------
    model : keras.Model
        The names of the layers that give its logits begin with `emotion`.
    temperature : float
        Above 0.

    Raises
    ------
    ValueError
        There is no such layer.
    """
    last = [layer for layer in model.layers if layer.name.startswith("emotion")]
    if not last:
        raise ValueError(f"{model.name} has no layer whose name begins with emotion")
    for layer in last:
        layer.set_weights([weights / np.float32(temperature) for weights in layer.get_weights()])


def with_distance(model: Any) -> Any:
    """Let a network tell, beside its answer, how far a clip is from those it was trained on.

    The distance is the mean square of the normalised features, which is 1 on average over the training:
    a Mahalanobis distance that takes the features as independent.

    Returns
    -------
    keras.Model
        (batch, dim) -> probabilities (batch, n_classes) and distances (batch, 1).
    """
    keras = load_keras()
    normalised = model.get_layer("normalise")(model.inputs[0])
    distance = keras.ops.mean(keras.ops.square(normalised), axis=-1, keepdims=True)
    return keras.Model(model.inputs[0], [model.outputs[0], distance], name=model.name)


def predict(model: Any, x: Features) -> Any:
    """Class probabilities.

    Parameters
    ----------
    model : keras.Model
    x : np.ndarray [shape=(clips, dim), dtype=float32]

    Returns
    -------
    np.ndarray [shape=(clips, n_classes), dtype=float32]
        A tuple of arrays for a model of several outputs.
    """
    keras = load_keras()
    batches = [
        model(x[start : start + _PREDICT_CLIPS], training=False) for start in range(0, len(x), _PREDICT_CLIPS)
    ]
    if not isinstance(batches[0], list | tuple):
        return np.concatenate([keras.ops.convert_to_numpy(batch) for batch in batches])
    return tuple(
        np.concatenate([keras.ops.convert_to_numpy(part) for part in parts])
        for parts in zip(*batches, strict=True)
    )


def measure(probabilities: NDArray[np.float32], targets: Targets) -> tuple[float, float]:
    """Mean cross-entropy (nats) and accuracy."""
    of_truth = probabilities[np.arange(len(targets)), targets]
    loss = float(-np.log(np.maximum(of_truth, 1e-7)).mean())
    return loss, float((probabilities.argmax(axis=1) == targets).mean())


def training_model(model: Any) -> Any:
    """Return what of v1 and v2 is trained: the network itself."""
    return model


def compile_model(model: Any, preset: Preset, _steps: int) -> None:
    """Choose optimizer and loss of v1 and v2, in place: Adam at a constant rate."""
    keras = load_keras()
    model.compile(
        optimizer=keras.optimizers.Adam(preset.learning_rate),
        loss="sparse_categorical_crossentropy",
    )


def batches(
    x: Features,
    targets: Targets,
    weights: Features,
    _n_classes: int,
    preset: Preset,
    _seed: int,
    _epochs_done: int,
) -> dict[str, Any]:
    """Return what `keras.Model.fit` is called with for v1 and v2: every clip once an epoch, by its weight."""
    return {"x": x, "y": targets, "sample_weight": weights, "batch_size": preset.batch_size}
